"""What is to be in an index: every image of a source, and what may have changed of it."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from lateen.data import Dataset, ImageSource, Skip, TarImage, open_dataset
from lateen.data.fingerprint import look_at
from lateen.data.rows import TABLE_SUFFIXES, open_rows
from lateen.data.samples import bytes_hash, content_of_each, image_file, sample_id
from lateen.data.tables import find_image_column
from lateen.errors import UsageError
from lateen.indexing.table import photo_schema

_RESERVED = frozenset(photo_schema(8).names)


@dataclass(frozen=True)
class Item:
    """An image of a source.

    Attributes:
        id: unique in the source.
        image: where its bytes are.
        captions: all of them, of whatever column.
        cells: of a table that it came in.
        state: changes when any of this may have changed; empty where that cannot be told.
    """

    id: str
    image: ImageSource
    captions: tuple[str, ...]
    cells: Mapping[str, Any]
    state: str


@dataclass(frozen=True)
class Contents:
    """What a source has.

    Attributes:
        name: of the source: a path as it is from everywhere, or a hub name.
        root: the folder that image files are in; empty where they are in none.
        dataset: its images.
        columns: of a table, beside images, ids and captions.
        cells: of these columns, by image.
    """

    name: str
    root: str
    dataset: Dataset
    columns: list[pa.Field]
    cells: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(
        cls, source: str | Path, *, images: str | Path | None = None, captions: Sequence[str] = (),
        split: str | None = None,
    ) -> Contents:  # fmt: skip
        """Open a source.

        Args:
            source: what :func:`~lateen.data.open_dataset` opens.
            images: the folder that a table's images are in.
            captions: the caption columns of a table.
            split: of a source that has splits.

        Raises:
            DataError: it cannot be opened, or is a folder without images.
            UsageError: a column has the name of one that every index has.
        """
        dataset = open_dataset(source, images=images, captions=captions, split=split)
        cells, columns = table_cells(source, dataset)
        if taken := sorted({field.name for field in columns} & _RESERVED):
            raise UsageError(
                f"{source} has a column {taken[0]!r}, and every index has one of that name",
                "Call it something else.",
            )
        path = Path(source)
        there = path.exists() or path.parent.is_dir()
        place = os.path.abspath(source) if there else str(source)  # noqa: PTH100 - links stay
        root = (place if path.is_dir() else os.path.dirname(place)) if there else ""  # noqa: PTH120
        if images is not None:
            root = os.path.abspath(images)  # noqa: PTH100
        return cls(place, root, dataset, columns, cells)

    def items(self, skips: list[dict[str, str]]) -> Iterator[Item]:
        """Every image; nothing is decoded.

        Args:
            skips: receives ``id`` and ``reason`` of what the reader leaves out.
        """
        for each in self.dataset:
            if isinstance(each, Skip):
                if each.sample:
                    skips.append({"id": each.id, "reason": each.reason})
            elif each.image is not None:
                words = tuple(text for texts in each.captions.values() for text in texts)
                cells = self.cells.get(each.id, {})
                yield Item(each.id, each.image, words, cells, _state(each.image, words, cells))


def content_of(items: Sequence[Item]) -> dict[str, str]:
    """The hash of the content (64 hex digits) of each image, by id; empty where it cannot be
    read."""
    hashes = content_of_each([item.image for item in items])
    return {item.id: value for item, value in zip(items, hashes, strict=True)}


def place_of(item: Item, root: str) -> dict[str, Any]:
    """Where an image's bytes are, as an index keeps it."""
    path = image_file(item.image)
    inside = None if path is None else _relative(path, root)
    tar = item.image if isinstance(item.image, TarImage) else None
    return {
        "path": inside, "member": tar and tar.member, "offset": tar and tar.offset,
        "folder": posixpath.dirname(item.id),
    }  # fmt: skip


def _relative(path: Path, root: str) -> str:
    whole = os.path.abspath(path)  # noqa: PTH100 - pathlib is slow, and there may be millions
    return os.path.relpath(whole, root) if root else whole


def _state(image: ImageSource, captions: Sequence[str], cells: Mapping[str, Any]) -> str:
    path = image_file(image)
    if path is None:
        state = str(bytes_hash(image))
    else:
        seen = look_at(str(path))
        if seen is None or not seen.settled:
            return ""
        state = f"{seen.state} {getattr(image, 'offset', '')}"
    if captions or cells:
        words = json.dumps([captions, cells], ensure_ascii=False, default=str)
        state += f" {hashlib.blake2b(words.encode(), digest_size=8).hexdigest()}"
    return state


def table_cells(
    source: str | Path, dataset: Dataset
) -> tuple[dict[str, dict[str, Any]], list[pa.Field]]:
    """The other columns of a table of image files: the first row's of each image, with their
    types."""
    path = Path(source)
    if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
        return {}, []
    rows = open_rows(path)
    image = find_image_column(rows.columns, None)
    names = [name for name in rows.columns if name != image and name not in dataset.columns]
    names = [name for name in names if name != "id"]
    if image is None or not names or rows.embedded(image) is not None:
        return {}, []
    found: dict[str, dict[str, Any]] = {}
    for row in rows.read([image, *names]):
        if not row.fault and isinstance(row.cells.get(image), str):
            cells = {name: row.cells.get(name) for name in names}
            found.setdefault(sample_id(row.cells[image]), cells)
    fields = []
    for name in names:
        kind, values = _typed([cells[name] for cells in found.values()])
        fields.append(pa.field(name, kind))
        for cells, value in zip(found.values(), values, strict=True):
            cells[name] = value
    return found, fields


def _typed(values: Sequence[Any]) -> tuple[pa.DataType, list[Any]]:
    """The type of a column, and its values as such: texts that are all numbers, dates or truths
    become so."""
    given = [None if isinstance(value, str) and not value.strip() else value for value in values]
    there = [value for value in given if value is not None]
    if there and all(isinstance(value, str) for value in there):
        for kind, read in _READERS:
            try:
                return kind, [None if value is None else read(value.strip()) for value in given]
            except (ValueError, KeyError):
                continue
        return pa.string(), given
    for kind, types in _TYPES:
        if there and all(isinstance(value, types) for value in there):
            return kind, given
    return pa.string(), [None if value is None else str(value) for value in given]


_READERS: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.int64(), int),
    (pa.float64(), float),
    (pa.bool_(), {"true": True, "false": False, "True": True, "False": False}.__getitem__),
    (pa.timestamp("us"), datetime.fromisoformat),
)
_TYPES: tuple[tuple[pa.DataType, Any], ...] = (
    (pa.bool_(), bool),
    (pa.int64(), int),
    (pa.float64(), (int, float)),
    (pa.timestamp("us"), (datetime, date)),
)
