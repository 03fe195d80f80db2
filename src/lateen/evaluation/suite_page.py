"""The tables and the page of a suite, whatever its evaluations are of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lateen.evaluation.intervals import interval
from lateen.evaluation.page import add_pictures, headline_note
from lateen.evaluation.published import PUBLISHED, Published, shown
from lateen.evaluation.tables import result_tables
from lateen.evaluation.task import RESULT_KINDS, Result, number, was_trained_on
from lateen.report.page import Headline, Page, made_with
from lateen.report.tables import Cell, Column, TableData, interval_cell

SUMMARY = "suite.json"
PAGE = "report.html"
_MOST_PICTURES = 4  # of one evaluation, beside its plots
_MOST_HEADLINES = 4
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
Results = Mapping[str, Mapping[str, Any]]


def suite_tables(
    summary: Mapping[str, Any], results: Results, *, published: bool = False
) -> list[TableData]:
    """An overview of a suite's numbers, what is to be scored elsewhere, what failed, and what is
    missing.

    Args:
        summary: what ``suite.json`` holds.
        results: by name of the evaluation.
        published: also what papers report of other models.
    """
    overview = _overview(summary, results, published=published)
    tables = (overview, _elsewhere(summary), _failed(summary), _missing(summary))
    return [table for table in tables if table.rows]


def _overview(summary: Mapping[str, Any], results: Results, *, published: bool) -> TableData:
    lines = [line for name, each in results.items() for line in _lines(name, each, published)]
    controlled = any(each[5] is not None for each, _ in lines)
    papers = shown([(str(results[name]["task"]), found) for name, found in _found(lines)])
    told = published and any(papers.cells)
    rows: list[list[Cell]] = []
    before = ""
    for (cells, _), paper in zip(lines, papers.cells, strict=True):
        name = str(cells[0])
        rows.append(["" if name == before else name, *cells[1:5], *cells[5:] * controlled]
                    + [paper] * told)  # fmt: skip
        before = name
    columns = [
        Column("evaluation"), Column("metric"), Column("model (%)", 1), Column("95 % interval", 1),
        Column("chance (%)", 1),
    ]  # fmt: skip
    columns += [Column("another's image", 1)] * controlled
    columns += [Column("published (other\ndata and model)")] * told
    note = f"{len(results)} of {len(summary['evaluations'])} evaluations."
    trained_on = {
        name: words for name, result in results.items() if (words := was_trained_on(result))
    }
    if trained_on:
        note += f" Beware: {'; '.join(f'{name}: {words}' for name, words in trained_on.items())}."
    beware = dict.fromkeys(w for each in results.values() for w in each.get("warnings", ()))
    note += "".join(f" Beware: {words}." for words in beware)
    note += f" {papers.note}" if told and papers.note else ""
    return TableData("Results", columns, rows, note)


_Line = tuple[list[Cell], Sequence[Published]]


def _lines(name: str, result: Result, published: bool) -> Iterator[_Line]:
    """The main numbers of a result, and those that papers report, each with what they report."""
    kind = RESULT_KINDS[result["task"]]
    labels = [label for label, *_ in kind.main_numbers(result)]
    papers = {label: PUBLISHED.get((result["task"], str(result.get("set")), label), ())
              for label in kind.headline}  # fmt: skip
    labels += [label for label in papers if papers[label] and label not in labels and published]
    for label in labels:
        path = kind.headline[label]
        value = number(result, path)
        if value is not None:
            limits, chance = interval_cell(interval(result, path)), kind.chance(result, path)
            other = number(result, f"control.{path}")
            yield [name, label, value, limits, chance, other], papers[label]
    if not kind.headline:
        pictures = f"{len(result.get('pictures', ()))} pictures"
        yield [name, pictures, None, "", None, None], ()


def _found(lines: Sequence[_Line]) -> Iterator[tuple[str, Sequence[Published]]]:
    return ((str(cells[0]), papers) for cells, papers in lines)


def _failed(summary: Mapping[str, Any]) -> TableData:
    failed = [each for each in summary["evaluations"] if each["state"] == "failed"]
    rows = [[each["name"], each["message"]] for each in failed]
    return TableData("Failed", [Column("evaluation"), Column("why")], rows)


def _elsewhere(summary: Mapping[str, Any]) -> TableData:
    """What was answered and has to be scored by a server or a judge."""
    sent = [each for each in summary["evaluations"] if each["state"] == "upload"]
    rows = [[each["name"], each["upload"]] for each in sent]
    return TableData("To be scored elsewhere", [Column("evaluation"), Column("file")], rows)


def _missing(summary: Mapping[str, Any]) -> TableData:
    missing = [each for each in summary["evaluations"] if each["state"] == "missing"]
    of_place: dict[tuple[str, ...], list[Cell]] = {}
    for each in missing:  # several evaluations may be of one set
        source = each["source"] + (" (gated)" if each["gated"] else "")
        row = [each["name"], " or ".join(each["looked_for"][:2]), source]
        of_place.setdefault(tuple(each["looked_for"]), row)
    note = f"Places are below {summary['root']}."
    if any(_ON_HUB.fullmatch(each["source"]) for each in missing):
        note += (
            " owner/name is on the Hugging Face hub: `hf download --repo-type dataset owner/name "
            "--local-dir name`; gated: first accept the terms on its page and run `hf auth login`."
        )
    return TableData(
        f"Missing: {len(missing)} evaluations",
        [Column("evaluation", whole=True), Column("looked for"), Column("get it")],
        list(of_place.values()), note,
    )  # fmt: skip


def write_suite_page(
    summary: Mapping[str, Any], results: Results, out: Path, *, title: str,
    model: Mapping[str, Any], first: Sequence[str] = (), published: bool = False,
) -> Path:  # fmt: skip
    """Write ``report.html``: headline numbers, tables and pictures of every evaluation.

    Args:
        summary: what ``suite.json`` holds.
        results: by name of the evaluation.
        out: the folder of both, with the pictures of each evaluation in a folder of its name.
        title: of the page: the model in a few words.
        model: what it is, for the conditions.
        first: the evaluations that the page opens with, as far as they are there.
        published: also what papers report of other models.

    Returns:
        The page's path.
    """
    page = Page(
        title,
        f"Suite {summary['suite']}: {len(results)} of {len(summary['evaluations'])} evaluations",
    )
    page.headline(_headlines(results, first))
    if results:
        overview = _overview(summary, results, published=published)
        page.section("Results").table(replace(overview, title=""))
    for name, result in results.items():
        page.section(name)
        for table in result_tables(result):
            page.table(table)
        add_pictures(page, out / name, result, _MOST_PICTURES)
    for table in (_elsewhere(summary), _failed(summary), _missing(summary)):
        if table.rows:
            page.section(table.title).table(replace(table, title=""))
    page.section("Conditions").facts({**model, **_facts(summary, results)} | made_with())
    page.save(out / PAGE)
    return out / PAGE


def _headlines(results: Results, first: Sequence[str]) -> Iterator[Headline]:
    names = [*(name for name in first if name in results), *(n for n in results if n not in first)]
    for name in names[:_MOST_HEADLINES]:
        kind = RESULT_KINDS[results[name]["task"]]
        for label, value, chance in list(kind.main_numbers(results[name]))[:1]:
            guess = None if chance is None else f"{chance:.1f} %"
            note = headline_note(results[name], label, guess)
            yield Headline(f"{value:.1f} %", f"{name}: {label}", note)


def _facts(summary: Mapping[str, Any], results: Results) -> dict[str, Any]:
    facts = {
        "model key": summary["model_key"][:16],
        "versions": ", ".join(f"{k} {v}" for k, v in summary["versions"].items()),
    }
    for name, result in results.items():
        parts = [f"data {str(result['conditions']['data'])[:16]}"]
        if result.get("templates"):
            parts.append(f"{len(result['templates'])} prompts, such as {result['templates'][0]!r}")
        if result.get("seed") is not None:
            parts.append(f"seed {result['seed']}")
        facts[name] = "; ".join(parts)
    return facts
