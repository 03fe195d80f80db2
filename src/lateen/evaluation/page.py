"""What a suite leaves behind for people: tables for the terminal and a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lateen.evaluation.task import number
from lateen.evaluation.tasks import TASKS
from lateen.report.chance import recall_at_k
from lateen.report.page import Headline, Page
from lateen.report.results import result_tables
from lateen.report.tables import Cell, Column, TableData

PAGE = "report.html"
_MOST_PICTURES = 4  # of one evaluation's overlays
_MOST_HEADLINES = 4
# What the page opens with, as far as it is there.
_FIRST = ("imagenet", "coco-retrieval", "flickr30k-retrieval", "winoground", "mmvp-vlm", "ade20k")
_CAPTIONS = {
    "confusion.png": "What each class is taken for.",
    "similarity.png": "Cosine of the two images of a pair that CLIP takes for alike.",
    "per-class.png": "IoU of each class.",
}
# A task's own numbers for the overview; of the others, all that its headline names.
_MAIN = {
    "retrieval": ("T2I R@1", "I2T R@1"),
    "segmentation": ("mIoU",),
}

Results = Mapping[str, Mapping[str, Any]]


def suite_tables(summary: Mapping[str, Any], results: Results) -> list[TableData]:
    """An overview of a suite's numbers, what failed, and what is missing.

    Args:
        summary: what ``suite.json`` holds.
        results: by name of the evaluation.
    """
    tables = (_overview(summary, results), _failed(summary), _missing(summary))
    return [table for table in tables if table.rows]


def _overview(summary: Mapping[str, Any], results: Results) -> TableData:
    rows: list[list[Cell]] = []
    for name, result in results.items():
        for place, (metric, value, chance) in enumerate(_numbers(result)):
            rows.append(["" if place else name, metric, value, chance])
    columns = [
        Column("evaluation"), Column("metric"), Column("model (%)", 1), Column("chance (%)", 1)
    ]  # fmt: skip
    note = f"{len(results)} of {len(summary['evaluations'])} evaluations."
    return TableData("Results", columns, rows, note)


def _failed(summary: Mapping[str, Any]) -> TableData:
    failed = [each for each in summary["evaluations"] if each["state"] == "failed"]
    rows = [[each["name"], each["message"]] for each in failed]
    return TableData("Failed", [Column("evaluation"), Column("why")], rows)


def _missing(summary: Mapping[str, Any]) -> TableData:
    missing = [each for each in summary["evaluations"] if each["state"] == "missing"]
    of_place: dict[tuple[str, ...], list[Cell]] = {}
    for each in missing:  # several evaluations may be of one set
        source = each["source"] + (" (gated)" if each["gated"] else "")
        row = [each["name"], " or ".join(each["looked_for"][:2]), source]
        of_place.setdefault(tuple(each["looked_for"]), row)
    return TableData(
        f"Missing: {len(missing)} evaluations",
        [Column("evaluation", whole=True), Column("looked for"), Column("get it")],
        list(of_place.values()),
        f"Places are below {summary['root']}. owner/name is on the Hugging Face hub: `hf download "
        "--repo-type dataset owner/name --local-dir name`; gated: first accept the terms on its "
        "page and run `hf auth login`.",
    )


def write_suite_page(summary: Mapping[str, Any], results: Results, out: Path) -> Path:
    """Write ``report.html``: headline numbers, tables and pictures of every evaluation.

    Args:
        summary: what ``suite.json`` holds.
        results: by name of the evaluation.
        out: the folder of both, with the pictures of each evaluation in a folder of its name.

    Returns:
        The page's path.
    """
    model = summary["model"]
    page = Page(
        f"{model['vision']} × {model['text']}",
        f"Suite {summary['suite']}: {len(results)} of {len(summary['evaluations'])} evaluations",
    )
    page.headline(_headlines(results))
    if results:
        page.section("Results").table(replace(_overview(summary, results), title=""))
    for name, result in results.items():
        page.section(name)
        for table in result_tables(result):
            page.table(table)
        _add_pictures(page, out / name, result)
    for table in (_failed(summary), _missing(summary)):
        if table.rows:
            page.section(table.title).table(replace(table, title=""))
    page.section("Conditions").facts(_facts(summary, results))
    page.save(out / PAGE)
    return out / PAGE


def _numbers(result: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """The main numbers of a result with their names and levels of chance."""
    headline = TASKS[result["task"]].headline
    main = _MAIN.get(result["task"], tuple(headline))
    if result["task"] == "classification":
        main = tuple(label for label, place in headline.items() if place == result["metric"])
    for label in main:
        value = number(result, headline[label])
        if value is not None:
            yield label, value, _chance(result, headline[label])


def _chance(result: Mapping[str, Any], place: str) -> float | None:
    if result["task"] == "retrieval":
        images, captions = result["images"], result["captions"]
        depth = int(place.rpartition("@")[2])
        if place.startswith("text"):
            return recall_at_k(depth, images)
        return recall_at_k(depth, captions, captions / images)
    chance = result.get("chance")
    if isinstance(chance, Mapping):
        return number(chance, place)
    return chance


def _headlines(results: Results) -> Iterator[Headline]:
    names = [
        *(name for name in _FIRST if name in results),
        *(n for n in results if n not in _FIRST),
    ]
    for name in names[:_MOST_HEADLINES]:
        for label, value, chance in list(_numbers(results[name]))[:1]:
            note = "" if chance is None else f"chance {chance:.1f} %"
            yield Headline(f"{value:.1f} %", f"{name}: {label}", note)


def _add_pictures(page: Page, folder: Path, result: Mapping[str, Any]) -> None:
    from PIL import Image

    drawn = sorted(folder.glob("*.png")) if folder.is_dir() else []
    # Those that the result names: of other images, or of another model, some may lie there still.
    named = (folder / str(name) for name in sorted(result.get("pictures") or ()))
    overlays = [path for path in named if path.parent.name == "overlays" and path.is_file()]
    for path in [*drawn, *overlays[:_MOST_PICTURES]]:
        with Image.open(path) as picture:
            page.figure(picture, _CAPTIONS.get(path.name, ""), alt=path.stem)


def _facts(summary: Mapping[str, Any], results: Results) -> dict[str, Any]:
    model = summary["model"]
    facts = {
        "model": model["place"],
        "vision encoder": model["vision"],
        "text encoder": model["text"],
        "head": model["head"],
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
