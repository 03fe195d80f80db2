from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lateen.data import FileImage, MemoryImage
from lateen.data.labels.names import read_mask_classes
from lateen.data.masks import (
    IGNORED,
    LAYOUTS,
    MaskedImages,
    PixelCounts,
    decode_mask,
    open_masks,
    settle_binary,
)
from lateen.errors import DataError, ImageError, UsageError

VALUES = np.array([[0, 1, 2], [3, 20, 255]], np.uint8)


def image(path: Path, size: tuple[int, int] = (3, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "navy").save(path)
    return path


def mask(path: Path, values: np.ndarray = VALUES, mode: str = "L") -> Path:  # type: ignore[type-arg]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([7 * i % 256 for i in range(768)])
    picture.save(path)
    return path


def classes(tmp_path: Path, text: str = "sky\nroad\n") -> Path:
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    return path


# -- masks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "P"])
def test_indices_are_what_is_stored_whatever_the_palette(tmp_path: Path, mode: str) -> None:
    path = mask(tmp_path / "a.png", mode=mode)
    with Image.open(path) as picture:
        assert picture.mode == mode
    assert decode_mask(FileImage(path)).tolist() == VALUES.tolist()


def test_indices_of_sixteen_bits_and_of_one(tmp_path: Path) -> None:
    wide = np.array([[0, 300], [65535, 7]], np.uint16)
    assert decode_mask(FileImage(mask(tmp_path / "a.png", wide))).tolist() == wide.tolist()
    Image.fromarray(np.eye(2, dtype=bool)).save(tmp_path / "b.png")
    assert decode_mask(FileImage(tmp_path / "b.png")).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("depth", [2, 4])
def test_grey_of_few_bits_is_not_spread(depth: int) -> None:
    row = 0b00011011_00000000 if depth == 2 else 0b0000_0001_1111_0010
    assert decode_mask(MemoryImage("a", _png(4, depth, row))).tolist() == [
        [0, 1, 2, 3] if depth == 2 else [0, 1, 15, 2]
    ]


def _png(width: int, depth: int, row: int) -> bytes:
    """A grey PNG of one line, which Pillow itself writes only with 1, 8 or 16 bits."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    line = b"\0" + row.to_bytes(2, "big")[: -(-width * depth // 8)]
    header = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(line)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_encoded(Image.new("RGB", (2, 2)), "PNG"), "colours \\(RGB\\) instead of class indices"),
        (_encoded(Image.new("L", (2, 2)), "JPEG"), "not a PNG"),
        (_encoded(Image.new("L", (64, 64)), "PNG")[:60], "damaged"),
        (b"", "not a PNG"),
    ],
)
def test_what_is_no_index_mask_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_mask(MemoryImage("a.png", data))


def test_a_mask_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        decode_mask(FileImage(tmp_path / "none.png"))


def test_a_mask_that_claims_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encoded(Image.new("L", (20, 20)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)
    with pytest.raises(ImageError, match="more than 399 pixels"):
        decode_mask(MemoryImage("a.png", data))


# -- class names ----------------------------------------------------------------------------------


def test_class_names_are_lines_without_comments(tmp_path: Path) -> None:
    text = "\ufeff# of a set\nsky\n  traffic   light \nroad\n\n\n"
    assert read_mask_classes(classes(tmp_path, text)) == ("sky", "traffic light", "road")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sky\n", "1 class names, and one alone is always right"),
        ("", "0 class names"),
        ("sky\n\nroad\n", "empty line before 'road'"),
        ("sky\nroad\nsky\n", "class 'sky' 2 times"),
    ],
)
def test_class_names_in_doubt_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_mask_classes(classes(tmp_path, text))


def test_class_names_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_mask_classes(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\nbar\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_mask_classes(tmp_path / "latin.txt")


def test_published_classes_are_as_many_as_published() -> None:
    counts = {name: len(layout.classes) for name, layout in LAYOUTS.items()}
    assert counts == {"ade20k": 150, "coco-stuff": 171, "voc20": 20}


# -- sets -----------------------------------------------------------------------------------------


def test_two_folders_are_joined_by_name_and_the_rest_is_recorded(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.png", "a/c.jpg", "alone.jpg"):
        image(tmp_path / "images" / name)
    for name in ("b.png", "a/c.png", "other.png"):
        mask(tmp_path / "masks" / name)
    found = open_masks(
        images=tmp_path / "images", masks=tmp_path / "masks", classes=classes(tmp_path)
    )
    assert [pair.id for pair in found] == ["a/c", "b"]
    assert [found.labels(pair).tolist() for pair in found] == [VALUES.tolist()] * 2
    reasons = {skip.id: skip.reason for skip in found.skips}
    assert reasons.keys() == {"a/c.png", "alone", "other"}
    assert "same name without its ending" in reasons["a/c.png"]
    assert (reasons["alone"], reasons["other"]) == ("it has no mask", "it has no image")


def test_the_fingerprint_changes_with_images_masks_and_classes(tmp_path: Path) -> None:
    def key(names: str = "sky\nroad") -> str:
        places = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
        return open_masks(**places, classes=classes(tmp_path, names)).fingerprint

    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png")
    before = key()
    assert key() == before
    assert key("sky\nstreet") != before
    mask(tmp_path / "masks" / "a.png", VALUES[::-1].copy())
    assert key() != before


def test_nothing_that_has_a_mask(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "b.png")
    with pytest.raises(DataError, match=r"no image of .* has a mask .2 left out, the first: a: it"):
        open_masks(images=tmp_path / "images", masks=tmp_path / "masks", classes=classes(tmp_path))


def test_ade20k_is_reduced_by_one(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    image(root / "images" / "validation" / "ADE_val_00000001.jpg")
    image(root / "images" / "training" / "ADE_train_00000001.jpg")
    mask(root / "annotations" / "validation" / "ADE_val_00000001.png")
    for data in (root, tmp_path):
        found = open_masks(data=data)
        [pair] = found
        assert pair.id == "ADE_val_00000001"
        assert found.labels(pair).tolist() == [[255, 0, 1], [2, 19, 255]]
        assert (found.classes[0], found.classes[149], found.skips) == ("wall", "flag", ())


def test_voc20_is_what_val_lists_without_background(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for stem in ("2007_1", "2007_2", "2007_3"):
        image(root / "JPEGImages" / f"{stem}.jpg")
        mask(root / "SegmentationClass" / f"{stem}.png", mode="P")
    listing = root / "ImageSets" / "Segmentation" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("2007_1\n2007_3\n2007_4\n")
    (root / "SegmentationClass" / "2007_3.png").unlink()
    found = open_masks(data=tmp_path, layout="voc20")
    [pair] = found
    assert found.labels(pair).tolist() == [[255, 0, 1], [2, 19, 255]]
    assert found.classes[0] == "aeroplane"
    assert {skip.id: skip.reason for skip in found.skips} == {
        "2007_3": "it has no mask", "2007_4": "it has neither image nor mask",
    }  # fmt: skip


def test_coco_stuff_with_train_ids_or_as_published(tmp_path: Path) -> None:
    image(tmp_path / "images" / "val2017" / "000000000139.jpg")
    values = np.array([[0, 10, 12], [90, 91, 181], [11, 255, 89]], np.uint8)
    mask(tmp_path / "stuffthingmaps" / "val2017" / "000000000139.png", values)
    found = open_masks(data=tmp_path)
    [pair] = found
    # 80 things are left of 91 categories; 11 and 90 are categories that no picture has.
    assert found.labels(pair).tolist() == [[0, 10, 11], [255, 80, 170], [255, 255, 79]]
    assert [found.classes[i] for i in (0, 11, 79, 80, 170)] == [
        "person", "stop sign", "toothbrush", "banner", "wood",
    ]  # fmt: skip
    annotations = tmp_path / "annotations" / "val2017"
    mask(annotations / "000000000139.png", values)
    mask(annotations / "000000000139_labelTrainIds.png", np.array([[0, 170, 255]], np.uint8))
    found = open_masks(data=tmp_path, layout="coco-stuff")
    [pair] = found
    assert found.labels(pair).tolist() == [[0, 170, 255]]


def test_what_is_no_known_set_says_what_it_looks_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ade20k: images/validation.*coco-stuff.*voc20"):
        open_masks(data=tmp_path)
    with pytest.raises(DataError, match=r"for voc20: JPEGImages.*host\.robots") as caught:
        open_masks(data=tmp_path, layout="voc20")
    assert "ade20k" not in str(caught.value)


def test_ones_own_names_for_a_published_set_must_be_as_many(tmp_path: Path) -> None:
    image(tmp_path / "images" / "validation" / "a.jpg")
    mask(tmp_path / "annotations" / "validation" / "a.png")
    with pytest.raises(DataError, match="names 2 classes, ade20k has 150"):
        open_masks(data=tmp_path, classes=classes(tmp_path))
    own = classes(tmp_path, "\n".join(f"class {i}" for i in range(150)))
    assert open_masks(data=tmp_path, classes=own).classes[149] == "class 149"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "two folders or a published set"),
        ({"images": "a", "data": "b"}, "two folders or a published set"),
        ({"images": "a"}, "need masks and the names"),
        ({"images": "a", "masks": "b"}, "need masks and the names"),
        ({"images": "a", "masks": "b", "layout": "voc20"}, "of a published set"),
        ({"data": "a", "layout": "plain"}, "two folders"),
        ({"data": "a", "layout": "ade"}, "Did you mean 'ade20k'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_masks(**options)


def test_indices_beyond_the_classes_are_told_as_the_file_has_them(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    image(root / "images" / "validation" / "a.jpg")
    mask(
        root / "annotations" / "validation" / "a.png",
        np.array([[0, 1, 150], [151, 151, 200]], np.uint8),
    )
    found = open_masks(data=root)
    [pair] = found
    truth = found.counted(pair, IGNORED)
    assert truth.labels.tolist() == [[-1, 0, 149], [-1, -1, -1]]
    assert (truth.ignored, truth.unknown) == (1, {151: 2, 200: 1})


def test_names_that_read_alike_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the class 'tree trunk' 2 times"):
        read_mask_classes(classes(tmp_path, "tree_trunk\ntree trunk\nsky\n"))


def test_a_listing_in_another_encoding(tmp_path: Path) -> None:
    listing = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 1 of .*val.txt is not UTF-8"):
        open_masks(data=tmp_path)


def binary(tmp_path: Path, *values: int) -> MaskedImages:
    for index, value in enumerate(values):
        image(tmp_path / "i" / f"{index}.jpg")
        mask(
            tmp_path / "m" / f"{index}.png", np.array([[0, value, value], [0, 0, value]], np.uint8)
        )
    return open_masks(images=tmp_path / "i", masks=tmp_path / "m", classes=classes(tmp_path))


def test_masks_of_0_and_255_with_two_classes_have_two_readings(tmp_path: Path) -> None:
    masked = binary(tmp_path, 255, 0, 255)
    with pytest.raises(DataError, match=r"255 may be ignored, and then 'sky'.*may be 'road'"):
        settle_binary(masked, IGNORED)
    second = settle_binary(masked, 254)
    assert second.labels(next(iter(second))).tolist() == [[0, 1, 1], [0, 0, 1]]
    assert second.counted(next(iter(second)), 254).ignored == 0


@pytest.mark.parametrize("values", [(255, 1), (0, 1), (0, 0)])
def test_masks_with_other_values_are_left_as_they_are(tmp_path: Path, values: list[int]) -> None:
    masked = binary(tmp_path, *values)
    assert settle_binary(masked, IGNORED) is masked


def test_many_ignored_pixels_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    masked = binary(tmp_path, 255, 1)
    counts = PixelCounts()
    for pair in masked:
        counts.add(masked.counted(pair, IGNORED))
    assert counts.as_dict() == {
        "ignored_pixels": 3, "ignored_share": 25.0, "unknown_indices": {},
    }  # fmt: skip
    counts.warn(2, IGNORED)
    assert not caplog.text
    PixelCounts(pixels=100, ignored=34).warn(2, IGNORED)
    assert "34.0 % of the pixels are ignored (index 255)" in caplog.text


def test_a_photograph_beside_its_mask_is_not_taken_for_it(tmp_path: Path) -> None:
    image(tmp_path / "i" / "0.jpg")
    image(tmp_path / "m" / "0.jpg")
    mask(tmp_path / "m" / "0.png")
    masked = open_masks(images=tmp_path / "i", masks=tmp_path / "m", classes=classes(tmp_path))
    assert [Path(pair.mask.name).name for pair in masked] == ["0.png"]
    assert [(skip.id, "no PNG" in skip.reason) for skip in masked.skips] == [("0.jpg", True)]


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_photographs_and_masks_may_lie_in_one_folder(ending: str, tmp_path: Path) -> None:
    image(tmp_path / "d" / f"0.{ending}")
    mask(tmp_path / "d" / "0.png")
    masked = open_masks(images=tmp_path / "d", masks=tmp_path / "d", classes=classes(tmp_path))
    (pair,) = masked
    assert Path(pair.image.name).name == f"0.{ending}"
    assert Path(pair.mask.name).name == "0.png"
