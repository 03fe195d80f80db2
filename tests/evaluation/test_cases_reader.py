from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from benchmark_toys import picture, write
from builders import is_fixed, samples, skips
from PIL import Image

from lateen.data import hash64
from lateen.data.images import decode_image
from lateen.data.samples import FileImage, HashedImage, ListDataset, Skip
from lateen.errors import DataError, ImageError
from lateen.evaluation.cases import (
    Case,
    CaseSet,
    CroppedImage,
    ZipImage,
    listed_captions,
    listed_images,
)


def stripes(tmp_path: Path) -> FileImage:
    return FileImage(write(tmp_path / "a.png", picture("red", "green", "blue")))


def test_a_crop_has_the_pixels_of_its_box(tmp_path: Path) -> None:
    crop = decode_image(CroppedImage(stripes(tmp_path), (16, 8, 40, 20)))
    whole = decode_image(stripes(tmp_path))
    assert crop.size == (24, 12)
    assert crop.tobytes() == whole.crop((16, 8, 40, 20)).tobytes()


def test_a_crop_is_known_by_the_whole_image(tmp_path: Path) -> None:
    image = HashedImage(CroppedImage(stripes(tmp_path), (16, 8, 40, 20)))
    assert image.hash == 0
    decode_image(image)
    assert image.hash == hash64((tmp_path / "a.png").read_bytes())


def test_a_crop_is_black_where_it_reaches_beyond_the_image(tmp_path: Path) -> None:
    crop = decode_image(CroppedImage(stripes(tmp_path), (40, 0, 60, 10)))
    assert crop.size == (20, 10)
    assert crop.getpixel((0, 0)) == (0, 0, 255)
    assert crop.getpixel((19, 0)) == (0, 0, 0)


@pytest.mark.parametrize("box", [(48, 0, 60, 10), (5, 5, 5, 9), (0, -9, 10, 0)])
def test_a_box_without_anything_of_the_image_is_a_fault(
    tmp_path: Path, box: tuple[int, int, int, int]
) -> None:
    with pytest.raises(ImageError, match="has nothing of its"):
        decode_image(CroppedImage(stripes(tmp_path), box))


def test_a_crop_of_a_bad_image_says_what_is_wrong_with_the_image(tmp_path: Path) -> None:
    for content, reason in ((b"", "the file is empty"), (b"no", "not an image")):
        image = FileImage(write(tmp_path / "bad.png", content))
        with pytest.raises(ImageError, match=reason):
            decode_image(CroppedImage(image, (0, 0, 1, 1)))
    with pytest.raises(ImageError, match="no such file"):
        decode_image(CroppedImage(FileImage(tmp_path / "absent.png"), (0, 0, 1, 1)))


def test_images_in_a_zip_file_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images/a.png", picture("red"))
    image = ZipImage(path, "images/a.png")
    assert decode_image(image).getpixel((0, 0)) == (255, 0, 0)
    assert image.name == f"{path}:images/a.png"
    with pytest.raises(ImageError, match="cannot be read"):
        decode_image(ZipImage(path, "images/b.png"))
    path.write_bytes(b"PK no more")
    with pytest.raises(ImageError, match="cannot be read"):
        decode_image(image)


def test_listed_images_are_a_dataset_in_which_missing_ones_are_skips(tmp_path: Path) -> None:
    whole = stripes(tmp_path)

    def build() -> ListDataset:
        crop = CroppedImage(whole, (0, 0, 16, 16))
        return listed_images("set", {"a": whole, "b": "it is gone", "a[0]": crop}, "Check.")

    assert is_fixed(build(), build)
    assert [sample.id for sample in samples(build())] == ["a", "a[0]"]
    assert [(skip.id, skip.reason) for skip in skips(build())] == [("b", "it is gone")]


def test_the_fingerprint_changes_with_an_image_that_crops_are_from(tmp_path: Path) -> None:
    crops = {"a": CroppedImage(stripes(tmp_path), (0, 0, 16, 16))}
    before = listed_images("set", crops, "Check.").fingerprint
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), "white").save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert listed_images("set", crops, "Check.").fingerprint != before


def test_captions_are_a_dataset_with_places_as_ids() -> None:
    dataset = listed_captions("set", ["b", "a"])
    assert is_fixed(dataset, lambda: listed_captions("set", ["b", "a"]))
    assert [(s.id, s.captions) for s in samples(dataset)] == [
        ("0", {"caption": ("b",)}), ("1", {"caption": ("a",)})
    ]  # fmt: skip
    assert dataset.fingerprint != listed_captions("set", ["a", "b"]).fingerprint


def test_a_set_without_any_example_names_the_first_that_could_not_be_used() -> None:
    images = listed_images("set", {}, "Check.")
    with pytest.raises(DataError, match=r"no example that can be used \(1 cannot: f:3: no caption"):
        CaseSet("set", [], images, [Skip("3", "no caption", "f:3")])
    with pytest.raises(DataError, match=r"no example that can be used\."):
        CaseSet("set", [], images, [])
    assert CaseSet("set", [Case("1", ("a",), ("b", "c"))], images, []).skips == []


def test_images_that_are_all_missing_stop_and_one_that_is_there_does_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not one of the 2 images of set .*'a': gone.*Look there"):
        listed_images("set", {"a": "gone", "b": "gone"}, "Look there.")
    listed_images("set", {"a": "gone", "b": stripes(tmp_path)}, "Look there.")


def test_a_zip_whose_compressed_bytes_make_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", picture("red"))
        start = 30 + len("a.png")  # the local header, then the member
    data = bytearray(path.read_bytes())
    data[start] = 0xFF  # a kind of block that there is not
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"cannot be read: .*invalid"):
        decode_image(ZipImage(path, "a.png"))
