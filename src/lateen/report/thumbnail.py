"""Small pictures of photographs, wherever these come from."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.data.samples import FileImage, ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

_PROFILE_BYTES = 1 << 16
_RGB = b"RGB "  # at byte 16 of an ICC profile: what its values mean


def thumbnail(source: str | Path | ImageSource | Image, size: int) -> Image:
    """The middle square of an image as RGB, ``size`` × ``size`` pixels, upright, over white.

    Args:
        source: a path, an image source of a dataset, or a PIL image (which is left as it is).
        size: edge in pixels.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    from PIL import ImageOps

    return ImageOps.fit(_opened(source), (size, size))


def whole_thumbnail(source: str | Path | ImageSource | Image, size: int) -> Image:
    """The whole of an image as RGB, at most ``size`` pixels wide and high; otherwise likewise.

    Args:
        source: as for :func:`thumbnail`.
        size: longer edge in pixels.

    Raises:
        ImageError: it cannot be read or decoded.
    """
    picture = _opened(source).copy()
    picture.thumbnail((size, size))
    return picture


def jpeg(source: ImageSource, *, edge: int, quality: int) -> bytes:
    """A picture as JPEG, upright, at most ``edge`` pixels wide and high, without metadata.

    Raises:
        ImageError: it cannot be decoded.
    """
    from lateen.data.images import decode_image

    picture = decode_image(source, short_side=edge // 2)
    picture.thumbnail((edge, edge))
    profile = picture.info.get("icc_profile") or b""
    # Comments and XMP are in here, too, and would be written.
    picture.info.clear()
    keep = profile[16:20] == _RGB and len(profile) <= _PROFILE_BYTES
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality, icc_profile=profile if keep else None)
    return out.getvalue()


def _opened(source: str | Path | ImageSource | Image) -> Image:
    from PIL import Image

    from lateen.data.images import decode_image

    if isinstance(source, Image.Image):
        return _over_white(source)
    return decode_image(FileImage(Path(source)) if isinstance(source, str | Path) else source)


def _over_white(image: Image) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
