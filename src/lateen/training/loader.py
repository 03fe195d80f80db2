"""The features of every step's images and captions, read ahead."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from lateen.features import Pairs, Store
from lateen.training.batches import (
    Array,
    Batch,
    Part,
    UnpairedRows,
    in_memory,
    plan_batches,
)
from lateen.training.config import TrainSection
from lateen.training.ranks import ALONE, Ranks

_AHEAD = 1  # parts; each may be a whole batch
Q = TypeVar("Q")
R = TypeVar("R")


class Loader:
    """Reads parts of batches, ahead of time where the features lie on disk.

    Data of up to 256 MiB is read once and held. Beyond that, memory does not depend on the size of
    the stores: what is held are the parts in flight.

    Args:
        pairs: the training data.
        unpaired: what parts have below their pairs.
    """

    def __init__(self, pairs: Pairs, unpaired: UnpairedRows | None = None) -> None:
        self._pairs = pairs
        self._sources = [*pairs.sources, *(unpaired.sources if unpaired else [])]
        self._held: list[Tensor] | None = None
        if in_memory(self._sources):
            self._held = [_read(source) for source in self._sources]

    def stream(self, parts: Iterable[Part]) -> Generator[Batch]:
        """The features of ``parts``, in their order.

        The stores of a part are read at the same time, which keeps a disk busy. An error of a read
        is raised where its batch would have come. Close the iterator to stop reading ahead.
        """
        if self._held is not None:
            for part in parts:
                wanted = self._wanted(part)
                yield _batch(part, [self._held[s][torch.from_numpy(at)] for s, at in wanted])
            return
        threads = 1 + len(self._pairs.texts)
        with contextlib.closing(read_ahead(parts, self._requests, _read, threads)) as read:
            for part, tensors in read:
                yield _batch(part, tensors)

    def _requests(self, part: Part) -> list[tuple[Store, Array]]:
        """(store, rows of it) of everything that is :meth:`_wanted`."""
        sources = ((self._sources[source], at) for source, at in self._wanted(part))
        return [(store, rows[at]) for (store, rows), at in sources]

    def _wanted(self, part: Part) -> list[tuple[int, Array]]:
        """(source, positions in it) of the image tensor and of every text tensor; then of what is
        unpaired."""
        columns = self._pairs.texts
        texts = [(1 + c, columns[c].indices(part.samples, pick)) for c, pick in part.picks]
        below = [
            (1 + len(columns) + (tensor > 0), positions)
            for tensor, positions in enumerate(part.unpaired)
        ]
        return [(0, part.samples), *texts, *below]


def _batch(part: Part, tensors: Sequence[Tensor]) -> Batch:
    """The tensors of a part, what is unpaired below its pairs."""
    if part.unpaired:
        half = len(tensors) // 2
        tensors = [torch.cat(two) for two in zip(tensors[:half], tensors[half:], strict=True)]
    return Batch(tensors[0], list(tensors[1:]), part.rows)


def _read(request: tuple[Store, Array]) -> Tensor:
    store, rows = request
    return torch.from_numpy(store.read(rows))


def read_ahead(
    parts: Iterable[Part], requests: Callable[[Part], Iterable[Q]], read: Callable[[Q], R],
    threads: int,
) -> Generator[tuple[Part, list[R]]]:  # fmt: skip
    """Every part with what was read for it, while a further part is being read.

    An error of a read is raised where its part would have come. Close it to stop reading ahead.

    Args:
        parts: in their order.
        requests: what is to be read for a part.
        read: answers one of them, in a thread.
        threads: how many read at a time.
    """
    with ThreadPoolExecutor(threads, "lateen-loader") as readers:
        ahead: deque[tuple[Part, list[Future[R]]]] = deque()
        try:
            for part in parts:
                ahead.append((part, [readers.submit(read, one) for one in requests(part)]))
                if len(ahead) > _AHEAD:
                    yield _finished(*ahead.popleft())
            while ahead:
                yield _finished(*ahead.popleft())
        finally:
            readers.shutdown(wait=True, cancel_futures=True)


def _finished(part: Part, reads: Iterable[Future[R]]) -> tuple[Part, list[R]]:
    return part, [each.result() for each in reads]


class StoreSource:
    """Batches of features, or of token ids, that lie in stores.

    Args:
        pairs: the training data.
        settings: of the batches.
        ranks: the processes that share them.
        unpaired: what is in every batch below its pairs.

    Raises:
        TrainingError: fewer images in a batch than there are processes.
    """

    def __init__(
        self, pairs: Pairs, settings: TrainSection, ranks: Ranks = ALONE,
        unpaired: UnpairedRows | None = None,
    ) -> None:  # fmt: skip
        plan = plan_batches(
            pairs, settings, ranks, captions_per_image=settings.captions_per_image,
            block=settings.block, unpaired=unpaired,
        )  # fmt: skip
        self.steps, self.epoch, self.rows, self.parts = (
            plan.steps, plan.epoch, plan.rows, plan.parts
        )  # fmt: skip
        self.stream = Loader(pairs, unpaired).stream
