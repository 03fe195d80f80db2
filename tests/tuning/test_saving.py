"""A tuned model of every kind, saved in its form, is in a fresh process what it was in memory."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from tuner_toys import own_cache, photographs, students, tuned

from lateen.hardware import use_hardware
from lateen.model import AlignedModel
from lateen.model.clip import open_model
from lateen.model.trained_on import TRAINED_ON, ImageGroup, TrainedOn
from lateen.tuning import tuner

TEXTS = ["a red dog", "the blue cat"]
# Which student, and what moves of it.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    "clip, lora": ("clip", {"tune__parameters": "lora"}),
    "siglip, blocks": ("siglip", {"tune__parameters": "blocks", "tune__blocks": 1}),
    "vit": ("vit", {}),
    "vit, lora": ("vit", {"tune__parameters": "lora", "tune__gradient_checkpointing": True}),
    "vit, projection": ("vit", {"tune__parameters": "projection"}),
    "clip tower": ("clip tower", {}),
    "clip tower, lora": ("clip tower", {"tune__parameters": "lora"}),
    "clip pooler": ("clip pooler", {}),
    "conv": ("conv", {}),
    "bare": ("bare", {}),
    "clip, replaced": ("clip", {"tune__method": "projection"}),
    "vit, replaced": ("vit", {"tune__method": "projection"}),
}  # fmt: skip

_EMBED = """
import json, sys
from pathlib import Path
import torch
from lateen.hardware import use_hardware
from lateen.model.clip import open_model

folders, images, texts, out = json.loads(sys.stdin.read())
with use_hardware(precision="float32"):
    found = {}
    for name, folder in folders.items():
        model = open_model(folder)
        found[name] = (model.encode_image(images), model.encode_text(texts))
