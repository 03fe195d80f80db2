"""Labels beside the points of a plot, free of each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lateen.report.palette import INK, MUTED
from lateen.report.plots import shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MARK = 4.5  # points from the centre of a mark to its edge
_REACHES = (7, 18, 32)  # points between a mark and its label; beyond the first, with a line
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
Spot = tuple[float, float]
Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


class _Place(NamedTuple):
    box: Box
    near: Spot  # of its edge, the spot nearest to the mark
    leader: list[Box]


def label_points(
    axes: Axes,
    points: Sequence[tuple[str, float, float]],
    line: Sequence[tuple[float, float]] = (),
    most: int = 25,
) -> None:
    """Write the labels of points beside them, so that none covers a point or another label.

    Greedily: every label at the first of its places that is free, else nowhere.

    Args:
        axes: where the points are drawn; its layout is final.
        points: (label, x, y), the most important first.
        line: two points of a line that labels cross only where there is no other place.
        most: how many of the points are labelled.
    """
    pixels = axes.figure.dpi / 72
    marks = [_pixel(axes, (x, y)) for _, x, y in points]
    taken = [_around(mark, _MARK * pixels) for mark in marks]
    crossed = _along(_pixel(axes, line[0]), _pixel(axes, line[-1])) if line else []
    for (label, x, y), mark in list(zip(points, marks, strict=True))[:most]:
        text = axes.annotate(
            shortened(label, 36), (x, y), (0, 0), textcoords="offset points", size=8, color=INK,
            family=["DejaVu Sans", *families([label])], zorder=4,
        )  # fmt: skip
        extent = text.get_window_extent()
        places = [*_places(mark, extent.width, extent.height, pixels)]
        frame: Box = axes.bbox.extents
        place = _first_free(places, [*taken, *crossed], frame) or _first_free(places, taken, frame)
        if place is None:
            text.remove()
            continue
        taken += [place.box, *place.leader]
        text.set_position(((place.box[0] - mark[0]) / pixels, (place.box[1] - mark[1]) / pixels))
        text.set_verticalalignment("bottom")
        if place.leader:
            ends = axes.transData.inverted().transform([mark, place.near])
            axes.plot(*zip(*ends, strict=True), color=MUTED, linewidth=0.6, zorder=2,
                      scalex=False, scaley=False)  # fmt: skip


def _places(mark: Spot, width: float, height: float, pixels: float) -> Iterator[_Place]:
    """Where a label may go around its mark, nearest first."""
    for reach in _REACHES:
        for across, up in _SIDES:
            far = reach * pixels * (0.75 if across and up else 1.0)
            near = (mark[0] + across * far, mark[1] + up * far)
            x, y = near[0] + (across - 1) * width / 2, near[1] + (up - 1) * height / 2
            leader = []
            if reach > _REACHES[0]:
                clear = (_MARK + 1) * pixels / far  # of its own mark, which is no obstacle
                start = tuple(m + clear * (n - m) for m, n in zip(mark, near, strict=True))
                leader = _along((start[0], start[1]), near, 8)[:-1]
            yield _Place((x, y, x + width, y + height), near, leader)


def _first_free(places: Sequence[_Place], taken: Sequence[Box], frame: Box) -> _Place | None:
    for place in places:
        parts = [place.box, *place.leader]
        clear = not any(_overlap(part, other) for part in parts for other in taken)
        if _inside(place.box, frame) and clear:
            return place
    return None


def _pixel(axes: Axes, spot: Spot) -> Spot:
    x, y = axes.transData.transform(spot)
    return float(x), float(y)


def _around(spot: Spot, reach: float) -> Box:
    return spot[0] - reach, spot[1] - reach, spot[0] + reach, spot[1] + reach


def _along(start: Spot, end: Spot, parts: int = 120) -> list[Box]:
    """Small boxes along a line."""
    shares = [part / parts for part in range(parts + 1)]
    spots = [
        (start[0] + s * (end[0] - start[0]), start[1] + s * (end[1] - start[1])) for s in shares
    ]
    return [_around(spot, 0.5) for spot in spots]


def _inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
