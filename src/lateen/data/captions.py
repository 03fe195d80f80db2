"""The captions of one image: rows, one or several for each image, become samples.

Every reader of captions goes through :class:`CaptionDataset`, whatever its files look like.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

from lateen.data.fingerprint import combine
from lateen.data.samples import (
    ImageFiles,
    ImageSource,
    Sample,
    Skip,
    is_unicode,
    require_image,
    sample_id,
)
from lateen.files import canonical_json


class Images(Protocol):
    """Where the images of a dataset are.

    A reader knows an image by a reference of its own kind: a path, the number of a row. ``None``
    stands for a text without image.
    """

    def sources(self, refs: Iterable[Any]) -> Iterator[ImageSource | None]:
        """The image of each reference, lazily, one for one."""

    def hashes(self, refs: Iterable[Any]) -> Iterable[str]:
        """Hashes that change when the bytes of any of these images do."""


@dataclass(slots=True)
class _SampleRows:
    """One sample to be: its rows so far.

    Attributes:
        image: the reference of its image, see :class:`Images`.
        fault: why the whole sample is left out, empty if it is not.
        skips: its captions that are left out.
    """

    id: str
    image: Any
    source: str
    fault: str
    captions: dict[str, list[str]]
    skips: list[Skip] = field(default_factory=list)


class CaptionDataset:
    """A :class:`~lateen.data.samples.Dataset` of rows that a reader adds when it is created.

    Samples come in the order in which their ids were first added. A caption that is missing, empty
    or no text is a skip of its own; an image without any usable caption is skipped whole.

    Args:
        name: what the user called it.
        columns: the caption columns.
        images: where the images are.
        merge: whether rows of the same id are one sample (several captions of one image file), as
            opposed to duplicates, of which the first counts.
    """

    def __init__(self, name: str, columns: Sequence[str], images: Images, *, merge: bool) -> None:
        self.name = name
        self.columns = tuple(columns)
        self._images = images
        self._merge = merge
        self._items: list[_SampleRows | Skip] = []
        self._by_id: dict[str, _SampleRows] = {}

    def __len__(self) -> int:
        return sum(
            1 if isinstance(item, Skip) or self._fault(item) else 1 + len(item.skips)
            for item in self._items
        )

    def __iter__(self) -> Iterator[Sample | Skip]:
        images = self._images.sources(entry.image for entry in self._usable())
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
        hashes = self._images.hashes(entry.image for entry in self._usable())
        return combine(chain([canonical_json(self.columns)], self._records(), hashes))

    def add(
        self, sample: str, image: Any, cells: Mapping[str, Any], source: str, fault: str = ""
    ) -> None:
        """Add one row.

        Args:
            sample: its id.
            image: the reference of its image, ``None`` if it has none.
            cells: for each caption column a caption, a list of captions, or something unusable.
            source: where the row is.
            fault: why the sample cannot be used, empty if it can.
        """
        if not is_unicode(sample):
            name = sample.encode("utf-8", "backslashreplace").decode()
            self.skip(Skip(name, "the id is not valid Unicode", source))
            return
        entry = self._by_id.get(sample)
        if entry is None:
            captions: dict[str, list[str]] = {column: [] for column in self.columns}
            entry = _SampleRows(sample, image, source, fault, captions)
            self._by_id[sample] = entry
            self._items.append(entry)
        elif not self._merge:
            reason = f"the id was already used at {entry.source}"
            # Not the sample's skip: the first of that id stays in.
            self.skip(Skip(sample, reason, source, sample=False))
            return
        for column in self.columns:
            at = source if len(self.columns) == 1 else f"{source} {column}"
            _add_captions(entry, column, cells.get(column), at)

    def add_file(
        self, files: ImageFiles, sample: str, cells: Mapping[str, Any], source: str
    ) -> None:
        """Add one row whose id names an image file; a file that is not there is the row's fault."""
        if sample in self._by_id:
            self.add(sample, None, cells, source)
            return
        if sample.startswith(("http:/", "https:/")):  # an id has no double slashes
            path, fault = None, "the image is a URL, and only local files are read"
        else:
            path, fault = files.find(sample), "the image file does not exist"
        self.add(sample, path, cells, source, "" if path else fault)

    def skip(self, skip: Skip) -> None:
        """Record what is left out, in its order among the rows."""
        self._items.append(skip)

    def require_image(self, files: ImageFiles) -> None:
        """See that at least one of the images that rows name is there.

        Raises:
            DataError: not one is.
        """
        where = f", looked for in {files.folder}"
        require_image(
            self.name,
            ((entry.id, entry.fault and entry.fault + where) for entry in self._by_id.values()),
            "Give the folder they are relative to with --images (--data.images for a recipe).",
        )

    def _usable(self) -> Iterator[_SampleRows]:
        for item in self._items:
            if isinstance(item, _SampleRows) and not self._fault(item):
                yield item

    def _fault(self, entry: _SampleRows) -> str:
        """Why the whole sample is left out, empty if it is not."""
        if entry.fault or not self.columns or any(entry.captions.values()):
            return entry.fault
        count = len(entry.skips)
        return entry.skips[0].reason if count == 1 else f"none of its {count} captions can be used"

    def _records(self) -> Iterator[str]:
        """Everything but the images, without sources: a moved dataset is the same dataset."""
        for item in self._items:
            if isinstance(item, Skip):
                yield canonical_json([item.id])
            else:
                captions = {} if self._fault(item) else item.captions
                yield canonical_json([item.id, captions, len(item.skips)])


def _add_captions(entry: _SampleRows, column: str, cell: Any, source: str) -> None:
    if not isinstance(cell, (list, tuple)):
        _add_caption(entry, column, cell, source)
    elif not cell:
        entry.skips.append(Skip(entry.id, "it has no caption", source, sample=False, column=column))
    else:
        for index, value in enumerate(cell):
            _add_caption(entry, column, value, f"{source}[{index}]")


def _add_caption(entry: _SampleRows, column: str, value: Any, source: str) -> None:
    reason = _caption_fault(value)
    if reason:
        entry.skips.append(Skip(entry.id, reason, source, sample=False, column=column))
    else:
        entry.captions[column].append(value.strip())


def _caption_fault(value: Any) -> str:
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
