from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import is_fixed, jpeg, samples, skips, write_images

from lateen.data.folder import ImageFolder, split_folders
from lateen.data.images import decode_image
from lateen.data.samples import FileImage
from lateen.errors import DataError


def ids(folder: Path) -> list[str]:
    return [sample.id for sample in samples(ImageFolder(folder))]


def test_images_are_found_at_any_depth_and_sorted(tmp_path: Path) -> None:
    write_images(tmp_path, ["b.png", "z/c/d.JPG", "a.jpeg", "a/x.WebP", "a b/é.tif"])
    dataset = ImageFolder(tmp_path)
    assert ids(tmp_path) == ["a b/é.tif", "a.jpeg", "a/x.WebP", "b.png", "z/c/d.JPG"]
    assert dataset.name == str(tmp_path)
    assert dataset.columns == ()
    assert is_fixed(dataset, lambda: ImageFolder(tmp_path))


def test_classes_are_the_first_folders(tmp_path: Path) -> None:
    write_images(tmp_path, ["tench/1.jpg", "tench/2.jpg", "church/in/3.jpg", "4.jpg"])
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ("church", "tench")
    assert [sample.label for sample in samples(dataset)] == [None, "church", "tench", "tench"]


def test_other_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", ".b.jpg", ".git/c.jpg", "._a.jpg", "d/.e/f.jpg"])
    (tmp_path / "captions.csv").write_text("x")
    (tmp_path / "jpg").write_text("x")
    (tmp_path / "g.jpg").mkdir()
    assert ids(tmp_path) == ["a.jpg"]


def test_samples_know_their_files_and_nothing_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.jpg").write_bytes(jpeg((0, 0, 255)))
    (tmp_path / "c.jpg").symlink_to("nowhere")
    first, broken = samples(ImageFolder(tmp_path))
    assert first.image == FileImage(tmp_path / "a" / "b.jpg")
    assert decode_image(first.image).getpixel((0, 0)) == (0, 0, 254)
    assert broken.id == "c.jpg"  # that it cannot be read is found by the one who reads it


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", ["a.jpg"])
    folder = write_images(tmp_path / "folder", ["b.jpg"])
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert ids(folder) == ["b.jpg", "linked/a.jpg"]


def test_a_name_in_both_unicode_forms_is_a_duplicate(tmp_path: Path) -> None:
    write_images(tmp_path, ["caf\u00e9.jpg", "cafe\u0301.jpg", "z.jpg"])
    dataset = ImageFolder(tmp_path)
    assert [sample.id for sample in samples(dataset)] == ["caf\u00e9.jpg", "z.jpg"]
    (skip,) = skips(dataset)
    assert skip.id == "caf\u00e9.jpg"
    assert not skip.sample  # the first of the two stays in
    assert "already used at" in skip.reason and "caf" in skip.reason


def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(jpeg())
    dataset = ImageFolder(tmp_path)
    (skip,) = skips(dataset)
    assert (skip.id, skip.reason) == ("caf\\xe9.jpg", "the file name is not valid UTF-8")
    skip.source.encode()
    assert len(dataset.fingerprint) == 64
    assert dataset.classes == ()


def test_the_fingerprint_follows_content_and_names_not_the_place(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", ["a.jpg", "b/c.jpg"])
    two = write_images(tmp_path / "two", ["a.jpg", "b/c.jpg"])
    before = ImageFolder(one).fingerprint
    assert before == ImageFolder(two).fingerprint
    (two / "b" / "c.jpg").rename(two / "b" / "d.jpg")
    renamed = ImageFolder(two).fingerprint
    (one / "a.jpg").write_bytes(jpeg((9, 9, 9)))
    assert len({before, renamed, ImageFolder(one).fingerprint}) == 3


def test_a_folder_without_images_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in .* \(it is empty\)"):
        ImageFolder(tmp_path)
    for name in ("a.cr2", "b.cr2", "README"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"but 2 \.cr2, 1 without suffix") as caught:
        ImageFolder(tmp_path)
    assert ".jpg" in caught.value.remedy


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        ImageFolder(tmp_path / "absent")


def test_folders_of_systems_and_thumbnails_are_no_data_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path, [
        "a/1.jpg", "a/@eaDir/1.jpg/THUMB_M.jpg", "@eaDir/x.jpg", "__MACOSX/a/1.jpg",
        "Thumbnails/1.jpg", ".thumbnails/1.jpg", "$RECYCLE.BIN/2.jpg",
    ])  # fmt: skip
    (tmp_path / "Thumbs.db").write_text("x")
    assert ids(tmp_path) == ["a/1.jpg"]
    assert ImageFolder(tmp_path).classes == ("a",)
    assert "2 @eaDir/" in caplog.text and "1 Thumbs.db" in caplog.text


def test_images_with_rare_endings_and_without_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jfif", "b.jpe", "c", "d.JPG"):
        (tmp_path / name).write_bytes(jpeg())
    for name in ("note.txt", "LICENSE", "raw.cr2", "raw2.cr2"):
        (tmp_path / name).write_bytes(b"II*\0 raw" if name[0] == "r" else b"x")
    (tmp_path / "e.heic").write_bytes(b"x")
    assert ids(tmp_path) == ["a.jfif", "b.jpe", "c", "d.JPG", "e.heic"]
    assert "left out, as they are no images: 2 .cr2, " in caplog.text
    assert "1 .txt" in caplog.text and "1 without suffix" in caplog.text


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["train/a", "test/a"], ("test", "train")),
        (["Train/a", "Test/a"], ("Test", "Train")),
        (["seg_train/a", "seg_test/a", "seg_pred"], ("seg_test", "seg_train")),
        (["train_images/a", "val_images/a"], ("train_images", "val_images")),
        (["train/x", "car/y"], ()),
        (["train_station/a", "bus_station/a"], ()),
        (["test/a"], ("test",)),
        (["left/a", "right/a"], ()),
        ([], ()),
    ],
)
def test_folders_that_are_splits(
    folders: list[str], splits: tuple[str, ...], tmp_path: Path
) -> None:
    for folder in [*folders, ".git/train"]:
        (tmp_path / folder).mkdir(parents=True)
    assert split_folders(tmp_path) == splits


def test_classes_that_look_like_splits_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"):
        (tmp_path / folder).mkdir(parents=True)
    assert split_folders(tmp_path) == ()
    assert "have the same subfolders (cat, dog), as splits have" in caplog.text
