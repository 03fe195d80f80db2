"""Numbers over how much was trained on, as matplotlib figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lateen.errors import UsageError
from lateen.report.palette import PAPER
from lateen.report.plots import MARKS, laid_out, quiet_style, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[int, Sequence[float]]]
"""Percent of every seed, by curve and number of pairs."""


class CurvePanel(NamedTuple):
    """Curves that share their axes.

    Attributes:
        title: what they have in common.
        ylabel: what is measured, with its unit.
        curves: those that are drawn.
        published: whether they are a paper's, which are drawn hollow and dashed.
    """

    title: str
    ylabel: str
    curves: Curves
    published: bool = False


def curve_plot(panels: Sequence[CurvePanel]) -> Figure:
    """Curves over the number of pairs, on a logarithmic axis: mean of the seeds, and their standard
    deviation as a bar.

    Args:
        panels: side by side; those without a curve are left out.

    Raises:
        UsageError: there is no curve, or more than can be told apart.
    """
    drawn = [panel for panel in panels if any(panel.curves.values())]
    if not drawn:
        raise UsageError("there is nothing to plot", "Give at least one curve with a point.")
    most = max(len(panel.curves) for panel in drawn)
    if most > len(MARKS):
        raise UsageError(f"{most} curves are too many for one plot", f"Give at most {len(MARKS)}.")
    with quiet_style():
        from matplotlib.figure import Figure

        # Below each other's legends, which may be long, there must be room for both.
        figure = Figure(figsize=(0.4 + 3.7 * len(drawn), 3.6), layout="constrained")
        for panel, axes in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0],
                               strict=True):  # fmt: skip
            _draw_panel(axes, panel)
        return laid_out(figure)


def _draw_panel(axes: Axes, panel: CurvePanel) -> None:
    for (label, points), (colour, marker, filled) in zip(panel.curves.items(), MARKS, strict=False):
        counts = sorted(points)
        means = [statistics.mean(points[count]) for count in counts]
        spreads = [
            statistics.stdev(points[count]) if len(points[count]) > 1 else 0.0 for count in counts
        ]
        axes.errorbar(
            counts, means, yerr=spreads if any(spreads) else None, color=colour, marker=marker,
            markersize=5, capsize=3, linestyle=(0, (4, 3)) if panel.published else "-",
            markerfacecolor=PAPER if panel.published or not filled else colour,
            label=shortened(label, 40),
        )  # fmt: skip
    _number_axis(axes, sorted({count for points in panel.curves.values() for count in points}))
    axes.set_title(panel.title)
    axes.set_ylabel(panel.ylabel)
    axes.set_xlabel("training pairs, log scale")
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.legend(frameon=False, loc="best", labelcolor="linecolor", fontsize=9)


def _number_axis(axes: Axes, counts: Sequence[int]) -> None:
    """A logarithmic axis with the numbers that were trained on, as far as they do not touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    shown = [count for at, count in enumerate(counts) if at == 0 or count > 1.6 * counts[at - 1]]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.margins(x=0.08, y=0.1)
