"""Decoding: from an image's bytes to RGB pixels, or to the reason why not.

Pillow reports trouble in metadata through :mod:`warnings`, whose filters belong to the whole
process: they cannot be set for one thread. Images are decoded in many threads, so nothing here may
provoke a warning in the first place. That is why formats are opened by their own classes
(``Image.open`` warns about large sizes before the size can be asked), and why the few TIFF tags
(which EXIF is made of) and PNG chunks that matter for pixels are read here. Whatever is malformed
in them is treated as absent.
"""

from __future__ import annotations

import importlib.util
import io
import math
import struct
import threading
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from lateen.data.samples import ImageSource
from lateen.errors import ImageError

_ORIENTATION = 0x0112  # tag
_SHORT = 3  # type
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INLINE = 4  # bytes of a value that fit into its directory entry

# TIFF 6.0, baseline and the extensions that describe how pixels are stored. Those in _SINGLE have
# one value by definition.
_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332, 531}
_PIXEL_TAGS = _SINGLE | {258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 532}
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff",
     ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif"}
)  # fmt: skip
"""File endings of images, lower case, with the dot.

:func:`decode_image` reads all of these formats, HEIC with the package pillow-heif.
"""

MAX_PIXELS = 500_000_000
"""The most pixels of an image that is read: more than any phone or scanner gives."""
LARGE_PIXELS = 89_000_000
"""Above this many, images are decoded one at a time, and made smaller at once."""
REDUCED = "reduced_from"
"""Where ``Image.info`` has the size of an image that was decoded at a part of it."""
_RAISE_LIMIT = "scale it down, or raise the limit with --max-pixels"
_NEEDS_HEIF = "HEIC needs pillow-heif (pip install 'lateen[heic]')"
_PILLOWS_LIMIT = Image.MAX_IMAGE_PIXELS
_one_large = threading.Lock()
_limit: list[int] = []  # what the user has set

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Where Pillow looks for an orientation.
_ORIENTING = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_TIFF = (b"II*\0", b"MM\0*")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_FTYP_BRANDS = (*_HEIC_BRANDS, b"avif", b"avis")
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", *_TIFF)
# Whatever Pillow's parsers let through when the bytes are not what their header promises.
_FAULTS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, AttributeError,
    ArithmeticError, MemoryError, AssertionError, RuntimeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


class _Tag(NamedTuple):
    """A directory entry: ``length`` values of ``type``, or where in the file they are."""

    tag: int
    type: int
    length: int
    value: bytes


def exif_orientation(exif: bytes) -> int:
    """The orientation (1 to 8; 1 is upright) in an EXIF block, 1 where it cannot be read."""
    return tiff_orientation(exif.removeprefix(b"Exif\0\0"))


def tiff_orientation(data: bytes) -> int:
    """The orientation (1 to 8; 1 is upright) of a TIFF file, 1 where it cannot be read."""
    try:
        order, entries = _first_directory(data)
    except (struct.error, ValueError):
        return 1
    for entry in entries:
        if entry.tag == _ORIENTATION and entry.type == _SHORT:
            (value,) = struct.unpack_from(order + "H", entry.value)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def only_pixel_tags(data: bytes) -> bytes:
    """A TIFF file's first image with the tags that describe its pixels, and no others.

    Everything stays where it is; a new directory is put at the end and the header points to it.

    Raises:
        ValueError: the directory lies outside the file or is cut.
    """
    try:
        order, entries = _first_directory(data)
    except struct.error as error:
        raise ValueError("the TIFF directory is truncated") from error
    usable = [entry for entry in entries if _is_usable(entry, order, len(data))]
    padding = b"\0" * (len(data) % 2)
    start = struct.pack(order + "I", len(data) + len(padding))
    table = b"".join(struct.pack(order + "HHI4s", *entry) for entry in usable)
    directory = struct.pack(order + "H", len(usable)) + table + b"\0\0\0\0"
    return data[:4] + start + data[8:] + padding + directory


def _is_usable(entry: _Tag, order: str, file_size: int) -> bool:
    if entry.tag not in _PIXEL_TAGS or entry.type not in _TYPE_SIZES or entry.length == 0:
        return False
    if entry.tag in _SINGLE and entry.length != 1:
        return False
    size = entry.length * _TYPE_SIZES[entry.type]
    if size <= _INLINE:
        return True
    (offset,) = struct.unpack(order + "I", entry.value)
    return bool(offset + size <= file_size)


def _first_directory(data: bytes) -> tuple[str, list[_Tag]]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no TIFF header")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    form = struct.Struct(order + "HHI4s")
    return order, [_Tag(*form.unpack_from(data, start + 2 + i * form.size)) for i in range(count)]


