"""One image processor's pixels from another's, for towers that are given the same image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lateen.errors import EncoderError

_COLOURS = ((0, 0, 0), (255, 0, 0), (40, 255, 90), (128, 60, 255))
_SHAPES = ((320, 320), (480, 320), (320, 480))  # width and height: square, wide and tall
_SAME_VIEW = 0.03  # of an edge: what rounding and a resize's filter make of small images
_SAME_COLOUR = 1e-3


@dataclass(frozen=True)
class Pixels:
    """How an image processor makes pixel values of an image.

    Attributes:
        image_mean: of each channel, from 0 to 1.
        image_std: likewise.
        size: height and width that it gives.
        bicubic: whether it resizes so; else linearly.
        same_view: whether it shows the same of a photograph as the processor that it is held
            against.
    """

    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    size: tuple[int, int]
    bicubic: bool
    same_view: bool = field(default=True, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Pixels:
        """What :meth:`as_dict` gives, back.

        Args:
            values: of it.
        """
        known: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in values.items()
        }
        return cls(**known)


def describe_pixels(processor: Any, size: tuple[int, int], name: str) -> Pixels:
    """What a processor does to colours, as it says and as pictures of one colour show.

    Args:
        processor: of images.
        size: height and width that it gives.
        name: whose it is, for people.

    Raises:
        EncoderError: it does more to them than to subtract a mean and divide by a deviation.
    """
    scaled = bool(getattr(processor, "do_normalize", False))
    mean = tuple(map(float, processor.image_mean)) if scaled else (0.0,) * 3
    std = tuple(map(float, processor.image_std)) if scaled else (1.0,) * 3
    settings = Pixels(mean, std, size, getattr(processor, "resample", None) == 3)
    pictures = [Image.new("RGB", (320, 320), colour) for colour in _COLOURS]
    given = _unit(_processed(processor, pictures), settings)
    wanted = torch.tensor(_COLOURS)[:, :, None, None] / 255
    if float((given - wanted).abs().max()) > _SAME_COLOUR:
        raise EncoderError(
            f"the image processor of {name} does more to colours than to subtract a mean and "
            "divide by a deviation, so that its pixels cannot be made of another's",
            "Build it as the only tower.",
        )
    return settings


def convert(pixels: Tensor, first: Pixels, own: Pixels) -> Tensor:
    """The pixel values of one processor, made of another's.

    Args:
        pixels: ``[n, 3, H, W]``, that the first gives; of any size, which counts as its own.
        first: whose they are.
        own: whose they are to be.

    Returns:
        As they are where both are alike. Of another size they are resized with antialiasing.
    """
    if first == own:
        return pixels
    unit = _unit(pixels.float(), first)
    if first.size != own.size:
        given = zip(pixels.shape[2:], own.size, first.size, strict=True)
        size = [now * wanted // usual for now, wanted, usual in given]
        mode = "bicubic" if own.bicubic else "bilinear"
        unit = F.interpolate(unit, size, mode=mode, antialias=True).clamp(0, 1)
    return (unit - _channels(own.image_mean, unit)) / _channels(own.image_std, unit)


def views(processor: Any, settings: Pixels) -> list[tuple[float, float, float, float]]:
    """What part of a square, a wide and a tall picture a processor shows.

    It is seen from pictures whose red grows from left to right and whose green from top to bottom.

    Args:
        processor: of images.
        settings: its own.

    Returns:
        Of each the left, top, right and bottom edge, from 0 to 1 of the picture's.
    """
    found = []
    for width, height in _SHAPES:
        across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
        values = np.stack([across, down, 0 * down], axis=-1).round().astype(np.uint8)
        unit = _unit(_processed(processor, [Image.fromarray(values)]), settings)[0]
        (left, right), (top, bottom) = _edges(unit[0].mean(0)), _edges(unit[1].mean(1))
        found.append((left, top, right, bottom))
    return found


def other_view(
    first: tuple[Any, Pixels], own: tuple[Any, Pixels]
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """How much of a picture each of two processors shows, where it is not the same.

    Args:
        first: a processor and its settings.
        own: another.

    Returns:
        The shares of width and height that each shows of the first of a square, a wide and a tall
        picture that they show differently; ``None`` if there is no such.
    """
    for one, other in zip(views(*first), views(*own), strict=True):
        if max(abs(a - b) for a, b in zip(one, other, strict=True)) > _SAME_VIEW:
            return (one[2] - one[0], one[3] - one[1]), (other[2] - other[0], other[3] - other[1])
    return None


def _processed(processor: Any, pictures: list[Image.Image]) -> Tensor:
    values: Tensor = processor(images=pictures, return_tensors="pt")["pixel_values"]
    return values.float()


def _unit(pixels: Tensor, settings: Pixels) -> Tensor:
    """Pixel values as colours from 0 to 1."""
    return pixels * _channels(settings.image_std, pixels) + _channels(settings.image_mean, pixels)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)[:, None, None]


def _edges(ramp: Tensor) -> tuple[float, float]:
    """Where a ramp would begin and end: half a pixel before its first value, and after its last."""
    inner = ramp[1:-1]  # the outermost are bent by the resize's filter
    slope = float(inner[-1] - inner[0]) / (len(inner) - 1)
    return max(float(inner[0]) - 1.5 * slope, 0.0), min(float(inner[-1]) + 1.5 * slope, 1.0)
