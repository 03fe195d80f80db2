"""Queries that arrive together share a forward pass.

Each kind of query, texts and pictures, has one thread that embeds. What arrives while it is busy
waits in a bounded queue and goes through the network together. The thread that asks gets its own
rows; a query that fails alone fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lateen.serving.work import OverloadedError

if TYPE_CHECKING:
    from PIL.Image import Image

    from lateen.indexing.photo_index import QueryEncoder

_REMEMBERED = 4096  # texts whose embeddings are kept: pages of one search, labels, favourites
_IMAGES = 8  # of a forward pass: pictures are large
_Item = TypeVar("_Item")
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class _Job(Generic[_Item]):
    items: list[_Item]
    done: Future[Array] = field(default_factory=Future)

    def give(self, rows: Array) -> None:
        """Hand over what was asked for, unless nobody waits for it any more."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_result(rows)

    def fail(self, error: BaseException) -> None:
        """Say what went wrong, likewise."""
        with contextlib.suppress(InvalidStateError):
            self.done.set_exception(error)


class Lane(Generic[_Item]):
    """One thread that embeds, and the queue before it.

    Args:
        what: kind of query, in the plural.
        embed: the network.
        rows: of a forward pass.
        wait: seconds that a pass waits for more.
        waiting: jobs that may wait; more are refused.

    Attributes:
        passes: forward passes so far.
        rows_done: rows that went through them.
    """

    def __init__(
        self, what: str, embed: Callable[[Sequence[_Item]], Array], *, rows: int, wait: float,
        waiting: int,
    ) -> None:  # fmt: skip
        self.what, self.passes, self.rows_done = what, 0, 0
        self._embed, self._rows, self._wait = embed, rows, wait
        self._jobs: queue.Queue[_Job[_Item] | None] = queue.Queue(waiting)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"lateen-{what}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return self._jobs.qsize()

    def ask(self, items: Sequence[_Item]) -> Array:
        """Embeddings ``[n, dim]``. Many items go in parts, so that others get their turn.

        Raises:
            OverloadedError: too many wait, or the server ends.
        """
        parts = [
            self.begin(items[start : start + self._rows]).result()
            for start in range(0, len(items), self._rows)
        ]
        return np.concatenate(parts)

    def close(self) -> None:
        """End the thread after what it is at; what waits is refused."""
        self._closed = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job.fail(OverloadedError(self.what))
        self._jobs.put(None)
        self._thread.join(timeout=10)

    def begin(self, items: Sequence[_Item]) -> Future[Array]:
        """Embeddings of as many items as a pass has, or fewer, once they are there.

        Raises:
            OverloadedError: too many wait, or the server ends.
        """
        job = _Job(list(items))
        try:
            if self._closed:
                raise queue.Full
            self._jobs.put_nowait(job)
        except queue.Full:
            raise OverloadedError(self.what) from None
        return job.done

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs = [first]
            ends = self._gather(jobs)
            self._answer(jobs)
            if ends:
                return

    def _gather(self, jobs: list[_Job[_Item]]) -> bool:
        """Add what arrives in time; whether the end is among it."""
        until = time.monotonic() + self._wait
        count = len(jobs[0].items)
        while count < self._rows:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if job is None:
                return True
            jobs.append(job)
            count += len(job.items)
        return False

    def _answer(self, jobs: list[_Job[_Item]]) -> None:
        """One pass for all jobs; where that fails, one for each."""
        items = [item for job in jobs for item in job.items]
        try:
            rows = self._embed(items)
            self.passes += 1
            self.rows_done += len(items)
        except BaseException as error:  # noqa: BLE001 - it is whoever asked that is told
            if len(jobs) == 1:
                jobs[0].fail(error)
                return
            for job in jobs:
                self._answer([job])
            return
        start = 0
        for job in jobs:
            job.give(rows[start : start + len(job.items)])
            start += len(job.items)


class SharedEncoder:
    """A :class:`~lateen.indexing.photo_index.QueryEncoder` whose callers share forward passes.

    Args:
        encoder: the one that embeds, one call at a time.
        rows: texts of a pass.
        wait: seconds that a pass waits for more queries.
        waiting: queries that may wait.
    """

    def __init__(
        self, encoder: QueryEncoder, *, rows: int = 64, wait: float = 0.002, waiting: int = 128
    ) -> None:
        self._encoder = encoder
        self._loading = threading.Lock()
        self._loaded: set[str] = set()
        self._known: OrderedDict[str, Array] = OrderedDict()
        self._remembering = threading.Lock()
        self.text_lane: Lane[str] = Lane(
            "texts", self._embed_texts, rows=rows, wait=wait, waiting=waiting
        )
        self.image_lane: Lane[Image | Path] = Lane(
            "pictures", self._embed_images, rows=_IMAGES, wait=wait, waiting=waiting
        )

    @property
    def lanes(self) -> tuple[Lane[Any], Lane[Any]]:
        """Both."""
        return self.text_lane, self.image_lane

    def texts(self, texts: Sequence[str]) -> Array:
        """Embeddings ``[n, dim]``, L2-normalised."""
        with self._remembering:
            known = {text: self._known[text] for text in texts if text in self._known}
            for text in known:
                self._known.move_to_end(text)
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known |= self._remember(new, self.text_lane.ask(new))
        return np.stack([known[text] for text in texts])

    async def foresee(self, texts: Sequence[str]) -> None:
        """Embed texts while no thread waits, so that :meth:`texts` has them at once.

        Args:
            texts: no more than a pass has.
        """
        with self._remembering:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._remember(new, await asyncio.wrap_future(self.text_lane.begin(new)))

    def _remember(self, texts: Sequence[str], rows: Array) -> dict[str, Array]:
        known = {text: row.copy() for text, row in zip(texts, rows, strict=True)}
        with self._remembering:
            self._known |= known
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return known

    def images(self, images: Sequence[Image | Path]) -> Array:
        """Embeddings ``[n, dim]``, L2-normalised."""
        return self.image_lane.ask(images)

    def close(self) -> None:
        """End both threads."""
        for lane in self.lanes:
            lane.close()

    def _embed_texts(self, texts: Sequence[str]) -> Array:
        return self._once_loaded("texts", lambda: self._encoder.texts(list(dict.fromkeys(texts))))[
            _places(texts)
        ]

    def _embed_images(self, images: Sequence[Image | Path]) -> Array:
        return self._once_loaded("images", lambda: self._encoder.images(images))

    def _once_loaded(self, kind: str, embed: Callable[[], Array]) -> Array:
        """The first pass of each kind loads what it needs, and one loads at a time."""
        if kind in self._loaded:
            return embed()
        with self._loading:
            rows = embed()
        self._loaded.add(kind)
        return rows


def _places(texts: Sequence[str]) -> list[int]:
    """Where each text is among the different ones."""
    first = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return [first[text] for text in texts]
