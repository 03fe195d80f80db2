"""Numbers over the steps of a training, as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lateen.errors import UsageError
from lateen.report.palette import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE
from lateen.report.plots import laid_out, quiet_style, set_log_scale, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, INK)
_MARKS = ("-", (0, (4, 3)))  # styles of marked steps, in their order
_FEW = 30  # points that have a dot each


class StepLine(NamedTuple):
    """A number at several steps.

    Attributes:
        label: what it is.
        points: step and value, in the order of steps.
        band: lower and upper end at each point, or nothing.
    """

    label: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


def step_plot(
    lines: Sequence[StepLine],
    title: str,
    ylabel: str,
    *,
    marks: Mapping[str, float] | None = None,
    level: float | None = None,
    log: bool = False,
) -> Figure:
    """Lines over steps, with their bands.

    Args:
        lines: at most five; points that are not finite are left out.
        title: what they have in common.
        ylabel: with the unit.
        marks: steps to mark by a line, by what they are.
        level: a value to draw a line at, such as that of the start.
        log: a logarithmic axis, on which values up to 0 have no place.

    Raises:
        UsageError: there is no point, or there are more than five lines.
    """
    shown = [line for line in (_drawable(each, log) for each in lines) if line.points]
    if not shown:
        raise UsageError("there is nothing to plot", "Give at least one step with its number.")
    if len(shown) > len(_COLOURS):
        raise UsageError(f"{len(shown)} lines are too many for one plot", "Give at most five.")
    with quiet_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=0.9)
        for (label, step), style in zip((marks or {}).items(), _MARKS, strict=False):
            axes.axvline(step, color=MUTED, linewidth=1.1, linestyle=style, label=label)
        for line, colour in zip(shown, _COLOURS, strict=False):
            _draw(axes, line, colour)
        if log:
            set_log_scale(axes)
        axes.set_title(title)
        axes.set_ylabel(ylabel)
        axes.set_xlabel("step")
        axes.margins(x=0.03)
        axes.grid(axis="y")
        axes.tick_params(length=0)
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda at: labels[at] in (marks or {}))
        figure.legend(
            [handles[at] for at in order], [labels[at] for at in order],
            loc="outside lower left", ncols=2, frameon=False, fontsize=9, handletextpad=0.5,
        )  # fmt: skip
        return laid_out(figure)


def _drawable(line: StepLine, log: bool) -> StepLine:
    """A line without points that have no place."""
    drawable = [
        at for at, (_, value) in enumerate(line.points)
        if math.isfinite(value) and (value > 0 or not log)
    ]  # fmt: skip
    band = [line.band[at] for at in drawable] if line.band else ()
    return StepLine(line.label, [line.points[at] for at in drawable], band)


def _draw(axes: Axes, line: StepLine, colour: str) -> None:
    few = len(line.points) <= _FEW
    if line.band:
        steps = [step for step, _ in line.points]
        lows, highs = zip(*line.band, strict=True)
        axes.fill_between(steps, lows, highs, color=colour, alpha=0.13, linewidth=0)
    steps, values = thinned(line.points)
    axes.plot(
        steps, values, color=colour, marker="o" if few else None, markersize=3.5, label=line.label
    )
