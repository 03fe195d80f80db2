"""Folders of pictures as systems, phones and publishers leave them."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from builders import write_csv
from commands import call, evaluated, saved_model
from labelled_toys import class_folder
from PIL import Image
from toys import photo

from lateen.encoders import load_encoder


def classified(
    capsys: pytest.CaptureFixture[str], model: Path, *words: object
) -> tuple[dict[str, Any], str]:
    """The result of the task, and what it warned of."""
    return evaluated(capsys, model, "classification", "--images", *words)


def searched(
    capsys: pytest.CaptureFixture[str], model: Path, photos: Path, *words: object
) -> tuple[list[str], list[dict[str, str]], str]:
    """The ids that ``lateen search`` ranks, what it skips, and what it warned of."""
    code, out, err = call(
        capsys, "search", model, "something red", "--images", photos, "--k", 50, *words, "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    return [hit["id"] for hit in found["hits"]], found["skipped"], err


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("TRAIN", "TEST"), ("seg_train", "seg_test"), ("train", "test")],
)
def test_splits_may_be_written_in_any_case(
    train: str, test: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folder(tmp_path / "set" / train, ["red", "blue"], count=4)
    class_folder(tmp_path / "set" / test, ["red", "blue"], count=3, seed=50)
    result, err = classified(capsys, model, tmp_path / "set")
    assert (result["split"], result["images"], result["classes"]) == (test, 6, 2)
    assert set(result["per_class"]) == {"red", "blue"}
    assert (result["top1"], err) == (100, "")
    learned, err = classified(capsys, model, tmp_path / "set", "--split", train)
    assert (learned["split"], learned["images"], err) == (train, 8, "")


def test_thumbnails_of_systems_are_no_photographs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = class_folder(tmp_path / "photos", ["red", "blue"], count=3)
    for picture in list(photos.rglob("*.png")):
        small = picture.parent / "@eaDir" / picture.name / "SYNOPHOTO_THUMB_M.jpg"
        small.parent.mkdir(parents=True)
        Image.open(picture).resize((4, 4)).save(small)
    for name in ("@eaDir/cover.png", "__MACOSX/red", "#recycle/blue"):
        shutil.copytree(photos / "red" / "@eaDir", photos / name)
    result, err = classified(capsys, model, photos)
    assert (result["images"], result["classes"]) == (6, 2)
    assert set(result["per_class"]) == {"red", "blue"}
    for told in ("3 @eaDir/", "1 __MACOSX/", "1 #recycle/"):
        assert told in err
    hits, skipped, _ = searched(capsys, model, photos)
    assert sorted(hits) == [f"{c}/{i}.png" for c in ("blue", "red") for i in range(3)]
    assert skipped == []


def camera_roll(root: Path) -> Path:
    """JPEGs under all of their endings, pictures that nobody can read, and other files."""
    buffer = io.BytesIO()
    Image.open(photo(root / "drawn.png", "red")).save(buffer, "JPEG")
    (root / "drawn.png").unlink()
    for name in ("a.jpg", "b.jfif", "c.jpe", "d", "e.JPG", "f.JPEG"):
        (root / name).write_bytes(buffer.getvalue())
    for name, brand in (("IMG_7.HEIC", b"heic"), ("IMG_8.avif", b"avif")):
        (root / name).write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(64))
    for name in ("IMG_9.MOV", "IMG_10.mov", "notes.docx", "LIESMICH"):
        (root / name).write_bytes(b"something else entirely")
    return root


def test_pictures_of_every_ending_are_read_or_recorded(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = camera_roll(tmp_path / "photos")
    read, unread = (
        ["a.jpg", "b.jfif", "c.jpe", "d", "e.JPG", "f.JPEG"],
        ["IMG_7.HEIC", "IMG_8.avif"],
    )
    encoder = ("--encoder", "toys:colour_encoder", "--out")
    code, out, err = call(capsys, "encode", photos, *encoder, tmp_path / "store", "--json")
    made = json.loads(out)
    assert (code, made["rows"], made["skipped"]) == (0, 6, 2)
    left_out = "left out, as they are no images: 2 .mov, 1 .docx, 1 without suffix"
    first = err.partition("images: ")[2].splitlines()[0]
    assert "2 × the image is damaged" in err
    assert sorted(first.split(", ")) == sorted(left_out.partition("images: ")[2].split(", "))
    assert err.count("\n") == 2
    skips = [json.loads(s) for s in (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()]
    table = write_csv(
        tmp_path / "photos.csv", [("image",), *((name,) for name in [*read, *unread])]
    )
    code, out, err = call(
        capsys, "encode", table, "--images", photos, *encoder, tmp_path / "of-table", "--json"
    )
    same = (tmp_path / "of-table" / "skipped.jsonl").read_text().splitlines()
    assert {s["id"]: s["reason"] for s in skips} == {
        s["id"]: s["reason"] for s in map(json.loads, same)
    }
    hits, skipped, err = searched(capsys, model, photos)
    assert sorted(hits) == sorted(read)
    assert [skip["id"] for skip in skipped] == unread
    assert all(skip["reason"] for skip in skipped)
    assert "2 .mov" in err


def plain_png(path: Path, width: int, height: int) -> Path:
    """A picture of one colour that is small on disk, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, of a palette
    pixels = zlib.compress(bytes((width + 1) * height), 1)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", bytes((255, 0, 0)))
        + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )  # fmt: skip
    return path


@pytest.fixture
def vit_model(vit_folder: Path, bert_folder: Path, tmp_path: Path) -> Path:
    """A model that scales its images down, unlike the toys."""
    vision = load_encoder(str(vit_folder), "image", pooling="cls")
    return saved_model(
        tmp_path / "vit-model", vision, load_encoder(str(bert_folder), "text", pooling="mean")
    )


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two small pictures and one of 108 megapixels; the limit of pixels is put back."""
    monkeypatch.setattr("lateen.data.images._limit", [])
    for index, colour in enumerate(("red", "blue")):
        photo(tmp_path / "photos" / f"{index}.png", colour)
    return plain_png(tmp_path / "photos" / "phone.png", 12_000, 9_000).parent


def test_a_photograph_of_a_phone_is_no_bomb(
    vit_model: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hits, skipped, err = searched(capsys, vit_model, phone)
    assert (sorted(hits), skipped, err) == (["0.png", "1.png", "phone.png"], [], "")


def test_what_has_too_many_pixels_is_told_with_the_limit_that_can_be_raised(
    vit_model: Path, phone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hits, skipped, _ = searched(capsys, vit_model, phone, "--max-pixels", 100_000_000)
    assert sorted(hits) == ["0.png", "1.png"]
    [skip] = skipped
    assert skip["id"] == "phone.png"
    assert "12000 × 9000 pixels, more than the limit of 100,000,000" in skip["reason"]
    assert "--max-pixels" in skip["reason"]
    hits, skipped, _ = searched(capsys, vit_model, phone, "--max-pixels=110000000")
    assert (sorted(hits), skipped) == (["0.png", "1.png", "phone.png"], [])
