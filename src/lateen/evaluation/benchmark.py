"""Tables in which benchmarks are published: JSON, JSON lines, CSV, Parquet, or a hub dataset.

Unlike :mod:`lateen.data.tables`, nothing here guesses which column is what: a benchmark's reader
knows its columns.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from lateen.data.fingerprint import file_hashes
from lateen.data.hub import RowImage, is_hub_name, is_saved_dataset, load_rows
from lateen.data.samples import ImageSource, MemoryImage, refuse_split
from lateen.data.tables import CsvRows, JsonRows, Row, Rows, read_utf8
from lateen.errors import DataError


class BenchmarkTable(Protocol):
    """Rows of a published table, in its order.

    Attributes:
        name: what the user called it.
        columns: all of them.
        embedded: those that hold images themselves, not names of files.
    """

    name: str
    columns: list[str]
    embedded: tuple[str, ...]

    def rows(self) -> Iterator[Row]:
        """Every row, without the images in it."""

    def images(self) -> Iterator[tuple[ImageSource, ...]]:
        """Every row's images, in the order of :attr:`embedded`; few are in memory at a time."""

    def hashes(self) -> list[str]:
        """Hashes that change when any row or image in it does."""


class FileTable:
    """One table in one or several files of the same columns.

    Args:
        paths: .json (a list or mapping of objects), .jsonl, .csv, .tsv or .parquet files.

    Raises:
        DataError: a file cannot be read.
    """

    def __init__(self, *paths: Path) -> None:
        self.name = str(paths[0] if len(paths) == 1 else paths[0].parent)
        self._paths = paths
        self._tables = [_open_file(path) for path in paths]
        self.columns = list(dict.fromkeys(name for table in self._tables for name in table.names))
        self.embedded = tuple(
            name for name in self.columns
            if all(name in t.names and t.embedded(name) for t in self._tables)
        )  # fmt: skip

    def rows(self) -> Iterator[Row]:
        """Every row, without the images in it."""
        wanted = [name for name in self.columns if name not in self.embedded]
        return itertools.chain.from_iterable(table.read(wanted) for table in self._tables)

    def images(self) -> Iterator[tuple[ImageSource, ...]]:
        """Every row's images, in the order of ``embedded``."""
        for path, table in zip(self._paths, self._tables, strict=True):
            columns = [table.embedded(name) for name in self.embedded]
            contents = zip(*(column.contents() for column in columns if column), strict=True)
            for number, row in enumerate(contents, start=1):
                yield tuple(
                    MemoryImage(f"{path}:{number} {name}", data)
                    for name, data in zip(self.embedded, row, strict=True)
                )

    def hashes(self) -> list[str]:
        """Of the files."""
        return file_hashes(self._paths)


class HubTable:
    """One split of a hub dataset, or of one written by ``save_to_disk``.

    Args:
        source: a name on the hub, or a folder.
        split: needed where there are several.

    Raises:
        DataError: it cannot be loaded (gated, absent, offline).
        UsageError: there is no such split, or it is needed and not given.
    """

    def __init__(self, source: str | Path, split: str | None = None) -> None:
        import datasets  # slow to import

        self.name = str(source)
        rows = load_rows(source, split)
        self.columns = list(rows.column_names)
        kinds = rows.features.items()
        self.embedded = tuple(name for name, kind in kinds if isinstance(kind, datasets.Image))
        for name in self.embedded:
            rows = rows.cast_column(name, datasets.Image(decode=False))
        self._rows = rows

    def rows(self) -> Iterator[Row]:
        """Every row, without the images in it."""
        plain = self._rows.remove_columns(list(self.embedded))
        return (
            Row(plain[index] if plain.column_names else {}, f"{self.name}[{index}]")
            for index in range(len(self._rows))
        )

    def images(self) -> Iterator[tuple[ImageSource, ...]]:
        """Every row's images, in the order of ``embedded``."""
        for index in range(len(self._rows)):
            place = f"{self.name}[{index}]"
            yield tuple(
                RowImage(f"{place} {name}", self._rows, name, index) for name in self.embedded
            )

    def hashes(self) -> list[str]:
        """Of the files that the rows are in."""
        return file_hashes([file["filename"] for file in self._rows.cache_files])


