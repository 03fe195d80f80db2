"""What classes are taken for: a confusion matrix, and the pairs that are confused most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import UsageError
from lateen.report.palette import BLUE, INK, MUTED, ORANGE, PAPER
from lateen.report.plots import laid_out, quiet_style, shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure


_MOST_NUMBERED = 25  # classes, with a number in every cell
_MOST_DRAWN = 60  # classes of a matrix whose cells and names can still be told apart
_MOST_PAIRS = 30
_FAINTEST, _STRONGEST = 0.12, 0.75  # opacity, from 0 to 100 %


def confusion_plot(
    names: Sequence[str],
    counts: Sequence[Sequence[int]] | np.ndarray[Any, Any],
    pairs: Sequence[Mapping[str, Any]],
) -> Figure:
    """A confusion matrix in percent of each row's images; the pairs confused most as a table.

    Up to 25 classes there is the matrix with its numbers, up to 60 the matrix and the table, beyond
    that the table alone. What is right is blue, what is wrong orange. Pairs of a single image say
    nothing of the classes and are not in the table.

    Args:
        names: of the classes.
        counts: ``[c, c]`` images, rows the right class.
        pairs: as :func:`lateen.metrics.most_confused` gives them; 30 are shown.

    Raises:
        UsageError: there is no class.
    """
    grid = np.asarray(counts, dtype=float)
    if not len(names) or grid.shape != (len(names), len(names)):
        raise UsageError(
            f"{len(names)} names do not fit counts of shape {list(grid.shape)}",
            "Give a confusion matrix, and a name for every class.",
        )
    listed = [pair for pair in pairs if pair["images"] > 1][:_MOST_PAIRS]
    if len(names) <= _MOST_NUMBERED:
        listed = []
    with quiet_style():
        from matplotlib.figure import Figure

        if len(names) > _MOST_DRAWN:
            figure = Figure(figsize=(7.6, _table_height(listed)), layout="constrained")
            _draw_pairs(figure.subplots(), listed)
            return laid_out(figure)
        numbered = len(names) <= _MOST_NUMBERED
        side = (0.36 if numbered else 0.135) * len(names)
        size = (max(4.6, side + 2.3), max(3.2, side + 1.9))
        figure = Figure(
            figsize=(size[0] + (6.6 if listed else 0), max(size[1], _table_height(listed))),
            layout="constrained",
        )
        axes = figure.subplots(1, 2 if listed else 1, squeeze=False, width_ratios=(
            [size[0], 6.6] if listed else None))[0]  # fmt: skip
        _draw_matrix(axes[0], names, grid, numbered=numbered)
        if listed:
            _draw_pairs(axes[1], listed)
        return laid_out(figure)


def _table_height(pairs: Sequence[Mapping[str, Any]]) -> float:
    return 1.0 + 0.24 * len(pairs)


def _draw_matrix(
    axes: Axes, names: Sequence[str], grid: np.ndarray[Any, Any], *, numbered: bool
) -> None:
    images = grid.sum(axis=1, keepdims=True)
    percent = 100 * grid / np.maximum(images, 1)
    right = np.eye(len(names), dtype=bool)
    for hidden, colour in ((~right, BLUE), (right, ORANGE)):
        axes.pcolormesh(
            np.ma.masked_where(hidden | (grid == 0), percent), cmap=_shades(colour), vmin=0,
            vmax=100, rasterized=not numbered, edgecolors=PAPER if numbered else "none",
            linewidth=1.2 if numbered else 0,
        )  # fmt: skip
    if numbered:
        for (row, column), value in np.ndenumerate(percent):
            if grid[row, column]:
                axes.text(
                    column + 0.5, row + 0.52, f"{value:.0f}", ha="center", va="center", size=8,
                    color=INK,
                )  # fmt: skip
    axes.invert_yaxis()
    axes.set_aspect("equal")
    shown = [shortened(name, 26) for name in names]
    size = 8.5 if numbered else 6
    font = ["DejaVu Sans", *families(shown)]
    places = np.arange(len(shown)) + 0.5
    axes.set_yticks(places, shown, size=size, family=font)
    axes.set_xticks(
        places, shown, size=size, family=font, rotation=90 if not numbered else 45, ha="right",
        va="center" if not numbered else "top", rotation_mode="anchor",
    )  # fmt: skip
    axes.set_ylabel("class")
    axes.set_xlabel("taken for")
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("percent of each class's images")


def _draw_pairs(axes: Axes, pairs: Sequence[Mapping[str, Any]]) -> None:
    labels = [f"{shortened(p['class'], 30)} → {shortened(p['taken_for'], 30)}" for p in pairs]
    values = [p["percent"] for p in pairs]
    axes.barh(range(len(pairs)), values, height=0.62, color=BLUE, alpha=0.75)
    for place, pair in enumerate(pairs):
        axes.text(
            pair["percent"] + 1.2, place, f"{pair['percent']:.0f} %  ({pair['images']:,})",
            va="center", size=8, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels, size=8.5, family=["DejaVu Sans", *families(labels)])
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.set_xlim(0, 118)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("share of the class's images (and how many)")
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(
        "class → what it is taken for, most often first"
        if pairs
        else "no two images of a class were taken for one and the same other class"
    )


def _shades(colour: str) -> ListedColormap:
    from matplotlib.colors import ListedColormap, to_rgba

    return ListedColormap(
        [to_rgba(colour, opacity) for opacity in np.linspace(_FAINTEST, _STRONGEST, 64)]
    )
