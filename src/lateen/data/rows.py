"""Table files as rows: CSV, TSV, JSON lines and Parquet behind one small interface."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lateen.errors import DataError

_DELIMITERS = ",;|\t"


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
