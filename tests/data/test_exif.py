"""What photographs say of themselves."""

import io
import random
from datetime import datetime

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from lateen.data.exif import PhotoFacts, photo_facts


def picture(form: str = "JPEG", size: tuple[int, int] = (40, 30), **tags: object) -> bytes:
    """A picture with EXIF: taken, latitude, longitude, rating, orientation."""
    exif = Image.Exif()
    if "orientation" in tags:
        exif[0x0112] = tags["orientation"]
    if "rating" in tags:
        exif[0x4746] = tags["rating"]
    if "date" in tags:
        exif[0x0132] = tags["date"]
    if "taken" in tags:
        exif.get_ifd(0x8769)[0x9003] = tags["taken"]
    if "place" in tags:
        gps = exif.get_ifd(0x8825)
        north, latitude, east, longitude = tags["place"]  # type: ignore[misc]
        gps[1], gps[2], gps[3], gps[4] = north, latitude, east, longitude
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, form, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_a_camera_writes_is_read(form: str) -> None:
    angle = (IFDRational(41), IFDRational(53), IFDRational(243, 10))
    facts = photo_facts(
        picture(
            form, taken="2024:05:31 12:30:15", date="2025:01:01 00:00:00", rating=4,
            place=("N", angle, "W", (IFDRational(12), IFDRational(30), IFDRational(0))),
        )
    )  # fmt: skip
    assert (facts.width, facts.height, facts.rating) == (40, 30, 4)
    if form == "TIFF":  # of which Pillow writes the first directory alone
        return
    assert facts.taken == datetime(2024, 5, 31, 12, 30, 15)
    assert facts.latitude == pytest.approx(41 + 53 / 60 + 24.3 / 3600)
    assert facts.longitude == pytest.approx(-12.5)


def test_sideways_pictures_have_their_upright_size_and_other_dates_serve() -> None:
    facts = photo_facts(picture(orientation=6, date="2023:02:03 04:05:06"))
    assert (facts.width, facts.height) == (30, 40)
    assert facts.taken == datetime(2023, 2, 3, 4, 5, 6)


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", ""])
def test_clocks_that_were_never_set_say_nothing(taken: str) -> None:
    assert photo_facts(picture(taken=taken)).taken is None


def test_impossible_places_and_ratings_say_nothing() -> None:
    wrong = (IFDRational(95), IFDRational(0), IFDRational(0))
    nought = (IFDRational(1, 0), IFDRational(0), IFDRational(0))
    facts = photo_facts(picture(place=("N", wrong, "E", nought), rating=77))
    assert (facts.latitude, facts.longitude, facts.rating) == (None, None, None)


@pytest.mark.parametrize("packet", [b'<x xmp:Rating="3"/>', b"<xmp:Rating>3</xmp:Rating>"])
def test_stars_of_editors_are_read(packet: bytes) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "JPEG", xmp=packet)
    assert photo_facts(out.getvalue()).rating == 3


def test_pictures_without_facts_and_what_is_no_picture() -> None:
    out = io.BytesIO()
    Image.new("L", (5, 7)).save(out, "PNG")
    assert photo_facts(out.getvalue()) == PhotoFacts(5, 7)
    assert photo_facts(b"no picture") == photo_facts(b"") == PhotoFacts()


def test_damaged_blocks_never_stop_anything() -> None:
    whole = picture(taken="2024:05:31 12:30:15", rating=4)
    start = whole.index(b"Exif\0\0")
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 8)):
            data[start + rng.randrange(6, 160)] = rng.randrange(256)
        facts = photo_facts(bytes(data))
        assert facts.taken is None or isinstance(facts.taken, datetime)
    for end in range(start, start + 160, 3):
        photo_facts(whole[:end])
