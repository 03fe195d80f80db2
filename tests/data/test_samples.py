from __future__ import annotations

from pathlib import Path

import pytest
from builders import write_images

from lateen.data.samples import FileImage, ListDataset, Sample, Skip, find_image_files


def test_a_list_of_samples_is_a_dataset_whether_it_is_in_memory_or_not() -> None:
    items = [Sample("a"), Skip("b", "it is gone", "list")]
    listed = ListDataset("two", items, "f" * 64, ("caption",))
    yielded = ListDataset("two", lambda: iter(items), lambda: "f" * 64, ("caption",), count=2)
    for dataset in (listed, yielded):
        assert list(dataset) == list(dataset) == items
        assert (len(dataset), dataset.columns, dataset.fingerprint) == (2, ("caption",), "f" * 64)


def test_a_fingerprint_is_computed_once_and_only_when_it_is_needed() -> None:
    asked = []

    def fingerprint() -> str:
        asked.append(1)
        return "f" * 64

    dataset = ListDataset("none", [], fingerprint)
    assert not asked
    assert dataset.fingerprint == dataset.fingerprint == "f" * 64
    assert len(asked) == 1


def test_images_are_where_most_of_them_are_or_where_they_are_said_to_be(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    folders = [tmp_path / "absent", tmp_path, tmp_path / "images"]
    found = find_image_files(None, folders, ["a.jpg", "b.jpg"])
    assert found.folder == tmp_path / "images"
    assert found.source("b.jpg") == FileImage(tmp_path / "images" / "b.jpg")
    assert find_image_files(None, folders, ["a.jpg"]).folder == tmp_path
    assert find_image_files(tmp_path / "absent", folders, ["a.jpg"]).folder == tmp_path / "absent"
    assert find_image_files(None, folders[:1], ["a.jpg"]).find("a.jpg") is None


@pytest.mark.parametrize(("name", "path"), [("a", "a.jpg"), ("a.jpg", "a.jpg"), ("b", None)])
def test_a_name_may_lack_its_suffix(tmp_path: Path, name: str, path: str | None) -> None:
    write_images(tmp_path, ["a.jpg"])
    assert find_image_files(tmp_path, [], [], ("", ".png", ".jpg")).find(name) == path
