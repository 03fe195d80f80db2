"""Judged on training images: told from held-out ones, with the evidence."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from PIL import Image

import lateen
from lateen.data import hash64
from lateen.evaluation import evaluate, evaluate_embeddings
from lateen.evaluation.features import JudgedImages, find_trained_on
from lateen.evaluation.task import training_note, was_trained_on
from lateen.features import encode
from lateen.model import AlignedModel
from lateen.model.trained_on import ImageGroup, TrainedOn

RECIPE = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 4, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 3, "lr": 0.01},
}


def table(root: Path, name: str, images: list[str]) -> Path:
    """A table of images, each with a caption of its own."""
    rows = [{"image": image, "caption": f"a red {image}"} for image in images]
    (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / name


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of an album of 24 pictures, with a model trained on 18 of them, loaded by path."""
    root = toys.album(tmp_path / "a", 24)
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25}
    lateen.run({**RECIPE, "data": data}, root / "run")
    return root


def judge(root: Path, captions: Path, **options: Any) -> dict[str, Any]:
    images = root / "images"
    return evaluate(root / "run/model", "retrieval", captions=captions, images=images, **options)


def test_the_table_of_a_training_is_known(trained: Path) -> None:
    result = judge(trained, trained / "train.jsonl")
    assert result["trained_on"] == {"images": 18, "of": 24, "by": "image files", "chosen_on": 6}
    assert training_note(result) == (
        "18 of these 24 images were trained on (same image files). "
        "6 of these 24 images chose the model's best step."
    )
    assert was_trained_on(result) == "18 of 24 images trained on"
    key = result["conditions"]["model"]
    (trained / "run/model/trained_on.npz").unlink()
    result = judge(trained, trained / "train.jsonl")
    assert result["trained_on"] is None
    assert training_note(result) == ""
    assert was_trained_on(result) is None
    assert result["conditions"]["model"] == key


def test_copies_under_other_names_are_known_and_other_images_of_these_names_are_not(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = trained / "other"
    (other / "images").mkdir(parents=True)
    for index in range(24):
        shutil.copy(trained / f"images/{index:03d}.png", other / f"images/copy of {index}.png")
        toys.photo(other / f"images/{index:03d}.png", "blue", 1000 + index)
    copies = table(other, "copies.jsonl", [f"copy of {index}.png" for index in range(24)])
    shutil.copytree(trained / "run", other / "run")
    assert judge(other, copies)["trained_on"] == {
        "images": 18, "of": 24, "by": "image files", "chosen_on": 6,
    }  # fmt: skip
    caplog.clear()
    new = table(other, "new.jsonl", [f"{index:03d}.png" for index in range(24)])
    result = judge(other, new)
    assert result["trained_on"] == {"images": 0, "of": 24, "by": None, "chosen_on": 0}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING and "train" in r.msg]


def test_a_run_says_that_its_holdout_chose_the_step(trained: Path) -> None:
    retrieval = json.loads((trained / "run/results.json").read_text())["retrieval"]
    assert retrieval["trained_on"] == {"images": 0, "of": 6, "by": None, "chosen_on": 6}


def test_features_of_before_are_known_by_ids(trained: Path) -> None:
    model = AlignedModel.from_pretrained(trained / "run/model")
    ids = [f"{index:03d}.png" for index in range(24)]
    by_numbers = find_trained_on(model, JudgedImages(dict.fromkeys(ids, 0)))
    assert by_numbers == {"images": 18, "of": 24, "by": "numbers", "chosen_on": 6}
    result = {"trained_on": by_numbers}
    assert training_note(result).startswith(
        "18 of these 24 images have the id of one trained on, but ids that any images may have."
    )
    assert was_trained_on(result) is None  # which proves little
    names = [f"by the sea {name}" for name in ids]
    model._trained_on = TrainedOn({"train": ImageGroup.of(names, np.zeros(24, np.uint64))})
    seen = find_trained_on(model, JudgedImages(dict.fromkeys(names[:5], 0)))
    assert seen == {"images": 5, "of": 5, "by": "ids", "chosen_on": 0}
    assert training_note({"trained_on": seen}) == "5 of these 5 images were trained on (same ids)."
    assert was_trained_on({"trained_on": seen}) == "5 of 5 images trained on"


