"""What a dataset is made of: samples with ids, where their images are, and what is left out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lateen.data.fingerprint import file_hashes, hash64
from lateen.errors import DataError, UsageError, choices
from lateen.objects import ObjectPath, to_path

PEEK = 64
"""How many images are looked for to find the folder that all are in."""


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
        """Where it is, in words for messages: a path, or ``shard.tar:member.jpg``."""

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
        if isinstance(self.tar, ObjectPath):
            data = self.tar.reader().read(self.offset, self.size)
        else:
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


def image_bytes(cell: Any) -> bytes:
    """The image in a cell, plain or as Hugging Face's ``{bytes, path}``; empty if it has none."""
    return (cell.get("bytes") if isinstance(cell, dict) else cell) or b""


def image_file(image: ImageSource) -> Path | None:
    """The file that an image is in, alone or with others; ``None`` for one in memory.

    Of a part of an image (one with an attribute ``whole``) it is that of the whole image.
    """
    whole = getattr(image, "whole", image)
    path = getattr(whole, "path", None) or getattr(whole, "tar", None)
    return path if isinstance(path, Path) else None


def content_hashes(images: Iterable[ImageSource]) -> list[str]:
    """What changes whenever the bytes of one of these images do, or their order."""
    sources = list(images)
    files = dict.fromkeys(path for image in sources if (path := image_file(image)))
    loose = (str(hash64(image.read())) for image in sources if not image_file(image))
    return [*file_hashes(files), *loose]


def content_of_each(images: Sequence[ImageSource]) -> list[str]:
    """The hash of each image's bytes (64 hex digits); empty where they cannot be read.

    Files are hashed as the rest of lateen does, so that hashes are remembered; other images by
    their bytes.
    """
    files = iter(file_hashes(each.path for each in images if isinstance(each, FileImage)))
    return [next(files) if isinstance(each, FileImage) else _content(each) for each in images]


def _content(image: ImageSource) -> str:
    try:
        return hashlib.sha256(image.read()).hexdigest()
    except OSError:
        return ""


@dataclass(slots=True)
class HashedImage:
    """An image source that remembers a hash of the bytes that were read.

    Of a part of an image (one with an attribute ``whole``) it is the hash of the whole image.

    Attributes:
        source: where the bytes are.
        hash: 64 bits (:func:`~lateen.data.fingerprint.hash64`); 0 as long as nothing was read.
    """

    source: ImageSource
    hash: int = 0

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    def read(self) -> bytes:
        """The source's bytes."""
        data = self.source.read()
        whole: ImageSource | None = getattr(self.source, "whole", None)
        self.hash = hash64(data if whole is None else whole.read())
        return data


def bytes_hash(image: ImageSource) -> int:
    """A hash of an image's bytes, as :class:`HashedImage` has it; 0 where they cannot be read."""
    hashed = HashedImage(image)
    with contextlib.suppress(OSError):
        hashed.read()
    return hashed.hash


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
        """The samples, and in between, in order, what the reader had to leave out."""


def no_captions(dataset: Dataset) -> str:
    """That a dataset has no captions, and why, where its reader knows."""
    why = getattr(dataset, "why_no_captions", "")
    return f"{dataset.name} has no captions{f': {why}' if why else ''}"


class ListDataset:
    """Samples that are known already, as a :class:`Dataset`.

    Args:
        name: what the user called it.
        samples: samples and skips; or a function that yields them anew each time it is called,
            so that they need not be in memory at once.
        fingerprint: 64 hex digits, or a function that computes them when they are first needed.
        columns: the caption columns.
        count: how many samples and skips there are, where ``samples`` is a function.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Sample | Skip] | Callable[[], Iterable[Sample | Skip]],
        fingerprint: str | Callable[[], str],
        columns: Sequence[str] = (),
        *,
        count: int = 0,
    ) -> None:
        self.name = name
        self.columns = tuple(columns)
        self._samples = samples
        self._fingerprint = fingerprint
        self._count = count

    def __len__(self) -> int:
        return self._count if callable(self._samples) else len(self._samples)

    def __iter__(self) -> Iterator[Sample | Skip]:
        return iter(self._samples() if callable(self._samples) else self._samples)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever the samples do."""
        return self._fingerprint() if callable(self._fingerprint) else self._fingerprint


