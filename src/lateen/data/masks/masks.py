"""Index masks, and the images they belong to."""

from __future__ import annotations

import copy
import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.folder import ImageFolder
from lateen.data.images import most_pixels, without_animation
from lateen.data.samples import ImageSource, Skip
from lateen.errors import DataError, ImageError
from lateen.progress import log

IGNORED = 255
"""The index of pixels that are of no class, in published sets."""


Indices = np.ndarray[Any, Any]
_PNG = b"\x89PNG\r\n\x1a\n"
_MODES = ("1", "L", "P", "I", "I;16")
_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, AttributeError,
    MemoryError, struct.error, zlib.error,
)  # fmt: skip


def decode_mask(source: ImageSource) -> Indices:
    """The class index of every pixel ``[height, width]``, int32.

    A PNG with a palette or in grey, of any depth; the index is the number that is stored, whatever
    colour the palette gives it.

    Raises:
        ImageError: it cannot be read, is no PNG, or has colours instead of indices. The message is
            a short reason without the mask's name.
    """
    try:
        data = source.read()
    except OSError as error:
        raise ImageError(f"the mask cannot be read: {error.strerror or error}") from error
    if data[:8] != _PNG:
        raise ImageError("the mask is not a PNG, the only format that is sure to keep indices")
    try:
        image = PngImageFile(io.BytesIO(without_animation(data)))
        if (limit := most_pixels()) and image.width * image.height > limit:
            raise ImageError(f"the mask claims more than {limit:,} pixels")
        if image.mode not in _MODES:
            raise ImageError(f"the mask has colours ({image.mode}) instead of class indices")
        values = np.asarray(image).astype(np.int32)
    except _FAULTS as error:
        raise ImageError(f"the mask is damaged ({error})") from error
    depth, colour = data[24], data[25]
    if colour == 0 and depth in (2, 4):  # grey of few bits, which Pillow spreads over 0 to 255
        values //= 255 // (2**depth - 1)
    return values


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image and its mask.

    Attributes:
        id: their common path, relative to their folders, without suffix.
        image: where the image is.
        mask: where the mask is.
    """

    id: str
    image: ImageSource
    mask: ImageSource


@dataclass(frozen=True, slots=True)
class CountedLabels:
    """The classes of an image's pixels.

    Attributes:
        labels: ``[height, width]``, int32; -1 for pixels of no class.
        ignored: how many pixels are ignored.
        unknown: how many have an index beyond the classes, by the index in the mask's file.
    """

    labels: Indices
    ignored: int
    unknown: Mapping[int, int]


class MaskedImages:
    """Images joined with their masks by id, sorted; what has no partner is among the skips.

    Args:
        name: what the user called it.
        images: by id.
        masks: by id.
        classes: the class of each index.
        relabel: indices in the masks to indices of ``classes``, as the set's rules have it.
        skips: what was left out before.

    Attributes:
        classes: the class of each index.
        skips: images without mask, masks without image, and what was left out before.
    """

    def __init__(
        self, name: str, images: Mapping[str, ImageSource], masks: Mapping[str, ImageSource],
        classes: Sequence[str], *, relabel: Callable[[Indices], Indices] | None = None,
        skips: Sequence[Skip] = (),
    ) -> None:  # fmt: skip
        self.name = name
        self.classes = tuple(classes)
        self._relabel = relabel
        self._pairs = [MaskedImage(i, images[i], masks[i]) for i in sorted(images) if i in masks]
        alone = [
            *[Skip(i, "it has no mask", images[i].name) for i in sorted(images) if i not in masks],
            *[Skip(i, "it has no image", masks[i].name) for i in sorted(masks) if i not in images],
        ]
        self.skips = (*skips, *alone)

    @property
    def relabelled(self) -> bool:
        """Whether the masks' indices are changed to those of the classes."""
        return self._relabel is not None

    def relabel(self, change: Callable[[Indices], Indices]) -> MaskedImages:
        """The same images, with the masks' indices changed to those of the classes."""
        changed = copy.copy(self)
        changed._relabel = change
        return changed

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[MaskedImage]:
        return iter(self._pairs)

    def labels(self, pair: MaskedImage) -> Indices:
        """The index into :attr:`classes` of every pixel ``[height, width]``, int32; other numbers
        are pixels of no class.

        Raises:
            ImageError: the mask cannot be decoded; the message is a reason without its name.
        """
        return self._classes_of(decode_mask(pair.mask))

    def counted(self, pair: MaskedImage, ignore: int) -> CountedLabels:
        """The labels with -1 for pixels of no class, and how many these are.

        Args:
            pair: an image and its mask.
            ignore: the index of pixels that are of no class.

        Raises:
            ImageError: as :meth:`labels`.
        """
        values = decode_mask(pair.mask)
        labels = self._classes_of(values)
        ignored = labels == ignore
        unknown = ~ignored & ((labels < 0) | (labels >= len(self.classes)))
        indices, counts = np.unique(values[unknown], return_counts=True)
        counted = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        return CountedLabels(np.where(ignored | unknown, -1, labels), int(ignored.sum()), counted)

    def _classes_of(self, values: Indices) -> Indices:
        return values if self._relabel is None else self._relabel(values)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever an image, a mask, or the classes change."""
        files = [Path(source.name) for pair in self for source in (pair.image, pair.mask)]
        return combine([*self.classes, "", *(pair.id for pair in self), "", *file_hashes(files)])


@dataclass
class PixelCounts:
    """The pixels of all masks of a set that are of no class.

    Attributes:
        pixels: how many there are in all.
        ignored: how many are ignored.
        unknown: how many have an index beyond the classes, by the index in the mask's file.
    """

    pixels: int = 0
    ignored: int = 0
    unknown: Counter[int] = field(default_factory=Counter)

    def add(self, mask: CountedLabels) -> None:
        """Count those of one more mask."""
        self.pixels += mask.labels.size
        self.ignored += mask.ignored
        self.unknown.update(mask.unknown)

    def as_dict(self) -> dict[str, Any]:
        """What results say of them; the share of ignored pixels is in percent."""
        return {
            "ignored_pixels": self.ignored,
            "ignored_share": round(100 * self.ignored / max(1, self.pixels), 1),
            "unknown_indices": {str(index): n for index, n in sorted(self.unknown.items())},
        }

    def warn(self, classes: int, ignore: int) -> None:
        """Say what would surprise: many ignored pixels, and indices beyond the classes."""
        if 3 * self.ignored > self.pixels:
            log.warning(
                "%.1f %% of the pixels are ignored (index %d); --ignore gives another index",
                100 * self.ignored / self.pixels, ignore,
            )  # fmt: skip
        if self.unknown:
            log.warning(
                "%d pixels have indices beyond the %d classes (%s) and are not counted",
                self.unknown.total(), classes, ", ".join(map(str, sorted(self.unknown)[:8])),
            )  # fmt: skip


def settle_binary(masked: MaskedImages, ignore: int) -> MaskedImages:
    """The images with masks of 0 and 255 and two classes read as they are meant.

    Where 255 is not the index that is ignored, it is the second class.

    Raises:
        DataError: 255 may be either, as most tools write the second of two classes so.
    """
    if len(masked.classes) != 2 or masked.relabelled or not _only_0_and_255(masked):
        return masked
    second = masked.classes[1]
    if ignore == IGNORED:
        raise DataError(
            f"the masks of {masked.name} have the values 0 and 255 alone: 255 may be ignored, and "
            f"then {masked.classes[0]!r} is the only class, or it may be {second!r}",
            f"If it is {second!r}, give another --ignore, such as 254, or write 1 into the masks.",
        )
    log.warning("the masks of %s have the values 0 and 255: 255 is %r", masked.name, second)
    return masked.relabel(lambda values: np.where(values == IGNORED, 1, values))


def _only_0_and_255(masked: MaskedImages) -> bool:
    """Whether no mask has any other value, and one has 255. Most masks end this at the first."""
    seen = False
    for pair in masked:
        try:
            values = decode_mask(pair.mask)
        except ImageError:
            continue
        if not np.isin(values, (0, IGNORED)).all():
            return False
        seen = seen or bool((values == IGNORED).any())
    return seen


def check_same_shape(image: Image.Image, labels: Indices) -> None:
    """See that an image and its mask show the same, as far as their proportions tell.

    Raises:
        ImageError: they do not; a turned image, say, whose mask is not turned.
    """
    height, width = labels.shape
    ratio = image.width * height / (image.height * width)
    if not 0.95 < ratio < 1.05:
        raise ImageError(
            f"the image is {image.width} × {image.height} pixels, its mask {width} × {height}, "
            "in other proportions"
        )


def by_stem(
    folder: Path, suffix: str = "", *, masks: bool = False
) -> tuple[dict[str, ImageSource], list[Skip]]:
    """The pictures below a folder by their relative path without ``suffix`` and file ending.

    Args:
        folder: where they are.
        suffix: what their names end in before the ending; others are left out.
        masks: take PNG files alone, beside which the photographs may lie.

    Raises:
        DataError: the folder cannot be listed or has no picture.
    """
    pictures: dict[str, ImageSource] = {}
    skips = []
    for sample in ImageFolder(folder):
        if isinstance(sample, Skip):
            skips.append(sample)
            continue
        stem, _, ending = sample.id.rpartition(".")
        if not stem.endswith(suffix) or sample.image is None:
            continue
        key = stem.removesuffix(suffix)
        if masks and ending.lower() != "png":
            reason = "it is no PNG, the only format of masks that is sure to keep indices"
            skips.append(Skip(sample.id, reason, sample.image.name))
        elif key in pictures and not masks and pictures[key].name.lower().endswith(".png"):
            # In one folder with the masks, the photograph is what is no PNG.
            reason = f"the same name without its ending as {sample.image.name}"
            skips.append(Skip(f"{stem}.png", reason, pictures[key].name))
            pictures[key] = sample.image
        elif key in pictures:
            reason = f"the same name without its ending as {pictures[key].name}"
            skips.append(Skip(sample.id, reason, sample.image.name))
        else:
            pictures[key] = sample.image
    return pictures, skips
