"""Which images and captions each step sees.

Batches are a pure function of seed and step: nothing random is kept between steps, so that a
resumed run needs no generator state.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lateen.errors import TrainingError
from lateen.features import Pairs, Store
from lateen.progress import log
from lateen.training.config import LoopSection
from lateen.training.ranks import ALONE, Ranks

_GROUP = 256  # rows whose noise is drawn together
IN_MEMORY = 256 * 2**20  # bytes of features; up to this they are held in memory
_READ = 2**20  # bytes; smaller reads fall behind a disk's sequential rate
_BLOCKS = 64  # to a batch at least, so that few of an image's companions are its neighbours
Array = np.ndarray[Any, Any]
P = TypeVar("P", bound="BatchPart")


@dataclass(frozen=True)
class BatchRows:
    """The rows ``first`` to ``first + count`` of a step's batch, that of all processes.

    Dropout's noise and batch statistics go by it, so that dividing a batch changes nothing.

    Attributes:
        seed: of the training.
        step: from 0.
        first: position of the first row.
        count: how many.
        columns: how many texts each of these rows stands for, one block below the other.
        side: 0 for images, 1 for texts.
        ranks: the processes that share the batch.
    """

    seed: int
    step: int
    first: int
    count: int
    columns: int = 1
    side: int = 0
    ranks: Ranks = ALONE

    def texts(self, columns: int) -> BatchRows:
        """The same rows on the text side."""
        return replace(self, columns=columns, side=1)

    def noise(self, layer: int, width: int, device: torch.device) -> Tensor:
        """Random bytes ``[columns · count, width]``, the same whatever else is drawn, and however
        the batch is divided.

        Args:
            layer: different layers, different bytes.
            width: bytes per row.
            device: CPU and CUDA draw different bytes.
        """
        begin, end = self.first // _GROUP, -(-(self.first + self.count) // _GROUP)
        skip = self.first - begin * _GROUP
        blocks = []
        for column in range(self.columns):
            groups = [self._group((layer, column, g), width, device) for g in range(begin, end)]
            blocks.append(torch.cat(groups)[skip : skip + self.count])
        return torch.cat(blocks)

    def _group(self, key: tuple[int, ...], width: int, device: torch.device) -> Tensor:
        entropy = [self.seed, Stream.DROPOUT, self.step, self.side, *key]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        generator = torch.Generator(device).manual_seed(seed)
        # Eight bytes at a draw: on a CPU that is ten times as fast as drawing each.
        words = torch.empty(-(-_GROUP * width // 8), dtype=torch.int64, device=device)
        words.random_(-(2**63), None, generator=generator)
        return words.view(torch.uint8)[: _GROUP * width].view(_GROUP, width)


class Stream(IntEnum):
    """What random numbers are drawn for; each has a sequence of its own."""

    WEIGHTS = 0
    ORDER = 1
    CAPTIONS = 2
    DROPOUT = 3
    UNPAIRED = 4
    VIEWS = 7  # of images, cropped and mirrored


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """A NumPy generator for one epoch, column or step of a stream."""
    return np.random.default_rng([seed, stream, index])


@contextlib.contextmanager
def seeded(
    seed: int, stream: Stream, index: int = 0, *, device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's own generators (CPU and ``device``) for the block, and restore them after it."""
    value = int(generator(seed, stream, index).integers(2**63))
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_cuda else []):
        torch.default_generator.manual_seed(value)
        if on_cuda:
            torch.cuda.manual_seed(value)
        yield


@dataclass(frozen=True)
class Part:
    """What this process reads at a time: its share of a step's batch, or a micro-batch of it.

    Attributes:
        samples: positions ``[n]`` of the images.
        picks: (column, which caption of each image ``[n]``) of every text tensor.
        rows: where they lie in the whole batch.
        unpaired: positions, below those, of unpaired images and, for every text tensor, of as many
            unpaired texts; none of what is left out.
    """

    samples: Array
    picks: list[tuple[int, Array]]
    rows: BatchRows
    unpaired: list[Array] = field(default_factory=list)


