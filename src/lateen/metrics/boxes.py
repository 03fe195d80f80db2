"""Boxes in answers: read from text, and how much two of them overlap."""

from __future__ import annotations

import re

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?|-?\.\d+")
_BRACKETS = re.compile(r"[\[(<]([^\[\]()<>]*)[\])>]")


def parse_box(answer: str) -> Box | None:
    """The first box that an answer has; ``None`` if it has none.

    Four numbers within brackets, ``[x1, y1, x2, y2]`` or two points ``(x1, y1), (x2, y2)``; without
    brackets the answer must have four numbers and no more. The corners may be any two opposite
    ones.

    >>> parse_box("It is at [0.1, 0.2, 0.5, 0.6]."), parse_box("somewhere")
    ((0.1, 0.2, 0.5, 0.6), None)
    """
    groups = [_NUMBER.findall(inner) for inner in _BRACKETS.findall(answer)]
    fours = [group for group in groups if len(group) == 4]
    points = [group for group in groups if len(group) == 2]
    bare = _NUMBER.findall(answer)
    if fours:
        numbers = fours[0]
    elif len(points) >= 2:
        numbers = points[0] + points[1]
    elif len(bare) == 4 and not any(groups):
        numbers = bare
    else:
        return None
    x1, y1, x2, y2 = map(float, numbers)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def as_fractions(box: Box, width: int, height: int) -> Box:
    """A box in fractions of the image's sides.

    One that has no number above 1 is in fractions already; else it is in pixels.

    Args:
        box: in fractions or pixels.
        width: of the image in pixels.
        height: likewise.
    """
    if max(box) <= 1:
        return box
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1; 0 where neither has an area."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    both = max(width, 0.0) * max(height, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return both / (areas - both) if areas > both else 0.0
