"""Numbers over how much was trained on, as matplotlib figures."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lateen.errors import UsageError
from lateen.report.palette import PAPER
from lateen.report.plots import MARKS, laid_out, quiet_style, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 2
_APART = 2  # marks of measured curves that published ones do not have
_TOUCHING = 1.6  # numbers that are less than so many times each other touch below the axis
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

        columns = min(len(drawn), _COLUMNS)
        rows = -(-len(drawn) // columns)
        size = (0.4 + 4.0 * columns, 0.2 + 3.2 * rows)
        figure = Figure(figsize=size, layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flat
        for panel, axes in itertools.zip_longest(drawn, places):
            if panel is None:
                axes.remove()
            else:
                _draw_panel(axes, panel)
        return laid_out(figure)


def _draw_panel(axes: Axes, panel: CurvePanel) -> None:
    # A paper's curves are not those beside them, and have other marks.
    marks = [*MARKS[_APART:], *MARKS[:_APART]] if panel.published else MARKS
    for (label, points), (colour, marker, filled) in zip(panel.curves.items(), marks, strict=False):
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
    axes.legend(frameon=False, loc="upper left", fontsize=9)


def _number_axis(axes: Axes, counts: Sequence[int]) -> None:
    """A logarithmic axis with the numbers that were trained on, as far as they do not touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    shown: list[int] = []
    for count in reversed(counts):  # how many there were at all is always said
        if not shown or count * _TOUCHING < shown[-1]:
            shown.append(count)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.margins(x=0.08, y=0.1)
    axes.set_ylim(top=axes.get_ylim()[1] + 0.15 * (axes.get_ylim()[1] - axes.get_ylim()[0]))
