"""The files of a benchmark, and what its readers make of a row before images are looked for."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from lateen.data.rows import Row
from lateen.data.samples import ImageSource, image_bytes
from lateen.data.text import by_key, read_json
from lateen.errors import DataError
from lateen.metrics.boxes import Box


@dataclass(frozen=True, slots=True)
class Draft:
    """A question whose images are not yet found.

    Attributes:
        id: of the question.
        images: file names below the benchmark's folder of images, or the images.
        text: the question.
        image_ids: what the images are called; their file names if not given.
        source: where it stands, ``file[key]``.
        fault: why it cannot be used; empty if it can.

    The others are those of :class:`~lateen.mllm.benchmarks.questions.Question`.
    """

    id: str
    images: tuple[str | ImageSource, ...]
    text: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    box: Box | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    rotation_of: str = ""
    pair: str = ""
    published: Mapping[str, object] = field(default_factory=dict)
    image_ids: tuple[str, ...] = ()
    source: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that could not be read.

    Attributes:
        fault: why.
    """

    fault: str


class Folder:
    """Where a benchmark's files are.

    Args:
        root: the folder, or the one file with the questions.
        where: to get the benchmark, and what its folder has in it.

    Attributes:
        given: the one file, if it was one.
    """

    def __init__(self, root: Path, where: str) -> None:
        self.root = root.parent if root.is_file() else root
        self.where = where
        self.given = root if root.is_file() else None

    def file(self, *names: str) -> Path:
        """The first of these files that is there; the file that was given as root is taken for it.

        Raises:
            DataError: none is.
        """
        if self.given is not None:
            return self.given
        found = self.find(*names)
        if found is None:
            raise DataError(f"{self.root} has no {names[0]}", self.where)
        return found

    def find(self, *names: str) -> Path | None:
        """The first of these files, or files of this pattern, that is there."""
        paths = (path for name in names for path in sorted(self.root.glob(name)))
        return next((path for path in paths if path.is_file()), None)


def drafts(rows: Iterable[tuple[str, Any]], make: Callable[[Any], Draft]) -> Iterator[Draft]:
    """A draft of every row; of one that is not of the published form, with the fault.

    Args:
        rows: where each stands, and its content.
        make: a draft of a row's content.
    """
    for source, content in rows:
        if isinstance(content, Damaged):
            yield Draft(source, (), "", source=source, fault=content.fault)
            continue
        try:
            draft = make(content)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            fault = f"the entry is not of the published form ({error!r})"
            yield Draft(source, (), "", source=source, fault=fault)
        else:
            yield replace(draft, source=source)


def json_entries(path: Path, key: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a JSON file, each with where it stands.

    Args:
        path: a list or mapping; of a mapping an entry is the pair of key and value.
        key: of the list within a mapping.

    Raises:
        DataError: the file cannot be read, or is of another form.
    """
    return entries_of(read_json(path), path, key)


def entries_of(content: Any, path: Path, key: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a JSON file that was read; see :func:`json_entries`."""
    if key:
        content = content.get(key) if isinstance(content, dict) else None
        if not isinstance(content, list):
            raise DataError(f"{path} has no list {key!r}", "Download it again.")
    named = isinstance(content, dict)
    entries = by_key(content, path).items()
    return ((f"{path}[{at}]", (at, value) if named else value) for at, value in entries)


def table_entries(rows: Iterable[Row]) -> Iterator[tuple[str, Any]]:
    """The rows of a table likewise; in place of a damaged one's cells stands why."""
    return ((row.source, Damaged(row.fault) if row.fault else row.cells) for row in rows)


def yes_or_no(value: Any) -> str:
    """A label as ``yes`` or ``no``, from these words, 1 and 0, or true and false.

    Raises:
        ValueError: it is another.
    """
    word = {"1": "yes", "0": "no", "true": "yes", "false": "no"}.get(
        str(value).lower(), str(value).strip().lower()
    )
    if word not in ("yes", "no"):
        raise ValueError(f"the label {value!r} is neither yes nor no")
    return word


def letter_of(position: int, count: int) -> str:
    """The letter of a choice by its position from 0.

    Raises:
        ValueError: there is no such choice.
    """
    if not 0 <= position < count:
        raise ValueError(f"choice {position} of {count}")
    return ascii_uppercase[position]


@dataclass(frozen=True, slots=True)
class Base64Image:
    """An image written as base64 text."""

    name: str
    text: str = field(repr=False)

    def read(self) -> bytes:
        """The bytes; text that is no base64 is an ``OSError``."""
        try:
            return base64.b64decode(self.text, validate=True)
        except ValueError as error:
            raise OSError(f"the image is not valid base64 ({error})") from error


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a cell of a Parquet file, plain or as Hugging Face's ``{bytes, path}``.

    Attributes:
        path: of the file.
        column: with the images.
        group: which row group, from 0.
        row: within it, from 0.
    """

    path: Path
    column: str
    group: int
    row: int

    @property
    def name(self) -> str:
        """``file.parquet:group:row``."""
        return f"{self.path}:{self.group}:{self.row}"

    def read(self) -> bytes:
        """The bytes; the row group is kept for its next image. A damaged file is an ``OSError``."""
        data = image_bytes(_row_group(self.path, self.column, self.group)[self.row])
        if not data:
            raise OSError("the cell has no image")
        return data


@functools.lru_cache(maxsize=2)
def _row_group(path: Path, column: str, group: int) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return list(file.read_row_group(group, columns=[column]).column(0).to_pylist())
    except pa.ArrowException as error:
        raise OSError(f"the file is damaged ({error})") from error
