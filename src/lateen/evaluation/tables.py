"""Tables of evaluation results: what all tasks have in common. Plain data in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePath

from lateen.evaluation.task import RESULT_KINDS, Result, training_note
from lateen.report.tables import Cell, Column, TableData

MOST_CLASSES = 25  # with a table of their own
# Folders and files that say nothing of what is in them; then the folder above is named.
_NAMELESS = {"data", "images", "test", "train", "val", "valid", "validation"}
_SOURCES = ("data", "captions", "images")


def result_tables(result: Result) -> list[TableData]:
    """The tables of one task's result, with the levels of chance and baselines that it has.

    A task that is not known here gets a table of the numbers that stand first in its result. The
    first table's note says how many of the images the model was trained on.

    Args:
        result: what :func:`lateen.evaluation.evaluate` gives.
    """
    task = str(result.get("task"))
    tables = list(RESULT_KINDS[task].tables(result) if task in RESULT_KINDS else _generic(result))
    if tables and (sentences := training_note(result)):
        tables[0] = noted(tables[0], f" {sentences}" if tables[0].note else sentences)
    return tables


def subject(result: Result) -> str:
    """What was evaluated on, in a word or two: the set's name, or that of its file or folder."""
    # Of a published set with masks its folder is behind the name.
    name = str(result.get("set") or "").partition(" (")[0]
    options = result.get("options", {})
    named = (options[key] for key in _SOURCES if isinstance(options.get(key), str))
    path = PurePath(name or next(named, ""))
    return path.parent.name if path.stem in _NAMELESS and path.parent.name else path.name


def subject_and_split(result: Result) -> str:
    """The same, with the split if there is one, and with what makes numbers of another kind of
    it: ``flickr30k, test``, ``vizwiz, val, 4-shot``, ``pope, by likelihood``."""
    split = result.get("split") or result.get("options", {}).get("split")
    shots = f"{result['shots']}-shot" if result.get("shots") else ""
    how = "by likelihood" if result.get("answered_by") == "likelihood" else ""
    return ", ".join(part for part in (subject(result), split, shots, how) if part)


def titled(what: str, result: Result) -> str:
    """The title of a table: what was measured, and on what."""
    on = subject_and_split(result)
    return f"{what}: {on}" if on and on != what.lower() else what


def left_out(result: Result) -> str:
    """What could not be used, as the end of a note."""
    counts = {"skipped": "skipped", "left_out": "left out", "unlabelled": "without a label"}
    found = [f"{result[key]:,} {word}" for key, word in counts.items() if result.get(key)]
    return f" {', '.join(found).capitalize()}." if found else ""


def noted(table: TableData, more: str) -> TableData:
    """The table with more in its note."""
    return TableData(table.title, table.columns, table.rows, table.note + more, table.reference)


def references(rows: Sequence[Sequence[Cell]], measured: Collection[str]) -> tuple[int, ...]:
    """Which rows are there for comparison only: all but those that begin with what is measured."""
    return tuple(at for at, row in enumerate(rows) if row[0] not in measured)


def by_class(title: str, unit: str, values: Mapping[str, float]) -> TableData:
    """A row for each class, the lowest value first."""
    ranked = sorted(values.items(), key=lambda item: item[1])
    return TableData(title, [Column("class"), Column(unit, 1)], ranked)


def _generic(result: Result) -> Iterator[TableData]:
    rows: list[list[Cell]] = [
        [key.replace("_", " "), float(value)]
        for key, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    title = titled(str(result.get("task", "result")), result)
    yield TableData(title, [Column(""), Column("value", 2)], rows, left_out(result).strip())
