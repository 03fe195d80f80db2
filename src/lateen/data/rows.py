"""The rows of a table, whatever kind of file they are in: CSV, TSV, JSON lines, JSON or Parquet.

What cannot be read as a row comes as one with a fault, under its ``file:line``.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lateen.data.captions import Images
from lateen.data.fingerprint import file_hashes
from lateen.data.images import IMAGE_SUFFIXES
from lateen.data.samples import ImageSource, MemoryImage, image_bytes
from lateen.data.text import by_key, read_json, read_utf8
from lateen.errors import DataError
from lateen.objects import ObjectPath
from lateen.progress import log

# pyarrow is imported where Parquet is read: it takes 0.2 s.

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")

_DELIMITERS = ",;|\t"
_PLAIN_ROWS = 1000  # that are looked at to learn what rows begin with
_TEXT_ROWS = 4096
_IMAGE_ROWS = 64


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


class EmbeddedImages(Images, Protocol):
    """Images within a table, one per row; the reference of each is its row's number from 0.

    References are asked for in ascending order. Few images are in memory at a time.
    """

    def names(self) -> Iterator[str | None]:
        """The file name that comes with each image, read without the image."""


class Rows:
    """A table. Reading it twice gives the same.

    Attributes:
        name: what the user called it, or the folder that its files are in.
        columns: all of them.
    """

    def __init__(self, name: str, columns: list[str]) -> None:
        self.name = name
        self.columns = columns

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with at least the cells of ``columns``."""
        raise NotImplementedError

    def embedded(self, column: str, suffix: str = "") -> EmbeddedImages | None:
        """The images in ``column``, or ``None`` where it names files.

        Args:
            column: which.
            suffix: what the images' names end in, to tell those of one row apart.
        """
        del column, suffix
        return None

    def hashes(self) -> list[str]:
        """Hashes that change when any row or image in it does."""
        raise NotImplementedError


def open_rows(*paths: Path, suffixes: Sequence[str] = TABLE_SUFFIXES) -> Rows:
    """The rows of a file, or of several of the same kind that make one table.

    Args:
        paths: JSON and Parquet may come in several files.
        suffixes: of the kinds of files that are welcome; ``.json`` is a list or mapping of objects.

    Raises:
        DataError: a file is of another kind or cannot be read: see :func:`read_utf8`,
            :func:`_open_csv`, :func:`_open_json` and :class:`ParquetRows`.
    """
    suffix = paths[0].suffix.lower()
    if suffix not in suffixes:
        raise DataError(
            f"{paths[0]} is not a table that can be read", f"Give one of: {', '.join(suffixes)}."
        )
    if suffix == ".parquet":
        return ParquetRows(*paths)
    return _open_csv(*paths) if suffix in (".csv", ".tsv") else _open_json(*paths)


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str], where: str) -> None:
    """See that a table has the columns that it is published with.

    Args:
        name: of the table.
        columns: that it has.
        needed: those that it must have.
        where: to get it, in one sentence.

    Raises:
        DataError: one is missing.
    """
    for column in needed:
        if column not in columns:
            there = ", ".join(columns) or "(none)"
            raise DataError(f"{name} has no column {column!r}; its columns are {there}", where)


