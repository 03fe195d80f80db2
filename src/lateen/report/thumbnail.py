"""Small square pictures of photographs, wherever these come from."""

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
    from PIL import Image, ImageOps

    from lateen.data.images import decode_image

    if isinstance(source, Image.Image):
        rgb = _over_white(source)
    else:
        rgb = decode_image(FileImage(Path(source)) if isinstance(source, str | Path) else source)
    return ImageOps.fit(rgb, (size, size))


def _over_white(image: Image) -> Image:
    from PIL import Image

    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
