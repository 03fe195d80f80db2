from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import jpeg
from PIL import Image

from lateen.data import images, upright_rgb
from lateen.data.images import IMAGE_SUFFIXES, decode_image
from lateen.data.samples import FileImage, MemoryImage, TarImage
from lateen.errors import ImageError

# Red above green, so that turning and mirroring show.
TWO_ROWS = Image.fromarray(np.array([[[255, 0, 0]] * 3, [[0, 255, 0]] * 3], np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    return decode_image(MemoryImage("test", data))


def reason(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.message


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF", "WEBP"])
def test_lossless_formats_decode_to_the_same_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(TWO_ROWS, kind, **options))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(TWO_ROWS))


def test_jpeg_decodes_as_pillow_does() -> None:
    data = encoded(TWO_ROWS.resize((48, 32)), "JPEG", quality=80)
    plain = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(plain))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:8, :16] = 255  # one bright corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(encoded(Image.fromarray(pixels), kind, exif=exif))
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: pixels.transpose(1, 0, 2)[:, ::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1], 8: pixels.transpose(1, 0, 2)[::-1],
    }[orientation]  # fmt: skip
    assert image.size == (upright.shape[1], upright.shape[0])
    assert np.array_equal(np.asarray(image) > 128, upright > 128)
    # What is upright stays so, whoever is given it.
    assert np.array_equal(np.asarray(upright_rgb(image)), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_becomes_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode)
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 51)).convert(mode)
    assert pixel(decode(encoded(clear, "PNG"))) == (255, 255, 255)
    assert pixel(decode(encoded(half, "PNG"))) == (204, 204, 204)  # 255 · (1 − 51/255)


def test_palette_with_a_transparent_colour_becomes_white_there() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        decoded = decode(encoded(image, kind, transparency=0))
        assert [pixel(decoded, x) for x in (0, 1)] == [(255, 255, 255), (200, 100, 0)]


def test_palette_with_alpha_per_colour_is_blended() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 100, 0])
    image.putdata([0, 1])
    decoded = decode(encoded(image, "PNG", transparency=bytes([51, 255])))
    assert [pixel(decoded, x) for x in (0, 1)] == [(204, 204, 204), (200, 100, 0)]