class TextRows(Rows):
    """Rows of text files, which hold no images.

    Args:
        paths: the files.
        columns: their columns.
        rows: yields the rows, anew each time it is called.
    """

    def __init__(
        self, paths: Sequence[Path], columns: list[str], rows: Callable[[], Iterator[Row]]
    ) -> None:
        super().__init__(_common_name(paths), columns)
        self._paths = paths
        self._rows = rows

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with all of its cells."""
        del columns
        return self._rows()

    def hashes(self) -> list[str]:
        """Of the files."""
        return file_hashes(self._paths)


def _common_name(paths: Sequence[Path]) -> str:
    return str(paths[0] if len(paths) == 1 else paths[0].parent)


def _open_csv(path: Path) -> TextRows:
    """CSV, or anything like it: the delimiter is the commonest of ``, ; |`` and tab in the header.

    Raises:
        DataError: not UTF-8, no header, or a column named twice; when read, a quote that is never
            closed.
    """
    text = read_utf8(path)
    header = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
    lines = io.StringIO(text, newline="").readlines()
    reader = _csv_reader(lines, delimiter)
    columns = _csv_header(path, reader)
    body = _CsvBody(path, lines, reader.line_num, delimiter, columns)
    return TextRows([path], columns, body.rows)


def _csv_reader(lines: Iterable[str], delimiter: str) -> Any:
    # strict: otherwise a stray quote changes the meaning of a line without a word
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _csv_header(path: Path, lines: Iterator[list[str]]) -> list[str]:
    try:
        names = [name.strip() for name in next(lines)]
    except (csv.Error, StopIteration) as error:
        raise DataError(
            f"the first line of {path} is no header ({str(error) or 'it is empty'})",
            "The first line must name the columns.",
        ) from error
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{path} has more than one column {name!r}", "Give every column a name of its own."
            )
    return names


class _CsvBody:
    """The rows of a CSV file, in which people's quotation marks may look like CSV's quotes.

    A cell in quotes may run over several lines. Where it swallows lines that are rows of their own,
    or its quotes are no valid CSV, its marks are text: the line is divided at each delimiter, and
    reading goes on with the next line. A file with tabs whose lines all have the header's cells,
    and marks that are no quotes, is one without quotes.

    Args:
        path: of the file.
        lines: with their ends.
        begin: how many of them the header takes.
        delimiter: between cells.
        columns: the header's cells.
    """

    def __init__(
        self, path: Path, lines: list[str], begin: int, delimiter: str, columns: Sequence[str]
    ) -> None:
        self._path = path
        self._lines = lines
        self._begin = begin
        self._delimiter = delimiter
        self._columns = columns
        self._told = False

    def rows(self) -> Iterator[Row]:
        """Every row but blank lines; one that does not have the header's cells is a fault.

        Raises:
            DataError: a quote is never closed, and its line is no row without it.
        """
        stray: list[int] = []
        if self._has_no_quotes:
            for at in range(self._begin, len(self._lines)):
                yield from self._row(self._split(at), at)
                stray += [at] if '"' in self._lines[at] else []
        else:
            begin: int | None = self._begin
            while begin is not None:
                begin = yield from self._rows_from(begin, stray)
        if stray and not self._told:
            self._told = True
            log.warning(
                "%s: the quotation marks of %d lines are no quotes of CSV and read as text (the "
                "first in line %d)", self._path, len(stray), stray[0] + 1,
            )  # fmt: skip

    def _rows_from(self, begin: int, stray: list[int]) -> Generator[Row, None, int | None]:
        """The rows from a line on, up to the first whose marks are no quotes.

        Returns:
            The line to go on from; ``None`` at the end.
        """
        lines = (self._lines[at] for at in range(begin, len(self._lines)))
        reader = _csv_reader(lines, self._delimiter)
        while True:
            at, fault = begin + int(reader.line_num), ""
            cells: list[str] | None = []
            try:
                cells = next(reader, None)
            except csv.Error as error:
                fault = str(error)
            if cells is None:
                return None
            if not fault and not self._swallows_rows(at, begin + reader.line_num):
                yield from self._row(cells, at)
                continue
            plain = [_without_quotes(cell) for cell in self._split(at)]
            if len(plain) == len(self._columns):
                stray.append(at)
                yield from self._row(plain, at)
            elif "unexpected end" in fault or "field limit" in fault:
                raise DataError(
                    f"a quote that is opened at {self._path}:{at + 1} is never closed",
                    "Correct the quotes there.",
                )
            else:
                fault = fault or "its quotation mark swallows the rows below"
                yield Row({}, f"{self._path}:{at + 1}", f"the row is not valid CSV ({fault})")
            return at + 1

    def _row(self, cells: Sequence[str], at: int) -> Iterator[Row]:
        source = f"{self._path}:{at + 1}"
        if len(cells) == len(self._columns):
            yield Row(dict(zip(self._columns, cells, strict=True)), source)
        elif any(cells):
            fault = f"the row has {len(cells)} cells where the header has {len(self._columns)}"
            yield Row(dict(zip(self._columns, cells, strict=False)), source, fault)

    def _split(self, at: int) -> list[str]:
        """A line's cells without regard to quotes."""
        return self._lines[at].rstrip("\r\n").split(self._delimiter)

    def _swallows_rows(self, begin: int, end: int) -> bool:
        """Whether one of the further lines of a cell that runs over several is a row by itself."""
        return any(self._is_row(self._split(at)) for at in range(begin + 1, end))

    def _is_row(self, cells: Sequence[str]) -> bool:
        """Whether cells look like a row: as many, and where commas divide them, with a name."""
        if len(cells) != len(self._columns):
            return False
        names = any(Path(cell.strip().lower()).suffix in IMAGE_SUFFIXES for cell in cells)
        return self._delimiter == "\t" or names or _shape(cells[0]) in self._shapes

    @cached_property
    def _shapes(self) -> set[str]:
        """What the first cells of plain rows look like, where they have a number in them."""
        rows = [self._split(at) for at in range(self._begin, len(self._lines))[:_PLAIN_ROWS]]
        shapes = {_shape(cells[0]) for cells in rows if len(cells) == len(self._columns)}
        return {shape for shape in shapes if "0" in shape}

    @cached_property
    def _has_no_quotes(self) -> bool:
        if self._delimiter != "\t":
            return False
        lines = [line for line in self._lines[self._begin :] if line.strip()]
        tabs = len(self._columns) - 1
        return all(line.count("\t") == tabs for line in lines) and any(
            _has_stray_quote(line, self._delimiter) for line in lines if '"' in line
        )


