"""Dense prediction by a sliding window: a large image scored in overlapping squares."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence

import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from torch.nn import functional as F

_BATCH = 8  # windows in a forward pass
_CLASSES = 16  # held at the size of the mask at a time: a photograph may have many pixels
_LONGEST_ASPECT = 16


def resize_short_side(image: Image, short_side: int) -> Image:
    """``image`` with its shorter side ``short_side`` pixels long, bicubic, in its proportions.

    Raises:
        ValueError: it is over 16 times as long as wide.
    """
    width, height = image.size
    if max(width, height) > _LONGEST_ASPECT * min(width, height):
        raise ValueError(f"aspect ratio {width}:{height} is beyond {_LONGEST_ASPECT}:1")
    scale = short_side / min(width, height)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return image if size == image.size else image.resize(size, Resampling.BICUBIC)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, the last one flush with its end.

    >>> window_starts(597, 448, 224)
    [0, 149]
    """
    last = max(0, length - window)
    count = math.ceil(last / stride) + 1
    return [min(index * stride, last) for index in range(count)]


def sliding_logits(
    image: Image, score: Callable[[Sequence[Image]], Tensor], *, window: int, stride: int
) -> Tensor:
    """Logits of every pixel: those of each window brought to its size, averaged where they overlap.

    Args:
        image: neither side shorter than ``window``.
        score: windows to logits ``[n, classes, rows, columns]``.
        window: edge of a window in pixels.
        stride: pixels from one window to the next.

    Returns:
        ``[classes, height, width]``, where the scores are.
    """
    places = [
        (left, top)
        for top in window_starts(image.height, window, stride)
        for left in window_starts(image.width, window, stride)
    ]
    total = covered = torch.zeros(())
    for start in range(0, len(places), _BATCH):
        batch = places[start : start + _BATCH]
        crops = [image.crop((left, top, left + window, top + window)) for left, top in batch]
        scores = _enlarged(score(crops), (window, window))
        if start == 0:
            total = scores.new_zeros(scores.shape[1], image.height, image.width)
            covered = scores.new_zeros(image.height, image.width)
        for (left, top), each in zip(batch, scores, strict=True):
            total[:, top : top + window, left : left + window] += each
            covered[top : top + window, left : left + window] += 1
    return total / covered


def predict(
    logits: Tensor, size: tuple[int, int], background: float | None = None
) -> tuple[Tensor, Tensor]:
    """The class of every pixel of a mask, by the highest of the logits brought to its size.

    A pixel whose highest logit several classes share has no prediction: embeddings that have
    collapsed find nothing.

    Args:
        logits: ``[classes, height, width]``.
        size: height and width of the mask.
        background: the softmax probability below which the best class does not count.

    Returns:
        Class index per pixel ``[height, width]``, -1 without a prediction; and whether the best
        probability is below ``background``, likewise. Both on the CPU.
    """
    best = logits.new_full(size, -math.inf)
    total = logits.new_full(size, -math.inf)
    chosen = torch.zeros(size, dtype=torch.long, device=logits.device)
    tied = torch.zeros(size, dtype=torch.bool, device=logits.device)
    for start in range(0, len(logits), _CLASSES):
        part = _enlarged(logits[None, start : start + _CLASSES], size)[0]
        value, index = part.max(dim=0)
        shared = (part == value).sum(dim=0) > 1
        tied = torch.where(value > best, shared, tied | (value == best))
        chosen = torch.where(value > best, index + start, chosen)
        best = torch.maximum(best, value)
        if background is not None:
            total = torch.logaddexp(total, part.logsumexp(dim=0))
    unsure = torch.zeros_like(tied) if background is None else (best - total).exp() < background
    return chosen.masked_fill(tied | ~best.isfinite(), -1).cpu(), unsure.cpu()


def spread(count: int, wanted: int) -> frozenset[int]:
    """At most ``wanted`` of ``count`` places, evenly spread."""
    taken = min(count, wanted)
    return frozenset(round(i * (count - 1) / max(1, taken - 1)) for i in range(taken))


def picture_name(sample: str, taken: Collection[str]) -> str:
    """The file name of a sample's picture, with a number where it is ``taken``."""
    name = sample.replace("/", "-")
    numbered = (f"{name}-{number}.png" for number in itertools.count(2))
    return next(n for n in itertools.chain([f"{name}.png"], numbered) if n not in taken)


def _enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values.float(), size=size, mode="bilinear", align_corners=False)
