"""Parquet tables, also those that carry the images' bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lateen.data.rows import Row
from lateen.errors import DataError

_TEXT_ROWS = 4096
_IMAGE_ROWS = 64


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