torch.save(found, out)
"""


@dataclass(frozen=True)
class Done:
    """Tunings of every kind.

    Attributes:
        models: where the students are.
        out: where each tuning is.
        memory: image and text embeddings of the model that was saved, before it was.
        images: what they are of.
    """

    models: dict[str, Path]
    out: dict[str, Path]
    memory: dict[str, tuple[Tensor, Tensor]]
    images: list[Path]

    def start(self, case: str) -> AlignedModel:
        """The model before."""
        return open_model(self.models[CASES[case][0]])


@pytest.fixture(scope="module")
def done(
    clip_folder: Path, siglip_folder: Path, vit_folder: Path, bert_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Done]:  # fmt: skip
    place = tmp_path_factory.mktemp("saved")
    photos = photographs(place / "photographs")
    images = sorted(photos.rglob("*.png"))[:4]
    out, memory = {}, {}
    with pytest.MonkeyPatch.context() as patch, own_cache(place / "cache"):
        with use_hardware(precision="float32"):
            models = students(place, clip_folder, siglip_folder, vit_folder, bert_folder)
        save = tuner.save_tuned
        for number, (case, (student, settings)) in enumerate(CASES.items()):

            def saved(model: AlignedModel, *rest: Any, case: str = case) -> None:
                memory[case] = (model.encode_image(images), model.encode_text(TEXTS))
                save(model, *rest)

            patch.setattr(tuner, "save_tuned", saved)
            out[case] = place / "out" / str(number)
            values = {"tune__epochs": 1, "tune__lr": 5e-3, "tune__validations": 1, **settings}
            with use_hardware(precision="float32"):
                tuned(models[student], vit_folder, photos, out[case], **values)
        yield Done(models, out, memory, images)


def test_a_fresh_process_gives_the_embeddings_that_were_in_memory(
    done: Done, tmp_path: Path
) -> None:
    folders = {case: str(out / "model") for case, out in done.out.items()}
    given = json.dumps([folders, list(map(str, done.images)), TEXTS, str(tmp_path / "e.pt")])
    subprocess.run(
        [sys.executable, "-c", _EMBED], input=given, text=True, check=True, timeout=120,
        env={**os.environ, "LATEEN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    fresh = torch.load(tmp_path / "e.pt")
    for case, (image, text) in done.memory.items():
        torch.testing.assert_close(fresh[case][0], image, rtol=1e-5, atol=1e-5, msg=case)
        torch.testing.assert_close(fresh[case][1], text, rtol=0, atol=1e-6, msg=case)


@pytest.mark.parametrize("case", CASES)
def test_images_are_embedded_otherwise_and_texts_as_before(done: Done, case: str) -> None:
    image, text = done.memory[case]
    with use_hardware(precision="float32"):
        start, again = done.start(case), open_model(done.out[case] / "model")
        assert not torch.allclose(start.encode_image(done.images), image, atol=1e-3)
        torch.testing.assert_close(start.encode_text(TEXTS), text, rtol=0, atol=0)
    assert again.logit_scale.item() == start.logit_scale.item()
    assert again.logit_bias.item() == start.logit_bias.item()


@pytest.mark.parametrize("case", CASES)
def test_no_tensor_of_low_rank_additions_is_saved(done: Done, case: str) -> None:
    files = list((done.out[case] / "model").rglob("*.safetensors"))
    assert files
    for path in files:
        with safe_open(path, framework="pt") as file:
            assert not [key for key in file.keys() if "lora" in key or "base_layer" in key]  # noqa: SIM118


def test_an_aligned_model_keeps_its_trained_tower_beside_it(done: Done) -> None:
    for case in ("vit", "vit, lora", "clip tower", "clip pooler", "conv"):
        folder = done.out[case] / "model"
        assert (folder / "vision_encoder" / "config.json").is_file(), case
        config = json.loads((folder / "config.json").read_text())
        assert config["vision"]["trained"] is True
        assert config["training"]["tuned"]["seed"] == 0


def test_statistics_of_a_convolution_are_those_of_before(done: Done, tmp_path: Path) -> None:
    before, after = (
        dict(model.vision_encoder.network.named_buffers())  # type: ignore[attr-defined]
        for model in (done.start("conv"), open_model(done.out["conv"] / "model"))
    )
    moving = [name for name in before if "running" in name]
    assert moving
    assert all(torch.equal(before[name], after[name]) for name in moving)


def test_who_may_read_the_card_may_read_the_tuned_encoder(done: Done) -> None:
    folder = done.out["vit"] / "model"
    weights = folder / "vision_encoder" / "model.safetensors"
    assert weights.stat().st_mode == (folder / "README.md").stat().st_mode


def test_a_tuned_model_can_be_tuned_again(done: Done, vit_folder: Path, tmp_path: Path) -> None:
    photos = done.images[0].parent.parent
    for case in ("clip", "vit", "clip tower"):
        out = tmp_path / case
        result = tuned(done.out[case] / "model", vit_folder, photos, out, tune__epochs=1)
        record = result.model.trained_on
        assert record is not None
        assert record.groups["train"].count == result.results["images"]


def test_the_record_of_a_clip_that_was_tuned_before_is_joined_once(
    done: Done, vit_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photos = done.images[0].parent.parent
    start = shutil.copytree(done.out["clip"] / "model", tmp_path / "start")
    group = ImageGroup.of(["a", "b"], np.zeros(2, np.uint64))
    TrainedOn({"train": group}).save(start / TRAINED_ON)
    result = tuned(start, vit_folder, photos, tmp_path / "both", tune__epochs=1)
    record = result.model.trained_on
    assert record is not None
    assert record.groups["train"].count == 2 + result.results["images"]
    assert record.groups["train"].without_hash == 2

    group = ImageGroup.of(["a", "b"], np.array([1, 2], np.uint64), exact=1)
    TrainedOn({"train": group}).save(start / TRAINED_ON)
    with caplog.at_level(logging.WARNING, "lateen"):
        tuned(start, vit_folder, photos, tmp_path / "alone", tune__epochs=1)
    assert caplog.text.count("to be joined") == 1