def _shape(cell: str) -> str:
    """What a name looks like: ``IMG_0012.jpg`` as ``a_0.a``."""
    return re.sub(r"[0-9]+", "0", re.sub(r"[^\W\d_]+", "a", cell.strip()))


def _has_stray_quote(line: str, delimiter: str) -> bool:
    try:
        list(_csv_reader([line], delimiter))
    except csv.Error:
        return True
    return False


def _without_quotes(cell: str) -> str:
    """A cell as text, without the pair of quotes around all of it."""
    inner = cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell
    return inner.replace('""', '"')


def _open_json(*paths: Path) -> TextRows:
    """JSON lines, one object per line; or JSON (.json), a list or mapping of objects.

    Raises:
        DataError: not UTF-8, or no such list.
    """
    parts = (_json_entries(p) if p.suffix.lower() == ".json" else json_lines(p) for p in paths)
    rows = list(itertools.chain.from_iterable(parts))
    # The keys of all objects, in the order in which they first appear.
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    return TextRows(paths, columns, lambda: iter(rows))


def json_lines(path: Path) -> Iterator[Row]:
    """The objects of JSON lines, whatever the file's suffix.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
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
        yield _json_row(value, source, "line")


def _json_entries(path: Path) -> Iterator[Row]:
    entries = by_key(read_json(path), path).items()
    return (_json_row(value, f"{path}[{key}]", "entry") for key, value in entries)


def _json_row(value: Any, source: str, what: str) -> Row:
    if isinstance(value, dict):
        return Row(value, source)
    return Row({}, source, f"the {what} is not a JSON object")


class ParquetRows(Rows):
    """Parquet files.

    Raises:
        DataError: one is not a Parquet file, or damaged.
    """

    def __init__(self, *paths: Path) -> None:
        self._schemas = [_parquet_schema(path) for path in paths]
        names = (str(name) for schema in self._schemas for name in schema.names)
        super().__init__(_common_name(paths), list(dict.fromkeys(names)))
        self._paths = paths

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every row, with the cells of ``columns`` only; its line is its number from 1."""
        for path in self._paths:
            number = 0
            for batch in _read_batches(path, list(columns), _TEXT_ROWS):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(cells, f"{path}:{number}")

    def embedded(self, column: str, suffix: str = "") -> EmbeddedImages | None:
        """The images in ``column`` if it is binary or a struct with a field ``bytes``."""
        if not all(column in s.names and _holds_bytes(s.field(column).type) for s in self._schemas):
            return None
        has_names = all(_has_field(schema.field(column).type, "path") for schema in self._schemas)
        return ParquetImages(self._paths, column, suffix, has_names=has_names)

    def hashes(self) -> list[str]:
        """Of the files."""
        return file_hashes(self._paths)


class ParquetImages:
    """A column of encoded images, plain or as Hugging Face's ``{bytes, path}``."""

    def __init__(self, paths: Sequence[Path], column: str, suffix: str, *, has_names: bool) -> None:
        self._paths = paths
        self._column = column
        self._suffix = suffix
        self._has_names = has_names

    def names(self) -> Iterator[str | None]:
        """Each image's field ``path``; nothing else of the image is read."""
        if not self._has_names:
            return itertools.repeat(None)
        return (
            cell and cell["path"]
            for path in self._paths
            for batch in _read_batches(path, [f"{self._column}.path"], _TEXT_ROWS)
            for cell in batch.column(0).to_pylist()
        )

    def sources(self, refs: Iterable[int]) -> Iterator[ImageSource]:
        """The images in some rows; those in between are passed over."""
        images = enumerate(self._read())
        for ref in refs:  # in the order of the rows: both advance together
            yield next(image for index, image in images if index == ref)

    def hashes(self, refs: Iterable[int]) -> list[str]:
        """Of the files."""
        del refs
        return file_hashes(self._paths)

    def _read(self) -> Iterator[MemoryImage]:
        """Each row's image, empty where there is none, :data:`_IMAGE_ROWS` rows at a time."""
        for path in self._paths:
            number = 0
            for batch in _read_batches(path, [self._column], _IMAGE_ROWS):
                for cell in batch.column(0).to_pylist():
                    number += 1
                    yield MemoryImage(f"{path}:{number}{self._suffix}", image_bytes(cell))


def _parquet_source(path: Path) -> Any:
    """What pyarrow reads: it has file systems of its own, which know nothing of ours."""
    return path.open("rb") if isinstance(path, ObjectPath) else path


def _parquet_schema(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_parquet_source(path)) as file:
            return file.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet ({error})", "Write or download it again."
        ) from error


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(is_binary or _has_field(kind, "bytes"))


def _has_field(kind: Any, field: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index(field) >= 0)


def _read_batches(path: Path, columns: list[str], rows: int) -> Iterator[Any]:
    """Record batches of at most ``rows`` rows with ``columns``.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(_parquet_source(path)) as file:
            yield from file.iter_batches(rows, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is damaged ({error})", "Write or download it again.") from error
