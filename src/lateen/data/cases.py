"""Examples of benchmarks that choose among captions or images, and their images as a dataset."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lateen.data.fingerprint import combine, file_hashes
from lateen.data.ids import is_unicode
from lateen.data.images import decode_image
from lateen.data.sample import FileImage, ImageSource, Sample, Skip
from lateen.errors import DataError, ImageError


@dataclass(frozen=True)
class Case:
    """One example.

    Attributes:
        id: unique within a benchmark.
        images: ids of its images.
        captions: its captions; with as many images, each belongs to the image in its place, else
            the first is the right one.
        groups: what it is counted under: a category, a tag, a pattern; by kind.
    """

    id: str
    images: tuple[str, ...]
    captions: tuple[str, ...]
    groups: Mapping[str, str] = field(default_factory=dict)


class CaseImages:
    """The images of a benchmark, as a :class:`~lateen.data.sample.Dataset` without captions.

    Args:
        name: of the benchmark.
        ids: of the images, unique.
        read: for each id, in order, the image, or the reason why there is none; called anew each
            time that the dataset is iterated over.
        hashes: of what the images are in; called once.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        read: Callable[[], Iterable[ImageSource | str]],
        hashes: Callable[[], Iterable[str]],
    ) -> None:
        self.name = name
        self._ids = ids
        self._read = read
        self._hashes = hashes

    @classmethod
    def listed(cls, name: str, images: Mapping[str, ImageSource | str]) -> CaseImages:
        """Of images in files of their own.

        Args:
            name: of the benchmark.
            images: by id; in place of an image the reason why there is none.
        """
        files = dict.fromkeys(
            path for image in images.values() if (path := _file_of(image)) is not None
        )
        return cls(name, list(images), images.values, lambda: file_hashes(files))

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[Sample | Skip]:
        for sample, image in zip(self._ids, self._read(), strict=True):
            if isinstance(image, str):
                yield Skip(sample, image, self.name)
            else:
                yield Sample(sample, image)

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any image does."""
        return combine([*self._ids, *self._hashes()])


@dataclass(frozen=True)
class CaseSet:
    """A benchmark.

    Attributes:
        name: what the user called it.
        cases: those that can be used, as far as it can be said without opening an image.
        images: all of their images.
        skips: of examples that cannot be used.
    """

    name: str
    cases: list[Case]
    images: CaseImages
    skips: list[Skip]

    def __post_init__(self) -> None:
        if not self.cases:
            named = "; ".join(f"{skip.source}: {skip.reason}" for skip in self.skips[:1])
            raise DataError(
                f"{self.name} has no example that can be used"
                + (f" ({len(self.skips)} cannot: {named})" if named else ""),
                "Download it again.",
            )


class CaptionList:
    """Captions as a :class:`~lateen.data.sample.Dataset` without images; ids count from 0."""

    columns: tuple[str, ...] = ("caption",)

    def __init__(self, name: str, captions: Sequence[str]) -> None:
        self.name = name
        self._captions = captions

    def __len__(self) -> int:
        return len(self._captions)

    def __iter__(self) -> Iterator[Sample | Skip]:
        for index, caption in enumerate(self._captions):
            yield Sample(str(index), None, {"caption": (caption,)})

    @cached_property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever any caption or the order does."""
        return combine(self._captions)


@dataclass(frozen=True, slots=True)
class CroppedImage:
    """A box within an image.

    Attributes:
        image: the whole.
        box: left, top, right, bottom in pixels of the upright image.
    """

    image: FileImage
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The path with the box."""
        return f"{self.image.name}{list(self.box)}"

    def read(self) -> bytes:
        """The box as PNG, black where it reaches beyond the image, as ARO's own code has it.

        A box without anything of the image is an ``OSError``, as is an image that is damaged.
        """
        try:
            whole = decode_image(self.image)
        except ImageError as error:
            raise OSError(error.message) from error
        left, top, right, bottom = self.box
        if max(left, 0) >= min(right, whole.width) or max(top, 0) >= min(bottom, whole.height):
            raise OSError(f"the box {list(self.box)} has nothing of its {list(whole.size)} pixels")
        buffer = io.BytesIO()
        whole.crop(self.box).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ZipImage:
    """An image in a zip file."""

    path: Path
    member: str

    @property
    def name(self) -> str:
        """``images.zip:member``."""
        return f"{self.path}:{self.member}"

    def read(self) -> bytes:
        """The member's bytes; a damaged zip is an ``OSError``."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.member)
        except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, RuntimeError) as error:
            raise OSError(str(error) or "the zip is damaged") from error


def unusable_captions(captions: Sequence[object]) -> str:
    """Why one of the captions cannot be used; empty if all can."""
    for caption in captions:
        if not isinstance(caption, str) or not caption.strip():
            return "a caption is missing"
        if not is_unicode(caption):
            return "a caption is not valid Unicode"
    return ""


def require_images(name: str, images: Mapping[str, ImageSource | str], remedy: str) -> None:
    """Refuse to go on where every image is missing: then the folder is wrong, not the data.

    Raises:
        DataError: not one is there.
    """
    if images and all(isinstance(image, str) for image in images.values()):
        first, reason = next(iter(images.items()))
        raise DataError(
            f"not one of the {len(images)} images of {name} is there (the first is {first!r}: "
            f"{reason})",
            remedy,
        )


def _file_of(image: ImageSource | str) -> Path | None:
    if isinstance(image, CroppedImage):
        return image.image.path
    return image.path if isinstance(image, FileImage | ZipImage) else None
