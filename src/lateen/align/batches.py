"""Which images and which of their captions each step sees: a pure function of seed and step.

Nothing random is kept between steps, so that a resumed run needs no generator state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateen.align.place import Place
from lateen.align.ranks import ALONE, Ranks
from lateen.align.seeding import Stream, generator
from lateen.progress import log
from lateen.store import Pairs

IN_MEMORY = 256 * 2**20  # bytes of features; up to this they are held in memory
_READ = 2**20  # bytes; smaller reads fall behind a disk's sequential rate
_BLOCKS = 64  # to a batch at least, so that few of an image's companions are its neighbours

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Part:
    """What this process reads at a time: its share of a step's batch, or a micro-batch of it.

    Attributes:
        samples: positions ``[n]`` of the images.
        picks: (column, which caption of each image ``[n]``) of every text tensor.
        place: of these rows in the whole batch.
    """

    samples: Array
    picks: list[tuple[int, Array]]
    place: Place


class BatchPlan:
    """The batches of a whole training run, by step.

    An epoch sees every image once, in an order of its own. It is split into
    ``ceil(images / batch)`` batches whose sizes differ by one at most: none is larger than asked,
    none smaller than half of it, and no image is left out.

    The order is random by blocks of neighbours in the store, cut anew in every epoch; blocks of
    one give every order the same chance. Neighbours of one block meet in one batch, and so are
    each other's negatives: the smaller the blocks, the less the order of the store matters.

    The captions of an image are taken in turn from a random start, so that over consecutive epochs
    each is used once before any is used again. With several per step they are distinct as far as
    the image has that many.

    Args:
        pairs: the training data.
        batch: images per step at most, over all processes; the whole data where it has fewer.
        epochs: passes over the images.
        captions_per_image: captions drawn per image, column and step.
        seed: another seed, another order.
        block: neighbours kept together; by default 1 for data that is held in memory, else as many
            as make a read of 1 MiB, but at most a 64th of a batch.
        micro_batch: images of a part at most; by default a process's whole share of a batch.
        ranks: the processes that share the batches.

    Attributes:
        steps_per_epoch: batches of one epoch.
        steps: batches of all epochs.
        block: neighbours kept together.
    """

    def __init__(
        self,
        pairs: Pairs,
        *,
        batch: int,
        epochs: int,
        captions_per_image: int,
        seed: int,
        block: int | None = None,
        micro_batch: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        if batch > len(pairs):
            log.info("batch %d is more than the data: each step sees all %d images",
                        batch, len(pairs))  # fmt: skip
        self.steps_per_epoch = math.ceil(len(pairs) / batch)
        self.steps = epochs * self.steps_per_epoch
        self.block = block or default_block(pairs, batch)
        self._pairs = pairs
        self._captions = captions_per_image
        self._seed = seed
        self._micro = micro_batch
        self._ranks = ranks
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
        """Positions ``[B]`` of the images of a step, from 0, of all processes."""
        parts = np.array_split(self._order(self.epoch(step)), self.steps_per_epoch)
        return parts[step % self.steps_per_epoch]

    def parts(self, step: int) -> list[Part]:
        """What this process reads of a step, from 0; empty if its share of the batch is."""
        samples = self.samples(step)
        return [self._part(step, samples, rows) for rows in self._divided(len(samples))]

    def count(self, step: int) -> int:
        """How many :meth:`parts` a step, from 0, has."""
        return len(self._divided(len(self.samples(step))))

    def _divided(self, batch: int) -> list[slice]:
        """This process's share of a batch's rows, by micro-batch."""
        share = self._ranks.share(batch)
        size = self._micro or batch
        return [
            slice(first, min(first + size, share.stop))
            for first in range(share.start, share.stop, size)
        ]

    def _part(self, step: int, samples: Array, rows: slice) -> Part:
        mine = samples[rows]
        first = self.epoch(step) * self._captions
        picks = [
            (column, (starts[mine] + turn) % counts[mine])
            for column, (starts, counts) in enumerate(zip(self._starts, self._counts, strict=True))
            for turn in range(first, first + self._captions)
        ]
        place = Place(self._seed, step, rows.start, len(mine), ranks=self._ranks)
        return Part(mine, picks, place)

    def _order(self, epoch: int) -> Array:
        if self._order_of[0] != epoch:
            random = generator(self._seed, Stream.ORDER, epoch)
            self._order_of = epoch, shuffled(len(self._pairs), self.block, random)
        return self._order_of[1]


def shuffled(count: int, block: int, random: np.random.Generator) -> Array:
    """``0 … count - 1`` in random order by blocks of neighbours.

    The first block is shorter by a random number, so that blocks begin elsewhere in every order.

    Args:
        count: of positions.
        block: neighbours that stay together.
        random: where the order comes from.
    """
    if block == 1:
        return random.permutation(count)
    first = int(random.integers(1, block + 1))
    starts = np.concatenate([[0], np.arange(first, count, block)])
    starts = starts[starts < count]
    lengths = np.diff(starts, append=count)
    order = random.permutation(len(starts))
    before = np.cumsum(lengths[order]) - lengths[order]
    positions: Array = np.arange(count) + np.repeat(starts[order] - before, lengths[order])
    return positions


def feature_bytes(pairs: Pairs) -> int:
    """Size of all features that training on ``pairs`` reads."""
    return sum(len(rows) * store.dim * store.dtype.itemsize for store, rows in pairs.sources)


def default_block(pairs: Pairs, batch: int) -> int:
    """Neighbours to read together: a function of data and batch alone, so that results are too."""
    if feature_bytes(pairs) <= IN_MEMORY:
        return 1
    of_a_read = _READ // (pairs.image.dim * pairs.image.dtype.itemsize)
    return max(1, min(of_a_read, batch // _BLOCKS))
