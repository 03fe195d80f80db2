"""What commands print of a plan: a table of costs, durations and sizes for people, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lateen.report.tables import TableData

_DURATIONS = ((86400, "d", "h"), (3600, "h", "min"), (60, "min", "s"))
_PARTS = {"h": 3600, "min": 60, "s": 1}
_SIZES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


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


def cost_table(result: Mapping[str, Any], title: str) -> TableData:
    """The items of a plan and their sums.

    Args:
        result: with ``items``, ``seconds`` and ``disk``.
        title: above it.
    """
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
    return TableData(title, columns, rows, spread)


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _size(count: int) -> str:
    return size(count) if count else ""


def warnings(result: Mapping[str, Any]) -> list[str]:
    """A sentence where the machine is busy, and one where the disk is too small."""
    machine, lines = result["machine"], []
    if machine["load"] > machine["cores"] / 2:
        lines.append(
            f"warning  this machine is busy (load {machine['load']} on {machine['cores']} cores): "
            "these rates hold only while it stays so"
        )
    if not result["disk"]["fits"]:
        lines.append("warning  that does not fit: free some disk, or give another --out")
    return lines


def undecoded(result: Mapping[str, Any]) -> list[str]:
    """A sentence where images of the sample cannot be decoded."""
    return [
        f"skipped  {rate['skipped']} of {rate['tried']} images of the sample cannot be decoded"
        for rate in result["rates"] if rate["skipped"]
    ]  # fmt: skip


def stage_sentences(result: Mapping[str, Any]) -> list[str]:
    """What a plan of a stage of multimodal training says below its table."""
    data, step, memory, disk = (result[part] for part in ("data", "step", "memory", "disk"))
    sample, largest = result["sample"], result["largest"]
    some = "" if data["exact"] else f", estimated by a sample of {sample['conversations']:,}"
    learns = memory["trained"] + memory["gradients"] + memory["optimizer"]
    lines = [
        f"data     {data['conversations']:,} conversations about {data['images']:,} images{some}; "
        f"{data['steps']:,} steps, held out {data['held_out']:,}",
        f"tokens   {sample['tokens']:.0f} of a conversation (longest {sample['longest']:,}, with "
        f"labels {sample['answered']:.0f}), {sample['tokens_per_image']:,} of an image, "
        f"{step['tokens']:,.0f} of a step",
        *_left_out(result),
        f"step     {duration(step['seconds'])} ({duration(step['low'])} to "
        f"{duration(step['high'])}, {step['timed']} timed), {step['at_once']} of "
        f"{step['conversations']} conversations at a time, {step['precision']}",
        f"largest  {largest['item']}, {duration(largest['seconds'])} of "
        f"{duration(result['seconds']['total'])}",
        f"memory   at least {size(memory['peak'])} (peak measured here): {size(memory['frozen'])} "
        f"frozen, {size(learns)} of {size(memory['trained'])} that learn, with gradients and AdamW",
        f"disk     {size(disk['total'])} of {size(disk['free'])} that are free in {disk['place']}",
    ]  # fmt: skip
    if "gpu" in memory:
        lines.append(f"GPU      {size(memory['gpu'])} of its memory")
    lines.append(_operations(result))
    lines += warnings(result)
    lines.append(f"not included: {'; '.join(result['not_included'])}")
    return lines


def _left_out(result: Mapping[str, Any]) -> list[str]:
    """What of a stage's data, its sample and the sample of its images cannot be learned."""
    sample, skipped, lines = result["sample"], result["data"]["skipped"], []
    if skipped:
        lines.append(f"left out {skipped:,} that do not fit")
    if sample["left_out"]:
        why = ", ".join(f"{count:,} × {reason}" for reason, count in sample["reasons"].items())
        lines.append(f"left out {sample['left_out']:,} of {sample['conversations']:,} ({why})")
    if sample["turns_left_out"]:
        lines.append(f"too long {sample['turns_left_out']:,} last turns of the sample's "
                     f"{sample['conversations']:,} conversations")  # fmt: skip
    return lines + undecoded(result)


def _operations(result: Mapping[str, Any]) -> str:
    """Floating point operations, and hours where it is given what a GPU sustains."""
    count = result["operations"]
    parts = ", ".join(
        f"{name.replace('_', ' ')} {100 * count[name] / count['total']:.1f} %"
        for name in ("language_model", "projector", "tower")
    )
    said = f"FLOPs    {count['total']:.2e} ({parts})"
    if result["gpu_hours"] is not None:
        said += f": {result['gpu_hours']:.3g} hours at {result['gpu_tflops']:g} TFLOP/s sustained"
    return said
