"""What the demo's pictures show: up to three coloured shapes on a soft background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "crescent")
COLOURS = {
    "red": (214, 40, 40),
    "orange": (244, 128, 28),
    "yellow": (250, 211, 30),
    "green": (46, 158, 68),
    "turquoise": (38, 198, 196),
    "blue": (42, 82, 210),
    "purple": (134, 58, 192),
    "pink": (250, 128, 186),
}
BACKGROUNDS = {
    "sand": (236, 219, 190),
    "mint": (203, 232, 214),
    "lilac": (221, 210, 238),
    "sky": (196, 219, 243),
    "mist": (222, 224, 228),
    "night": (38, 40, 62),
}


# Each shape misses two colours and each colour misses two shapes, so that nothing but the
# combination is new: every shape and every colour is seen with six others.
HELD_OUT = frozenset(
    (shape, list(COLOURS)[(i + step) % len(COLOURS)])
    for i, shape in enumerate(SHAPES)
    for step in (0, 3)
)
ALL = frozenset((shape, colour) for shape in SHAPES for colour in COLOURS)
SEEN = ALL - HELD_OUT
Size = Literal["small", "big"]
Relation = Literal["left of", "right of", "above", "below"]
_RADIUS: dict[Size, tuple[float, float]] = {"small": (0.085, 0.105), "big": (0.165, 0.205)}
_GAP = 0.03


# A square or cross turned by 45° is a diamond or an X: turns stay where the name is right.
_MAX_TURN = {"square": 20, "triangle": 25, "heart": 25, "cross": 20, "crescent": 40, "star": 36}


@dataclass(frozen=True)
class Thing:
    """One shape. Lengths are shares of the picture's side; ``angle`` is in radians."""

    shape: str
    colour: str
    size: Size
    x: float
    y: float
    radius: float
    angle: float

    def relation(self, other: Thing) -> Relation:
        """Where this thing is, seen from ``other``, along the axis on which they differ most."""
        dx, dy = self.x - other.x, self.y - other.y
        if abs(dx) > abs(dy):
            return "left of" if dx < 0 else "right of"
        return "above" if dy < 0 else "below"


@dataclass(frozen=True)
class Scene:
    """One picture: what is on it, and the seed of everything that captions do not mention."""

    name: str
    background: str
    things: tuple[Thing, ...]
    seed: tuple[int, ...]


def random_scene(
    name: str,
    seed: tuple[int, ...],
    combinations: frozenset[tuple[str, str]],
    count: int | None = None,
) -> Scene:
    """A scene whose shape and colour pairs come from ``combinations``.

    Args:
        name: what the scene's file will be called, without its ending.
        seed: the same seed gives the same scene.
        combinations: (shape, colour) pairs to choose from.
        count: how many things; ``None`` for one to three.
    """
    rng = np.random.default_rng(seed)
    pairs = sorted(combinations)
    count = count or int(rng.choice([1, 2, 3], p=[0.25, 0.45, 0.3]))
    things: list[Thing] = []
    while len(things) < count:
        shape, colour = pairs[rng.integers(len(pairs))]
        if any((shape, colour) == (t.shape, t.colour) for t in things):
            continue
        thing = _place(rng, shape, colour, things)
        # A crowded start can leave no room: start again rather than search for long.
        things = [*things, thing] if thing else []
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    return Scene(name, background, tuple(things), seed)


def _place(rng: np.random.Generator, shape: str, colour: str, others: list[Thing]) -> Thing | None:
    size: Size = "small" if rng.random() < 0.5 else "big"
    radius = rng.uniform(*_RADIUS[size])
    turn = math.radians(_MAX_TURN.get(shape, 0))
    angle = rng.uniform(-turn, turn)
    for _ in range(20):
        x, y = rng.uniform(radius + _GAP, 1 - radius - _GAP, size=2)
        if all(math.hypot(x - t.x, y - t.y) > radius + t.radius + _GAP for t in others):
            return Thing(shape, colour, size, float(x), float(y), float(radius), float(angle))
    return None
