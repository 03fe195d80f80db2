"""Which images and which of their captions each step sees: a pure function of seed and step.

Nothing random is kept between steps, so that a resumed run needs no generator state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.align.seeding import Stream, generator
from lateen.progress import log
from lateen.store import Pairs

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Batch:
    """Features of one step.

    Attributes:
        image: ``[B, image dim]``, float32.
        texts: tensors ``[B, text dim]``, float32; row i of each describes image i.
    """

    image: Tensor
    texts: list[Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(self.image.to(device), [text.to(device) for text in self.texts])


class BatchPlan:
    """The batches of a whole training run, by step.

    An epoch sees every image once, in an order of its own. It is split into
    ``ceil(images / batch)`` batches whose sizes differ by one at most: none is larger than asked,
    none smaller than half of it, and no image is left out.

    The captions of an image are taken in turn from a random start, so that over consecutive epochs
    each is used once before any is used again. With several per step they are distinct as far as
    the image has that many.

    Args:
        pairs: the training data.
        batch: images per step at most; the whole data where it has fewer.
        epochs: passes over the images.
        captions_per_image: captions drawn per image, column and step.
        seed: another seed, another order.

    Attributes:
        steps_per_epoch: batches of one epoch.
        steps: batches of all epochs.
    """

    def __init__(
        self, pairs: Pairs, *, batch: int, epochs: int, captions_per_image: int, seed: int
    ) -> None:
        if batch > len(pairs):
            log.info("batch %d is more than the data: each step sees all %d images",
                        batch, len(pairs))  # fmt: skip
        self.steps_per_epoch = math.ceil(len(pairs) / batch)
        self.steps = epochs * self.steps_per_epoch
        self._pairs = pairs
        self._captions = captions_per_image
        self._seed = seed
        self._counts = [texts.counts for texts in pairs.texts]
        self._starts = [
            generator(seed, Stream.CAPTIONS, column).integers(0, counts)
            for column, counts in enumerate(self._counts)
        ]
        self._order_of = -1, np.empty(0, np.int64)

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step, from 0, belongs to."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> Array:
        """Positions ``[B]`` of the images of a step, from 0."""
        parts = np.array_split(self._order(self.epoch(step)), self.steps_per_epoch)
        return parts[step % self.steps_per_epoch]

    def picks(self, step: int) -> list[tuple[int, Array]]:
        """(column, which caption of each image ``[B]``) of every text tensor of a step, from 0."""
        samples = self.samples(step)
        first = self.epoch(step) * self._captions
        return [
            (column, (starts[samples] + turn) % counts[samples])
            for column, (starts, counts) in enumerate(zip(self._starts, self._counts, strict=True))
            for turn in range(first, first + self._captions)
        ]

    def batch(self, step: int) -> Batch:
        """Read the features of a step, from 0."""
        samples = self.samples(step)
        return Batch(
            self._pairs.image_features(samples),
            [self._pairs.text_features(c, samples, pick) for c, pick in self.picks(step)],
        )

    def _order(self, epoch: int) -> Array:
        if self._order_of[0] != epoch:
            order = generator(self._seed, Stream.ORDER, epoch).permutation(len(self._pairs))
            self._order_of = epoch, order
        return self._order_of[1]
