"""Decoding: from an image's bytes to RGB pixels, or to the reason why not.

Pillow reports trouble in metadata through :mod:`warnings`, whose filters belong to the whole
process: they cannot be set for one thread. Images are decoded in many threads, so nothing here
may provoke a warning in the first place. That is why formats are opened by their own classes
(``Image.open`` warns about large sizes before the size can be asked), and why EXIF and TIFF tags
are read by :mod:`lateen.data.tags`.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lateen.data.sample import ImageSource
from lateen.data.tags import exif_orientation, only_pixel_tags, tiff_orientation, without_animation
from lateen.errors import ImageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""File endings of the formats that :func:`decode_image` reads, lower case, with the dot."""

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TIFF = (b"II*\0", b"MM\0*")

# Whatever Pillow's parsers let through when the bytes are not what their header promises.
_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, AttributeError,
    ArithmeticError, MemoryError, AssertionError, RuntimeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


class _Jpeg(JpegImageFile):
    def getexif(self) -> Image.Exif:
        """Nothing: Pillow asks for it only to learn the dpi, and warns where EXIF is damaged."""
        return Image.Exif()


def decode_image(source: ImageSource) -> Image.Image:
    """The first frame of an image as RGB, upright, on white where it is transparent.

    EXIF orientation is applied; grey of 16 bits is scaled to 8; CMYK, YCbCr, LAB, palettes and
    bilevel images are converted. Safe to call from several threads.

    Raises:
        ImageError: the image is missing, empty, truncated, damaged, of an unknown format, without
            pixels, or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``. The message is a short
            reason without the image's name.
    """
    try:
        data = source.read()
    except FileNotFoundError as error:
        raise ImageError("there is no such file") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise ImageError("the file is empty")
    try:
        image = _open(data)
        _check_size(image.size)
        image.load()
        rgb = _to_rgb(image)
    except _FAULTS as error:
        raise ImageError(_reason(error)) from error
    method = _TRANSPOSE.get(_orientation(image, data))
    return rgb if method is None else rgb.transpose(method)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as :func:`decode_image` gives it: RGB, upright, on white.

    Raises:
        ImageError: the image is damaged, without pixels or too large.
    """
    try:
        _check_size(image.size)
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image))
    except _FAULTS as error:
        raise ImageError(_reason(error)) from error


def _open(data: bytes) -> ImageFile:
    """The image with its header read and its pixels not yet decoded."""
    if data[:2] == b"\xff\xd8":
        return _Jpeg(io.BytesIO(data))
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return PngImageFile(io.BytesIO(without_animation(data)))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile(io.BytesIO(data))
    if data[:4] in _TIFF:
        return TiffImageFile(io.BytesIO(only_pixel_tags(data)))
    if data[:4] == b"GIF8":
        _check_size(struct.unpack_from("<HH", data, 6))  # before Pillow does, with a warning
        return GifImageFile(io.BytesIO(data))
    if data[:2] == b"BM":
        return BmpImageFile(io.BytesIO(data))
    if data[:1] == b"P" and data[1:2] in b"123456":
        return PpmImageFile(io.BytesIO(data))
    raise ImageError(_unknown_format(data))


def _orientation(image: ImageFile, data: bytes) -> int:
    """EXIF orientation, 1 to 8. To be called after loading: PNG may put EXIF behind the pixels."""
    if data[:4] in _TIFF:
        return tiff_orientation(data)
    exif = image.info.get("exif")
    return exif_orientation(exif) if exif else 1


def _unknown_format(data: bytes) -> str:
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "not an image but a web page or XML (a download that failed?)"
    if data[4:8] == b"ftyp":
        return "HEIC, AVIF and video files are not supported"
    return "not an image of a known format (JPEG, PNG, WebP, TIFF, GIF, BMP, PPM)"


def _check_size(size: tuple[int, ...]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width} × {height})")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise ImageError(
            f"the image claims {width} × {height} pixels, more than the limit of {limit:,} "
            "(a decompression bomb?)"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise ImageError("its pixels are floating-point numbers, for which white is not defined")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGB", layer.size, (255, 255, 255))
        white.paste(layer, mask=layer.getchannel("A"))
        return white
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Grey values 0 to 65,535 (Pillow's modes ``I;16`` and ``I``) as 0 to 255, rounded."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError("its grey values do not fit 16 bits, so white is not defined")
    return ((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return "the image claims more pixels than the limit (a decompression bomb?)"
    if "truncated" in text.lower() or isinstance(
        error.__cause__ or error, (EOFError, struct.error)
    ):
        return "the image is truncated"
    if "not identified" in text:
        return "it has no pixels, or none of a known form"
    return f"the image is damaged ({text or type(error).__name__})"
