"""The captions of one image: rows gathered into samples, and the folder that the images lie in.

Every reader of captions goes through here, whatever its files look like.
"""

from __future__ import annotations

import math
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.samples import FileImage, ImageSource, Sample, Skip, is_unicode, sample_id
from lateen.errors import DataError
from lateen.files import canonical_json

PEEK = 64


"""How many images are looked for to find the folder that all are in."""


class ImageRoot:
    """Finds the files that ids name, also where the disk spells accents differently (NFD)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, sample: str) -> str | None:
        """The path, relative to the folder, of the file that the id ``sample`` names."""
        if os.path.isfile(os.path.join(self.folder, sample)):  # noqa: PTH113, PTH118 - speed
            return sample
        if sample.isascii():
            return None
        found = ""
        for part in sample.split("/"):
            actual = self._listing(found).get(part)
            if actual is None:
                return None
            found = posixpath.join(found, actual)
        return found if (self.folder / found).is_file() else None

    def _listing(self, relative: str) -> dict[str, str]:
        """Composed name to name on disk, for all that is in a subfolder."""
        if relative not in self._listings:
            try:
                names = os.listdir(self.folder / relative)  # noqa: PTH208 - names, not paths
            except OSError:
                names = []
            self._listings[relative] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._listings[relative]


def find_root(
    given: Path | str | None, candidates: Sequence[Path], samples: Iterable[str]
) -> ImageRoot:
    """The folder ``given``, else the first candidate that has most of the files in ``samples``."""
    if given is not None:
        return ImageRoot(Path(given))
    wanted = list(samples)
    roots = [ImageRoot(folder) for folder in dict.fromkeys(candidates)]
    return max(roots, key=lambda root: sum(root.find(sample) is not None for sample in wanted))


@dataclass(slots=True)
class _Entry:
    """One sample to be: its rows so far.

    Attributes:
        image: whatever the reader makes an :class:`ImageSource` from; ``None`` without image.
        fault: why the whole sample is left out, empty if it is not.
        skips: its captions that are left out.
    """

    id: str
    image: Any
    source: str
    fault: str
    captions: dict[str, list[str]]
    skips: list[Skip] = field(default_factory=list)


class GatheredDataset:
    """A :class:`~lateen.data.samples.Dataset` of rows that a subclass adds when it is created.

    Samples come in the order in which their ids were first added. A caption that is missing, empty
    or no text is a skip of its own; an image without any usable caption is skipped whole.

    Args:
        name: what the user called it.
        columns: the caption columns.
        merge: whether rows of the same id are one sample (several captions of one image file), as
            opposed to duplicates, of which the first counts.
    """

    def __init__(self, name: str, columns: Sequence[str], *, merge: bool) -> None:
        self.name = name
        self.columns = tuple(columns)
        self._merge = merge
        self._items: list[_Entry | Skip] = []
        self._by_id: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return sum(
            1 if isinstance(item, Skip) or self._fault(item) else 1 + len(item.skips)
            for item in self._items
        )

    def __iter__(self) -> Iterator[Sample | Skip]:
        images = self._images(entry.image for entry in self._whole())
        for item in self._items:
            if isinstance(item, Skip):
                yield item
            elif fault := self._fault(item):
                yield Skip(item.id, fault, item.source)
            else:
                yield from item.skips
                captions = {column: tuple(texts) for column, texts in item.captions.items()}
                yield Sample(item.id, next(images), captions)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any sample's bytes, captions or order change."""
        return combine(chain([canonical_json(self.columns)], self._records(), self._contents()))

    def _images(self, refs: Iterable[Any]) -> Iterator[ImageSource | None]:
        """The image sources of the whole samples, lazily, one for one."""
        raise NotImplementedError

    def _contents(self) -> Iterable[str]:
        """Hashes that change when the bytes of any whole sample's image do."""
        raise NotImplementedError

    def _add(
        self, sample: str, image: Any, cells: Mapping[str, Any], source: str, fault: str = ""
    ) -> None:
        """Add one row.

        Args:
            sample: its id.
            image: see :class:`_Entry`.
            cells: for each caption column a caption, a list of captions, or something unusable.
            source: where the row is.
            fault: why the sample cannot be used, empty if it can.
        """
        if not is_unicode(sample):
            name = sample.encode("utf-8", "backslashreplace").decode()
            self._skip(Skip(name, "the id is not valid Unicode", source))
            return
        entry = self._by_id.get(sample)
        if entry is None:
            captions: dict[str, list[str]] = {column: [] for column in self.columns}
            entry = _Entry(sample, image, source, fault, captions)
            self._by_id[sample] = entry
            self._items.append(entry)
        elif not self._merge:
            reason = f"the id was already used at {entry.source}"
            # Not the sample's skip: the first of that id stays in.
            self._skip(Skip(sample, reason, source, sample=False))
            return
        for column in self.columns:
            place = source if len(self.columns) == 1 else f"{source} {column}"
            _add_captions(entry, column, cells.get(column), place)

    def _skip(self, skip: Skip) -> None:
        self._items.append(skip)

    def _whole(self) -> Iterator[_Entry]:
        for item in self._items:
            if isinstance(item, _Entry) and not self._fault(item):
                yield item

    def _fault(self, entry: _Entry) -> str:
        if entry.fault or not self.columns or any(entry.captions.values()):
            return entry.fault
        count = len(entry.skips)
        return entry.skips[0].reason if count == 1 else f"none of its {count} captions can be used"

    def _records(self) -> Iterator[str]:
        """Everything but the images, without places: a moved dataset is the same dataset."""
        for item in self._items:
            if isinstance(item, Skip):
                yield canonical_json([item.id])
            else:
                kept = not self._fault(item)
                yield canonical_json([item.id, item.captions if kept else {}, len(item.skips)])