class ImageFiles:
    """The image files below a folder, found by the names that captions or benchmarks give them.

    A file is found also where the disk spells accents differently (NFD). What is found is a path
    relative to the folder.

    Args:
        folder: the folder.
        suffixes: endings that the names may lack.
    """

    def __init__(self, folder: Path, suffixes: Sequence[str] = ("",)) -> None:
        self.folder = folder
        self._suffixes = suffixes
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """The path, relative to the folder, of the file that ``name`` means."""
        return next(filter(None, (self._find(name + suffix) for suffix in self._suffixes)), None)

    def _find(self, name: str) -> str | None:
        if self._objects is not None:
            return self._objects.get(unicodedata.normalize("NFC", posixpath.normpath(name)))
        if os.path.isfile(os.path.join(self.folder, name)):  # noqa: PTH113, PTH118 - speed
            return name
        if name.isascii():
            return None
        path = ""
        for part in name.split("/"):
            spelling = self._listing(path).get(part)
            if spelling is None:
                return None
            path = posixpath.join(path, spelling)
        return path if (self.folder / path).is_file() else None

    @cached_property
    def _objects(self) -> dict[str, str] | None:
        """Composed name to name of all objects below, which cost a request each to ask for."""
        if not isinstance(self.folder, ObjectPath):
            return None
        return {unicodedata.normalize("NFC", name): name for name in self.folder.files()}

    def _listing(self, relative: str) -> dict[str, str]:
        """Composed name to name on disk, for all that is in a subfolder."""
        if relative not in self._listings:
            try:
                names = os.listdir(self.folder / relative)  # noqa: PTH208 - names, not paths
            except OSError:
                names = []
            self._listings[relative] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listings[relative]

    def source(self, path: str) -> FileImage:
        """The image at a path that :meth:`find` gave."""
        return FileImage(self.folder / path)

    def sources(self, paths: Iterable[str | None]) -> Iterator[FileImage | None]:
        """The image at each path; ``None`` for a text without image."""
        return (None if path is None else self.source(path) for path in paths)

    def hashes(self, paths: Iterable[str | None]) -> list[str]:
        """Of the content of each file."""
        return file_hashes(self.folder / path for path in paths if path is not None)


class AbsentImages(ImageFiles):
    """Image files that nobody will read: every name is taken for one, and no sample has an image.

    For captions whose images are elsewhere: ids and captions are those that come with the images.
    """

    def __init__(self) -> None:
        super().__init__(Path())

    def find(self, name: str) -> str | None:
        """The name itself."""
        return name

    def sources(self, paths: Iterable[str | None]) -> Iterator[FileImage | None]:
        """No image for each path."""
        return (None for _ in paths)

    def hashes(self, paths: Iterable[str | None]) -> list[str]:
        """Of no file."""
        del paths
        return []


def find_image_files(
    given: Path | str | ImageFiles | None,
    folders: Iterable[Path],
    names: Iterable[str],
    suffixes: Sequence[str] = ("",),
) -> ImageFiles:
    """The folder that images lie in: the one given, else the first that has most of the images.

    Args:
        given: the user's choice, if any, or the files themselves, which are returned.
        folders: where the images usually are, the likeliest first.
        names: of some images; :data:`PEEK` are enough.
        suffixes: endings that the names may lack.
    """
    if given is not None:
        return given if isinstance(given, ImageFiles) else ImageFiles(to_path(given), suffixes)
    some = list(names)
    usual = list(dict.fromkeys(folders))
    present = [folder for folder in usual if folder.exists()]
    return max(
        (ImageFiles(folder, suffixes) for folder in present or usual[:1]),
        key=lambda files: sum(files.find(name) is not None for name in some),
    )


def require_image(name: str, faults: Iterable[tuple[str, str]], remedy: str) -> None:
    """Refuse to go on where every image is missing: then the folder is wrong, not the data.

    Args:
        name: of the dataset.
        faults: for each image its id, and why it cannot be used; empty if it can.
        remedy: how to say where the images are.

    Raises:
        DataError: there are images, and not one can be used.
    """
    first, count = ("", ""), 0
    for sample, fault in faults:
        if not fault:
            return
        first, count = first if count else (sample, fault), count + 1
    if count:
        raise DataError(
            f"not one of the {count} images of {name} can be used (the first is {first[0]!r}: "
            f"{first[1]})",
            remedy,
        )


_SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip


def split_word(name: str) -> str:
    """Which split a name is of: ``train``, ``validation`` or ``test``; empty for any other name.

    >>> split_word("seg_train"), split_word("Val"), split_word("train_and_test")
    ('train', 'validation', '')
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word in _SPLIT_WORDS]
    return _SPLIT_WORDS[words[0]] if len(words) == 1 else ""


def choose_split(
    parts: Sequence[str], split: str | None, source: str | Path, preferred: Sequence[str] = ()
) -> str:
    """The split that is asked for, else the only one, else the first preferred one.

    Args:
        parts: all splits.
        split: the one that is asked for, by its name or the split that the name is of.
        source: what has them, for errors.
        preferred: names, the best first.

    Raises:
        UsageError: there is no such split, or none could be chosen.
    """
    of_word = {split_word(name): name for name in reversed(parts)}
    of_word.pop("", None)
    if split is None:
        named = (name if name in parts else of_word.get(split_word(name)) for name in preferred)
        split = parts[0] if len(parts) == 1 else next(filter(None, named), None)
    elif split not in parts and split.lower() in _SPLIT_WORDS:
        split = of_word.get(split_word(split), split)
    if split is None:
        raise UsageError(f"{source} has several splits", choices("", parts))
    if split not in parts:
        raise UsageError(f"{source} has no split {split!r}", choices(split, parts))
    return split


def refuse_split(source: str | Path, split: str | None) -> None:
    """Refuse a split of what has none.

    Raises:
        UsageError: one is asked for.
    """
    if split is not None:
        raise UsageError(f"{source} has no splits, so no {split!r}", "Leave the split out.")
