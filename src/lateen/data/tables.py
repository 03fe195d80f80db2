"""Captions, and which images they belong to, in a CSV, TSV, JSON lines or Parquet file."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lateen.data.captions import PEEK, ImageRoot, RootedDataset, find_root, is_missing, row_key
from lateen.data.fingerprint import file_hashes
from lateen.data.samples import ImageSource, MemoryImage, Skip, is_unicode, sample_id
from lateen.errors import DataError, choices

_DELIMITERS = ",;|\t"


_IMAGE_NAMES = (
    "image", "image_path", "image_file", "image_filename", "image_file_name", "image_filepath",
    "image_name", "imagepath", "filename", "file_name", "filepath", "file_path", "file", "path",
    "img", "img_path", "img_file", "img_name", "jpg", "png", "photo", "picture",
)  # fmt: skip
_ID_NAMES = ("id", "image_id", "img_id", "key", "uid")
_CAPTION = re.compile(
    r"(caption|text|short|long(?!itude))\w*"
    r"|(\w+_)?(captions?|text|raw|title|sentences?|comment|description)"
)
# A column that describes captions is not one: caption_id, text_url, short_count.
_NOT_CAPTION_ENDS = ("_id", "_ids", "id", "_index", "_number", "_count", "_url", "_path", "_file",
                     "_length", "_score", "_embedding")  # fmt: skip
_TEXT_ROWS = 4096
_IMAGE_ROWS = 64
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        cells: by column; a column that is not there has no cell.
        source: ``file:line``, counted from 1.
        fault: why the row cannot be used, empty if it can.
    """

    cells: Mapping[str, Any]
    source: str
    fault: str = ""


class EmbeddedImages(Protocol):
    """Images within a table, one per row."""

    def names(self) -> Iterator[str | None]:
        """The file name that comes with each image, read without the image."""

    def contents(self) -> Iterator[bytes]:
        """Each image's encoded bytes, empty where there are none; few are in memory at a time."""


class Rows(Protocol):
    """A table file. Reading it twice gives the same."""

    @property
    def names(self) -> list[str]:
        """The columns."""

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with at least the cells of ``columns``."""

    def embedded(self, column: str) -> EmbeddedImages | None:
        """The images in ``column``, or ``None`` where it names files."""


class CsvRows:
    """CSV, or anything like it: the delimiter is the commonest of ``, ; |`` and tab in the header.

    Raises:
        DataError: not UTF-8, no header, a column named twice, or a quote that is never closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = read_utf8(path)
        header = self._text.split("\n", 1)[0]
        tab = path.suffix.lower() == ".tsv"
        self._delimiter = "\t" if tab else max(_DELIMITERS, key=header.count)

    def _reader(self) -> Any:
        # strict: otherwise a stray quote changes the meaning of a line without a word
        text = io.StringIO(self._text, newline="")
        return csv.reader(text, delimiter=self._delimiter, strict=True)

    @cached_property
    def names(self) -> list[str]:
        """The header's cells."""
        try:
            names = [name.strip() for name in next(self._reader())]
        except (csv.Error, StopIteration) as error:
            raise DataError(
                f"the first line of {self._path} is no header ({str(error) or 'it is empty'})",
                "The first line must name the columns.",
            ) from error
        for name in names:
            if names.count(name) > 1:
                raise DataError(
                    f"{self._path} has more than one column {name!r}",
                    "Give every column a name of its own.",
                )
        return names

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row but blank lines; one that does not have the header's cells is a fault."""
        del columns
        names = self.names
        reader = self._reader()
        next(reader)
        while True:
            source = f"{self._path}:{reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._malformed(str(error), source)
                continue
            if len(cells) == len(names):
                yield Row(dict(zip(names, cells, strict=True)), source)
            elif cells:
                fault = f"the row has {len(cells)} cells where the header has {len(names)}"
                yield Row(dict(zip(names, cells, strict=False)), source, fault)

    def embedded(self, column: str) -> None:
        """``None``: text holds no image."""

    def _malformed(self, error: str, source: str) -> Row:
        if "unexpected end" in error or "field limit" in error:
            raise DataError(
                f"a quote that is opened at {source} is never closed", "Correct the quotes there."
            )
        return Row({}, source, f"the row is not valid CSV ({error})")


class JsonRows:
    """JSON lines: one object per line.

    Raises:
        DataError: not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._rows = list(_parse_json_lines(path))

    @property
    def names(self) -> list[str]:
        """The keys of all objects, in the order in which they first appear."""
        return list(dict.fromkeys(name for row in self._rows for name in row.cells))

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every line but blank ones; one that is no JSON object is a fault."""
        del columns
        return iter(self._rows)

    def embedded(self, column: str) -> None:
        """``None``: text holds no image."""


