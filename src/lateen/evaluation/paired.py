"""Two results on the same questions: every number of both, and their difference image by image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lateen.errors import DataError
from lateen.evaluation.comparison import differences
from lateen.evaluation.intervals import interval, paired_difference, redrawn
from lateen.evaluation.task import RESULT_KINDS, Result, number
from lateen.metrics.resampling import Interval
from lateen.report.tables import Cell, Column, TableData, difference_range, interval_cell, signed

_DATA = ("data", "images used", "images judged")


@dataclass(frozen=True)
class PairedNumber:
    """One number of two results.

    Attributes:
        metric: which, as comparisons name it.
        values: of both, in percent.
        intervals: theirs, at 95 %.
        difference: the second above the first, in points.
        interval: of the difference, paired: both are of the same draws of images; ``None`` where
            answers were found in different ways, or what they are made of was not kept.
        apart: whether the two can be told apart: the interval is on one side of 0, and there are
            images enough on which they differ.
    """

    metric: str
    values: tuple[float, float]
    intervals: tuple[Interval | None, Interval | None]
    difference: float
    interval: Interval | None
    apart: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def paired_numbers(first: Result, second: Result) -> list[PairedNumber]:
    """Every number that two results of one task and set have, and the second's above the first's.

    Args:
        first: a result.
        second: of another model, on the same data.

    Raises:
        DataError: they are of other tasks or other data, or damaged.
    """
    if first["task"] != second["task"]:
        raise DataError(
            f"one result is of {first['task']}, the other of {second['task']}",
            "Give two of the same task.",
        )
    differ = differences([first, second])
    if other := [what for what in differ if what in _DATA]:
        raise DataError(
            f"the two results are not of the same {other[0]}",
            "Evaluate both models on the same files, with the same --split and --limit.",
        )
    return list(_numbers(first, second, comparable=not differ))


def _numbers(first: Result, second: Result, *, comparable: bool) -> Iterator[PairedNumber]:
    kind = RESULT_KINDS[first["task"]]
    statistics = kind.statistics if comparable else None
    one, two = ((redrawn(each, statistics) if statistics else None) or {}
                for each in (first, second))  # fmt: skip
    for metric, path in kind.headline.items():
        before, after = number(first, path), number(second, path)
        if before is None or after is None:
            continue
        told = paired_difference(two[path], one[path]) if path in one and path in two else None
        yield PairedNumber(
            metric, (before, after), (interval(first, path), interval(second, path)),
            after - before, told and told.interval, told is not None and told.significant,
        )  # fmt: skip


def paired_table(numbers: list[PairedNumber], labels: tuple[str, str], note: str = "") -> TableData:
    """A row for each number: both values, and the second's above the first's.

    Args:
        numbers: as :func:`paired_numbers` gives them.
        labels: what the two are called.
        note: below the table, before what it says itself.
    """
    first, second = labels
    columns = [Column("%"), Column(f"{first} (95 %)"), Column(f"{second} (95 %)"),
               Column("difference (95 %, paired)"), Column("beyond chance")]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            each.metric, *map(_with_interval, each.values, each.intervals),
            f"{signed(each.difference)}{_brackets(difference_range(each.interval))}",
            "yes" if each.apart else "no" if each.interval else "–",
        ]
        for each in numbers
    ]  # fmt: skip
    own = f"The difference is {second} above {first}, in points, image by image."
    return TableData("", columns, rows, " ".join(filter(None, (note, own))))


def _with_interval(value: float, limits: Interval | None) -> str:
    if limits and limits[0] < 0:  # a difference itself
        return f"{signed(value)}{_brackets(difference_range(limits))}"
    return f"{value:.1f}{_brackets(interval_cell(limits))}"


def _brackets(text: str) -> str:
    return f" ({text})" if text else ""
