"""What every result says of itself, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dense_toys
import numpy as np
import pytest
import toys
from benchmark_toys import (
    BlindEncoder,
    colour_model,
    mmvp_folder,
    picture,
    winoground_images,
    winoground_row,
    write,
)
from labelled_toys import class_folder

from lateen.data import hash64
from lateen.evaluation import TASKS, evaluate
from lateen.evaluation.tables import result_tables
from lateen.model import AlignedModel
from lateen.model.trained_on import ImageGroup, TrainedOn

DENSE = ("segmentation", "patch-probe")


def options(task: str, root: Path) -> dict[str, Any]:
    """A little data for each task."""
    if task in DENSE:
        sizes = dense_toys.SMALL if task == "segmentation" else {"window": 16}
        return {**dense_toys.stripes(root), **sizes}
    if task == "retrieval":
        return {"captions": toys.album(root, 12) / "train.jsonl"}
    if task == "mmvp":
        return {"data": mmvp_folder(root, [(1, "Text", "red"), (2, "Text", "blue")])}
    if task == "winoground":
        row = winoground_row(0, "red and blue", "green and white")
        for name, data in winoground_images([row]).items():
            write(root / "images" / f"{name}.png", data)
        write(root / "examples.jsonl", json.dumps(row))
        return {"data": root}
    if task == "caption-choice":
        write(root / "images" / "1.png", picture("red"))
        pair = {"filename": "1.png", "caption": "red", "negative_caption": "blue"}
        return {"data": write(root / "a.json", {"0": pair}), "images": root / "images"}
    images = class_folder(root, ["red", "green"], count=6)
    return {"images": images} | ({"k": (2,)} if task == "knn" else {})


def models(task: str) -> tuple[AlignedModel, AlignedModel]:
    if task in DENSE:
        return dense_toys.model(), dense_toys.model(_OtherPatches())
    return colour_model(), colour_model(BlindEncoder())


class _OtherPatches(dense_toys.PatchColours):
    def __init__(self) -> None:
        super().__init__()
        self.info = BlindEncoder().info


@pytest.mark.parametrize("task", [name for name in TASKS if name != "attention"])
def test_results_say_what_they_depend_on_and_agree_on_the_data(task: str, tmp_path: Path) -> None:
    """Another model is another model on the same data; other data are other data."""
    given = options(task, tmp_path / "data")
    first, second = (
        evaluate(each, task, **given, out=tmp_path / "out", place=str(index))
        for index, each in enumerate(models(task))
    )
    for result in (first, second):
        assert {"task", "model", "templates", "seed", "options", "conditions"} <= result.keys()
        assert result["task"] == task
        assert set(result["model"]) == {"place", "vision", "text", "head"}
        assert {"lateen", "torch"} <= result["conditions"]["versions"].keys()
    assert second == json.loads((tmp_path / "out" / f"{task}.json").read_text())
    assert first["conditions"]["model"] != second["conditions"]["model"]
    assert first["conditions"]["data"] == second["conditions"]["data"]
    assert (first["templates"] is None) == (second["templates"] is None)
    assert "out" not in first["options"]
    changed = next(
        p for p in sorted((tmp_path / "data").rglob("*.[pj][np]g")) if "mask" not in str(p)
    )
    changed.write_bytes(picture("yellow", "yellow"))
    third = evaluate(models(task)[0], task, **given)
    assert third["conditions"]["model"] == first["conditions"]["model"]
    assert third["conditions"]["data"] != first["conditions"]["data"]


def trained_on(model: AlignedModel, files: Iterable[Path]) -> AlignedModel:
    """The model, with a record that has these image files under other names."""
    hashes = np.array([hash64(path.read_bytes()) for path in files], np.uint64)
    names = [f"renamed photograph {index}" for index in range(len(hashes))]
    model._trained_on = TrainedOn({"train": ImageGroup.of(names, hashes)})
    return model


@pytest.mark.parametrize("task", [name for name in TASKS if name != "attention"])
def test_every_task_says_which_of_its_images_were_trained_on(
    task: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = options(task, tmp_path)
    files = [p for p in tmp_path.rglob("*.[pj][np]g") if "mask" not in str(p)]
    known = evaluate(trained_on(models(task)[0], files), task, **given)
    seen = known["trained_on"]
    judged = known.get("images_tested", len(files))  # a probe also learns from some of them
    assert seen == {"images": judged, "of": judged, "by": "image files", "chosen_on": 0}
    said = f"{judged} of these {judged} images were trained on (same image files)."
    assert f"{task}: {said}" in [record.getMessage() for record in caplog.records]
    assert said in result_tables(known)[0].note
    caplog.clear()
    others = evaluate(trained_on(models(task)[1], []), task, **given)
    assert others["trained_on"] == {"images": 0, "of": judged, "by": None, "chosen_on": 0}
    unknown = evaluate(models(task)[0], task, **given)
    assert unknown["trained_on"] is None
    for result in (others, unknown):
        assert "trained on" not in result_tables(result)[0].note
    assert not [record for record in caplog.records if "trained on" in record.getMessage()]