class UnpairedRows(Protocol):
    """Images and texts that do not belong together, some of which each step has below its pairs."""

    @property
    def sources(self) -> list[tuple[Store, Array]]:
        """Stores of images and of texts, each with the rows of it that are used."""

    @property
    def size(self) -> int:
        """How many images a step has, and how many texts in every tensor."""

    def positions(self, step: int) -> list[Array]:
        """Positions ``[size]`` in the sources of a step's images, and of every text tensor's."""


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
        unpaired: what is in every batch below its pairs.

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
        unpaired: UnpairedRows | None = None,
    ) -> None:
        if batch > len(pairs):
            log.info("batch %d is more than the data: each step sees all %d images",
                        batch, len(pairs))  # fmt: skip
        self.steps_per_epoch = math.ceil(len(pairs) / batch)
        self.steps = epochs * self.steps_per_epoch
        self.block = block or default_block(pairs.sources, batch)
        self._pairs = pairs
        self._captions = captions_per_image
        self._seed = seed
        self._micro = micro_batch
        self._ranks = ranks
        self._unpaired = unpaired
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
        unpaired = self._unpaired.positions(step) if self._unpaired else []
        return [self._part(step, samples, unpaired, part) for part in self._divided(len(samples))]

    def rows(self, step: int) -> list[BatchRows]:
        """Where the :meth:`parts` of a step, from 0, lie in its batch."""
        divided = self._divided(len(self.samples(step)))
        return [self._rows(step, part.start, part.stop - part.start) for part in divided]

    def _divided(self, pairs: int) -> list[slice]:
        """This process's share of a batch's rows, by micro-batch."""
        batch = pairs + (self._unpaired.size if self._unpaired else 0)
        share = self._ranks.share(batch)
        size = self._micro or batch
        return [
            slice(first, min(first + size, share.stop))
            for first in range(share.start, share.stop, size)
        ]

    def _part(self, step: int, samples: Array, unpaired: list[Array], part: slice) -> Part:
        chosen = samples[part]
        below = slice(max(0, part.start - len(samples)), max(0, part.stop - len(samples)))
        first = self.epoch(step) * self._captions
        picks = [
            (column, (starts[chosen] + turn) % counts[chosen])
            for column, (starts, counts) in enumerate(zip(self._starts, self._counts, strict=True))
            for turn in range(first, first + self._captions)
        ]
        rows = self._rows(step, part.start, part.stop - part.start)
        return Part(chosen, picks, rows, [positions[below] for positions in unpaired])

    def _rows(self, step: int, first: int, count: int) -> BatchRows:
        return BatchRows(self._seed, step, first, count, ranks=self._ranks)

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


def feature_bytes(sources: Iterable[tuple[Store, Array]]) -> int:
    """Size of all features in some rows of stores."""
    return sum(len(rows) * store.dim * store.dtype.itemsize for store, rows in sources)


def in_memory(sources: Iterable[tuple[Store, Array]]) -> bool:
    """Whether features are few enough to be held."""
    return feature_bytes(sources) <= IN_MEMORY


def default_block(sources: Sequence[tuple[Store, Array]], batch: int) -> int:
    """Neighbours to read together: a function of data and batch alone, so that results are too.

    Args:
        sources: stores and the rows of them that are read, the first with the longest.
        batch: rows of a step.
    """
    if in_memory(sources):
        return 1
    store, _ = sources[0]
    of_a_read = _READ // (store.dim * store.dtype.itemsize)
    return max(1, min(of_a_read, batch // _BLOCKS))


@dataclass(frozen=True)
class Batch:
    """What a source gives of one part of a step: features, token ids, or pixels.

    Attributes:
        image: ``[n, …]``; features have the dtype on disk.
        texts: tensors ``[n, …]``; row i of each describes image i.
        rows: where they lie in the whole batch.
    """

    image: Tensor
    texts: list[Tensor]
    rows: BatchRows

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if device.type == "cpu":
            return self
        image, *texts = (t.to(device, non_blocking=True) for t in [self.image, *self.texts])
        return Batch(image, texts, self.rows)


class BatchPart(Protocol):
    """A part as the loop sees it; what else it says is between a source's own methods."""

    @property
    def rows(self) -> BatchRows:
        """Where it lies in the whole batch."""


class BatchSource(Protocol[P]):
    """Where the loop gets its batches: features in stores, token ids, or decoded pixels.

    What it gives must be a function of seed and step, so that a resumed run sees the same. The loop
    says which parts it will read, in their order, and a source may read ahead.
    """

    @property
    def steps(self) -> int:
        """Of the whole training."""

    def epoch(self, step: int) -> int:
        """The epoch, from 0, that a step, from 0, belongs to."""

    def rows(self, step: int) -> Sequence[BatchRows]:
        """Where the parts of a step lie in its batch; of this process's share alone."""

    def parts(self, step: int) -> Sequence[P]:
        """The parts themselves, as :meth:`stream` takes them."""

    def stream(self, parts: Iterable[P]) -> Generator[Batch]:
        """What the parts hold, in their order. It is closed when no more is needed."""


def plan_batches(
    pairs: Pairs, settings: LoopSection, ranks: Ranks, *, captions_per_image: int = 1,
    block: int | None = None, unpaired: UnpairedRows | None = None,
) -> BatchPlan:  # fmt: skip
    """The batches that a training's settings ask for.

    Args:
        pairs: the training data.
        settings: of the training.
        ranks: the processes that share the batches.
        captions_per_image: as :class:`BatchPlan` has it.
        block: likewise.
        unpaired: likewise.

    Raises:
        TrainingError: fewer images in a batch than there are processes.
    """
    plan = BatchPlan(
        pairs, batch=settings.batch, epochs=settings.epochs, seed=settings.seed,
        captions_per_image=captions_per_image, block=block, micro_batch=settings.micro_batch,
        ranks=ranks, unpaired=unpaired,
    )  # fmt: skip
    smallest = len(pairs) // plan.steps_per_epoch
    if smallest < ranks.size:
        raise TrainingError(
            f"batches of {smallest} images cannot be shared by {ranks.size} processes",
            f"Raise {settings.section}.batch, train on more images, or start fewer processes.",
        )
    return plan