def without_animation(data: bytes) -> bytes:
    """A PNG file without its animation chunk (acTL): what remains is the still image."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        following = position + 12 + length
        if kind == b"IDAT":
            break
        if kind == b"acTL":
            data = data[:position] + data[following:]
        else:
            position = following
    return data


class _Jpeg(JpegImageFile):
    def getexif(self) -> Image.Exif:
        """Nothing: Pillow asks for it only to learn the dpi, and warns where EXIF is damaged."""
        return Image.Exif()


def limit_pixels(count: int) -> None:
    """Refuse images of more pixels than this, in the whole process."""
    _limit[:] = [count]


def reading_conditions(names: Iterable[str]) -> list[str]:
    """What decides, beside their bytes, which of some images can be read; empty by default.

    Args:
        names: of the images.
    """
    limit = [f"at most {_limit[0]} pixels"] if _limit else []
    has_heic = any(name.lower().endswith((".heic", ".heif")) for name in names)
    reads_heic = has_heic and importlib.util.find_spec("pillow_heif") is not None
    return [*limit, "HEIC is read"] if reads_heic else limit


def may_be_read_later(reason: str) -> bool:
    """Whether a setting or a package more lets an image be read that was refused for ``reason``."""
    return "more than the limit of" in reason or _NEEDS_HEIF in reason


def most_pixels() -> int | None:
    """The limit: that of :func:`limit_pixels`, else Pillow's where that is set, else MAX_PIXELS."""
    if _limit:
        return _limit[0]
    own = Image.MAX_IMAGE_PIXELS
    return MAX_PIXELS if own == _PILLOWS_LIMIT else own


def decode_image(
    source: ImageSource, *, short_side: int | None = None, whole: bool = False
) -> Image.Image:
    """The first frame of an image as RGB, upright, on white where it is transparent.

    EXIF orientation is applied; grey of 16 bits is scaled to 8; CMYK, YCbCr, LAB, palettes and
    bilevel images are converted. Safe to call from several threads.

    Images of more than :data:`LARGE_PIXELS` pixels are made smaller by a whole factor.

    Args:
        source: where the bytes are.
        short_side: pixels that the shorter side will be resized to. A JPEG that has four times as
            many or more is decoded at a half, a quarter or an eighth of its size, never below
            twice the target (libjpeg's scaled DCT), which saves most of the time.
        whole: give large images at their full size.

    Raises:
        ImageError: the image is missing, empty, truncated, damaged, of an unknown format, without
            pixels, or has more pixels than :func:`most_pixels`. The message is a short reason
            without the image's name.
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
        _check_size(size := image.size)
        if short_side is not None and isinstance(image, _Jpeg):
            image.draft(None, (2 * short_side, 2 * short_side))
        rgb = _load(image, whole=whole)
        if rgb.size != size:
            rgb.info[REDUCED] = size
    except _FAULTS as error:
        raise ImageError(_reason(error)) from error
    method = _TRANSPOSE.get(_orientation(image, data))
    for name in _ORIENTING:  # or whoever is given the picture turns it once more
        rgb.info.pop(name, None)
    return rgb if method is None else rgb.transpose(method)


def _load(image: Image.Image, *, whole: bool) -> Image.Image:
    """The pixels as RGB; of a large image, at a size that a few threads can hold."""
    pixels = image.width * image.height
    if pixels <= LARGE_PIXELS:
        image.load()
        return _to_rgb(image)
    with _one_large:
        image.load()
        if not whole and image.mode in ("P", "1"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        if not whole and not image.mode.startswith("I"):
            image = image.reduce(math.ceil(math.sqrt(4 * pixels / LARGE_PIXELS)))
        return _to_rgb(image)


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


def header_of(data: bytes) -> Image.Image:
    """An image with its header read, and its pixels not yet decoded.

    Raises:
        ImageError: it is damaged, or of an unknown format.
    """
    try:
        return _open(data)
    except _FAULTS as error:
        raise ImageError(_reason(error)) from error


def exif_block(image: Image.Image, data: bytes) -> bytes:
    """The EXIF block of an opened image: that of its file, if it is a TIFF; empty if it has none.

    PNG may put EXIF behind the pixels, where it is found only once these are loaded.

    Args:
        image: as :func:`header_of` gives it.
        data: the file's bytes.
    """
    return data if data[:4] in _TIFF else image.info.get("exif") or b""


def _open(data: bytes) -> Image.Image:
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
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return AvifImageFile(io.BytesIO(data))
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return _open_heic(data)
    raise ImageError(_unknown_format(data))


def _open_heic(data: bytes) -> Image.Image:
    try:
        from pillow_heif import open_heif
    except ImportError as error:
        raise ImageError(_NEEDS_HEIF) from error
    heif = open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
    _check_size(heif.size)
    return heif.to_pillow()  # upright already


def is_image_file(path: str | Path) -> bool:
    """Whether a file without an ending begins as an image does."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - speed
            start = file.read(16)
    except OSError:
        return False
    return start.startswith(_STARTS) or (start[4:8] == b"ftyp" and start[8:12] in _FTYP_BRANDS)


def _orientation(image: Image.Image, data: bytes) -> int:
    """EXIF orientation, 1 to 8. To be called after loading: PNG may put EXIF behind the pixels."""
    return exif_orientation(exif_block(image, data))


def _unknown_format(data: bytes) -> str:
    start = data[:64].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "not an image but a web page or XML (a download that failed?)"
    if data[4:8] == b"ftyp":
        return "not an image but a video"
    return "not an image of a known format (JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP, PPM)"


def _check_size(size: tuple[int, ...]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width} × {height})")
    limit = most_pixels()
    if limit is not None and width * height > limit:
        raise ImageError(
            f"the image claims {width} × {height} pixels, more than the limit of {limit:,} "
            f"(a decompression bomb?); {_RAISE_LIMIT}"
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
