"""Small pictures of photographs, wherever these come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lateen.data.samples import FileImage, ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image


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