def _add_captions(entry: _Entry, column: str, cell: Any, place: str) -> None:
    if not isinstance(cell, (list, tuple)):
        _add_caption(entry, column, cell, place)
    elif not cell:
        entry.skips.append(Skip(entry.id, "it has no caption", place, sample=False, column=column))
    else:
        for index, value in enumerate(cell):
            _add_caption(entry, column, value, f"{place}[{index}]")


def _add_caption(entry: _Entry, column: str, value: Any, place: str) -> None:
    reason = _unusable(value)
    if reason:
        entry.skips.append(Skip(entry.id, reason, place, sample=False, column=column))
    else:
        entry.captions[column].append(value.strip())


def _unusable(value: Any) -> str:
    """Why ``value`` is no caption; empty if it is one."""
    if is_missing(value):
        return "the caption is empty"
    if not isinstance(value, str):
        return f"the caption is not text but {type(value).__name__}"
    return "" if is_unicode(value) else "the caption is not valid Unicode"


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: ``None``, NaN (also as text, as pandas writes it), blanks."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def row_key(value: Any) -> str:
    """The cell of an id column, text or number, as an id; empty where it cannot be one."""
    text = "" if is_missing(value) else str(value)
    return sample_id(text) if is_unicode(text) else ""


class RootedDataset(GatheredDataset):
    """Rows that name image files under ``root``; an image that is not there is skipped.

    The reference of an image is its path relative to the root, or ``None`` for texts alone.
    """

    def __init__(self, name: str, columns: Sequence[str], root: ImageRoot, *, merge: bool) -> None:
        super().__init__(name, columns, merge=merge)
        self._root = root

    def _add_file(self, sample: str, cells: Mapping[str, Any], source: str) -> None:
        if sample in self._by_id:
            self._add(sample, None, cells, source)
            return
        if sample.startswith(("http:/", "https:/")):  # an id has no double slashes
            found, fault = None, "the image is a URL, and only local files are read"
        else:
            found, fault = self._root.find(sample), "the image file does not exist"
        self._add(sample, found, cells, source, "" if found else fault)

    def _require_images(self) -> None:
        """Refuse to go on where every image is missing: then the folder is wrong, not the data."""
        if self._by_id and all(entry.fault for entry in self._by_id.values()):
            first = next(iter(self._by_id.values()))
            raise DataError(
                f"not one of the {len(self._by_id)} images named in {self.name} can be used: "
                f"{first.fault} (the first is {first.id!r}, looked for in {self._root.folder})",
                "Give the folder they are relative to with --images (--data.images for a recipe).",
            )

    def _images(self, refs: Iterable[Any]) -> Iterator[ImageSource | None]:
        folder = self._root.folder
        return (None if ref is None else FileImage(folder / ref) for ref in refs)

    def _contents(self) -> Iterable[str]:
        images = (entry.image for entry in self._whole())
        return file_hashes(self._root.folder / image for image in images if image is not None)
