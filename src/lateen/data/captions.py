"""The captions of one image: rows, one or several for each image, become samples.

Every reader of captions goes through :class:`CaptionDataset`, whatever its files look like.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, Protocol

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
from lateen.data.text import list_in_text
from lateen.errors import LateenError
from lateen.files import canonical_json, content_key, make_folder, read_json, write_json
from lateen.hardware import cache_folder
from lateen.progress import bar, log

# What programs write where there is no caption.
_SAYS_NOTHING = {"none", "null", "n/a", "na", "<na>", "#n/a", "undefined"}
# Where a cell is an object, as Karpathy's sentences are on the hub, the caption is in one of these.
_TEXT_FIELDS = ("raw", "caption", "text", "sentence")


def split_position(name: str) -> tuple[str, int | None]:
    """``caption#1`` as its column and position, from 0; ``caption`` has no position."""
    column, mark, position = name.rpartition("#")
    return (column, int(position)) if mark and position.isdecimal() else (name, None)


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


class _Repeat(NamedTuple):
    """A row whose id another row had before: where its skip stands, and what it would add."""

    position: int
    first: _SampleRows
    image: Any
    cells: Mapping[str, Any]
    source: str


class CaptionDataset:
    """A :class:`~lateen.data.samples.Dataset` of rows that a reader adds when it is created.

    Samples come in the order in which their ids were first added. A caption that is missing, empty
    or no text is a skip of its own; an image without any usable caption is skipped whole.

    Args:
        name: what the user called it.
        columns: the caption columns.
        images: where the images are.
        merge: whether rows of the same id are one sample (several captions of one image file), as
            opposed to duplicates, of which the first counts. Where each row has an image of its
            own, :meth:`join_copies` makes one sample of those whose image is the same.
    """

    def __init__(self, name: str, columns: Sequence[str], images: Images, *, merge: bool) -> None:
        self.name = name
        self.columns = tuple(columns)
        self.why_no_captions = ""  # set by a reader that knows
        self._images = images
        self._merge = merge
        self._items: list[_SampleRows | Skip] = []
        self._by_id: dict[str, _SampleRows] = {}
        self._repeats: list[_Repeat] = []

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
            self._repeats.append(_Repeat(len(self._items), entry, image, cells, source))
            self.skip(Skip(sample, reason, source, sample=False))
            return
        self._add_cells(entry, cells, source)

    def _add_cells(self, entry: _SampleRows, cells: Mapping[str, Any], source: str) -> None:
        for column in self.columns:
            at = source if len(self.columns) == 1 else f"{source} {column}"
            _add_captions(entry, column, cells.get(column), at)

    def join_copies(self) -> None:
        """Make one sample of the rows of one id whose images have the same bytes.

        Rows of one id with different images stay skips. To be called when all rows are added.
        """
        refs = sorted({r for repeat in self._repeats for r in (repeat.image, repeat.first.image)})
        copies = dict(zip(refs, first_copies(self._images, refs), strict=True)) if refs else {}
        joined = set()
        for repeat in self._repeats:
            if copies[repeat.image] == copies[repeat.first.image]:
                self._add_cells(repeat.first, repeat.cells, repeat.source)
                joined.add(repeat.position)
        self._items = [item for at, item in enumerate(self._items) if at not in joined]
        self._repeats = []

    def join_samples(self) -> None:
        """Make one sample of those whose images have the same bytes, under the first one's id.

        For rows without ids of their own. To be called when all rows are added.
        """
        entries = list(self._by_id.values())
        joined = set()
        copies = first_copies(self._images, [entry.image for entry in entries])
        for position, (entry, copy_of) in enumerate(zip(entries, copies, strict=True)):
            if copy_of != position:
                first = entries[copy_of]
                for column, texts in entry.captions.items():
                    first.captions[column] += texts
                first.skips += [replace(skip, id=first.id) for skip in entry.skips]
                joined.add(entry.id)
                del self._by_id[entry.id]
        self._items = [
            item for item in self._items if isinstance(item, Skip) or item.id not in joined
        ]
        if joined:
            log.info(
                "%s: %d rows show an image of an earlier row, and add their captions to it",
                self.name, len(joined),
            )  # fmt: skip

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
            "Give the folder they are relative to with --images (--data.images for a recipe); "
            "`lateen encode --texts-only` takes captions without their images.",
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


def first_copies(images: Images, refs: Sequence[Any]) -> list[int]:
    """For each image the position among ``refs`` of the first with the same bytes; else its own.

    All of them are read for that, once: what was found stays in the cache folder for as long as the
    files are the same.
    """
    files = list(images.hashes(refs))
    kept = cache_folder() / "copies" / f"{content_key([files, list(refs)])}.json"
    known_by_files = bool(files) and all(files)  # rows in memory are in no file
    if known_by_files:
        with contextlib.suppress(OSError, LateenError):
            return list(read_json(kept))
    first: dict[bytes, int] = {}
    result = []
    with bar(len(refs), "comparing images", "image", stage=False) as progress:
        for position, image in enumerate(images.sources(refs)):
            digest = _digest(image)
            result.append(first.setdefault(digest, position) if digest else position)
            progress.update()
    if known_by_files:
        with contextlib.suppress(OSError, LateenError):
            make_folder(kept.parent)
            write_json(kept, result)
    return result


def _digest(image: ImageSource | None) -> bytes:
    """A hash of the bytes; empty for an image that is not there or cannot be read."""
    try:
        data = image.read() if image is not None else b""
    except OSError:
        return b""
    return hashlib.sha256(data).digest() if data else b""


def _add_captions(entry: _SampleRows, column: str, cell: Any, source: str) -> None:
    try:
        cell = _in_cell(cell)
    except ValueError:
        reason = "the caption looks like a list, and cannot be read as one"
        entry.skips.append(Skip(entry.id, reason, source, sample=False, column=column))
        return
    if not isinstance(cell, (list, tuple)):
        _add_caption(entry, column, cell, source)
    elif not cell:
        entry.skips.append(Skip(entry.id, "it has no caption", source, sample=False, column=column))
    else:
        for index, value in enumerate(cell):
            _add_caption(entry, column, value, f"{source}[{index}]")


def _in_cell(cell: Any) -> Any:
    """A caption or a list of captions, in whatever form a cell holds them.

    Raises:
        ValueError: it is the text of a list that is damaged.
    """
    if isinstance(cell, str):
        listed = list_in_text(cell)
        return cell if listed is None else listed
    if isinstance(cell, Mapping):
        return next((cell[name] for name in _TEXT_FIELDS if name in cell), cell)
    if isinstance(cell, (list, tuple)):
        return [_in_cell(each) if isinstance(each, Mapping) else each for each in cell]
    return cell


def _add_caption(entry: _SampleRows, column: str, value: Any, source: str) -> None:
    reason = caption_fault(value)
    if reason:
        entry.skips.append(Skip(entry.id, reason, source, sample=False, column=column))
    else:
        entry.captions[column].append(value.strip())


def caption_fault(value: Any) -> str:
    """Why ``value`` is no caption; empty if it is one."""
    if is_missing(value):
        return "the caption is empty"
    if not isinstance(value, str):
        return f"the caption is not text but {type(value).__name__}"
    if value.strip().lower() in _SAYS_NOTHING:
        return f"the caption says nothing ({value.strip()!r})"
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
