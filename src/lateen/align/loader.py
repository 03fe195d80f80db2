"""Features of the batches to come, read while the present one is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from lateen.align.batches import IN_MEMORY, Array, Part, feature_bytes
from lateen.align.place import Place
from lateen.store import Pairs, Store

_AHEAD = 1  # parts; each may be a whole batch


@dataclass(frozen=True)
class Batch:
    """Features of one part of a step.

    Attributes:
        image: ``[n, image dim]``, in the dtype on disk.
        texts: tensors ``[n, text dim]``; row i of each describes image i.
        place: of these rows in the whole batch.
    """

    image: Tensor
    texts: list[Tensor]
    place: Place

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        if device.type == "cpu":
            return self
        image, *texts = (t.to(device, non_blocking=True) for t in [self.image, *self.texts])
        return Batch(image, texts, self.place)


class Loader:
    """Reads parts of batches, ahead of time where the features lie on disk.

    Data of up to 256 MiB is read once and held. Beyond that, memory does not depend on the size of
    the stores: what is held are the parts in flight.

    Args:
        pairs: the training data.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._held: list[Tensor] | None = None
        if feature_bytes(pairs) <= IN_MEMORY:
            self._held = [_read(store, rows) for store, rows in pairs.sources]

    def stream(self, parts: Iterable[Part]) -> Generator[Batch]:
        """The features of ``parts``, in their order.

        The stores of a part are read at the same time, which keeps a disk busy. An error of a read
        is raised where its batch would have come. Close the iterator to stop reading ahead.
        """
        if self._held is not None:
            yield from (self._gather(part, self._held) for part in parts)
            return
        with ThreadPoolExecutor(1 + len(self._pairs.texts), "lateen-loader") as readers:
            ahead: deque[tuple[Part, list[Future[Tensor]]]] = deque()
            try:
                for part in parts:
                    wanted = self._wanted(part)
                    ahead.append((part, [readers.submit(_read, *one) for one in wanted]))
                    if len(ahead) > _AHEAD:
                        yield _batch(*ahead.popleft())
                while ahead:
                    yield _batch(*ahead.popleft())
            finally:
                readers.shutdown(wait=True, cancel_futures=True)

    def _gather(self, part: Part, held: list[Tensor]) -> Batch:
        image, *columns = held
        texts = [columns[column][torch.from_numpy(at)] for column, at in self._captions(part)]
        return Batch(image[torch.from_numpy(part.samples)], texts, part.place)

    def _wanted(self, part: Part) -> list[tuple[Store, Array]]:
        """(store, rows of it) of the image tensor and of every text tensor."""
        (image, image_rows), *columns = self._pairs.sources
        texts = [(columns[c][0], columns[c][1][at]) for c, at in self._captions(part)]
        return [(image, image_rows[part.samples]), *texts]

    def _captions(self, part: Part) -> list[tuple[int, Array]]:
        """(column, places among its captions) of every text tensor."""
        columns = self._pairs.texts
        return [(c, columns[c].places(part.samples, pick)) for c, pick in part.picks]


def _batch(part: Part, reads: list[Future[Tensor]]) -> Batch:
    image, *texts = (read.result() for read in reads)
    return Batch(image, texts, part.place)


def _read(store: Store, rows: Array) -> Tensor:
    return torch.from_numpy(store.read(rows))
