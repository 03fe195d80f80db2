"""The command that looks before a run: ``plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lateen.cli.keys import takes_keys
from lateen.cli.output import say, show_json, show_table
from lateen.errors import Faults
from lateen.experiment.recipe import Recipe, keys

if TYPE_CHECKING:
    from lateen.report.tables import TableData


_DURATIONS = ((86400, "d", "h"), (3600, "h", "min"), (60, "min", "s"))
_PARTS = {"h": 3600, "min": 60, "s": 1}
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@takes_keys(keys().values())
def plan_command(
    recipe: Annotated[Path, Parameter(help="YAML file of `lateen run`")],
    /,
    *,
    samples: Annotated[
        int | None,
        Parameter(help="images to time each vision encoder on (three batches for each core)"),
    ] = None,
    gpu_images_per_second: Annotated[
        float | None, Parameter(help="rate of the vision encoder on a GPU, to state GPU-hours")
    ] = None,
    gpu_texts_per_second: Annotated[
        float | None, Parameter(help="rate of the text encoder on that GPU")
    ] = None,
    out: Annotated[
        Path | None, Parameter(help="folder the run will write to: its free disk counts")
    ] = None,
    json: Annotated[bool, Parameter(help="print JSON")] = False,
    overrides: Mapping[str, str],
) -> None:
    """Predict what running a recipe costs on this machine: time, disk and memory.

    Each encoder is timed on a few of the recipe's own images and captions and the heads on a few
    steps; the rest is counted. Every key of the recipe is an option, as for `lateen run`. Nothing
    is written, and what an earlier run has done is not looked at.
    """
    checked = Recipe.load(recipe, overrides)
    from lateen.experiment.preflight import check_sources

    faults = Faults()
    check_sources(checked.data, faults)
    faults.raise_all()
    from lateen.experiment.planning import plan

    result = plan(
        checked, samples=samples, out=out,
        gpu_images_per_second=gpu_images_per_second, gpu_texts_per_second=gpu_texts_per_second,
    )  # fmt: skip
    if json:
        show_json(result)
        return
    show_table(_table(result))
    for sentence in _sentences(result):
        say(sentence)


def duration(seconds: float) -> str:
    """Seconds for people: ``0.4 s``, ``37 s``, ``12 min``, ``1 h 20 min``, ``2 d 3 h``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    for size, unit, below in _DURATIONS:
        part = _PARTS[below]
        whole, rest = divmod(round(seconds / part), size // part)
        if whole >= 1:
            return f"{whole} {unit} {rest} {below}" if rest and whole < 10 else f"{whole} {unit}"
    raise AssertionError(seconds)


def size(count: float) -> str:
    """Bytes for people, in powers of ten: ``3.4 MB``."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def _table(result: Mapping[str, Any]) -> TableData:
    from lateen.report.tables import Column, TableData

    items: Sequence[Mapping[str, Any]] = result["items"]
    several = len({item["encoder"] for item in items if item["encoder"]}) > 2
    rows: list[list[str | int | float | None]] = []
    for item in items:
        seconds, count = item["seconds"], item["count"]
        name = item["item"]
        if several and item["encoder"]:
            name += f" ({Path(item['encoder']).name})"
        rate = f"{_number(count / seconds)} {item['unit']}s/s" if seconds > 0 and count > 1 else ""
        rows.append([name, f"{count:,}", rate, duration(seconds), _size(item["bytes"])])
    disk, total = result["disk"], result["seconds"]
    kept = disk["checkpoints"] + disk["model"]
    rows.append(["checkpoints and model", "", "", "", _size(kept)])
    rows.append(["total", "", "", duration(total["total"]), _size(disk["total"])])
    heads = ["item", "count", "rate", "time", "disk"]
    spread = f"{duration(total['low'])} to {duration(total['high'])} by the spread of the rates."
    columns = [Column(head, None, whole=True) for head in heads]
    return TableData("What this recipe costs here", columns, rows, spread)


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _size(count: int) -> str:
    return size(count) if count else ""


def _sentences(result: Mapping[str, Any]) -> list[str]:
    largest, total = result["largest"], result["seconds"]["total"]
    memory, disk, hours = result["memory"], result["disk"], result["gpu_hours"]
    lines = [
        f"largest  {largest['item']}, {duration(largest['seconds'])} of {duration(total)}",
        f"memory   at least {size(memory['encoding'])} in encoding, {size(memory['training'])} in "
        f"training (peaks measured here; features held: {size(memory['features_held'])})",
        f"disk     {size(disk['total'])} of {size(disk['free'])} that are free in {disk['place']}",
    ]
    if "gpu" in memory:
        lines.append(f"GPU      {size(memory['gpu'])} of its memory")
    if hours is not None:
        known = ", ".join(f"{name} {hours[name]:.3g}" for name in hours if name != "total")
        lines.append(f"at the rates given, encoding takes {hours['total']:.3g} GPU-hours ({known})")
    for rate in result["rates"]:
        if rate["skipped"]:
            share = f"{rate['skipped']} of {rate['tried']} images"
            lines.append(f"skipped  {share} of the sample cannot be decoded")
    machine = result["machine"]
    if machine["load"] > machine["cores"] / 2:
        lines.append(
            f"warning  this machine is busy (load {machine['load']} on {machine['cores']} cores): "
            "these rates hold only while it stays so"
        )
    if not disk["fits"]:
        lines.append("warning  that does not fit: free some disk, or give another --out")
    lines.append(f"not included: {'; '.join(result['not_included'])}")
    return lines
