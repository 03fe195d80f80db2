"""The page of two models' answers: paired numbers, then photographs with both answers beside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lateen.evaluation.page import condition_facts
from lateen.evaluation.paired import PairedNumber, paired_table
from lateen.evaluation.questions import HEADLINE
from lateen.evaluation.tables import left_out, subject_and_split
from lateen.mllm.benchmarks.questions import Question
from lateen.mllm.comparison import Answered, SideBySide
from lateen.mllm.page import named, right_answer, said, spread
from lateen.report.page import Card, Headline, Page, made_with
from lateen.report.tables import INTERVAL, TableData, difference_range, interval_cell, signed


def write_comparison_page(compared: SideBySide, path: Path) -> Path:
    """Write the page of two models' answers to the same questions.

    Args:
        compared: what :func:`lateen.mllm.compare_answers` gives.
        path: of the file.

    Returns:
        The page's path.
    """
    first, second = compared.labels
    result = compared.first.result
    towers = "; ".join(f"{s.label}: {_tower(s)}" for s in (compared.first, compared.second))
    page = Page(f"{first} and {second}", f"mllm: {subject_and_split(result)}. {towers}.")
    for warning in compared.warnings:
        page.text(f"Beware: {warning}.")
    page.headline(_headlines(compared)).text(counts_sentence(compared))
    page.section("Results").table(comparison_table(compared))
    total = len(compared.questions.questions)
    for heading, some in compared.sorted_by_winner().items():
        if some:
            page.section(f"{heading}: {len(some):,} of {total:,}")
            page.cards(_card(each, compared) for each in spread(some))
    page.section("Conditions").facts(_facts(compared) | made_with())
    page.save(path)
    return path


def comparison_table(compared: SideBySide) -> TableData:
    """Every number of both models, the difference, and its interval.

    Args:
        compared: the two.
    """
    result = compared.first.result
    of = f" of {result['of_questions']:,}" if "of_questions" in result else ""
    asked = (
        f"{len(compared.questions.questions):,}{of} questions about {result['n']:,} images."
        f"{left_out(result)}"
    )
    cut = {side.label: side.result["cut"] for side in (compared.first, compared.second)}
    if any(cut.values()):
        counts = ", ".join(f"{label} {count:,}" for label, count in cut.items())
        asked += f" Answers cut by the limit of tokens: {counts}."
    beware = "".join(f" Beware: {warning}." for warning in compared.warnings)
    return paired_table(compared.numbers, compared.labels, asked + beware)


def counts_sentence(compared: SideBySide) -> str:
    """Who is right how often, and how often both say the same, in a sentence or two.

    Args:
        compared: the two.
    """
    counts = {name: len(some) for name, some in compared.sorted_by_winner().items()}
    total = len(compared.questions.questions)
    each = " ".join(f"{name}: {count:,}." for name, count in counts.items())
    return f"Both give the same answer to {compared.same:,} of {total:,} questions. {each}"


def _headlines(compared: SideBySide) -> Iterator[Headline]:
    """The set's own number of both, and the difference."""
    main = _main(compared)
    if main is None:
        return
    for label, value, limits in zip(compared.labels, main.values, main.intervals, strict=True):
        note = f"{INTERVAL} {interval_cell(limits)}" if limits else ""
        yield Headline(f"{value:.1f}", f"{main.metric}, {label}", note)
    told = "beyond chance" if main.apart else "not beyond chance"
    note = f"{INTERVAL} {difference_range(main.interval)}, paired; {told}" if main.interval else ""
    yield Headline(
        signed(main.difference), f"points, {compared.labels[1]} above {compared.labels[0]}", note
    )


def _main(compared: SideBySide) -> PairedNumber | None:
    own = compared.first.result.get("metric", "accuracy")
    found = [each for each in compared.numbers if HEADLINE[each.metric] == own]
    return found[0] if found else None


def _card(question: Question, compared: SideBySide) -> Card:
    facts, marks = {"right answer": right_answer(question)}, {}
    for side in (compared.first, compared.second):
        worth = side.worth[question.id]
        part = f" ({100 * worth:.0f} %)" if 0 < worth < 1 else ""
        facts[side.label] = said(side.answers[question.id]) + part
        marks[side.label] = None if part else worth == 1
    return Card(question.images, question.prompt(), facts, marks=marks)


def _facts(compared: SideBySide) -> dict[str, Any]:
    sides = (compared.first, compared.second)
    result = compared.first.result
    return {
        **{side.label: _described(side) for side in sides},
        **{f"{side.label}: model key": str(side.result["conditions"].get("model"))[:16]
           for side in sides},
        "measure": result["measure"],
        "answered by": ", ".join(dict.fromkeys(str(s.result["answered_by"]) for s in sides)),
        "prompts end with": result["ending"] or "–",
        "data key": condition_facts(result)["data key"],
        "versions": condition_facts(result)["versions"],
    }  # fmt: skip


def _tower(side: Answered) -> str:
    model = side.result["model"]
    return f"{named(model['tower'])} × {model['llm']}"


def _described(side: Answered) -> str:
    """What a model is, in a line."""
    model = side.result["model"]
    projector = f", projector {model['projector']}" if model["projector"] else ""
    place = f"; {Path(model['place']).name}" if model["place"] else ""
    return f"{_tower(side)}{projector}{place}"
