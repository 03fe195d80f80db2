from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import samples, write_csv, write_images, write_jsonl

from lateen.data import open_dataset
from lateen.data.coco import CocoCaptions
from lateen.data.folder import ImageFolder
from lateen.data.hub import HubDataset
from lateen.data.samples import Dataset, Sample, no_captions
from lateen.data.tables import Table
from lateen.data.webdataset import WebDataset
from lateen.errors import DataError, UsageError

from .test_webdataset import sample, write_tar

ROWS = [["image", "caption"], ["a.jpg", "a dog"]]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with one dataset of every kind, all of the image a.jpg."""
    write_images(tmp_path / "photos", ["a.jpg"])
    for suffix in ("csv", "TSV"):
        write_csv(tmp_path / f"t.{suffix}", ROWS, "\t" if suffix == "TSV" else ",")
    write_jsonl(tmp_path / "t.jsonl", [{"image": "a.jpg", "caption": "a dog"}])
    pq.write_table(pa.table({"image": ["a.jpg"], "caption": ["a dog"]}), tmp_path / "t.parquet")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": "a dog"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "s-0.tar", sample("a", 1))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("photos", ImageFolder),
        ("t.csv", Table),
        ("t.TSV", Table),
        ("t.jsonl", Table),
        ("t.parquet", Table),
        ("c.json", CocoCaptions),
        ("shards", WebDataset),
        ("shards/s-0.tar", WebDataset),
        ("shards/s-{0..0}.tar", WebDataset),
    ],
)
def test_the_kind_follows_from_what_is_there(here: Path, name: str, kind: type) -> None:
    dataset: Dataset = open_dataset(here / name, images=here / "photos")
    assert type(dataset) is kind
    (only,) = samples(dataset)
    assert isinstance(only, Sample) and only.id in ("a", "a.jpg")
    assert only.image is not None and only.image.read()[:2] == b"\xff\xd8"
    same = open_dataset(str(here / name), images=str(here / "photos"))
    assert same.fingerprint == dataset.fingerprint
    assert same.name == str(here / name)


def test_a_folder_saved_by_datasets(here: Path) -> None:
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"caption": ["a dog"]}).save_to_disk(here / "saved")
    datasets.enable_progress_bars()
    assert isinstance(open_dataset(here / "saved"), HubDataset)


def test_options_are_passed_on(here: Path) -> None:
    write_csv(here / "u.csv", [["bild", "satz", "text"], ["a.jpg", "Hund", "dog"]])
    dataset = open_dataset(
        here / "u.csv", images=here / "photos", image_column="bild", captions=("satz",)
    )
    assert samples(dataset)[0].captions == {"satz": ("Hund",)}
    shards = open_dataset(here / "shards", captions=("short",))
    assert shards.columns == ("short",)


def test_a_hub_name_is_one_that_is_no_path(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    asked = []

    def load(name: str, **options: Any) -> datasets.Dataset:
        asked.append((name, options["split"]))
        return datasets.Dataset.from_dict({"caption": ["a dog"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert isinstance(open_dataset("owner/na-me_1.0", split="test"), HubDataset)
    assert asked == [("owner/na-me_1.0", "test")]
    for path in ("photos/absent", "owner/a.csv", "owner/a.tar", "a/b/c", "./owner/name", "name"):
        with pytest.raises(DataError, match="there is no"):
            open_dataset(path)
    assert len(asked) == 1


def test_a_path_with_a_typing_mistake_names_the_nearest(here: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(here / "photo")
    assert caught.value.message == f"there is no {here / 'photo'}"
    assert f"Did you mean {here / 'photos'}?" == caught.value.remedy
    with pytest.raises(DataError) as caught:
        open_dataset(here / "zzz" / "unlike.csv")
    assert "hub name" in caught.value.remedy


def test_a_file_of_an_unknown_kind_says_what_is_accepted(here: Path) -> None:
    (here / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"no known kind \(\.docx suffix\)") as caught:
        open_dataset(here / "notes.docx")
    assert ".csv" in caught.value.remedy and "WebDataset" in caught.value.remedy


def test_an_empty_folder_is_an_error(here: Path) -> None:
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="it is empty"):
        open_dataset(here / "empty")


@pytest.mark.parametrize("name", ["photos", "t.csv", "c.json", "shards"])
def test_a_split_where_there_are_none_is_an_error(here: Path, name: str) -> None:
    with pytest.raises(UsageError, match="has no splits"):
        open_dataset(here / name, split="test", images=here / "photos")


def test_a_path_may_have_a_number_sign_in_it(tmp_path: Path) -> None:
    write_images(tmp_path / "shoot #2", ["a.jpg"])
    assert len(open_dataset(tmp_path / "shoot #2")) == 1
    with pytest.raises(DataError, match=r"there is no .*/photos #1/c\.csv"):
        open_dataset(tmp_path / "photos #1" / "c.csv")


def test_why_there_are_no_captions(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", ["a.jpg"])
    (tmp_path / "t.csv").write_text("image\nphotos/a.jpg\n")
    coco = {"images": [{"id": 1, "file_name": "photos/a.jpg"}], "annotations": []}
    (tmp_path / "c.json").write_text(json.dumps(coco))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "photos" / "a.jpg", "a.jpg")
    for name, why in {
        "photos": "a folder of images",
        "t.csv": "its only column is 'image'",
        "c.json": "its annotations are empty",
        "s.tar": r"no \.txt files.*types: jpg",
    }.items():
        with pytest.raises(DataError, match=f"{name} has no captions: .*{why}"):
            raise DataError(no_captions(open_dataset(tmp_path / name)))