def test_rgb_with_a_colour_key_becomes_white_there() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    image.putpixel((1, 0), (9, 9, 9))
    decoded = decode(encoded(image, "PNG", transparency=(1, 2, 3)))
    assert [pixel(decoded, x) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_are_converted(mode: str) -> None:
    white = Image.new("RGB", (4, 4), "white")
    if mode == "LAB":
        white = Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (255, 128, 128)])
    decoded = decode(encoded(white.convert(mode), "TIFF"))
    assert decoded.mode == "RGB"
    assert min(pixel(decoded)) >= 253


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = np.array([[0, 128, 129, 256, 32768, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 128, 255]  # round(value · 255 / 65535)
    for kind in ("PNG", "TIFF", "PPM"):
        decoded = np.asarray(decode(encoded(Image.fromarray(grey), kind)))
        assert decoded[0, :, 0].tolist() == expected
        assert (decoded == decoded[:, :, :1]).all()


def test_numbers_without_a_defined_white_are_refused() -> None:
    floats = Image.fromarray(np.ones((2, 2), np.float32))
    wide = Image.fromarray(np.full((2, 2), 70000, np.int32))
    assert "floating-point" in reason(encoded(floats, "TIFF"))
    assert "16 bits" in reason(encoded(wide, "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = pixel(decode(data))
    assert red > 250 and blue < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF"])
@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    assert len(reason(data[: int(len(data) * share)])) < 100


def test_reasons_are_short_and_human(tmp_path: Path) -> None:
    assert reason(b"") == "the file is empty"
    assert reason(b"<!DOCTYPE html><p>403</p>").startswith("not an image but a web page")
    assert reason(b"hello there").startswith("not an image of a known format")
    assert reason(b"\0\0\0\x20ftypisom") == "not an image but a video"
    assert reason(jpeg((1, 2, 3), (64, 64))[:-40]) == "the image is truncated"
    with pytest.raises(ImageError, match="there is no such file"):
        decode_image(FileImage(tmp_path / "absent.jpg"))
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        decode_image(FileImage(tmp_path))


def test_a_shard_that_ends_within_the_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"1234")
    with pytest.raises(ImageError, match="the shard ends after 2 of 9 bytes"):
        decode_image(TarImage(tmp_path / "a.tar", "a.jpg", offset=2, size=9))


def test_an_image_without_pixels_is_refused() -> None:
    data = bytearray(encoded(TWO_ROWS, "BMP"))
    data[18:26] = struct.pack("<ii", 0, 0)
    assert reason(bytes(data)) == "it has no pixels, or none of a known form"
    gif = bytearray(encoded(TWO_ROWS, "GIF"))
    gif[6:10] = bytes(4)
    assert reason(bytes(gif)) == "the image has no pixels (0 × 0)"


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims to be very large and holds next to nothing."""
    chunks = b""
    for kind, body in ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
                       (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")):  # fmt: skip
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("size", [(30_000, 30_000), (100_000, 100_000)])
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(size: tuple[int, int]) -> None:
    message = reason(png_header(*size))
    assert f"{size[0]} × {size[1]} pixels" in message
    assert "bomb" in message


def test_the_size_limit_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(size=(20, 20))
    for kind, image in (("GIF", TWO_ROWS.resize((20, 20))), ("JPEG", TWO_ROWS.resize((20, 20)))):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow itself only warns below 600
        assert "more than the limit of 300" in reason(encoded(image, kind))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(data).size == (20, 20)


def test_damaged_metadata_neither_warns_nor_matters() -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\xff" * 9
    damaged = encoded(TWO_ROWS.resize((32, 16)), "JPEG", exif=exif)
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(damaged)).getexif()
    assert decode(damaged).size == (32, 16)  # warnings are errors here


def test_odd_tiff_tags_neither_warn_nor_matter() -> None:
    # An orientation twice, a tag whose value lies behind the end of the file, one of unknown type.
    entries = [
        (256, 4, 1, 2), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (274, 3, 2, 1), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 2),
        (305, 2, 500, 9_999), (700, 77, 1, 0),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0" + struct.pack("<I", 10) + b"\x07\x63" + struct.pack("<H", len(entries)) + table
    data += bytes(4)
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(data)).load()
    decoded = decode(data)
    assert [pixel(decoded, x)[0] for x in (0, 1)] == [7, 99]


def test_an_invalid_animation_header_neither_warns_nor_matters() -> None:
    data = encoded(TWO_ROWS, "PNG")
    body = b"acTL" + struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body))
    animated = data[:33] + chunk + data[33:]
    with pytest.warns(UserWarning):
        Image.open(io.BytesIO(animated))
    assert np.array_equal(np.asarray(decode(animated)), np.asarray(TWO_ROWS))


def test_random_damage_gives_an_image_or_an_image_error() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [
        encoded(noise, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")
    ] + [encoded(noise, kind) for kind in ("TIFF", "GIF", "BMP", "PPM")]  # fmt: skip
    refused = 0
    for trial in range(2_000):
        data = bytearray(seeds[trial % len(seeds)])
        for _ in range(3):
            data[rng.integers(min(len(data), 150))] = rng.integers(256)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except ImageError:
            refused += 1
    assert 200 < refused < 1_900


def test_decoding_in_threads_leaves_warning_filters_alone() -> None:
    bad = encoded(TWO_ROWS, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(decode, [bad] * 64))
    assert {image.size for image in decoded} == {(3, 2)}
    assert warnings.filters == before


def test_suffixes_are_lower_case_and_cover_what_decodes() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def gradient(width: int, height: int) -> Image.Image:
    across = np.linspace(0, 255, width)[None, :, None]
    down = np.linspace(0, 255, height)[:, None, None]
    parts = [np.broadcast_to(each, (height, width, 1)) for each in (across, down, 255 - across)]
    return Image.fromarray(np.concatenate(parts, 2).astype(np.uint8))


@pytest.mark.parametrize(
    ("side", "size"),
    [(None, (800, 600)), (200, (800, 600)), (150, (400, 300)), (70, (200, 150)), (37, (100, 75))],
)
def test_a_jpeg_is_decoded_at_no_less_than_twice_its_target(
    side: int | None, size: tuple[int, int]
) -> None:
    image = gradient(800, 600)
    source = MemoryImage("a", encoded(image, "JPEG", quality=95))
    part = decode_image(source, short_side=side)
    assert part.size == size
    target = (64, 48)
    whole = np.asarray(image.resize(target, Image.Resampling.BICUBIC), np.float32)
    resized = np.asarray(part.resize(target, Image.Resampling.BICUBIC), np.float32)
    assert np.abs(whole - resized).mean() < 1
    # Formats without scaled decoding come whole.
    png = MemoryImage("a", encoded(image, "PNG"))
    assert decode_image(png, short_side=side).size == (800, 600)


def test_orientation_is_applied_to_a_jpeg_decoded_in_part() -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    source = MemoryImage("a", encoded(gradient(800, 600), "JPEG", exif=exif))
    assert decode_image(source, short_side=70).size == (150, 200)


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "1", "CMYK"])
def test_large_images_are_made_smaller_unless_asked_for_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "LARGE_PIXELS", 10_000)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    source = MemoryImage("a", encoded(gradient(300, 200).convert(mode), kind))
    small = decode_image(source)
    assert (small.size, small.mode) == ((60, 40), "RGB")
    assert decode_image(source, whole=True).size == (300, 200)


def test_the_limit_of_pixels_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_limit", [])
    source = MemoryImage("a", encoded(gradient(30, 20), "PNG"))
    images.limit_pixels(599)
    with pytest.raises(ImageError, match=r"30 × 20 pixels.*limit of 599.*--max-pixels"):
        decode_image(source)
    images.limit_pixels(600)
    assert decode_image(source).size == (30, 20)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_pictures_of_phones_and_browsers(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = decode(encoded(gradient(64, 48), kind, quality=95))
    assert (image.size, image.mode) == ((64, 48), "RGB")
    difference = np.asarray(image, np.float32) - np.asarray(gradient(64, 48), np.float32)
    assert np.abs(difference).mean() < 4
