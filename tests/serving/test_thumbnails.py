"""Pictures that go out: small, upright, and without what their files say beside pixels."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms
from serving_toys import Serve, encoded, engine_of, exif, picture

from lateen.data.samples import MemoryImage
from lateen.hardware import cache_folder
from lateen.indexing import index
from lateen.report.thumbnail import jpeg
from lateen.serving.pictures import media_type
from lateen.serving.thumbnails import Thumbnails

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><exif:GPSLatitude>48,8N</exif:GPSLatitude></x:xmpmeta>"
ID = "Italy/2023/red-00.jpg"


def read(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_nothing_goes_out_but_pixels(form: str) -> None:
    values: dict[str, Any] = {"exif": exif(2020)}
    if form == "JPEG":
        values |= {"xmp": XMP, "comment": b"taken at home"}
    data = encoded(picture("red", size=(700, 500)), form, **values)
    small = jpeg(MemoryImage("a", data), edge=320, quality=80)
    shown = read(small)
    assert shown.size == (320, 229)
    assert not shown.getexif()
    for word in (b"Exif", b"GPS", b"xmp", b"home", b"2020", b"adobe"):
        assert word not in small


def test_a_photograph_taken_sideways_stands_upright() -> None:
    image = Image.new("RGB", (200, 100), "red")
    image.paste("blue", (100, 0, 200, 100))  # right; below, once it is upright
    shown = read(jpeg(MemoryImage("a", encoded(image, "JPEG", exif=exif(2020, 6))), edge=320,
                      quality=90))  # fmt: skip
    assert shown.size == (100, 200)
    top, bottom = shown.getpixel((50, 20)), shown.getpixel((50, 180))
    assert top[0] > 200 > 100 > top[2]
    assert bottom[2] > 200 > 100 > bottom[0]


def test_a_colour_profile_stays_where_it_fits() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kept = jpeg(MemoryImage("a", encoded(picture("red"), "JPEG", icc_profile=profile)), edge=320,
                quality=80)  # fmt: skip
    assert read(kept).info["icc_profile"] == profile
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    cmyk = picture("red").convert("CMYK")
    left = jpeg(MemoryImage("a", encoded(cmyk, "JPEG", icc_profile=lab)), edge=320, quality=80)
    assert "icc_profile" not in read(left).info
    huge = profile + b"\0" * 100_000
    left = jpeg(MemoryImage("a", encoded(picture("red"), "JPEG", icc_profile=huge)), edge=320,
                quality=80)  # fmt: skip
    assert "icc_profile" not in read(left).info


def test_a_thumbnail_is_made_once(serve: Serve) -> None:
    client = serve(rate=0)
    first = client.get(f"/api/thumbnail/{ID}")
    again = client.get(f"/api/thumbnail/{ID}")
    assert first.status_code == 200
    assert first.headers["content-type"] == "image/jpeg"
    assert first.content == again.content
    thumbnails = engine_of(client).thumbnails
    assert (thumbnails.made, thumbnails.kept) == (1, 1)
    assert [p.read_bytes() for p in (cache_folder() / "thumbnails").rglob("*.jpg")] == [
        first.content
    ]
    another = serve(rate=0)
    assert another.get(f"/api/thumbnail/{ID}").content == first.content
    assert engine_of(another).thumbnails.made == 0


def test_many_who_ask_at_once_wait_for_one_that_makes_it(serve: Serve) -> None:
    thumbnails = engine_of(serve(rate=0)).thumbnails
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: thumbnails.get(ID, 320), range(32)))
    assert len({data for data, _ in found}) == 1
    assert thumbnails.made == 1


def test_a_browser_that_has_it_is_told_so(client: Any) -> None:
    first = client.get(f"/api/thumbnail/{ID}?size=640")
    tag = first.headers["etag"]
    again = client.get(f"/api/thumbnail/{ID}?size=640", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get(f"/api/thumbnail/{ID}?size=320", headers={"if-none-match": tag})
    assert other.status_code == 200
    assert "private" in first.headers["cache-control"]


def test_sizes_are_those_of_a_list(client: Any) -> None:
    for size in (0, -1, 321, 2048, 100_000):
        answer = client.get(f"/api/thumbnail/{ID}?size={size}")
        assert answer.status_code == 400
        assert "320 or 640" in answer.json()["remedy"]


def test_a_photograph_that_changed_gets_another_thumbnail(own: Path, serve: Serve) -> None:
    index(own / "photos", own / "model", own / "index")
    client = serve(own, rate=0)
    first = client.get(f"/api/thumbnail/{ID}").content
    (own / "photos" / ID).write_bytes(encoded(picture("blue", size=(44, 66)), "JPEG"))
    index(own / "photos", own / "model", own / "index")
    engine_of(client)._look_again()
    second = client.get(f"/api/thumbnail/{ID}")
    assert second.status_code == 200
    assert second.content != first


def test_a_full_or_closed_disk_only_makes_it_slower(client: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    thumbnails = Thumbnails(engine_of(client).reader, tmp_path / "file" / "thumbnails")
    first, second = thumbnails.get(ID, 320), thumbnails.get(ID, 320)
    assert first == second
    assert (thumbnails.made, thumbnails.kept) == (2, 0)


def test_the_large_view_is_no_larger_than_it_needs_to_be(own: Path, serve: Serve) -> None:
    picture("green", size=(3000, 1500)).save(own / "photos" / "large.png")
    index(own / "photos", own / "model", own / "index")
    view = serve(own, rate=0).get("/api/image/large.png")
    assert read(view.content).size == (2048, 1024)
    assert view.headers["content-type"] == "image/jpeg"


def test_a_file_that_is_no_picture_any_more_is_told(own: Path, serve: Serve) -> None:
    index(own / "photos", own / "model", own / "index")
    path = own / "photos" / ID
    path.write_bytes(b"\0" * path.stat().st_size)
    answer = serve(own, rate=0).get(f"/api/thumbnail/{ID}")
    assert answer.status_code == 422
    assert "error" in answer.json()


def test_files_are_given_as_they_are_only_where_that_is_said(serve: Serve, made: Path) -> None:
    refused = serve(rate=0).get(f"/api/image/{ID}?original=1")
    assert refused.status_code == 403
    assert "--originals" in refused.json()["remedy"]
    given = serve(rate=0, originals=True).get(f"/api/image/{ID}?original=1")
    assert given.content == (made / "photos" / ID).read_bytes()
    assert given.headers["content-type"] == "image/jpeg"
    assert given.headers["x-content-type-options"] == "nosniff"


def test_media_types_are_told_by_the_bytes() -> None:
    known = {"PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp", "BMP": "image/bmp",
             "TIFF": "image/tiff", "AVIF": "image/avif"}  # fmt: skip
    for form, name in known.items():
        assert media_type(encoded(picture("red"), form)) == name
    assert media_type(b"<html>") == "application/octet-stream"
    assert media_type(b"\0\0\0\x18ftypheic") == "image/heic"
