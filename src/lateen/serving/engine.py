"""What a server does with its index: every question, in threads, and what it keeps for all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lateen.data.samples import is_unicode
from lateen.errors import LateenError, UsageError, reason
from lateen.files import library_versions
from lateen.indexing.filters import Filters
from lateen.indexing.query import Query, Term
from lateen.progress import log
from lateen.serving.batching import SharedEncoder
from lateen.serving.conditions import checked_condition
from lateen.serving.pictures import uploaded
from lateen.serving.reading import PhotoReader
from lateen.serving.thumbnails import Thumbnails
from lateen.serving.work import Gate

if TYPE_CHECKING:
    from PIL.Image import Image

    from lateen.indexing.hits import Found, Hit
    from lateen.indexing.photo_index import Index
    from lateen.serving.schemas import Filter
    from lateen.serving.settings import ServeSettings

VERSION = library_versions()["lateen"]
"""Of lateen."""
_PLACE = ("latitude", "longitude")
_WAITING_PICTURES = 512  # a page asks for many thumbnails at once
_WAITING_LABELS = 8
_LOOKS = 8  # as many pictures as a pass has
_IDLE = 3  # seconds without a request
_WARM = "a photograph"


class Engine:
    """An index, asked by many at once.

    Args:
        index: the index; its encoder is replaced by one whose callers share forward passes.
        settings: of the server.

    Attributes:
        index: the index.
        settings: of the server.
        encoder: what embeds.
        reader: reads photographs.
        thumbnails: makes them small.
        searches: threads that search.
        looks: threads that search with pictures, and wait for each other's forward pass.
        labels: the thread that sorts by labels.
        pictures: threads that decode.
        count: photographs of the index, as of the last look.
    """

    def __init__(self, index: Index, settings: ServeSettings) -> None:
        self.index, self.settings = index, settings
        self.encoder = SharedEncoder(
            index.encoder, rows=settings.pass_rows, wait=settings.pass_wait,
            waiting=settings.waiting,
        )  # fmt: skip
        index.encoder = self.encoder
        self.reader = PhotoReader(index, settings.allow)
        self.thumbnails = Thumbnails(self.reader)
        self.searches = Gate("searches", threads=settings.searches, waiting=settings.waiting)
        self.looks = Gate("pictures", threads=_LOOKS, waiting=settings.waiting)
        self.labels = Gate("labellings", threads=1, waiting=_WAITING_LABELS)
        self.pictures = Gate("pictures", threads=settings.pictures, waiting=_WAITING_PICTURES)
        self.gates = (self.searches, self.looks, self.labels, self.pictures)
        self.count = 0
        self._columns: list[str] = []
        self._warming = threading.Lock()
        self._warmed = False

    # -- questions ---------------------------------------------------------------------------------

    async def search(
        self, query: Query, *, k: int, offset: int, filters: Filter, cut: bool
    ) -> dict[str, Any]:  # fmt: skip
        """Photographs nearest to a query, as :class:`~lateen.serving.schemas.SearchAnswer`."""
        if query.images:
            return await self.looks.run(self._search, query, k, offset, filters, cut)
        await self.encoder.foresee(query.texts)
        return await self.searches.run(self._search, query, k, offset, filters, cut)

    async def similar(self, id: str, *, k: int, offset: int, filters: Filter) -> dict[str, Any]:
        """Photographs like one of the index, likewise."""
        return await self.searches.run(self._similar, id, k, offset, filters)

    async def classify(self, labels: Sequence[str], *, k: int, filters: Filter) -> dict[str, Any]:
        """Every photograph's best label, as :class:`~lateen.serving.schemas.ClassifyAnswer`."""
        return await self.labels.run(self._classify, labels, k, filters)

    async def embed_texts(self, texts: Sequence[str]) -> list[list[float]]:
        """Embeddings of texts."""
        for text in texts:
            _check_text(text, "a text")
        await self.encoder.foresee(texts)
        rows = await self.searches.run(self.encoder.texts, texts)
        return [[float(value) for value in row] for row in rows]

    async def embed_picture(self, picture: Image) -> list[list[float]]:
        """The embedding of a picture."""
        rows = await self.looks.run(self.encoder.images, [picture])
        return [[float(value) for value in row] for row in rows]

    async def picture(self, data: bytes) -> Image:
        """A picture that was sent."""
        return await self.pictures.run(uploaded, data, pixels=self.settings.upload_pixels)

    async def thumbnail(self, id: str, edge: int, known: str) -> tuple[bytes | None, str]:
        """A photograph as JPEG, and its version; no bytes where that is known already.

        Args:
            id: of the photograph.
            edge: pixels of the longer edge.
            known: a version that whoever asks has.
        """
        return await self.pictures.run(self._thumbnail, id, edge, known)

    async def original(self, id: str) -> bytes:
        """A photograph's file as it is."""
        photo = await self.pictures.run(self.reader.bytes_of, id)
        return photo.data

    async def folders(self) -> dict[str, Any]:
        """Folders and dates, as :class:`~lateen.serving.schemas.FoldersAnswer`."""
        return await self.searches.run(self._folders)

    def about(self) -> dict[str, Any]:
        """What is served, as :class:`~lateen.serving.schemas.AboutAnswer`."""
        about = self.index.about
        return {
            "name": about.name, "photographs": self.count, "model": model_name(about.model),
            "dim": about.dim, "updated": about.updated, "cut_off": about.cut_off,
            "columns": self.columns, "originals": self.settings.originals,
            "version": VERSION,
        }  # fmt: skip

    # -- life --------------------------------------------------------------------------------------

    def warm(self) -> None:
        """Load what embeds texts and the photographs, so that the first search need not wait."""
        with contextlib.suppress(UsageError):
            self.index.search(_WARM, k=1)
        self.count = len(self.index)

    def warm_pictures(self) -> None:
        """Load what embeds pictures, which takes longer; once."""
        from PIL import Image

        with self._warming:
            if self._warmed:
                return
            self._warmed = True
            try:
                self.encoder.images([Image.new("RGB", (64, 64), "white")])
            except Exception as error:  # noqa: BLE001 - without its files a model still finds words
                log.warning("pictures cannot be searched with: %s", reason(error))

    async def warm_pictures_when_idle(self) -> None:
        """Load what embeds pictures once nobody asks: loading it makes all else slow."""
        seen, idle = -1, 0
        while idle < _IDLE:
            await asyncio.sleep(1)
            begun = sum(gate.begun for gate in self.gates)
            idle = idle + 1 if begun == seen else 0
            seen = begun
        await self.pictures.run(self.warm_pictures)

    async def keep_fresh(self) -> None:
        """Look again and again at what another process has added to the index."""
        while True:
            await asyncio.sleep(self.settings.refresh)
            try:
                await self.labels.run(self._look_again)
            except LateenError as error:
                log.warning("the index could not be looked at again: %s", error)

    def _look_again(self) -> None:
        self.index.refresh()
        self.count = len(self.index)

    def close(self) -> None:
        """End all threads."""
        self.encoder.close()
        for gate in self.gates:
            gate.close()

    # -- how ---------------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """What a condition may compare."""
        if not self._columns:
            self._columns = self.index.columns()
        hidden = () if self.settings.originals else _PLACE
        return [name for name in self._columns if name not in hidden]

    def _search(
        self, query: Query, k: int, offset: int, filters: Filter, cut: bool
    ) -> dict[str, Any]:  # fmt: skip
        found = self.index.search(
            query, k=k, offset=offset, filters=self._filters(filters), cut=cut
        )
        return self._answer(found, k, offset)

    def _similar(self, id: str, k: int, offset: int, filters: Filter) -> dict[str, Any]:
        self.reader.photo(id)
        found = self.index.similar(id, k=k, offset=offset, filters=self._filters(filters))
        return self._answer(found, k, offset)

    def _classify(self, labels: Sequence[str], k: int, filters: Filter) -> dict[str, Any]:
        for label in labels:
            _check_text(label, "a label")
        if self.index.about.bank:
            # A bank is the model's, which the thread for pictures loads: not twice at once.
            self.warm_pictures()
        found = self.index.classify(labels, k=k, filters=self._filters(filters))
        rows = [
            {"label": each.label, "count": each.count, "hits": [self.hit(h) for h in each.hits]}
            for each in found
        ]
        return {"labels": rows, "among": sum(each.count for each in found)}

    def _thumbnail(self, id: str, edge: int, known: str) -> tuple[bytes | None, str]:
        if known and (version := self.thumbnails.version(id, edge)) == known:
            return None, version
        return self.thumbnails.get(id, edge)

    def _folders(self) -> dict[str, Any]:
        days = self.index.dates() or (None, None)
        folders = [{"folder": name, "count": count} for name, count in self.index.folders()]
        return {"folders": folders, "first": days[0], "last": days[1]}

    def _answer(self, found: Found, k: int, offset: int) -> dict[str, Any]:
        more = bool(found.hits) and offset + k < found.among
        return {
            "hits": [self.hit(each) for each in found.hits], "query": found.query,
            "among": found.among, "cut_off": found.cut_off, "nothing": found.nothing,
            "nearest": None if found.nearest is None else self.hit(found.nearest),
            "next": offset + k if more else None,
        }  # fmt: skip

    def hit(self, hit: Hit) -> dict[str, Any]:
        """A photograph, JSON-ready; without its place, unless that is told."""
        about = hit.as_dict() if not hit.about else _plain(hit.about)
        if not self.settings.originals:
            about = {name: value for name, value in about.items() if name not in _PLACE}
        known = {
            "id": hit.id, "path": self.reader.shown_path(hit), "score": hit.score,
            "adjusted": hit.adjusted, "probability": hit.probability,
            "confidence": hit.confidence,
        }  # fmt: skip
        return about | {name: value for name, value in known.items() if value is not None}

    def _filters(self, given: Filter) -> Filters | None:
        """The filters of a request.

        Raises:
            UsageError: a condition that may not be asked.
        """
        asked = {name: value or None for name, value in given.model_dump().items()}
        if not any(asked.values()):
            return None
        for value in filter(None, asked.values()):
            _check_text(value, "a filter")
        if asked["where"]:
            checked_condition(asked["where"], self.columns, place=self.settings.originals)
        return Filters(**asked)


def parsed_query(text: str) -> Query:
    """A query from outside: no path of this machine is read.

    Raises:
        UsageError: it is empty, or cannot be read.
    """
    _check_text(text, "the query")
    return Query.parse(text, files=False)


def with_picture(text: str, picture: Image) -> Query:
    """A picture as a query, with words beside it if there are any."""
    terms = parsed_query(text).terms if text.strip() else ()
    return Query((*terms, Term(1.0, image=picture)))


def model_name(model: str) -> str:
    """A model's name without the folders of this machine."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    return "/".join(parts[-2:]) or "a model"


def _check_text(text: str, what: str) -> None:
    if not is_unicode(text) or "\0" in text:
        raise UsageError(f"{what} is no text", "Send it as UTF-8.")


def _plain(about: Mapping[str, Any]) -> dict[str, Any]:
    """Columns as JSON has them."""
    plain: dict[str, Any] = {}
    for name, value in about.items():
        if value is None or isinstance(value, str | int | bool | list):
            plain[name] = value
        elif isinstance(value, float):
            plain[name] = value if abs(value) < float("inf") else None
        else:
            plain[name] = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return plain
