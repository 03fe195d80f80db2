"""Index masks, and the images they belong to."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.folder import ImageFolder
from lateen.data.images import without_animation
from lateen.data.samples import ImageSource, Skip
from lateen.errors import ImageError
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
        if (limit := Image.MAX_IMAGE_PIXELS) and image.width * image.height > limit:
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


def warn_of_unknown(unknown: Counter[int], classes: int) -> None:
    """Say how many pixels have an index beyond the classes, if any has."""
    if unknown:
        log.warning(
            "%d pixels have indices beyond the %d classes (%s) and are not counted",
            unknown.total(), classes, ", ".join(map(str, sorted(unknown)[:8])),
        )  # fmt: skip


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


def by_stem(folder: Path, suffix: str = "") -> tuple[dict[str, ImageSource], list[Skip]]:
    """The pictures below a folder by their relative path without ``suffix`` and file ending.

    Raises:
        DataError: the folder cannot be listed or has no picture.
    """
    pictures: dict[str, ImageSource] = {}
    skips = []
    for sample in ImageFolder(folder):
        if isinstance(sample, Skip):
            skips.append(sample)
            continue
        stem = sample.id.rpartition(".")[0]
        if not stem.endswith(suffix) or sample.image is None:
            continue
        key = stem.removesuffix(suffix)
        if key in pictures:
            reason = f"the same name without its ending as {pictures[key].name}"
            skips.append(Skip(sample.id, reason, sample.image.name))
        else:
            pictures[key] = sample.image
    return pictures, skips
