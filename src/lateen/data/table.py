"""Captions, and which images they belong to, in a CSV, TSV, JSON lines or Parquet file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.data.columns import find_caption_columns, find_id_column, find_image_column
from lateen.data.fingerprint import file_hashes
from lateen.data.gather import is_missing, row_key
from lateen.data.ids import is_unicode, sample_id
from lateen.data.rooted import PEEK, ImageRoot, RootedDataset, find_root
from lateen.data.rows import CsvRows, JsonRows, Row, Rows
from lateen.data.sample import ImageSource, MemoryImage, Skip
from lateen.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class Table(RootedDataset):
    """A table with one caption per row, several caption columns, or lists of captions.

    Rows that name the same image file are one sample. Ids are the image cells as written, with
    POSIX separators. Parquet may carry the images' bytes instead: then each row is a sample, whose
    id is in a column ``id``, ``image_id``, …, else the name that comes with the image, else the
    row's number from 0. A table without an image column is one of texts alone, with such ids.

    Args:
        path: a .csv, .tsv, .jsonl, .ndjson or .parquet file.
        images: the folder that image cells are relative to; if not given, the table's folder or
            its ``images`` subfolder, whichever has the files.
        image_column: the image column; guessed by its name if not given.
        captions: the caption columns; guessed by their names if not given.

    Raises:
        DataError: the file cannot be read, has no such column or no row, or not one of its images
            is there.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        images: Path | str | None = None,
        image_column: str | None = None,
        captions: Sequence[str] = (),
    ) -> None:
        self._path = Path(path)
        rows = _open_rows(self._path)
        image = find_image_column(rows.names, image_column)
        columns = find_caption_columns(rows.names, captions, image, str(path))
        self._embedded = rows.embedded(image) if image is not None else None
        if image is not None and self._embedded is None:
            root = self._find_root(rows, image, images)
            super().__init__(str(path), columns, root, merge=True)
            self._add_by_file(rows, image)
            self._require_images()
        else:
            root = ImageRoot(self._path.parent)
            super().__init__(str(path), columns, root, merge=self._embedded is None)
            self._add_by_key(rows, find_id_column(rows.names))
        if not self._items:
            raise DataError(f"{path} has no rows", "Give a table with at least one row.")

    def _find_root(self, rows: Rows, image: str, given: Path | str | None) -> ImageRoot:
        folder = self._path.parent
        first = itertools.islice(rows.read([image]), PEEK)
        samples = [_image_id(row, image) for row in first]
        return find_root(given, [folder, folder / "images"], filter(None, samples))

    def _add_by_file(self, rows: Rows, image: str) -> None:
        for row in rows.read([image, *self.columns]):
            sample = _image_id(row, image)
            fault = row.fault or ("" if sample else "the row names no image")
            if fault:
                self._skip(Skip(sample, fault, row.source, sample=False))
            else:
                self._add_file(sample, row.cells, row.source)

    def _add_by_key(self, rows: Rows, key: str | None) -> None:
        names = self._embedded.names() if self._embedded is not None else itertools.repeat(None)
        wanted = [*self.columns, *([key] if key else [])]
        for index, row in enumerate(rows.read(wanted)):
            name = sample_id(next(names) or "")
            sample = row_key(row.cells.get(key)) if key else name or str(index)
            fault = row.fault or ("" if sample else f"the row has no {key}")
            if fault:
                self._skip(Skip(sample, fault, row.source, sample=False))
            else:
                self._add(sample, index if self._embedded else None, row.cells, row.source)

    def _images(self, refs: Iterable[Any]) -> Iterator[ImageSource | None]:
        if self._embedded is None:
            yield from super()._images(refs)
            return
        contents = enumerate(self._embedded.contents())
        for ref in refs:  # in the order of the rows: both advance together
            data = next(data for index, data in contents if index == ref)
            yield MemoryImage(f"{self._path}:{ref + 1}", data)

    def _contents(self) -> Iterable[str]:
        return super()._contents() if self._embedded is None else file_hashes([self._path])


def _open_rows(path: Path) -> Rows:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from lateen.data.parquet import ParquetRows  # pyarrow takes 0.2 s to import

        return ParquetRows(path)
    if suffix not in TABLE_SUFFIXES:
        raise DataError(
            f"{path} is not a table that can be read", f"Give one of: {', '.join(TABLE_SUFFIXES)}."
        )
    return JsonRows(path) if suffix in (".jsonl", ".ndjson") else CsvRows(path)


def _image_id(row: Row, column: str) -> str:
    value = row.cells.get(column)
    if not isinstance(value, str) or is_missing(value) or not is_unicode(value):
        return ""
    return sample_id(value)
