"""Bringing an index up to date: what is new or changed is embedded, what is gone is removed.

Photographs are written some thousands at a time, each time in one commit, and removed last. A call
that is killed has written whole commits; the next one finds what is still to be done by comparing
the index with the source, as every call does.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lateen.data.exif import photo_facts
from lateen.data.images import may_be_read_later
from lateen.data.samples import MemoryImage
from lateen.errors import DataError, ModelError, StoreError, UsageError
from lateen.files import folder_lock, refuse_foreign
from lateen.indexing.about import IndexAbout
from lateen.indexing.contents import Contents, Item, content_of, place_of
from lateen.indexing.gallery import MOST, Gallery, Snapshot, stamp_of, vectors_of
from lateen.indexing.table import (
    CONTENT,
    ID,
    PHOTOS,
    PREVIEW,
    SKIP_SCHEMA,
    SKIPPED,
    STATE,
    VECTOR,
    PhotoTable,
    photo_schema,
)
from lateen.progress import bar

if TYPE_CHECKING:
    from lateen.indexing.cache import FeatureCache
    from lateen.indexing.given_model import GivenModel
    from lateen.model.query_bank import QueryBank

_CHUNK = 2048  # photographs of a commit
_READERS = 4  # threads that read headers
_PREVIEW = 512  # pixels of the longer edge, of images that are in no file
_AGAIN = "Give another --out, or make it anew with --overwrite; nothing known is encoded again."


@dataclass(frozen=True)
class Update:
    """What bringing an index up to date has done.

    Attributes:
        added: photographs that are new.
        changed: that had other bytes, captions or columns.
        moved: of those added, how many the index had under another name, and did not encode.
        removed: that are no longer in the source; what cannot be read any more is unreadable.
        unreadable: ``id`` and ``reason`` of all that cannot be read.
        count: photographs that are in the index now.
    """

    added: int
    changed: int
    moved: int
    removed: int
    unreadable: list[dict[str, str]]
    count: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def update_index(
    place: str | Path, contents: Contents, given: GivenModel, *, bank: str | Path | None = None,
    overwrite: bool = False, cache: Path | None = None, wait: bool = False,
) -> Update:  # fmt: skip
    """Make an index, or bring it up to date.

    Args:
        place: its folder, or the address of an object store.
        contents: of its source.
        given: the model that embeds.
        bank: a query bank: the model's own if it carries one; ``none``; or a file.
        overwrite: make it anew.
        cache: where features of photographs are kept; lateen's cache folder if not given.
        wait: for another process that writes to it, instead of refusing.

    Raises:
        ModelError: the index is of another model or another query bank.
        UsageError: it is of another folder, or has other columns.
        DataError: not one image can be read.
        StoreError: there is something else, or the index cannot be written.
        BusyError: another process writes to it.
    """
    local = None if "://" in str(place) else Path(place)
    done = _nothing_to_do(local, contents, given, bank) if local and not overwrite else None
    if done is not None:
        return done
    with contextlib.ExitStack() as held:
        if local is not None:
            refuse_foreign(local, "an index", [f"{PHOTOS}.lance", "about.lance"], error=StoreError)
            held.enter_context(folder_lock(local, wait=wait))
        table = PhotoTable(place)
        about = _begun(table, contents, given, bank, overwrite=overwrite)
        update = _Updating(table, about, contents, given, bank, cache).run()
        if update.added or update.changed or update.removed:
            table.tidy(new=not about.updated)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        about = replace(about, updated=now, root=contents.root)
        if update.count > MOST:
            from lateen.indexing.ann import fitted_ann

            about = replace(about, ann=fitted_ann(table, about, given))
        else:
            about = replace(about, ann=None)
        table.write_about(about.as_json())
        if local is not None and update.count <= MOST:
            stamp = stamp_of(local)
            lost = table.skipped().to_pylist()
            Snapshot(about.as_json(), Gallery.of(table), lost).write(local, stamp)
        return update


def _nothing_to_do(
    place: Path, contents: Contents, given: GivenModel, bank: str | Path | None
) -> Update | None:
    """What bringing an index up to date would do, if that is nothing: found without LanceDB, by
    what lies beside the index. ``None`` where there may be something."""
    snapshot = Snapshot.read(place)
    if snapshot is None:
        return None
    try:
        about = IndexAbout.of_json(snapshot.about, str(place))
    except StoreError:
        return None
    names = [*photo_schema(about.width).names, *(field.name for field in contents.columns)]
    if (
        (about.source, about.root) != (contents.name, contents.root)
        or (about.model_key, about.bank) != (given.key, given.bank_key(bank))
        or set(snapshot.gallery.rows.schema.names) != {*names} - {VECTOR, PREVIEW}
    ):
        return None
    rows = snapshot.gallery.rows
    states = dict(zip(rows[ID].to_pylist(), rows[STATE].to_pylist(), strict=True))
    states |= {row[ID]: _final(row) for row in snapshot.skipped}
    skips: list[dict[str, str]] = []
    count = 0
    for item in contents.items(skips):
        if not item.state or states.get(item.id) != item.state:
            return None
        count += 1
    if count != len(states):
        return None
    unreadable = [{"id": row[ID], "reason": row["reason"]} for row in snapshot.skipped]
    return Update(0, 0, 0, 0, [*unreadable, *skips], len(rows))


def _begun(
    table: PhotoTable, contents: Contents, given: GivenModel, bank: str | Path | None, *,
    overwrite: bool,
) -> IndexAbout:  # fmt: skip
    """What the index is about, which is begun if it is not there.

    Raises:
        ModelError: it is of another model or another query bank.
        UsageError: it is of another folder, or has other columns.
    """
    text = None if overwrite else table.about()
    columns = [field.name for field in contents.columns]
    if text is None:
        about = given.describe(contents, bank)
        table.create(photo_schema(about.width, contents.columns))
        table.write_about(about.as_json())
        return about
    about = IndexAbout.of_json(text, table.place)
    if table.width != about.width:  # killed while it was made anew for another model
        return _begun(table, contents, given, bank, overwrite=True)
    if about.model_key != given.key:
        raise ModelError(f"{table.place} is an index of another model ({about.model})", _AGAIN)
    if about.bank != given.bank_key(bank):
        raise ModelError(
            f"{table.place} was made with {about.bank_words or 'no query bank'}", _AGAIN
        )
    if about.source != contents.name and Path(about.source).exists():
        raise UsageError(f"{table.place} is an index of {about.source}", _AGAIN)
    plain = photo_schema(about.width).names
    there = [name for name in table.schema.names if name not in plain]
    if there != columns:
        raise UsageError(
            f"{table.place} has the columns {', '.join(there) or '(none)'}, and the table now "
            f"{', '.join(columns) or '(none)'}", _AGAIN,
        )  # fmt: skip
    return replace(about, source=contents.name)


class _Updating:
    """One update of an index.

    Args:
        table: its rows.
        about: what it is about.
        contents: of its source.
        given: the model.
        bank: the query bank that was asked for.
        cache: where features are kept.
    """

    def __init__(
        self, table: PhotoTable, about: IndexAbout, contents: Contents, given: GivenModel,
        bank: str | Path | None, cache: Path | None,
    ) -> None:  # fmt: skip
        self._table, self._about, self._contents = table, about, contents
        self._given, self._bank_given, self._cache_folder = given, bank, cache
        self._added = self._changed = self._moved = 0
        self._unreadable: dict[str, str] = {}  # reasons, by content

    def run(self) -> Update:
        """Write what differs, then remove what is gone."""
        known = self._table.rows([ID, STATE])
        states = dict(zip(known[ID].to_pylist(), known[STATE].to_pylist(), strict=True))
        final = {row[ID]: _final(row) for row in self._table.skipped().to_pylist()}
        skips: list[dict[str, str]] = []
        seen: set[str] = set()
        chunk: list[Item] = []
        with bar(len(self._contents.dataset), "index", "photograph", stage=False) as progress:
            for item in self._contents.items(skips):
                seen.add(item.id)
                if item.state and item.state in (states.get(item.id), final.get(item.id)):
                    progress.update()
                    continue
                chunk.append(item)
                if len(chunk) == _CHUNK:
                    self._write(chunk, states, final)
                    progress.update(len(chunk))
                    chunk = []
            self._write(chunk, states, final)
            progress.update(len(chunk))
        unreadable = self._told(seen)
        if len(unreadable) == len(seen):
            raise DataError(
                f"none of the {len(seen)} images in {self._contents.name} can be read",
                "Check them.",
            )
        gone = [name for name in states if name not in seen]
        self._table.remove(PHOTOS, gone)
        return Update(
            self._added, self._changed, self._moved, len(gone), [*unreadable, *skips],
            self._table.count(),
        )  # fmt: skip

    def _told(self, seen: Collection[str]) -> list[dict[str, str]]:
        """``id`` and ``reason`` of what cannot be read; those that are gone are forgotten."""
        lost = self._table.skipped().to_pylist()
        self._table.remove(SKIPPED, [row[ID] for row in lost if row[ID] not in seen])
        kept = sorted((row for row in lost if row[ID] in seen), key=lambda row: str(row[ID]))
        return [{"id": row[ID], "reason": row["reason"]} for row in kept]

    def _write(
        self, chunk: Sequence[Item], states: Mapping[str, str], lost: Collection[str]
    ) -> None:
        """Embed and write some photographs; what cannot be read is written down as such.

        Args:
            chunk: the photographs.
            states: of those that the index has.
            lost: ids of those of which it has that they cannot be read.
        """
        if not chunk:
            return
        contents = content_of(chunk)
        vectors = self._vectors(chunk, contents, known=bool(states))
        readable = [item for item in chunk if contents[item.id] in vectors]
        broken = [item for item in chunk if contents[item.id] not in vectors]
        self._table.write(self._rows(readable, contents, vectors))
        self._table.write_skipped(
            pa.Table.from_pylist(
                [
                    {ID: i.id, STATE: i.state, "reason": self._reason(contents[i.id])}
                    for i in broken
                ],
                schema=SKIP_SCHEMA,
            )
        )
        # What was readable before, or was not, is now on one side only.
        self._table.remove(SKIPPED, [item.id for item in readable if item.id in lost])
        self._table.remove(PHOTOS, [item.id for item in broken if item.id in states])
        again = sum(item.id in states for item in readable)
        self._changed += again
        self._added += len(readable) - again

    def _vectors(
        self, chunk: Sequence[Item], contents: Mapping[str, str], *, known: bool
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The vector of every content that can be read: the index's own, if it has the content
        under whatever name, else from the features of the vision encoder.

        Args:
            chunk: the photographs.
            contents: of these.
            known: whether the index had any before, to look among.
        """
        wanted = {contents[item.id]: item.image for item in chunk if contents[item.id]}
        looked = list(wanted) if known else []
        here = self._table.rows_of(CONTENT, looked, [ID, CONTENT, VECTOR])
        vectors = dict(zip(here[CONTENT].to_pylist(), vectors_of(here), strict=True))
        names = set(here[ID].to_pylist())
        self._moved += sum(contents[i.id] in vectors and i.id not in names for i in chunk)
        missing = {content: image for content, image in wanted.items() if content not in vectors}
        if missing:
            cached = self._features.features(missing)
            self._unreadable |= cached.unreadable
            values = self._given.vectors(cached.features, self._about, self._bank)
            vectors |= dict(zip(cached.contents, values, strict=True))
        return vectors

    def _reason(self, content: str) -> str:
        return self._unreadable.get(content, "it cannot be read")

    @functools.cached_property
    def _features(self) -> FeatureCache:
        from lateen.indexing.cache import FeatureCache

        return FeatureCache(self._given.model, self._cache_folder)

    @functools.cached_property
    def _bank(self) -> QueryBank | None:
        from lateen.model.query_bank import chosen_bank

        return chosen_bank(self._given.model, self._bank_given)

    def _rows(
        self, items: Sequence[Item], contents: Mapping[str, str],
        vectors: Mapping[str, np.ndarray[Any, Any]],
    ) -> pa.Table:  # fmt: skip
        schema = self._table.schema
        with ThreadPoolExecutor(_READERS) as pool:
            facts = list(pool.map(_facts, items))
        rows = [
            {
                ID: item.id, CONTENT: contents[item.id], STATE: item.state,
                "captions": list(item.captions), **place_of(item, self._contents.root), **known,
                **item.cells,
            }
            for item, known in zip(items, facts, strict=True)
        ]  # fmt: skip
        plain = pa.schema([field for field in schema if field.name != VECTOR])
        table = pa.Table.from_pylist(rows, schema=plain)
        values = np.array([vectors[contents[item.id]] for item in items], np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), self._about.width)
        return table.append_column(schema.field(VECTOR), column)


def _final(row: Mapping[str, Any] | None) -> str | None:
    """The state of an image that cannot be read, unless a setting or a package more might do."""
    return None if row is None or may_be_read_later(str(row["reason"])) else str(row[STATE])


def _facts(item: Item) -> dict[str, Any]:
    """What an image's file says of it, and its preview if it is in no file."""
    try:
        data = item.image.read()
    except OSError:
        return {}
    preview = _preview(item.image) if isinstance(item.image, MemoryImage) else None
    return {**asdict(photo_facts(data)), "bytes": len(data), PREVIEW: preview}


def _preview(image: MemoryImage) -> bytes:
    from lateen.report.thumbnail import whole_thumbnail

    out = io.BytesIO()
    whole_thumbnail(image, _PREVIEW).save(out, "JPEG", quality=85)
    return out.getvalue()
