"""What is gained against what is lost: a point for each way of doing it, from one start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

from lateen.errors import UsageError
from lateen.report.palette import INK, MUTED, PAPER
from lateen.report.plots import MARKS, laid_out, quiet_style, shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEGEND_ROW = 0.19  # inches
# Beyond ten, those that were filled are hollow, and the other way round; beyond twenty, again.
_MARKS = [*MARKS, *((colour, marker, not filled) for colour, marker, filled in MARKS)]


class Trade(NamedTuple):
    """Two differences from the start, each with its interval, low and high, where it has one."""

    label: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


def trade_plot(
    trades: Sequence[Trade], title: str, xlabel: str, ylabel: str,
    lines: Sequence[Sequence[int]] = (),
) -> Figure:  # fmt: skip
    """A point for each trade with both intervals; the start is where the two lines at 0 cross.

    Args:
        trades: points that are not finite are left out.
        title: what is traded.
        xlabel: the difference along x, with its unit.
        ylabel: the difference along y, with its unit.
        lines: places of trades that a thin line joins, in the order of what changes along it.

    Raises:
        UsageError: there is no point.
    """
    shown = {at: each for at, each in enumerate(trades) if math.isfinite(each.x + each.y)}
    if not shown:
        raise UsageError("there is nothing to plot", "Give at least one point.")
    with quiet_style():
        from matplotlib.figure import Figure

        height = 3.7 + _LEGEND_ROW * math.ceil((len(shown) + 1) / 2)
        figure = Figure(figsize=(5.4, height), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0, color=MUTED, linewidth=0.9, zorder=1)
        axes.axvline(0, color=MUTED, linewidth=0.9, zorder=1)
        axes.plot(0, 0, "o", color=MUTED, markersize=6.5, mfc=PAPER, label="start", zorder=3)
        for places in lines:
            joined = [shown[at] for at in places if at in shown]
            axes.plot(
                [each.x for each in joined], [each.y for each in joined], color=MUTED,
                linewidth=1.1, linestyle=(0, (4, 3)), zorder=2,
            )  # fmt: skip
        for trade, (colour, marker, filled) in zip(shown.values(), cycle(_MARKS), strict=False):
            _draw(axes, trade, colour, marker, filled)
        axes.set_title(title)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.margins(0.07)
        axes.grid(axis="both")
        axes.tick_params(length=0)
        names = [each.label for each in shown.values()]
        figure.legend(
            loc="outside lower left", ncols=2, frameon=False, handletextpad=0.4, labelcolor=INK,
            prop={"family": ["DejaVu Sans", *families(names)], "size": 9},
        )  # fmt: skip
        return laid_out(figure)


def _draw(axes: Axes, trade: Trade, colour: str, marker: str, filled: bool) -> None:
    """A point with its bars."""
    bars: dict[str, Any] = {"color": colour, "linewidth": 0.9, "alpha": 0.5, "zorder": 2}
    if trade.x_interval is not None:
        axes.hlines(trade.y, *trade.x_interval, **bars)
    if trade.y_interval is not None:
        axes.vlines(trade.x, *trade.y_interval, **bars)
    axes.plot(
        trade.x, trade.y, marker, color=colour, markersize=6.5, mfc=colour if filled else PAPER,
        label=shortened(trade.label), zorder=4,
    )  # fmt: skip
