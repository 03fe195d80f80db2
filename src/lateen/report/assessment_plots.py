"""Plots of an assessment of encoders: one metric against another, grids, layers."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lateen.errors import UsageError
from lateen.report.labelling import label_points
from lateen.report.palette import BLUE, INK, MUTED, PAPER
from lateen.report.plots import MARKS, laid_out, quiet_style, shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure


_ASIDE = (MUTED, "o", False)
_NAMED = 6  # points with a label
_CROWD = 100  # points, from which on they are small
_MOST_LINES = 12
_MOST_CELLS = 40  # a side, with numbers in them
_FAINTEST, _STRONGEST = 0.04, 0.62  # opacity of blue: ink on it stays legible, light and dark


class Point(NamedTuple):
    """An encoder, or a pair of encoders, in a scatter plot; points of a group look alike.

    One that is not ``fitted`` (a baseline) counts for neither line nor correlation, and is hollow.
    ``interval`` is that of y, low and high.
    """

    label: str
    x: float
    y: float
    group: str = ""
    fitted: bool = True
    interval: tuple[float, float] | None = None


class LayerScore(NamedTuple):
    """A score of one layer's features (``None``: the encoder's output) with its interval."""

    layer: int | None
    value: float
    low: float
    high: float


def scatter_plot(
    points: Sequence[Point], xlabel: str, ylabel: str, note: str, *, line: bool = True
) -> Figure:
    """A point per encoder or pair with its interval, as SAIL's figures 2, 3 and 8.

    Few points are named: the highest, and those farthest from the line, as far as there is room.
    Of more than ten groups, the smaller ones look all the same.

    Args:
        points: what was measured.
        xlabel: the metric along x, with its unit.
        ylabel: the metric along y, with its unit.
        note: the title: the correlation with its interval and n, or why there is none.
        line: whether to draw the least-squares line.

    Raises:
        UsageError: there are no points.
    """
    if not points:
        raise UsageError("there is nothing to plot", "Give at least one point.")
    with quiet_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.4, 4.4), layout="constrained")
        axes = figure.subplots()
        slope = _least_squares(points) if line else None
        ends: list[tuple[float, float]] = []
        if slope is not None:
            fitted = [p.x for p in points if p.fitted]
            extremes = (min(fitted), max(fitted))
            ends = [(x, slope[0] * x + slope[1]) for x in extremes]
            axes.plot(
                *zip(*ends, strict=True),
                color=MUTED,
                linewidth=1.1,
                linestyle=(0, (5, 3)),
                zorder=1,
            )
        _draw_points(axes, points)
        axes.set_title(textwrap.fill(note, 58))
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.margins(0.09)
        axes.grid(axis="both")
        axes.tick_params(length=0)
        laid_out(figure)
        label_points(axes, [(p.label, p.x, p.y) for p in _by_note(points, slope)], ends, _NAMED)
        return figure


def heat_map(
    values: Mapping[tuple[str, str], float | None], *, label: str, decimals: int = 1
) -> Figure:
    """A grid of values: rows and columns by their means, the highest on top and at the left.

    The highest number is bold. Beyond 40 rows or columns there is a colour bar in place of numbers.

    Args:
        values: by (row label, column label); a pair that is absent or ``None`` stays empty.
        label: what the values are, with their unit.
        decimals: of the numbers in the cells.

    Raises:
        UsageError: there are no values.
    """
    known = {pair: value for pair, value in values.items() if value is not None}
    if not known:
        raise UsageError("there is nothing to plot", "Give at least one value.")
    rows, columns = (_by_mean(known, side) for side in (0, 1))
    grid = np.array([[known.get((row, column), np.nan) for column in columns] for row in rows])
    numbered = max(grid.shape) <= _MOST_CELLS
    with quiet_style():
        from matplotlib.figure import Figure

        width, height = (0.46, 0.3) if numbered else (0.12, 0.12)
        size = (2.6 + width * len(columns), 1.7 + height * len(rows))
        figure = Figure(figsize=(max(5.0, size[0]), size[1]), layout="constrained")
        axes = figure.subplots()
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(grid), cmap=_shades(), rasterized=not numbered,
            edgecolors=PAPER if numbered else "none", linewidth=1.5 if numbered else 0,
        )  # fmt: skip
        if numbered:
            _write_numbers(axes, grid, decimals)
        else:
            figure.colorbar(mesh, label=label, shrink=0.6).outline.set_visible(False)
        axes.invert_yaxis()
        _name_cells(axes, rows, columns, *((9, 38) if numbered else (5, 60)))
        figure.suptitle(label, x=0.01, ha="left", size=10.5)
        return laid_out(figure)


def layer_profile(
    panels: Mapping[str, Mapping[str, Sequence[LayerScore]]], *, ylabel: str
) -> Figure:
    """A score against the layer that features were taken from; its interval as error bars.

    Args:
        panels: title of a panel → label of a line (an encoder with its pooling) → its layers. Of
            more than 12 lines, those with the highest score are shown, and the title says so.
        ylabel: what the score is, with its unit.

    Raises:
        UsageError: there are no lines.
    """
    panels = {title: lines for title, lines in panels.items() if lines}
    if not panels:
        raise UsageError("there is nothing to plot", "Give an encoder with two layers or more.")
    with quiet_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.4 if len(panels) == 1 else 9.6, 4.1), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for (title, lines), panel in zip(panels.items(), axes, strict=True):
            _layer_panel(panel, title, lines)
        axes[0].set_ylabel(ylabel)
        return laid_out(figure)


def _least_squares(points: Sequence[Point]) -> tuple[float, float] | None:
    fitted = [p for p in points if p.fitted]
    if len({p.x for p in fitted}) < 2:
        return None
    fit = statistics.linear_regression([p.x for p in fitted], [p.y for p in fitted])
    return fit.slope, fit.intercept


def _distance(point: Point, line: tuple[float, float] | None) -> float:
    return 0.0 if line is None else abs(point.y - line[0] * point.x - line[1])


def _by_note(points: Sequence[Point], line: tuple[float, float] | None) -> list[Point]:
    """What to name first: the highest point, then what is off the line, baselines last."""
    highest = max(points, key=lambda p: (p.fitted, p.y))
    others = [p for p in points if p is not highest]
    far = sorted(others, key=lambda p: (not p.fitted, -_distance(p, line), -p.y))
    return [highest, *far]


def _draw_points(axes: Axes, points: Sequence[Point]) -> None:
    groups = Counter(p.group for p in points if p.fitted)
    if len(groups) > len(MARKS):
        own = {group for group, _ in groups.most_common(len(MARKS) - 1)}
        rest = f"{len(groups) - len(own)} others"
        points = [p if p.group in own or not p.fitted else p._replace(group=rest) for p in points]
    kinds = list(dict.fromkeys((p.fitted, p.group) for p in points))
    kinds.sort(reverse=True, key=lambda kind: kind[0])  # stable
    marks = iter(MARKS)
    size = 6.5 if len(points) <= _CROWD else 4
    for fitted, group in kinds:
        colour, marker, filled = next(marks) if fitted else _ASIDE
        of_kind = [p for p in points if (p.fitted, p.group) == (fitted, group)]
        axes.plot(
            [p.x for p in of_kind], [p.y for p in of_kind], marker, color=colour, markersize=size,
            mfc=colour if filled else PAPER, label=shortened(group) or "_", zorder=3,
        )  # fmt: skip
        bars = [(p.x, *p.interval) for p in of_kind if p.interval is not None]
        if bars:
            axes.vlines(*zip(*bars, strict=True), color=colour, linewidth=0.9, alpha=0.5, zorder=2)
    if len(kinds) > 1:
        _legend_below(axes, len(kinds), _name_font([group for _, group in kinds]))


def _legend_below(axes: Axes, entries: int, font: list[str]) -> None:
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=min(2, entries),
        frameon=False, prop={"family": font, "size": 9}, handletextpad=0.4,
    )  # fmt: skip


def _by_mean(values: Mapping[tuple[str, str], float], side: int) -> list[str]:
    names = dict.fromkeys(pair[side] for pair in values)
    means = {
        name: statistics.fmean(value for pair, value in values.items() if pair[side] == name)
        for name in names
    }
    return sorted(names, key=lambda name: -means[name])


def _shades() -> ListedColormap:
    from matplotlib.colors import ListedColormap, to_rgba

    return ListedColormap([to_rgba(BLUE, a) for a in np.linspace(_FAINTEST, _STRONGEST, 64)])


def _write_numbers(axes: Axes, grid: np.ndarray, decimals: int) -> None:
    best = np.nanmax(grid)
    for (row, column), value in np.ndenumerate(grid):
        known = np.isfinite(value)
        axes.text(
            column + 0.5, row + 0.5, f"{value:.{decimals}f}" if known else "–", ha="center",
            va="center", size=8.5, color=INK if known else MUTED,
            weight="bold" if value == best else "normal",
        )  # fmt: skip


def _name_cells(
    axes: Axes, rows: Sequence[str], columns: Sequence[str], size: float, slant: float
) -> None:
    tall, wide = ([shortened(name, 32) for name in names] for names in (rows, columns))
    axes.set_yticks(np.arange(len(tall)) + 0.5, tall, size=size, family=_name_font(tall))
    axes.set_xticks(
        np.arange(len(wide)) + 0.5, wide, size=size, family=_name_font(wide), rotation=slant,
        ha="right", rotation_mode="anchor",
    )  # fmt: skip
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _layer_panel(axes: Axes, title: str, lines: Mapping[str, Sequence[LayerScore]]) -> None:
    best = sorted(lines.items(), key=lambda item: -max(score.value for score in item[1]))
    layers = {score.layer for _, scores in best for score in scores}
    numbers = sorted(layer for layer in layers if layer is not None)
    # As far beyond the last layer as the layers are from each other.
    output = max(numbers, default=0) + min((b - a for a, b in pairwise(numbers)), default=1)
    for index, (label, scores) in enumerate(best[:_MOST_LINES]):
        colour, marker, filled = MARKS[index % len(MARKS)]
        ordered = sorted(scores, key=lambda s: output if s.layer is None else s.layer)
        shift = 0.06 * (index - (min(len(best), _MOST_LINES) - 1) / 2)
        axes.errorbar(
            [(output if s.layer is None else s.layer) + shift for s in ordered],
            [s.value for s in ordered],
            yerr=[[s.value - s.low for s in ordered], [s.high - s.value for s in ordered]],
            color=colour, marker=marker, markersize=5, mfc=colour if filled else PAPER,
            linestyle="-" if index < len(MARKS) else "--", linewidth=1.3, elinewidth=0.8,
            capsize=2.5, label=shortened(label),
        )  # fmt: skip
    shown = f" (best {_MOST_LINES} of {len(best)})" if len(best) > _MOST_LINES else ""
    axes.set_title(f"{shortened(title, 56)}{shown}")
    _layer_ticks(axes, numbers, output if None in layers else None)
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.legend(frameon=False, prop={"family": _name_font(list(lines)), "size": 8.5})


def _layer_ticks(axes: Axes, numbers: Sequence[int], output: int | None) -> None:
    step = -(-len(numbers) // 13)
    kept = list(numbers)[::-1][::step][::-1] if numbers else []
    ticks: dict[int, str] = {layer: str(layer) for layer in kept}
    if output is not None:
        ticks[output] = "output"
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel("layer")


def _name_font(names: Sequence[str]) -> list[str]:
    return ["DejaVu Sans", *families(names)]
