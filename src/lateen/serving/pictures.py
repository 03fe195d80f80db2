"""Pictures that somebody sent, and the kinds of those that go out as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.data.images import decode_image, header_of
from lateen.data.samples import MemoryImage
from lateen.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

_UPLOAD_SIDE = 512  # of pictures as queries: a network sees less


class TooManyPixelsError(ImageError):
    """A picture is larger than the server decodes."""


def uploaded(data: bytes, *, pixels: int) -> Image:
    """A picture that somebody sent, RGB and upright.

    Args:
        data: encoded bytes.
        pixels: the most that are decoded.

    Raises:
        TooManyPixelsError: it has more.
        ImageError: it is no picture, or a damaged one.
    """
    try:
        width, height = header_of(data).size if data else (0, 0)
    except ImageError as error:
        raise _unreadable(error) from error
    if not data:
        raise ImageError("the picture is empty")
    if width * height > pixels:
        raise TooManyPixelsError(
            f"the picture has {width} × {height} pixels, and {pixels:,} are read",
            "Send it smaller: for a search, 1,000 pixels are plenty.",
        )
    try:
        return decode_image(MemoryImage("the picture", data), short_side=_UPLOAD_SIDE)
    except ImageError as error:
        raise _unreadable(error) from error


def _unreadable(error: ImageError) -> ImageError:
    return ImageError(f"the picture cannot be read: {error.message}", "Send another one.")


def media_type(data: bytes) -> str:
    """The media type of an encoded picture, by how it begins."""
    for start, name in _TYPES:
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return "image/avif" if data[8:12] in (b"avif", b"avis") else "image/heic"
    return "application/octet-stream"


_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"RIFF", "image/webp"),
    (b"GIF8", "image/gif"), (b"BM", "image/bmp"), (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)  # fmt: skip
