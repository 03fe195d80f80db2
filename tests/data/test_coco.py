from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import is_fixed, samples, skips, write_images

from lateen.data.coco import CocoCaptions
from lateen.data.samples import FileImage
from lateen.errors import DataError, UsageError


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(**changes: Any) -> dict[str, Any]:
    content = {
        "info": {},
        "images": [{"id": 20, "file_name": "b.jpg"}, {"id": 10, "file_name": "a.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 10, "caption": "a1\n"},
            {"id": 2, "image_id": 20, "caption": "b1"},
            {"id": 3, "image_id": 10, "caption": "a2"},
        ],
    }
    return {**content, **changes}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return write_images(tmp_path / "coco" / "val2017", ["a.jpg", "b.jpg"]).parent


def test_coco_captions_are_joined_by_image_id(here: Path) -> None:
    path = write(here / "annotations" / "captions_val2017.json", coco())
    dataset = CocoCaptions(path)
    assert dataset.columns == ("caption",)
    assert [(sample.id, sample.captions["caption"]) for sample in samples(dataset)] == [
        ("b.jpg", ("b1",)), ("a.jpg", ("a1", "a2")),
    ]  # fmt: skip
    assert samples(dataset)[0].image == FileImage(here / "val2017" / "b.jpg")
    assert is_fixed(dataset, lambda: CocoCaptions(path))


def test_coco_faults_are_recorded(here: Path) -> None:
    images = [
        {"id": 1, "file_name": "a.jpg"},
        {"id": 2, "file_name": "b.jpg"},
        {"id": 3, "file_name": "gone.jpg"},
        {"id": 4, "file_name": "./a.jpg"},
    ]
    annotations = [
        {"image_id": 1, "caption": "a1"},
        {"image_id": 1, "caption": " "},
        {"image_id": 99, "caption": "whose?"},
        {"image_id": 3, "caption": "gone"},
        {"image_id": 4, "caption": "again"},
    ]
    path = write(here / "c.json", coco(images=images, annotations=annotations))
    dataset = CocoCaptions(path, images=here / "val2017")
    assert [sample.id for sample in samples(dataset)] == ["a.jpg"]
    assert [(skip.id, skip.source.split(":")[-1], skip.sample) for skip in skips(dataset)] == [
        ("a.jpg", "images[0][1]", False),
        ("b.jpg", "images[1]", True),
        ("gone.jpg", "images[2]", True),
        ("a.jpg", "images[3]", False),
        ("99", "annotations[2]", False),
    ]
    assert [skip.reason for skip in skips(dataset)] == [
        "the caption is empty",
        "it has no caption",
        "the image file does not exist",
        f"the id was already used at {path}:images[0]",
        "there is no image with the id 99",
    ]


def test_a_test_set_without_annotations_is_images_alone(here: Path) -> None:
    content = coco()
    del content["annotations"]
    dataset = CocoCaptions(write(here / "val2017" / "t.json", content))
    assert dataset.columns == ()
    assert [sample.id for sample in samples(dataset)] == ["b.jpg", "a.jpg"]


def karpathy(here: Path) -> Path:
    write_images(here / "train2014", ["c.jpg"])
    parts = [("a.jpg", "val2017", "test"), ("c.jpg", "train2014", "train"),
             ("b.jpg", "val2017", "restval")]  # fmt: skip
    images = [
        {
            "filename": name, "filepath": folder, "split": split, "cocoid": 1,
            "sentences": [{"raw": f"{name} {i}", "tokens": []} for i in range(2)],
        }
        for name, folder, split in parts
    ]  # fmt: skip
    return write(here / "dataset_coco.json", {"images": images, "dataset": "coco"})


def test_karpathys_splits(here: Path) -> None:
    path = karpathy(here)
    test = CocoCaptions(path, split="test")
    assert [(sample.id, sample.captions) for sample in samples(test)] == [
        ("val2017/a.jpg", {"caption": ("a.jpg 0", "a.jpg 1")})
    ]
    assert samples(test)[0].image == FileImage(here / "val2017" / "a.jpg")
    train = CocoCaptions(path, split="train+restval")
    assert [sample.id for sample in samples(train)] == ["train2014/c.jpg", "val2017/b.jpg"]
    assert len(CocoCaptions(path)) == 3
    assert is_fixed(test, lambda: CocoCaptions(path, split="test"))
    assert test.fingerprint != train.fingerprint


def test_karpathys_flickr_has_no_file_path(here: Path) -> None:
    images = [{"filename": "a.jpg", "split": "val", "sentences": [{"raw": "x"}]}]
    path = write(here / "dataset_flickr30k.json", {"images": images})
    (sample,) = samples(CocoCaptions(path, images=here / "val2017", split="val"))
    assert sample.id == "a.jpg"


def test_a_split_that_is_not_there_is_an_error(here: Path) -> None:
    with pytest.raises(UsageError, match="no split 'tset'") as caught:
        CocoCaptions(karpathy(here), split="tset")
    assert "Did you mean 'test'?" in caught.value.remedy
    with pytest.raises(UsageError, match="has no splits"):
        CocoCaptions(write(here / "c.json", coco()), split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "neither COCO captions nor Karpathy"),
        ({"images": []}, "neither COCO captions nor Karpathy"),
        (coco(annotations=[{"image_id": 10, "bbox": [0, 0, 1, 1]}]), "are not captions"),
        (coco(images=[{"id": 1}]), "malformed.*file_name"),
        ({"images": [{"sentences": [{"raw": "x"}], "split": "val"}]}, "malformed.*filename"),
        ({"images": [{"sentences": None, "filename": "a", "split": "val"}]}, "malformed"),
    ],
)
def test_other_json_is_an_error(here: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CocoCaptions(write(here / "c.json", content))


def test_broken_json_and_images_elsewhere_are_errors(here: Path) -> None:
    (here / "c.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not valid JSON"):
        CocoCaptions(here / "c.json")
    with pytest.raises(DataError, match="not one of the 2 images"):
        CocoCaptions(write(here / "c.json", coco()), images=here)


def test_a_number_and_its_text_are_the_same_id(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    content = {
        "images": [{"id": 0, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}],
        "annotations": [{"image_id": "0", "caption": "a"}, {"image_id": 1, "caption": "b"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    found = samples(CocoCaptions(tmp_path / "c.json"))
    assert [sample.captions["caption"] for sample in found] == [("a",), ("b",)]


def test_annotations_of_which_none_is_of_an_image_are_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg"])
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": [{"image_id": "a.jpg", "caption": "a"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"the image_id 'a\.jpg', and the first image the id 7"):
        CocoCaptions(tmp_path / "c.json")
