"""What a dataset is made of: samples with ids, where their images are, and what is left out."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lateen.errors import UsageError, choices


def sample_id(text: str) -> str:
    """``text`` as an id: POSIX separators, no ``./``, ``//`` or outer spaces, composed Unicode.

    >>> sample_id("./a//b.jpg"), sample_id("a\\\\b.jpg")
    ('a/b.jpg', 'a/b.jpg')
    """
    text = unicodedata.normalize("NFC", text.strip())
    return posixpath.normpath(text.replace("\\", "/")) if text else ""


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8 (file names and JSON can hold half characters)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@runtime_checkable
class ImageSource(Protocol):
    """Where the bytes of one image come from; reading is left to the worker that decodes."""

    @property
    def name(self) -> str:
        """The place in words, for messages: a path, or ``shard.tar:member.jpg``."""

    def read(self) -> bytes:
        """The encoded bytes; any failure is an ``OSError``."""


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self.path)

    def read(self) -> bytes:
        """The file's bytes."""
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image inside an uncompressed tar shard, read by position."""

    tar: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """``shard.tar:member``."""
        return f"{self.tar}:{self.member}"

    def read(self) -> bytes:
        """The member's bytes; a shard that ends early is an ``OSError``."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"the shard ends after {len(data)} of {self.size} bytes of this member")
        return data


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """Encoded image bytes that are already in memory (Parquet and ``datasets`` rows)."""

    name: str
    data: bytes = field(repr=False)

    def read(self) -> bytes:
        """The bytes."""
        return self.data


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its captions.

    Attributes:
        id: what joins modalities; unique within a dataset and never a position.
        image: where the image is, or ``None`` for a dataset of texts alone.
        captions: for each caption column, the captions in it, in file order.
        label: the class name, where the dataset has one.
    """

    id: str
    image: ImageSource | None = None
    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """Something that was left out, and why: one line of ``skipped.jsonl``.

    Attributes:
        id: the sample's id.
        reason: one sentence.
        source: where it was found: a path, a table's line, a caption column with its index.
        sample: True where the whole sample leaves every modality; False where only one of its
            captions does.
        column: the caption column it concerns, if it concerns one alone.
    """

    id: str
    reason: str
    source: str
    sample: bool = True
    column: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON line."""
        return asdict(self)


class Dataset(Protocol):
    """Samples in a fixed order. Iterating twice gives the same, and does not decode images.

    A sample with no usable caption in one of the columns comes with a skip for that column.
    """

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption columns; empty for images alone."""

    @property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any sample's bytes, captions or order change."""

    def __len__(self) -> int:
        """How many samples and skips iterating yields."""

    def __iter__(self) -> Iterator[Sample | Skip]:
        """The samples, and in their places those that the reader had to leave out."""


def choose_split(
    parts: Sequence[str], wanted: str | None, source: str | Path, preferred: Sequence[str] = ()
) -> str:
    """The split that is asked for, else the only one, else the first preferred one.

    Args:
        parts: all splits.
        wanted: the one that is asked for.
        source: what has them, for errors.
        preferred: names, the best first.

    Raises:
        UsageError: there is no such split, or none could be chosen.
    """
    if wanted is None:
        first = next((name for name in preferred if name in parts), None)
        wanted = parts[0] if len(parts) == 1 else first
    if wanted is None:
        raise UsageError(f"{source} has several splits", choices("", parts))
    if wanted not in parts:
        raise UsageError(f"{source} has no split {wanted!r}", choices(wanted, parts))
    return wanted


def refuse_split(source: str | Path, split: str | None) -> None:
    """Refuse a split of what has none.

    Raises:
        UsageError: one is asked for.
    """
    if split is not None:
        raise UsageError(f"{source} has no splits, so no {split!r}", "Leave the split out.")
