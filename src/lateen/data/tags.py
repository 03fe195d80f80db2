"""The few TIFF tags (which EXIF is made of) and PNG chunks that matter for pixels.

Read here rather than by Pillow because it must not warn (see :mod:`lateen.data.images`): whatever
is malformed is treated as absent.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_ORIENTATION = 0x0112
_SHORT = 3
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_INLINE = 4

# TIFF 6.0, baseline and the extensions that describe how pixels are stored. Those in _SINGLE have
# one value by definition.
_SINGLE = {256, 257, 259, 262, 266, 277, 278, 284, 292, 293, 317, 322, 323, 332, 531}
_PIXEL_TAGS = _SINGLE | {258, 273, 279, 320, 324, 325, 338, 339, 347, 529, 530, 532}


class _Entry(NamedTuple):
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
    kept = [entry for entry in entries if _is_usable(entry, order, len(data))]
    padding = b"\0" * (len(data) % 2)
    start = struct.pack(order + "I", len(data) + len(padding))
    table = b"".join(struct.pack(order + "HHI4s", *entry) for entry in kept)
    directory = struct.pack(order + "H", len(kept)) + table + b"\0\0\0\0"
    return data[:4] + start + data[8:] + padding + directory


def _is_usable(entry: _Entry, order: str, file_size: int) -> bool:
    if entry.tag not in _PIXEL_TAGS or entry.type not in _TYPE_SIZES or entry.length == 0:
        return False
    if entry.tag in _SINGLE and entry.length != 1:
        return False
    size = entry.length * _TYPE_SIZES[entry.type]
    if size <= _INLINE:
        return True
    (offset,) = struct.unpack(order + "I", entry.value)
    return bool(offset + size <= file_size)


def _first_directory(data: bytes) -> tuple[str, list[_Entry]]:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("no TIFF header")
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    form = struct.Struct(order + "HHI4s")
    return order, [_Entry(*form.unpack_from(data, start + 2 + i * form.size)) for i in range(count)]


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
