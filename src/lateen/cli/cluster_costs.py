"""What ``lateen plan`` prints of a cluster: a table of costs, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lateen.cli.costs import duration, size
from lateen.errors import UsageError

if TYPE_CHECKING:
    from lateen.report.tables import TableData


def read_numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Numbers with commas between them; none of ``None``.

    Raises:
        UsageError: they are no numbers.
    """
    try:
        return () if text is None else tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{option} cannot be {text!r}", f"Give a number, or several, as in {option} 170,25."
        ) from error


def cluster_table(result: Mapping[str, Any]) -> TableData:
    """The items of :func:`~lateen.experiment.planning.plan_cluster`, and their sums."""
    from lateen.report.tables import Column, TableData

    items: Sequence[Mapping[str, Any]] = result["items"]
    priced = result["terms"]["price"] is not None
    fails = result["terms"]["hours_to_failure"] is not None
    rows = [_row(item, priced, fails) for item in items]
    rows.append(_row({"item": "total", **result["total"]}, priced, fails))
    heads = ["item", "count", "a GPU", "time", "GPU-h"]
    heads += (["fails", "lost"] if fails else []) + (["$"] if priced else [])
    columns = [Column(head, whole=True) for head in [*heads, "disk"]]
    return TableData("What this recipe costs on a cluster", columns, rows, _terms(result["terms"]))


def _row(item: Mapping[str, Any], priced: bool, fails: bool) -> list[str | int | float | None]:
    count, rate = item.get("count"), item.get("rate")
    row: list[str | int | float | None] = [
        item["item"], "" if count is None else f"{count:,}",
        "" if rate is None else f"{_number(rate)}/s",
        duration(item["seconds"]), _number(item["gpu_hours"]),
    ]  # fmt: skip
    if fails:
        row += [_number(item["failures"]), _number(item["lost_gpu_hours"])]
    if priced:
        row.append(f"{item['dollars']:,.2f}")
    return [*row, size(item["bytes"]) if item["bytes"] else ""]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _terms(terms: Mapping[str, Any]) -> str:
    said = f"{terms['gpus']:,} GPUs"
    if terms["price"] is not None:
        said += f" at {terms['price']:,g} $ an hour each"
    if terms["hours_to_failure"] is not None:
        said += (
            f"; each fails after {terms['hours_to_failure']:g} h on average and is back "
            f"{terms['restart_minutes']:g} min later, which loses GPU-hours by restarts and by "
            "work that is done again"
        )
    return f"{said}."


def cluster_sentences(result: Mapping[str, Any]) -> list[str]:
    """What the numbers rest on, and what they leave out."""
    return [
        f"assumed: {'; '.join(result['assumed'])}",
        f"not included: {'; '.join(result['not_included'])}",
    ]
