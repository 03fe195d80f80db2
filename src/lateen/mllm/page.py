"""The page of a model's answers: numbers, then photographs with questions and answers beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lateen.evaluation.page import condition_facts, headline_note
from lateen.evaluation.questions import HEADLINE
from lateen.evaluation.tables import result_tables, subject_and_split
from lateen.evaluation.task import Result, number
from lateen.mllm.answering import Given
from lateen.mllm.benchmarks.questions import Question, QuestionSet
from lateen.mllm.benchmarks.scoring import points_of
from lateen.mllm.card import UNTRAINED
from lateen.report.page import Card, Headline, Page, made_with

_MOST_CARDS = 12  # of each kind
_IN_TABLE_ONLY = ("auroc",)
_MOST_ANSWERS = 3  # different ones that are right


def write_question_page(
    result: Result, path: Path, questions: QuestionSet, answers: Mapping[str, Given],
    other: Mapping[str, Given],
) -> Path:  # fmt: skip
    """Write the page of one result.

    Args:
        result: what :func:`lateen.mllm.evaluate_questions` gives.
        path: of the file.
        questions: that were asked.
        answers: by the id of the question; empty where nothing was answered.
        other: likewise, under another's image; empty without the control.

    Returns:
        The page's path.
    """
    model = result["model"]
    page = Page(f"{named(model['tower'])} × {model['llm']}", f"mllm: {subject_and_split(result)}")
    if model["projector"] == UNTRAINED:
        page.text(
            "Beware: the projector is untrained. The answers have nothing to do with the images, "
            "and no number here says anything of the tower."
        )
    numbers, *groups = result_tables(result)
    page.headline(_headlines(result)).section("Results").table(numbers)
    if answers:
        _add_cards(page, questions, answers, other)
    if groups:
        page.section("Groups")
    for table in groups:
        page.table(table)
    page.section("Conditions").facts(_facts(result) | made_with())
    page.save(path)
    return path


def _headlines(result: Result) -> Iterator[Headline]:
    """The numbers that comparisons have, with those under another's image."""
    for label, path in HEADLINE.items():
        value, chance = number(result, path), number(result["chance"], path)
        if value is not None and path not in _IN_TABLE_ONLY:
            note = headline_note(result, label, None if chance is None else f"{chance:.1f}")
            yield Headline(f"{value:.1f}", label, note)


def _add_cards(
    page: Page, questions: QuestionSet, answers: Mapping[str, Given],
    other: Mapping[str, Given],
) -> None:  # fmt: skip
    """Some of what is wrong and of what is right, spread over the set."""
    texts = {name: each.answer for name, each in answers.items()}
    ids = (each.id for each in questions.questions)
    worth = dict(zip(ids, points_of(questions, texts), strict=True))
    kinds = _halves(questions, worth) if questions.kind == "caption" else {
        "Wrong": [each for each in questions.questions if worth[each.id] == 0],
        "Partly right": [each for each in questions.questions if 0 < worth[each.id] < 1],
        "Right": [each for each in questions.questions if worth[each.id] == 1],
    }  # fmt: skip
    for heading, some in kinds.items():
        if some:
            page.section(f"{heading}: {len(some):,} of {len(questions.questions):,}")
            page.cards(_card(each, answers, other, worth[each.id]) for each in spread(some))


def _halves(questions: QuestionSet, worth: Mapping[str, float]) -> dict[str, list[Question]]:
    """Captions that are less and more like people's, the least like them first."""
    ranked = sorted(questions.questions, key=lambda each: worth[each.id])
    half = len(ranked) // 2
    return {"Less like people's captions": ranked[:half], "More like them": ranked[half:]}


def spread(some: Sequence[Question]) -> Iterator[Question]:
    """At most as many as a section of a page has, evenly, the first among them.

    Args:
        some: questions.
    """
    count = min(len(some), _MOST_CARDS)
    return (some[at * len(some) // count] for at in range(count))


def _card(
    question: Question, answers: Mapping[str, Given], other: Mapping[str, Given], worth: float
) -> Card:
    facts = {"answered": said(answers[question.id]), "right": right_answer(question)}
    if other:
        facts["another's image"] = said(other[question.id])
    if question.kind == "caption":
        facts["CIDEr-D"] = f"{100 * worth:.0f}"
    elif 0 < worth < 1:
        facts["counts"] = f"{100 * worth:.0f} %"
    right = None if 0 < worth < 1 or question.kind == "caption" else worth == 1
    return Card(question.images, question.prompt(), facts, right)


def said(given: Given) -> str:
    """An answer as pages show it, with a mark where the limit cut it.

    Args:
        given: to a question.
    """
    return f"{given.answer} … (cut)" if given.cut else given.answer or "(nothing)"


def right_answer(question: Question) -> str:
    """What is right, as pages show it.

    Args:
        question: with its right answers.
    """
    if question.box is not None:
        return f"[{', '.join(f'{side:.2f}' for side in question.box)}]"
    different = list(dict.fromkeys(question.answers))
    more = f" and {len(different) - _MOST_ANSWERS} more" if len(different) > _MOST_ANSWERS else ""
    return ", ".join(different[:_MOST_ANSWERS]) + more


def _facts(result: Result) -> dict[str, Any]:
    model = result["model"]
    tokens = f"at most {result['max_tokens']} tokens" if result["max_tokens"] else None
    facts = {
        "model": model["place"],
        "tower": model["tower"],
        "tokens of an image": model["tokens_per_image"],
        "language model": model["llm"],
        "projector": model["projector"],
        "parameters": model["parameters"],
        "measure": result["measure"],
        "answered by": ", ".join(filter(None, (result["answered_by"], tokens))),
        "examples before each question": result.get("shots"),
        "prompts end with": result["ending"] or None,
        "seconds per question": f"{result['seconds_per_question']:.2f}",
        **condition_facts(result),
    }
    return {name: value for name, value in facts.items() if value is not None}


def named(tower: str) -> str:
    """A tower without the folders that it lies in; a hub id as it is.

    Args:
        tower: its name, as a result has it.
    """
    return Path(tower).name if Path(tower).is_absolute() else tower