def _parse_json_lines(path: Path) -> Iterator[Row]:
    # Not splitlines: U+2028 and its like may stand unescaped within JSON strings.
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        source = f"{path}:{number}"
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            yield Row({}, source, f"the line is not valid JSON ({error})")
            continue
        if isinstance(value, dict):
            yield Row(value, source)
        else:
            yield Row({}, source, "the line is not a JSON object")


def read_utf8(path: Path) -> str:
    """A text file's content, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is in another encoding; the message names the line.
    """
    try:
        data = path.read_bytes()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path} is in UTF-16, line 1", "Save it as UTF-8.")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"line {line} of {path} is not UTF-8 (byte 0x{error.object[error.start]:02x})",
            "Save the file as UTF-8, for example with: iconv -f WINDOWS-1252 -t UTF-8.",
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", "Check the path, and its permissions."
        ) from error


def find_image_column(names: Sequence[str], given: str | None) -> str | None:
    """The column of images: the one given, else the first with a common name, else ``None``.

    Raises:
        DataError: the one given does not exist.
    """
    if given is not None:
        return _check(names, given, "--data.image_column")
    return _first(names, _IMAGE_NAMES)


def find_id_column(names: Sequence[str]) -> str | None:
    """The column of ids, if one has a common name."""
    return _first(names, _ID_NAMES)


def guess_caption_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns whose names say that they hold captions, in the order of ``names``."""
    return tuple(name for name in names if _names_captions(name))


def find_caption_columns(
    names: Sequence[str], given: Sequence[str], image: str | None, what: str
) -> tuple[str, ...]:
    """The caption columns: those given, else all with a common name.

    Args:
        names: every column.
        given: the user's choice, empty for none.
        image: the image column. A table without any other column is one of images alone.
        what: the table, for the message.

    Raises:
        DataError: one given does not exist, or none is given and none can be guessed.
    """
    if given:
        return tuple(_check(names, name, "--data.captions") for name in given)
    found = tuple(name for name in guess_caption_columns(names) if name != image)
    if not found and list(names) != [image]:
        raise DataError(
            f"{what} has no column that is called like captions; its columns are "
            f"{', '.join(names) or '(none)'}",
            "Name the caption columns with --data.captions and the image column with "
            "--data.image_column (in CSV and TSV the first line must be the header).",
        )
    return found


def _check(names: Sequence[str], given: str, option: str) -> str:
    if given not in names:
        raise DataError(f"there is no column {given!r} ({option})", choices(given, names))
    return given


def _first(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    by_word = {_word(name): name for name in reversed(names)}
    return next((by_word[word] for word in wanted if word in by_word), None)


def _names_captions(name: str) -> bool:
    word = _word(name)
    return _CAPTION.fullmatch(word) is not None and not word.endswith(_NOT_CAPTION_ENDS)


def _word(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


class ParquetRows:
    """A Parquet file.

    Raises:
        DataError: it is not a Parquet file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{path} cannot be read as Parquet ({error})", "Write or download it again."
            ) from error

    @cached_property
    def names(self) -> list[str]:
        """The columns."""
        return [str(name) for name in self._schema.names]

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with the cells of ``columns`` only; its line is its number from 1."""
        number = 0
        for batch in read_batches(self._path, list(columns), _TEXT_ROWS):
            for cells in batch.to_pylist():
                number += 1
                yield Row(cells, f"{self._path}:{number}")

    def embedded(self, column: str) -> ParquetImages | None:
        """The images in ``column`` if it is binary or a struct with a field ``bytes``."""
        kind = self._schema.field(column).type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return ParquetImages(self._path, column, has_names=False)
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            has_names = kind.get_field_index("path") >= 0
            return ParquetImages(self._path, column, has_names=has_names)
        return None


class ParquetImages:
    """A column of encoded images, plain or as Hugging Face's ``{bytes, path}``."""

    def __init__(self, path: Path, column: str, *, has_names: bool) -> None:
        self._path = path
        self._column = column
        self._has_names = has_names

    def names(self) -> Iterator[str | None]:
        """Each image's field ``path``; nothing else of the image is read."""
        if not self._has_names:
            return itertools.repeat(None)
        batches = read_batches(self._path, [f"{self._column}.path"], _TEXT_ROWS)
        return (cell and cell["path"] for batch in batches for cell in batch.column(0).to_pylist())

    def contents(self) -> Iterator[bytes]:
        """Each image's bytes, empty where there are none, :data:`_IMAGE_ROWS` rows at a time."""
        for batch in read_batches(self._path, [self._column], _IMAGE_ROWS):
            for cell in batch.column(0).to_pylist():
                yield (cell["bytes"] if isinstance(cell, dict) else cell) or b""


def read_batches(path: Path, columns: list[str], rows: int) -> Iterator[Any]:
    """Record batches of at most ``rows`` rows with ``columns``.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(rows, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({error})", "Write or download it again.") from error


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
