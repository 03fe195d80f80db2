"""Scenes to pictures: anti-aliased shapes with a soft shadow on a pale gradient."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from lateen.demo.scene import BACKGROUNDS, COLOURS, Scene, Thing

SIDE = 160
_SUPERSAMPLING = 4
_SHADOW = 0.22
Array = npt.NDArray[np.floating[Any]]


def draw(scene: Scene) -> Image.Image:
    """The picture of ``scene``, RGB, ``SIDE`` × ``SIDE`` pixels; the same every time."""
    rng = np.random.default_rng((*scene.seed, 1))
    canvas = _background(scene.background, rng)
    for thing in scene.things:
        _draw_thing(canvas, thing, rng)
    canvas += rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * 2.5
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _background(name: str, rng: np.random.Generator) -> Array:
    base = np.array(BACKGROUNDS[name]) + rng.normal(0, 4, size=3)
    direction = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5
    slope = math.cos(direction) * x + math.sin(direction) * y
    cx, cy = rng.uniform(-0.4, 0.4, size=2)
    glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.18)
    light = 22 * slope + 10 * glow
    return np.asarray(base + light[..., None] * (1.0, 0.95, 0.85), dtype=np.float32)


def _draw_thing(canvas: Array, thing: Thing, rng: np.random.Generator) -> None:
    """Blend the thing's shadow and then the thing into ``canvas``, in place."""
    half = math.ceil(thing.radius * SIDE) + 4
    left, top = round(thing.x * SIDE) - half, round(thing.y * SIDE) - half
    mask = _mask(thing, half, thing.x * SIDE - left, thing.y * SIDE - top)
    alpha = np.asarray(mask, dtype=np.float32)[..., None] / 255
    blurred = mask.filter(ImageFilter.GaussianBlur(2.5))
    shadow = np.asarray(blurred, dtype=np.float32)[..., None] * (_SHADOW / 255)
    colour = np.array(COLOURS[thing.colour]) + rng.normal(0, 7, size=3)
    shading = np.linspace(1.1, 0.9, 2 * half, dtype=np.float32)[:, None, None]
    _blend(canvas, np.zeros(3), shadow, left + 1, top + 3)
    _blend(canvas, colour * shading, alpha, left, top)


def _blend(canvas: Array, colour: Array, alpha: Array, left: int, top: int) -> None:
    """``canvas = (1 - alpha) canvas + alpha colour`` where the window lies on the canvas."""
    height, width = alpha.shape[:2]
    rows = slice(max(-top, 0), min(SIDE - top, height))
    columns = slice(max(-left, 0), min(SIDE - left, width))
    window = canvas[max(top, 0) : top + height, max(left, 0) : left + width]
    paint = np.broadcast_to(colour, (height, width, 3))[rows, columns]
    window += alpha[rows, columns] * (paint - window)


def _mask(thing: Thing, half: int, x: float, y: float) -> Image.Image:
    """Coverage 0–255 of a thing with its centre at pixel (x, y) of a 2·half square."""
    scale = _SUPERSAMPLING
    large = Image.new("L", (2 * half * scale, 2 * half * scale))
    pen = ImageDraw.Draw(large)
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    for points, ink in zip(_outline(thing.shape), (255, 0), strict=False):
        turned = points @ np.array([[cos, sin], [-sin, cos]]) * (thing.radius * SIDE)
        pen.polygon((scale * (turned + np.array([x, y]))).ravel().tolist(), fill=ink)
    return large.reduce(scale)


@functools.cache
def _outline(shape: str) -> tuple[Array, ...]:
    """Polygon(s) of a shape in the unit circle, y downwards: its outline, then its hole."""
    match shape:
        case "circle":
            return (_arc(),)
        case "ring":
            return _arc(), _arc(radius=0.55)
        case "crescent":
            return _arc(), _arc(x=0.42, radius=0.8)
        case "square":
            return (0.86 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),)
        case "triangle":
            return (_spokes(3, 1.0) * 1.1 + (0, 0.2),)
        case "star":
            return (_spokes(5, 0.42) * 1.08,)
        case "cross":
            a, b = 0.95, 0.3
            quarter = np.array([(-b, -b), (-b, -a), (b, -a)])
            turn = np.array([[0, 1], [-1, 0]])
            return (np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)]),)
        case _:  # the heart curve of the text books, shrunk to the unit circle
            t = np.linspace(0, 2 * math.pi, 48)
            x = 16 * np.sin(t) ** 3
            y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
            return (np.stack([x, -y - 2], axis=1) / 16.5,)


def _arc(x: float = 0.0, radius: float = 1.0) -> Array:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    return np.stack([x + radius * np.cos(t), radius * np.sin(t)], axis=1)


def _spokes(count: int, inner: float) -> Array:
    """A star's outline, tips first at the top; ``inner`` = 1 gives the regular polygon."""
    k = np.arange(2 * count if inner < 1 else count)
    t = 2 * math.pi * k / len(k)
    radius = np.where(k % 2, inner, 1.0) if inner < 1 else np.ones(len(k))
    return np.stack([radius * np.sin(t), -radius * np.cos(t)], axis=1)