def open_tables(
    source: str | Path, suffixes: Sequence[str], split: str | None, where: str
) -> dict[str, BenchmarkTable]:
    """The table or tables in a file, a folder (or its subfolder ``data``), or a hub dataset.

    Args:
        source: of these.
        suffixes: of files to look for in a folder, the first that any has; each file of JSON is a
            table of its own, those of other kinds are one.
        split: of a hub dataset; of Parquet files, what their names begin with.
        where: to get the benchmark, in one sentence.

    Returns:
        The tables by name: the file's without its suffix, or the last part of the source.

    Raises:
        DataError: there is no such thing.
        UsageError: a hub dataset has no such split.
    """
    path = Path(source)
    if path.is_dir() and not is_saved_dataset(path):
        return _in_folder(path, suffixes, split, where)
    if path.is_file():
        refuse_split(path, split)
        return {path.stem: FileTable(path)}
    if path.is_dir() or is_hub_name(source):
        try:
            return {path.name: HubTable(source, split)}
        except DataError as error:  # this benchmark's own remedy says more
            raise DataError(error.message, where) from error
    raise DataError(f"there is no {source}", where)


def check_columns(table: BenchmarkTable, needed: Sequence[str], where: str) -> None:
    """See that a table has the columns of its benchmark.

    Raises:
        DataError: one is missing.
    """
    for name in needed:
        if name not in table.columns:
            raise DataError(
                f"{table.name} has no column {name!r}; its columns are "
                f"{', '.join(table.columns) or '(none)'}",
                where,
            )


def _in_folder(
    folder: Path, suffixes: Sequence[str], split: str | None, where: str
) -> dict[str, BenchmarkTable]:
    for place, suffix in itertools.product((folder, folder / "data"), suffixes):
        paths = sorted(path for path in place.glob(f"*{suffix}") if not path.name.startswith("."))
        if suffix != ".parquet" and paths:
            refuse_split(folder, split)
        if suffix == ".json" and paths:
            return {path.stem: FileTable(path) for path in paths}
        if suffix == ".parquet" and split is not None:
            paths = [path for path in paths if path.name.startswith(split)]
        if paths:
            return {folder.name: FileTable(*paths)}
    of_split = f" of split {split!r}" if split else ""
    raise DataError(f"{folder} has no file{of_split} that ends in {' or '.join(suffixes)}", where)


class _JsonRows:
    """A JSON file: a list of objects, or a mapping of numbers to objects."""

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(read_utf8(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path} is not valid JSON ({error})", "Download it again.") from error
        if isinstance(content, list):
            content = dict(enumerate(content))
        if not isinstance(content, dict):
            raise DataError(f"{path} is neither a list nor a mapping", "Download it again.")
        self._rows = [_json_row(value, f"{path}[{key}]") for key, value in content.items()]
        self.names = list(dict.fromkeys(name for row in self._rows for name in row.cells))

    def read(self, columns: Sequence[str]) -> Iterator[Row]:
        """Every entry; one that is no object is a fault."""
        del columns
        return iter(self._rows)

    def embedded(self, column: str) -> None:
        """``None``: text holds no image."""


def _json_row(value: Any, source: str) -> Row:
    if isinstance(value, dict):
        return Row(value, source)
    return Row({}, source, "the entry is not a JSON object")


def _open_file(path: Path) -> Rows:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from lateen.data.tables import ParquetRows  # pyarrow takes 0.2 s to import

        return ParquetRows(path)
    kinds: dict[str, Callable[[Path], Rows]]
    kinds = {".json": _JsonRows, ".jsonl": JsonRows, ".csv": CsvRows, ".tsv": CsvRows}
    if suffix not in kinds:
        raise DataError(
            f"{path} is not a table that can be read", f"Give one of: {', '.join(kinds)}, .parquet."
        )
    return kinds[suffix](path)
