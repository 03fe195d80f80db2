"""An index of photographs: opened once, asked many times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lateen.data.samples import FileImage, ImageSource, MemoryImage, TarImage
from lateen.errors import DataError, StoreError, UsageError
from lateen.indexing.about import IndexAbout
from lateen.indexing.filters import Filters, quoted
from lateen.indexing.gallery import MOST, Gallery, Snapshot, stamp_of, vectors_of
from lateen.indexing.given_model import GivenModel, check_same, query_vector
from lateen.indexing.hits import Found, Hit, LabelHits
from lateen.indexing.query import Query, Term
from lateen.indexing.table import CONTENT, ID, PHOTOS, PREVIEW, STATE, VECTOR, PhotoTable

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

    from lateen.model import AlignedModel

_HIDDEN = frozenset({ID, CONTENT, STATE, VECTOR, PREVIEW, "path", "member", "offset", "_distance"})
_MOST_HITS = 10_000
Array = np.ndarray[Any, np.dtype[np.float32]]


class QueryEncoder(Protocol):
    """What embeds queries, from whatever thread."""

    def texts(self, texts: Sequence[str]) -> Array:
        """Embeddings ``[n, dim]``, L2-normalised."""

    def images(self, images: Sequence[Image | Path]) -> Array:
        """Embeddings ``[n, dim]``, L2-normalised."""


class Index:
    """An index that is open.

    Make one with :func:`lateen.index`, open it with :meth:`open`.

    Args:
        place: its folder, or the address of an object store.
        about: what it is about.
        given: its model.
        snapshot: what lies beside it, if that is as good as the index.

    Attributes:
        about: what it is about.
        encoder: what embeds queries: the model, unless something else is put here.
    """

    def __init__(
        self, place: str, about: IndexAbout, given: GivenModel, snapshot: Snapshot | None = None
    ) -> None:
        self.place = place
        self.about = about
        self.given = given
        self.encoder: QueryEncoder = given
        self._gallery = None if snapshot is None else snapshot.gallery
        self._lost = None if snapshot is None else snapshot.skipped
        self._stamp = stamp_of(place)
        self._opened: PhotoTable | None = None

    @classmethod
    def open(cls, path: str | Path, *, model: AlignedModel | str | Path | None = None) -> Index:
        """Open an index.

        Args:
            path: its folder, or the address of an object store.
            model: its model, where that is no longer where the index has it from.

        Raises:
            StoreError: there is no index, or one of another version.
            ModelError: the index is of another model.
        """
        return cls.open_for(path, None if model is None else GivenModel(model))

    @classmethod
    def open_for(cls, path: str | Path, given: GivenModel | None) -> Index:
        """Open an index for a model that is known.

        Args:
            path: its folder, or the address of an object store.
            given: the model; ``None`` for the one that the index remembers.
        """
        place = str(path)
        snapshot = None if "://" in place else Snapshot.read(Path(place))
        table = None
        if snapshot is not None:
            about = IndexAbout.of_json(snapshot.about, place)
        else:
            if not is_index(place):
                raise StoreError(
                    f"there is no index {place}",
                    "Make one: lateen index PHOTOS --model MODEL --out INDEX.",
                )
            table = PhotoTable(place)
            text = table.about()
            if text is None:
                raise StoreError(
                    f"there is no index {place}",
                    "Make one: lateen index PHOTOS --model MODEL --out INDEX.",
                )
            about = IndexAbout.of_json(text, place)
        if given is None:
            given = _remembered(about, place)
        else:
            check_same(given, about, place)
        index = cls(place, about, given, snapshot)
        index._opened = table
        return index

    def __len__(self) -> int:
        gallery = self._in_memory()
        return self._table.count() if gallery is None else len(gallery)

    # -- asking ------------------------------------------------------------------------------------

    def search(
        self, query: Query | str | Path | Image | Sequence[Term], *, k: int = 12, offset: int = 0,
        filters: Filters | None = None, cut: bool | float = True, bank: bool = True,
    ) -> Found:  # fmt: skip
        """The photographs nearest to a query, best first.

        Args:
            query: a sentence as it stands, a picture's file, an opened picture, or a
                :class:`~lateen.indexing.query.Query`.
            k: how many.
            offset: how many that are better are left out.
            filters: which photographs to look among.
            cut: leave out those that hardly show what was asked, by the model's calibration:
                ``True`` from the index's own probability down, or from one of 0 to 1.
            bank: take their hubness off the cosines with sentences, if the index has a query bank.

        Raises:
            UsageError: an empty query, a k below 1, or filters that cannot be used.
            DataError: a picture, or a photograph of the index, that is not there.
        """
        asked = Query.of(query)
        if not 1 <= k <= _MOST_HITS or offset < 0:
            raise UsageError(f"k is {k}, after {offset}", f"Ask for 1 to {_MOST_HITS:,} hits.")
        vector, hubness = self._embedded(asked)
        bank = bank and bool(self.about.bank)
        same = self._copies(asked)
        where = filters.sql() if filters is not None else None
        looked = query_vector(vector, self.about, hubness if bank else 0.0)
        rows, vectors, among = self._nearest(looked, k, offset, where, same)
        hits = self._hits(rows, vectors, looked, sentences=not (asked.images or asked.ids))
        if not bank or not hubness:
            hits = [_without_bank(hit) for hit in hits]
        level = self._cut_off(cut) if hits and hits[0].probability is not None else None
        kept = [h for h in hits if level is None or (h.probability or 0.0) >= level]
        nothing = bool(hits) and not kept and not offset
        nearest = max(hits, key=lambda h: h.probability or 0.0) if nothing else None
        return Found(kept, str(asked), among, level, nothing, nearest, sorted(same))

    def similar(
        self, id: str, *, k: int = 12, offset: int = 0, filters: Filters | None = None
    ) -> Found:
        """The photographs most like one of the index.

        Raises:
            DataError: there is no such photograph.
        """
        return self.search([Term(1.0, id=id)], k=k, offset=offset, filters=filters)

    def classify(
        self, labels: Sequence[str], *, k: int = 12, filters: Filters | None = None,
        templates: Sequence[str] | str | Path | None = None,
    ) -> list[LabelHits]:  # fmt: skip
        """Every photograph's best label, as :func:`lateen.classify` gives it: by label, in the
        order given, how many have it, and the surest of them.

        Args:
            labels: two or more.
            k: photographs to show of each.
            filters: which photographs.
            templates: as :func:`lateen.classify` takes them.

        Raises:
            UsageError: fewer than two labels, two that are the same, an empty one, no such
                templates, or filters that cannot be used.
        """
        from lateen.indexing.labels import checked_labels, label_templates

        names = checked_labels(labels)
        prompts = label_templates(templates)
        sentences = [prompts.sentences(name) for name in names]
        texts = self.encoder.texts([text for each in sentences for text in each])
        means = texts.reshape(len(names), -1, texts.shape[1]).mean(1)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        offset = self._label_hubness(means)
        ids, vectors = self.vectors()
        where = filters.sql() if filters is not None else None
        kept = None if where is None else {*self._table.rows([ID], where)[ID].to_pylist()}
        places = [p for p, name in enumerate(ids) if kept is None or name in kept]
        scores = self.about.scale * (vectors[places] @ means.T - offset).astype(np.float64)
        shares = np.exp(scores - scores.max(1, keepdims=True)) if places else scores
        shares /= shares.sum(1, keepdims=True)
        best = shares.argmax(1)
        found = []
        for number, name in enumerate(names):
            mine = np.flatnonzero(best == number)
            surest = mine[np.argsort(-shares[mine, number], kind="stable")][:k]
            hits = [
                replace(
                    self.photo(ids[places[i]]),
                    score=float(vectors[places[i]] @ means[number]),
                    confidence=float(shares[i, number]),
                )
                for i in surest
            ]
            found.append(LabelHits(name, len(mine), hits))
        return found

    def photo(self, id: str) -> Hit:
        """A photograph of the index, with a score of 1.

        Raises:
            DataError: there is no such photograph.
        """
        row, _ = self._row(id)
        return self._hit(row, 1.0, None, None)

    def image(self, id: str) -> ImageSource:
        """Where the bytes of a photograph are; of an image in no file, those of its preview.

        Raises:
            DataError: there is no such photograph.
        """
        return self.image_of(self._row(id)[0])

    def image_of(self, row: Mapping[str, Any]) -> ImageSource:
        """The same of a photograph whose columns are known."""
        if row["path"] is None:
            found = self._table.rows_of(ID, [row[ID]], [ID, PREVIEW])[PREVIEW][0].as_py()
            return MemoryImage(row[ID], found or b"")
        path = self._path(row)
        if row["member"] is not None:
            return TarImage(path, row["member"], row["offset"], row["bytes"] or 0)
        return FileImage(path)

    def folders(self) -> list[tuple[str, int]]:
        """Every folder, and how many photographs are in it and below."""
        counted: dict[str, int] = {}
        for name in self._column("folder"):
            parts = name.split("/") if name else []
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                counted[folder] = counted.get(folder, 0) + 1
        return sorted(counted.items())

    def dates(self) -> tuple[str, str] | None:
        """The first and the last day on which a photograph was taken; ``None`` if none says."""
        days = sorted(str(taken.date()) for taken in self._column("taken") if taken is not None)
        return (days[0], days[-1]) if days else None

    def columns(self) -> list[str]:
        """What photographs can be filtered by."""
        gallery = self._in_memory()
        names = self._table.schema.names if gallery is None else gallery.rows.column_names
        return sorted({ID, "path", *names} - (_HIDDEN - {ID, "path"}))

    def skipped(self) -> list[dict[str, str]]:
        """``id`` and ``reason`` of the images that cannot be read."""
        rows = self._table.skipped().to_pylist() if self._lost is None else self._lost
        return [{"id": row[ID], "reason": row["reason"]} for row in rows]

    def refresh(self) -> None:
        """Look at what another process has added or removed since."""
        if "://" in self.place:
            self._table.refresh()
            self._gallery = None
            return
        now = stamp_of(self.place)
        if now != self._stamp:
            self._table.refresh()
            self._gallery, self._lost, self._stamp = None, None, now

    # -- how ---------------------------------------------------------------------------------------

    def vectors(self, ids: Sequence[str] | None = None) -> tuple[list[str], Array]:
        """Ids and embeddings ``[n, dim]``, L2-normalised, of photographs; of all if not given."""
        gallery = self._in_memory()
        if ids is None and gallery is not None:
            return gallery.rows[ID].to_pylist(), gallery.vectors[:, : self.about.dim]
        columns = [ID, VECTOR]
        rows = self._table.rows(columns) if ids is None else self._table.rows_of(ID, ids, columns)
        return rows[ID].to_pylist(), vectors_of(rows)[:, : self.about.dim]

    def listing(self) -> tuple[pa.Table, Array]:
        """All columns of all photographs but vectors and previews, sorted by id; and embeddings
        ``[n, dim]``, L2-normalised, in the same order."""
        gallery = self._in_memory() or Gallery.of(self._table)
        return gallery.rows, np.ascontiguousarray(gallery.vectors[:, : self.about.dim])

    def columns_of(self, ids: Sequence[str], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Columns of photographs, by id."""
        gallery = self._in_memory()
        wanted = [ID, *columns]
        if gallery is not None:
            places = [gallery.place_of[name] for name in ids]
            rows = gallery.rows.select(wanted)
            return {ids[i]: rows.slice(p, 1).to_pylist()[0] for i, p in enumerate(places)}
        found = self._table.rows_of(ID, list(ids), wanted).to_pylist()
        return {row[ID]: row for row in found}

    @property
    def _table(self) -> PhotoTable:
        if self._opened is None:
            self._opened = PhotoTable(self.place)
        return self._opened

    def _in_memory(self) -> Gallery | None:
        """All photographs, if they are few enough to be searched exactly."""
        if self._gallery is None and self._table.count() <= MOST:
            self._gallery = Gallery.of(self._table)
        return self._gallery

    def _embedded(self, query: Query) -> tuple[Array, float]:
        """A query's embedding ``[dim]``, L2-normalised, and how much hubness to take off: a
        sentence's share of it, which its images do not have."""
        total = np.zeros(self.about.dim, np.float32)
        texts = iter(self.encoder.texts(query.texts)) if query.texts else iter(())
        images = iter(self.encoder.images(query.images)) if query.images else iter(())
        hubness = 0.0
        for term in query.terms:
            if term.text is not None:
                total += term.weight * next(texts)
                hubness += term.weight
            elif term.id is not None:
                total += term.weight * self._row(term.id)[1][: self.about.dim]
            else:
                total += term.weight * next(images)
        length = float(np.linalg.norm(total))
        if not length > 0:
            raise UsageError("the query's parts cancel out", "Say something else.")
        return total / length, max(0.0, hubness) / length

    def _label_hubness(self, labels: Array) -> Array:
        """What is taken off the cosines with labels ``[n, dim]``, by the index's query bank."""
        if not self.about.bank:
            return np.zeros(len(labels), np.float32)
        import torch

        bank = self.given.model.query_bank
        if bank is None or bank.key != self.about.bank:
            return np.zeros(len(labels), np.float32)
        hubness: Array = bank.text_hubness(torch.from_numpy(labels)).numpy()
        return hubness

    def _copies(self, query: Query) -> set[str]:
        """The photographs that the query itself is, to the byte."""
        own = {term.id for term in query.terms if term.id is not None}
        paths = [image for image in query.images if isinstance(image, Path)]
        if not paths:
            return own
        from lateen.data.fingerprint import file_hashes

        hashes = file_hashes(paths)
        gallery = self._in_memory()
        if gallery is None:
            return own | set(self._table.rows_of(CONTENT, hashes, [ID])[ID].to_pylist())
        pairs = zip(gallery.rows[ID].to_pylist(), gallery.rows[CONTENT].to_pylist(), strict=True)
        return own | {name for name, content in pairs if content in hashes}

    def _nearest(
        self, query: Array, k: int, offset: int, where: str | None, same: Collection[str]
    ) -> tuple[list[dict[str, Any]], Array, int]:
        """Rows and vectors of the photographs nearest to a query but for the query itself, and
        among how many."""
        gallery = self._in_memory()
        if gallery is not None:
            among = self._places(gallery, where, same)
            places = gallery.nearest(query, k, offset, among)
            # Not by `take`: an Arrow array of numbers has pandas loaded, which takes 0.2 s.
            rows = [gallery.rows.slice(place, 1).to_pylist()[0] for place in places]
            return rows, gallery.vectors[places], len(gallery) if among is None else len(among)
        ann = self.about.ann if where is None else None
        others = f"{ID} NOT IN ({', '.join(map(quoted, sorted(same)))})" if same else None
        where = " AND ".join(filter(None, (where, others))) or None
        found = self._table.nearest(
            query, k + offset, [name for name in self._table.schema.names if name != PREVIEW],
            where=where, probes=ann["probes"] if ann else None, refine=ann["refine"] if ann else 1,
        ).slice(offset)  # fmt: skip
        return found.drop_columns([VECTOR]).to_pylist(), vectors_of(found), self._table.count(where)

    def _places(self, gallery: Gallery, where: str | None, same: Collection[str]) -> Array | None:
        """Where those are that a condition is true of, without some; ``None`` for everywhere."""
        known = gallery.place_of
        if where is None and not same:
            return None
        ids = known if where is None else self._table.rows([ID], where)[ID].to_pylist()
        return np.array(sorted(known[i] for i in ids if i in known and i not in same), np.int64)

    def _hits(
        self, rows: Sequence[Mapping[str, Any]], vectors: Array, query: Array, *, sentences: bool
    ) -> list[Hit]:
        dim = self.about.dim
        cosines = vectors[:, :dim] @ query[:dim]
        scores = vectors[:, : dim + 1] @ query[: dim + 1]
        likely = self._probabilities(cosines) if sentences else [None] * len(rows)
        each = zip(rows, cosines.tolist(), scores.tolist(), likely, strict=True)
        return [self._hit(row, cosine, score, p) for row, cosine, score, p in each]

    def _probabilities(self, cosines: Array) -> list[float | None]:
        """That each photograph shows what was asked for; ``None`` where the model does not say."""
        scale, bias = self.about.likely_scale, self.about.likely_bias
        if scale is None or bias is None:
            return [None] * len(cosines)
        values = 1 / (1 + np.exp(-(scale * cosines.astype(np.float64) + bias)))
        return [float(value) for value in values]

    def _cut_off(self, cut: bool | float) -> float | None:
        if cut is False:
            return None
        return self.about.cut_off if cut is True else float(cut)

    def _hit(
        self, row: Mapping[str, Any], cosine: float, score: float | None, likely: float | None
    ) -> Hit:
        about = {name: value for name, value in row.items() if name not in _HIDDEN}
        return Hit(row[ID], self._path(row), cosine, score, likely, about)

    def _path(self, row: Mapping[str, Any]) -> Path:
        """Where an image's file is; its id where it is in none."""
        return Path(row[ID]) if row["path"] is None else Path(self.about.root, row["path"])

    def _row(self, id: str) -> tuple[dict[str, Any], Array]:
        """A photograph's columns and vector.

        Raises:
            DataError: there is no such photograph.
        """
        gallery = self._in_memory()
        if gallery is not None and id in gallery.place_of:
            place = gallery.place_of[id]
            return gallery.rows.slice(place, 1).to_pylist()[0], gallery.vectors[place]
        columns = [name for name in self._table.schema.names if name != PREVIEW]
        rows = self._table.rows(columns, f"{ID} = {quoted(id)}" if gallery is None else "false")
        if not len(rows):
            raise DataError(
                f"the index has no photograph {id!r}", "Ids are as a search shows them."
            )
        return rows.drop_columns([VECTOR]).to_pylist()[0], vectors_of(rows)[0]

    def _column(self, name: str) -> list[Any]:
        gallery = self._in_memory()
        rows = self._table.rows([name]) if gallery is None else gallery.rows
        values: list[Any] = rows[name].to_pylist()
        return values


def is_index(place: str | Path) -> bool:
    """Whether there is an index, or may be, in an object store."""
    return "://" in str(place) or (Path(place) / f"{PHOTOS}.lance").is_dir()


def _without_bank(hit: Hit) -> Hit:
    return Hit(hit.id, hit.path, hit.score, None, hit.probability, hit.about)


def _remembered(about: IndexAbout, place: str) -> GivenModel:
    """The model that an index remembers. One that is gone can be asked for texts, still, where its
    text tower is kept.

    Raises:
        ModelError: its files have changed, and it is another one now.
    """
    given = GivenModel(about.model)
    if given.files not in ("", about.model_files):
        check_same(given, about, place)
    return GivenModel(about.model, key=about.model_key)
