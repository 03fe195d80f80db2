"""Pictures made small and plain: nothing goes out but pixels and their colour profile."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lateen.data.images import decode_image, header_of
from lateen.data.samples import ImageSource, MemoryImage
from lateen.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

_PROFILE_BYTES = 1 << 16
_RGB = b"RGB "  # at byte 16 of an ICC profile: what its values mean
_UPLOAD_SIDE = 512  # of pictures as queries: a network sees less


class TooManyPixelsError(ImageError):
    """A picture is larger than the server decodes."""


def jpeg(source: ImageSource, *, edge: int, quality: int) -> bytes:
    """A picture as JPEG, upright, at most ``edge`` pixels wide and high, without metadata.

    Raises:
        ImageError: it cannot be decoded.
    """
    picture = decode_image(source, short_side=edge // 2)
    picture.thumbnail((edge, edge))
    profile = picture.info.get("icc_profile") or b""
    # Comments and XMP are in here, too, and would be written.
    picture.info.clear()
    keep = profile[16:20] == _RGB and len(profile) <= _PROFILE_BYTES
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, icc_profile=profile if keep else None)
    return out.getvalue()


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