def test_an_image_saved_again_is_told_by_its_id(trained: Path) -> None:
    model = AlignedModel.from_pretrained(trained / "run/model")
    ids = ["Straße im Regen.jpg", "été.jpg"]
    model._trained_on = TrainedOn({"train": ImageGroup.of(ids, np.array([5, 6], np.uint64))})
    seen = find_trained_on(model, JudgedImages({"Straße im Regen.jpg": 7, "x": 9, "été.jpg": 6}))
    assert seen == {
        "images": 1, "of": 3, "by": "image files", "chosen_on": 0, "same_ids": 1,
    }  # fmt: skip
    note = training_note({"trained_on": seen})
    assert note.endswith(
        "1 of these 3 images have the id of one trained on, with other bytes: saved again, most "
        "likely."
    )
    assert was_trained_on({"trained_on": seen}) == "2 of 3 images trained on"


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"images": 9, "of": 1000}, None),  # can move no number by a point
        ({"images": 10, "of": 1000}, "10 of 1,000 images trained on"),
        ({"images": 1, "of": 50}, "1 of 50 images trained on"),
        ({"images": 1, "of": 50, "by_mistake": 0.05}, None),
        ({"images": 40, "of": 50, "by_mistake": 0.05}, "40 of 50 images trained on"),
        ({"images": 60, "of": 50_000, "by_mistake": 50.0}, None),
        ({"images": 0, "of": 50, "by": None}, None),
    ],
)
def test_from_how_many_images_on_a_number_must_not_be_the_best(
    seen: dict[str, Any], words: str | None
) -> None:
    full = {"by": "image files", "chosen_on": 0, **seen}
    assert was_trained_on({"trained_on": full}) == words


def test_results_of_before_and_of_plain_models_say_nothing() -> None:
    for result in ({}, {"trained_on": None}):
        assert training_note(result) == ""
        assert was_trained_on(result) is None


def test_mistakes_of_a_filter_are_said() -> None:
    seen = {
        "images": 7, "of": 5000, "by": "image files", "chosen_on": 0, "by_mistake": 5.0,
    }  # fmt: skip
    assert training_note({"trained_on": seen}) == (
        "7 of these 5,000 images were trained on (same image files; about 5 of them by mistake)."
    )


def test_embeddings_without_a_model_say_nothing(trained: Path) -> None:
    made = trained / "train.jsonl"
    stores = [
        encode(made, encoder, trained / name)
        for encoder, name in ((toys.ColourEncoder(), "i"), (toys.WordEncoder(), "t"))
    ]
    assert evaluate_embeddings(*stores)["trained_on"] is None


def test_a_damaged_record_fails_before_anything_is_encoded(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained / "run/model/trained_on.npz"
    path.write_bytes(path.read_bytes()[:100])
    monkeypatch.setattr(toys.ColourEncoder, "encode", lambda *_: pytest.fail("encoded"))
    with pytest.raises(lateen.errors.ModelError, match=r"trained_on\.npz is damaged") as raised:
        judge(trained, trained / "train.jsonl")
    assert "remove it" in str(raised.value.remedy)


def test_a_stores_hashes_are_of_the_files(trained: Path) -> None:
    store = encode(trained / "images", toys.ColourEncoder(), trained / "i", shard_items=5)
    files = [hash64((trained / "images" / sample).read_bytes()) for sample in store.ids]
    assert store.image_hashes().tolist() == files
    rows = [23, 0, 7, 7]
    assert store.image_hashes(rows).tolist() == [files[row] for row in rows]
    Image.open(trained / "images/000.png").save(trained / "images/000.png", compress_level=0)
    again = encode(trained / "images", toys.ColourEncoder(), trained / "j")
    changed = [a != b for a, b in zip(again.image_hashes().tolist(), files, strict=True)]
    assert changed == [True] + [False] * 23
