"""Pictures over pictures, the classes of pixels and where a network attends to; which are shown."""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.report.palette import INK, MUTED
from lateen.report.plots import laid_out, quiet_style, shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


Array = np.ndarray[Any, Any]
_OPACITY = 0.62
_LEGEND = 24  # classes with a place in the legend
_PANEL = 3.6  # inches wide, less for images taller than
_TALLEST = 4.5
_GOLDEN = 0.61803398875  # of a turn: hues that never come close to the ones just before
_HEAT = "magma"


def spread(count: int, wanted: int) -> frozenset[int]:
    """At most ``wanted`` of ``count`` indices, evenly spread."""
    taken = min(count, wanted)
    return frozenset(round(i * (count - 1) / max(1, taken - 1)) for i in range(taken))


def picture_name(sample: str, taken: Collection[str]) -> str:
    """The file name of a sample's picture, with a number where it is ``taken``."""
    name = sample.replace("/", "-")
    numbered = (f"{name}-{number}.png" for number in itertools.count(2))
    return next(n for n in itertools.chain([f"{name}.png"], numbered) if n not in taken)


def class_colours(count: int) -> Array:
    """A colour for each class ``[count, 3]``, 0 to 1; an index has the same one in every picture.

    Neighbouring indices differ in hue, and each turn of hues has another lightness.
    """
    shades = ((0.75, 0.95), (0.9, 0.6), (0.4, 0.98))
    return np.array([
        colorsys.hsv_to_rgb(0.6 + index * _GOLDEN, *shades[index % 3]) for index in range(count)
    ])  # fmt: skip


def segmentation_overlay(
    image: Image, predicted: Array, truth: Array, names: Sequence[str], *, title: str = ""
) -> Figure:
    """The image, the predicted classes over it, and the true ones, with a legend.

    Args:
        image: RGB, of the proportions of the maps.
        predicted: class index per pixel ``[height, width]``; -1 where there is none.
        truth: likewise; pixels that are of no class here are left bare in both maps.
        names: of the classes.
        title: above the image.
    """
    colours = class_colours(len(names))
    with quiet_style():
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        counts = np.bincount(np.concatenate([m[m >= 0] for m in (predicted, truth)]))
        shown = np.argsort(-counts, kind="stable")[: min(_LEGEND, int((counts > 0).sum()))]
        wide = min(_PANEL, max(1.4, _TALLEST * image.width / image.height))
        columns = max(2, int(6 * wide / _PANEL))
        lines = -(-max(1, len(shown)) // columns)
        high = wide * image.height / image.width
        figure = Figure(figsize=(3 * wide, high + 0.35 + 0.25 * lines), layout="constrained")
        bare = truth < 0
        for panel, (heading, labels) in zip(
            figure.subplots(1, 3),
            ((title, None), ("predicted", predicted), ("true", truth)),
            strict=True,
        ):
            _picture(panel, image, shortened(heading, 44))
            if labels is not None:
                panel.imshow(_coloured(labels, bare, colours), extent=_extent(image))
        words = [shortened(names[index], 24) for index in shown]
        handles = [Patch(facecolor=(*colours[index], 0.9)) for index in shown]
        figure.legend(
            handles, words, loc="outside lower center", ncols=columns, frameon=False,
            labelcolor=INK, handlelength=1.1, prop={"family": ["DejaVu Sans", *families(words)]},
        )  # fmt: skip
        return laid_out(figure)


def attention_overlay(
    image: Array, maps: Array, *, title: str = "", heads: int = 4, note: str = ""
) -> Figure:
    """An image, its attention averaged over all heads, and that of a few heads alone.

    Each map has a scale of its own, from its lowest value (dark) to its highest (bright).

    Args:
        image: as the network sees it ``[height, width, 3]``, 0 to 1.
        maps: ``[all heads, rows, columns]``.
        title: above the image.
        heads: how many heads to show by themselves, evenly spread.
        note: below everything.
    """
    chosen = sorted(spread(len(maps), heads))
    panels = [("mean of heads", maps.mean(axis=0)), *[(f"head {i}", maps[i]) for i in chosen]]
    with quiet_style():
        from matplotlib.figure import Figure

        size = (1 + len(panels)) * 0.6 * _PANEL, 0.6 * _PANEL + 0.3 + (0.25 if note else 0)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, 1 + len(panels))
        _picture(axes[0], image, shortened(title, 27))
        for panel, (heading, values) in zip(axes[1:], panels, strict=True):
            _picture(panel, image.mean(axis=2), heading, cmap="gray", vmin=0, vmax=1)
            panel.imshow(values, cmap=_HEAT, alpha=0.72, interpolation="bilinear",
                         extent=_extent(image))  # fmt: skip
        if note:
            figure.supxlabel(note, fontsize=8.5, color=MUTED, x=0.01, ha="left")
        return laid_out(figure)


def _picture(panel: Axes, image: Any, heading: str, **options: Any) -> None:
    panel.imshow(image, extent=_extent(image), **options)
    panel.set_title(heading, family=["DejaVu Sans", *families([heading])])
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_visible(False)


def _extent(image: Any) -> tuple[float, float, float, float]:
    height, width = np.asarray(image).shape[:2]
    return (0, width, height, 0)


def _coloured(labels: Array, bare: Array, colours: Array) -> Array:
    """RGBA ``[height, width, 4]``: nothing where there is no class, and black where none was
    found."""
    rgba = np.zeros((*labels.shape, 4))
    rgba[..., 3] = _OPACITY
    found = labels >= 0
    rgba[found, :3] = colours[labels[found]]
    rgba[bare, 3] = 0
    return rgba
