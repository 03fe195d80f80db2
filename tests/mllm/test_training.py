"""Stages of a tiny multimodal model: what moves, what does not, and that a killed one goes on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.errors import LateenError, RecipeError, TrainingError
from lateen.mllm import MultimodalModel, train
from mllm.conftest import picture

QUICK = {"train.batch": 4, "train.steps": 3, "train.holdout": 4, "train.validations": 1}


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures with two captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    (folder / "images").mkdir()
    rows = []
    for at in range(40):
        picture(at).save(folder / "images" / f"{at}.png")
        rows += [(f"{at}.png", f"picture {at}"), (f"{at}.png", f"it is {at}")]
    with (folder / "captions.csv").open("w") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder / "captions.csv"


def conversations(captioned: Path, folder: Path) -> Path:
    """LLaVA's JSON about the same pictures, with rows that do not fit."""
    def row(at: int, image: str | None, *turns: str) -> dict[str, Any]:
        spoken = zip(("human", "gpt") * 4, turns, strict=False)
        said = [{"from": who, "value": text} for who, text in spoken]
        return {"id": f"r{at}", **({"image": image} if image else {}), "conversations": said}

    rows = [row(at, f"{at}.png", "<image>\nWhich?", f"It is {at}.", "Sure?", "Yes.")
            for at in range(30)]  # fmt: skip
    rows += [
        row(30, None, "What is two and two?", "Four."),
        row(31, "31.png", "No place for it", "Nothing."),
        row(32, "32.png", "<image> and <image>?", "Two."),
        row(33, "absent.png", "<image>\nWhich?", "None."),
        row(34, "34.png", "<image>\nWhich?"),
    ]
    file = folder / "llava.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture(scope="session")
def first(
    aligned: Callable[..., Path], llm_folder: Path, captioned: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A model after the stage projector."""
    out = tmp_path_factory.mktemp("first") / "m1"
    train(aligned(), llm_folder, captioned, out=out, settings={**QUICK, "precision": "float32"})
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(MultimodalModel.from_pretrained(folder, device="cpu").model.state_dict())


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_the_first_stage_moves_the_projector_alone(first: Path, folder: Path) -> None:
    changed = moved(tensors(folder), tensors(first))
    assert len(changed) == 4
    assert all("multi_modal_projector" in name for name in changed)
    record = json.loads((first / "mllm.json").read_text())
    assert record["projector"] == "trained"
    [stage] = record["stages"]
    assert (stage["stage"], stage["data"]["images"], stage["check"]["n"]) == ("projector", 36, 4)
    assert "untrained" not in (first / "README.md").read_text()
