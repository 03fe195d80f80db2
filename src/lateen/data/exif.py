"""What a photograph says of itself: its size, when and where it was taken, and how it is rated.

Read from the file's header, EXIF and XMP without Pillow's own EXIF reader, which warns of damage
(see :mod:`lateen.data.images`). Whatever is malformed counts as absent.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lateen.data.images import exif_block, exif_orientation, header_of
from lateen.errors import ImageError

# Tags of EXIF 2.32, of its GPS directory, and Microsoft's rating.
_DATE, _EXIF, _GPS, _RATING = 0x0132, 0x8769, 0x8825, 0x4746
_TAKEN = 0x9003
_LATITUDE, _LONGITUDE = (0x0001, 0x0002), (0x0003, 0x0004)  # reference, then degrees
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
_FORMS = {3: "H", 4: "I", 5: "II", 9: "i", 10: "ii"}
_MOST_ENTRIES = 512  # of a directory; more is damage
_XMP_RATING = re.compile(rb"""xmp:Rating(?:\s*=\s*["']|>)\s*(-?\d)""")
_XMP_LOOK = 1 << 18  # bytes from the beginning in which the packet begins, if there is one
_SIDEWAYS = 5  # orientations from this one on have width and height exchanged


@dataclass(frozen=True)
class PhotoFacts:
    """What a photograph's file says of it.

    Attributes:
        width: pixels, upright; 0 where the header cannot be read.
        height: likewise.
        taken: local time where it was taken.
        latitude: degrees, north positive.
        longitude: degrees, east positive.
        rating: 0 to 5 stars, or -1 for rejected.
    """

    width: int = 0
    height: int = 0
    taken: datetime | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None


def photo_facts(data: bytes) -> PhotoFacts:
    """What an image file says of itself.

    Args:
        data: the file's bytes.
    """
    try:
        header = header_of(data)
    except ImageError:
        return PhotoFacts()
    block = exif_block(header, data)
    width, height = header.size
    if exif_orientation(block) >= _SIDEWAYS:
        width, height = height, width
    tags = _Tags.of(block)
    place = tags.directory(_GPS)
    return PhotoFacts(
        width, height, _date(tags.directory(_EXIF).text(_TAKEN) or tags.text(_DATE)),
        place.degrees(*_LATITUDE, most=90), place.degrees(*_LONGITUDE, most=180),
        _rating(tags, data),
    )  # fmt: skip


@dataclass(frozen=True)
class _Tags:
    """The entries of a TIFF directory: by tag its type and its values' bytes."""

    block: bytes
    order: str
    entries: Mapping[int, tuple[int, bytes]]

    @classmethod
    def of(cls, block: bytes) -> _Tags:
        """The first directory of an EXIF block."""
        block = block.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}.get(block[:2], "")
        if not order or len(block) < 8:
            return cls(b"", "<", {})
        return cls._at(block, order, struct.unpack_from(order + "I", block, 4)[0])

    @classmethod
    def _at(cls, block: bytes, order: str, start: int) -> _Tags:
        entries: dict[int, tuple[int, bytes]] = {}
        try:
            (count,) = struct.unpack_from(order + "H", block, start)
            for place in range(min(count, _MOST_ENTRIES)):
                tag, kind, length, value = struct.unpack_from(
                    order + "HHI4s", block, start + 2 + 12 * place
                )
                size = _SIZES.get(kind, 0) * length
                if size > 4:
                    (offset,) = struct.unpack(order + "I", value)
                    value = block[offset : offset + size]
                if 0 < size <= len(value):
                    entries[tag] = (kind, value[:size])
        except struct.error:  # it is cut: what was whole counts
            pass
        return cls(block, order, entries)

    def directory(self, tag: int) -> _Tags:
        """The directory that an entry points to, empty where there is none."""
        start = self.numbers(tag)
        return self._at(self.block, self.order, int(start[0])) if start else _Tags(b"", "<", {})

    def text(self, tag: int) -> str:
        """An entry's text, empty where there is none."""
        _, value = self.entries.get(tag, (0, b""))
        return value.split(b"\0")[0].decode("latin-1").strip()

    def numbers(self, tag: int) -> list[float]:
        """An entry's numbers, fractions divided; empty where there are none."""
        kind, value = self.entries.get(tag, (0, b""))
        form = _FORMS.get(kind)
        if form is None:
            return []
        items = list(struct.iter_unpack(self.order + form, value))
        if any(len(item) == 2 and item[1] == 0 for item in items):
            return []
        return [item[0] / item[1] if len(item) == 2 else item[0] for item in items]

    def degrees(self, reference: int, tag: int, *, most: float) -> float | None:
        """An angle in degrees, from degrees, minutes and seconds and the side they are on."""
        numbers = self.numbers(tag)
        if len(numbers) != 3:
            return None
        angle = numbers[0] + numbers[1] / 60 + numbers[2] / 3600
        if not 0 <= angle <= most:
            return None
        return -angle if self.text(reference).upper() in ("S", "W") else angle


def _date(text: str) -> datetime | None:
    """``2024:05:31 12:30:00`` as a time; cameras without a clock write zeros or blanks."""
    try:
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None


def _rating(tags: _Tags, data: bytes) -> int | None:
    known: list[Any] = [int(number) for number in tags.numbers(_RATING)[:1]]
    if not known and (found := _XMP_RATING.search(data, 0, _XMP_LOOK)):
        known = [int(found[1])]
    return known[0] if known and -1 <= known[0] <= 5 else None
