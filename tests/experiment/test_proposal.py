"""What `lateen init` makes of folders as people have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import jpeg, write_csv, write_images, write_tar
from commands import call

from lateen.errors import DataError
from lateen.experiment import Recipe
from lateen.experiment.preflight import check_run
from lateen.experiment.proposal import MANY, propose

IMAGES = [f"{index}.jpg" for index in range(12)]
TOYS = {"vision": "toys:colour_encoder", "text": "toys:word_encoder"}


def captions(names: list[str]) -> list[list[str]]:
    return [["image", "caption"], *[[name, f"photograph {name}"] for name in names]]


def one_table(folder: Path) -> None:
    write_images(folder / "my photos", IMAGES)
    write_csv(folder / "captions.csv", captions(IMAGES))
    write_csv(folder / "first.csv", captions(IMAGES[:3]))
    (folder / "notes.txt").write_text("a note")


def splits(folder: Path) -> None:
    write_images(folder / "images", IMAGES)
    for name, part in {"train": IMAGES[:6], "dev": IMAGES[6:9], "my_test": IMAGES[9:]}.items():
        write_csv(folder / f"{name}.csv", captions(part))
    write_images(
        folder / "zoo", [f"{name}/{index}.jpg" for name in ("cat", "dog") for index in "012"]
    )
    write_csv(folder / "labels.csv", [["image", "label"], ["0.jpg", "cat"]])


def shards(folder: Path) -> None:
    for name, first in {"train-000": 0, "train-001": 4, "val-000": 8}.items():
        files = [
            (f"{index}.{kind}", jpeg((index,) * 3) if kind == "jpg" else b"a photograph")
            for index in range(first, first + 4)
            for kind in ("jpg", "txt")
        ]
        write_tar(folder / f"{name}.tar", files)


def plain_shards(folder: Path) -> None:
    shards(folder)
    for index, path in enumerate(sorted(folder.glob("*.tar"))):
        path.rename(folder / f"{index}.tar")


def parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (folder / "data").mkdir()
    for name, rows in {"train": range(8), "test": range(8, 12)}.items():
        table = {
            "image": [{"bytes": jpeg((row,) * 3), "path": f"{row}.jpg"} for row in rows],
            "caption": [f"photograph {row}" for row in rows],
        }
        path = folder / "data" / f"{name}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table(table), path)


def saved_dataset(folder: Path) -> None:
    import datasets

    kinds = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    parts = {
        name: datasets.Dataset.from_dict(
            {
                "image": [{"bytes": jpeg((row,) * 3), "path": None} for row in rows],
                "text": [f"photograph {row}" for row in rows],
            },
            features=kinds,
        )
        for name, rows in {"train": range(8), "validation": range(8, 12)}.items()
    }
    datasets.DatasetDict(parts).save_to_disk(folder)


def coco(folder: Path) -> None:
    write_images(folder / "val2017", IMAGES)
    (folder / "annotations").mkdir()
    images = [{"id": index, "file_name": name} for index, name in enumerate(IMAGES)]
    marks = [{"image_id": index, "id": index} for index in range(12)]
    for name, more in {"captions": {"caption": "a photograph"}, "instances": {"bbox": []}}.items():
        content = {"images": images, "annotations": [{**mark, **more} for mark in marks]}
        (folder / "annotations" / f"{name}_val2017.json").write_text(json.dumps(content))


def karpathy(folder: Path) -> None:
    write_images(folder / "images", IMAGES)
    images = [
        {
            "filename": name,
            "split": ("train", "val", "test")[index % 3],
            "sentences": [{"raw": name}],
        }
        for index, name in enumerate(IMAGES)
    ]
    (folder / "dataset_x.json").write_text(json.dumps({"images": images}))


FOLDERS: dict[Callable[[Path], None], dict[str, Any]] = {
    one_table: {"images": "my photos", "train": "captions.csv"},
    splits: {"train": "train.csv", "validation": "dev.csv", "test": "my_test.csv"},
    shards: {"train": "train-{000..001}.tar", "validation": "val-000.tar"},
    plain_shards: {"train": "."},
    parquet: {"train": "data/train-00000-of-00001.parquet",
              "test": "data/test-00000-of-00001.parquet"},
    saved_dataset: {"train": ".#train", "validation": ".#validation"},
    coco: {"images": "val2017", "train": "annotations/captions_val2017.json"},
    karpathy: {"train": "dataset_x.json#train", "validation": "dataset_x.json#val",
               "test": "dataset_x.json#test"},
}  # fmt: skip


@pytest.mark.parametrize(("make", "data"), FOLDERS.items(), ids=[f.__name__ for f in FOLDERS])
def test_what_is_proposed_is_what_is_there_and_can_be_run(
    make: Callable[[Path], None], data: dict[str, Any], tmp_path: Path
) -> None:
    make(tmp_path)
    proposal = propose(tmp_path, **TOYS)
    assert proposal.values["data"] == data
    assert proposal.values["preset"] == "auto"
    recipe = {**proposal.values, "data": {**data, "root": str(tmp_path)}}
    checked = check_run(recipe, tmp_path / "runs" / "a")
    assert set(checked.datasets) == {"train", "validation", "test"} & set(data)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    one_table(tmp_path)
    proposal = propose(tmp_path, **TOYS)
    assert "captions.csv is what to train on" in proposal.guessed
    assert proposal.left_out == [
        "first.csv: 3 images with captions; a split has one source", "notes.txt: not used",
    ]  # fmt: skip


def test_class_folders_beside_pairs_are_for_classification(tmp_path: Path) -> None:
    splits(tmp_path)
    proposal = propose(tmp_path, **TOYS)
    assert proposal.values["evaluate"] == {"classification": "zoo"}
    [labels] = proposal.left_out
    assert labels.startswith("labels.csv: ") and "no column that is called like captions" in labels


def test_encoders_in_the_folder_are_taken(tmp_path: Path, vit_folder: Path) -> None:
    one_table(tmp_path)
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "mine").symlink_to(vit_folder)
    values = propose(tmp_path, text="toys:word_encoder").values
    assert values["vision"] == {"encoder": "encoders/mine"}
    values = propose(tmp_path, vision=str(vit_folder), text="toys:word_encoder").values
    assert values["vision"] == {"encoder": str(vit_folder)}


def test_many_images_get_the_papers_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MANY == 500_000
    monkeypatch.setattr("lateen.experiment.proposal.MANY", 12)
    one_table(tmp_path)
    assert propose(tmp_path, **TOYS).values["preset"] == "sail"


def no_captions(folder: Path) -> None:
    write_images(folder, IMAGES)


def labels_only(folder: Path) -> None:
    write_images(folder, ["cat/1.jpg", "dog/1.jpg"])


def other_columns(folder: Path) -> None:
    write_csv(folder / "a.csv", [["datei", "beschreibung"], ["1.jpg", "ein Hund"]])


def other_images(folder: Path) -> None:
    write_csv(folder / "a.csv", captions(["gone.jpg"]))


def texts_alone(folder: Path) -> None:
    write_csv(folder / "a.csv", [["caption"], ["a dog"]])


WRONG = {
    no_captions: "12 images and no captions",
    labels_only: r"2 images in 2 class folders, and no captions.* lateen evaluate classification",
    other_columns: r"its columns are datei, beschreibung.*--data.image_column NAME",
    other_images: "not one of the 1 images",
    texts_alone: "it has captions and no column of images",
    Path.exists: "neither images nor captions",
}


@pytest.mark.parametrize(("make", "message"), WRONG.items(), ids=[f.__name__ for f in WRONG])
def test_a_folder_without_pairs_is_told_what_it_has_and_what_it_needs(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        propose(tmp_path, **TOYS)
    with pytest.raises(DataError, match="there is no folder"):
        propose(tmp_path / "nowhere", **TOYS)


def test_from_a_folder_to_a_model(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = [f"--{side}.encoder={name}" for side, name in TOYS.items()]
    code, out, err = call(capsys, "init", album, *encoders)
    assert (code, err) == (0, "")
    assert f"next      lateen run {album}" in out
    assert code == 0
    file = album / "lateen.yaml"
    assert yaml.safe_load(file.read_text())["data"] == {"train": "train.jsonl"}
    assert Recipe.load(album).data.root == album
    code, _, err = call(capsys, "init", album, *encoders)
    assert (code, err.partition(".")[0]) == (2, f"error: {album}/lateen")
    assert "--force" in err
    assert call(capsys, "init", album, *encoders, "--force")[0] == 0
    monkeypatch.chdir(album)
    small = ["--train.epochs", "2", "--head.dim", "4", "--data.holdout", "0.25"]
    code, out, _ = call(capsys, "run", *small)
    assert code == 0
    assert (album / "runs" / album.name / "model" / "config.json").is_file()
    code, out, _ = call(capsys, "run", "--images", "images", "--captions", "train.jsonl", *encoders,
                        *small, "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["retrieval"]["images"] == 6
    assert (album / "runs" / "train" / "model" / "config.json").is_file()
