"""A model that is handed on: whole, the same to the bit, and without a trace of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, saved_model
from huggingface_hub import ModelCard
from PIL import Image

from lateen.encoders import load_encoder
from lateen.errors import EncoderError, ModelError
from lateen.files import read_json, write_json
from lateen.model import AlignedModel, open_model
from lateen.model.trained_on import ImageGroup, TrainedOn
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

Capture = pytest.CaptureFixture[str]
TEXTS = ["a red dog", "the cat runs on grass"]
# Run elsewhere: loads the folder named first, embeds, and writes what comes out to the second.
ELSEWHERE = """
import sys, torch
from PIL import Image
from lateen import AlignedModel
model = AlignedModel.from_pretrained(sys.argv[1])
images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "navy")]
torch.save([model.encode_image(images), model.encode_text(sys.argv[3:])], sys.argv[2])
"""


@pytest.fixture
def model(vit_folder: Path, bert_folder: Path, tmp_path: Path) -> Path:
    """The folder of a model of two local encoders, which a test may move away."""
    shutil.copytree(vit_folder, tmp_path / "secret" / "vit")
    shutil.copytree(bert_folder, tmp_path / "secret" / "bert")
    vision = load_encoder(str(tmp_path / "secret" / "vit"), "image", pooling="cls")
    text = load_encoder(str(tmp_path / "secret" / "bert"), "text", pooling="mean")
    torch.manual_seed(0)
    head = HeadSection(dropout=0.0, dim=8)
    validation = {
        "text_to_image": {"R@1": 20.0, "R@5": 50.0, "R@10": 60.0, "median_rank": 5.0},
        "image_to_text": {"R@1": 25.0, "R@5": 55.0, "R@10": 65.0, "median_rank": 4.0},
        "intervals": {"text_to_image.R@1": [17.5, 22.5]}, "images": 400,
    }  # fmt: skip
    made = AlignedModel.build(
        AlignmentHeads(head, 16, 16), vision.info.as_dict(), text.info.as_dict(),
        head.model_dump(mode="json"), training={"pairs": 500, "validation": validation},
    )  # fmt: skip
    made.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def embedded_elsewhere(folder: Path, cwd: Path) -> list[torch.Tensor]:
    """Embeddings by a process of its own, in another folder, with an empty hub cache."""
    cwd.mkdir()
    environment = {
        **os.environ, "HF_HOME": str(cwd / "hub"), "HF_HUB_OFFLINE": "1",
        "LATEEN_CACHE": str(cwd / "cache"), "HOME": str(cwd),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(folder), str(cwd / "out.pt"), *TEXTS],
        cwd=cwd, env=environment, check=True,
    )  # fmt: skip
    loaded: list[torch.Tensor] = torch.load(cwd / "out.pt", weights_only=True)
    return loaded


def embedded_here(model: AlignedModel) -> list[torch.Tensor]:
    images = [Image.new("RGB", (40, 30), colour) for colour in ("red", "navy")]
    return [model.encode_image(images), model.encode_text(TEXTS)]


def test_with_its_encoders_it_is_the_same_on_another_machine(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = embedded_here(open_model(model))
    code, out, err = call(
        capsys, "export", model, "--to", "lateen", "--with-encoders", "--out", tmp_path / "out"
    )
    assert (code, err) == (0, "")
    assert "README.md" in out
    (tmp_path / "secret").rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "model")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    for there, here in zip(embedded_elsewhere(moved, tmp_path / "cwd"), before, strict=True):
        assert torch.equal(there, here)


@pytest.mark.parametrize("encoders", [[], ["--with-encoders"]])
def test_no_file_of_it_names_a_folder_of_this_machine(
    model: Path, tmp_path: Path, capsys: Capture, encoders: list[str]
) -> None:
    config = tmp_path / "secret" / "vit" / "config.json"
    write_json(config, {**read_json(config), "_name_or_path": str(tmp_path / "mine")})
    out = tmp_path / "out"
    assert call(capsys, "export", model, "--to", "lateen", *encoders, "--out", out)[0] == 0
    for path in out.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path
    sides = read_json(out / "config.json")
    assert (sides["vision"]["id"], sides["vision"]["load"]["name"]) == ("vit", "./vit")
    assert sides["vision"]["weights"] == read_json(model / "config.json")["vision"]["weights"]
    # The model that was exported goes on finding its encoders.
    assert str(tmp_path) in (model / "config.json").read_text()


def test_without_its_encoders_it_says_what_is_missing_and_takes_them(
    model: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = embedded_here(open_model(model))
    code, shown, _ = call(capsys, "export", model, "--to", "lateen", "--out", tmp_path / "out")
    assert (code, "--with-encoders" in shown) == (0, True)
    with pytest.raises(ModelError, match=r"folder called vit .*--vision\.encoder"):
        embedded_here(AlignedModel.from_pretrained(tmp_path / "out"))
    secret = tmp_path / "secret"
    again = AlignedModel.from_pretrained(
        tmp_path / "out", vision_encoder=str(secret / "vit"), text_encoder=str(secret / "bert")
    )
    for now, then in zip(embedded_here(again), before, strict=True):
        assert torch.equal(now, then)


def test_an_exported_model_is_exported_again(model: Path, tmp_path: Path, capsys: Capture) -> None:
    before = embedded_here(open_model(model))
    words = ["--to", "lateen", "--with-encoders", "--out"]
    assert call(capsys, "export", model, *words, tmp_path / "a")[0] == 0
    shutil.rmtree(tmp_path / "secret")
    assert call(capsys, "export", tmp_path / "a", *words, tmp_path / "b")[0] == 0
    shutil.rmtree(tmp_path / "a")
    second = AlignedModel.from_pretrained(tmp_path / "b")
    for now, then in zip(embedded_here(second), before, strict=True):
        assert torch.equal(now, then)
    with pytest.raises(ModelError, match="lies in the model's own folder"):
        second.save_pretrained(tmp_path / "c")


def test_an_encoder_that_is_code_cannot_be_packed(tmp_path: Path, capsys: Capture) -> None:
    model = saved_model(tmp_path / "m")
    words = ["export", model, "--to", "lateen", "--out", tmp_path / "out"]
    code, _, err = call(capsys, *words, "--with-encoders")
    assert code == 1
    assert "toys:colour_encoder is code and cannot be saved" in err
    assert not (tmp_path / "out").exists()
    assert call(capsys, *words)[0] == 0
    again = AlignedModel.from_pretrained(tmp_path / "out")
    assert again.vision_encoder.info.id == "toys:colour_encoder"


def test_encoders_that_are_gone_are_named(model: Path, tmp_path: Path) -> None:
    from lateen.integrations import tool

    loaded = open_model(model)
    shutil.rmtree(tmp_path / "secret" / "vit")
    with pytest.raises(EncoderError, match="vit"):
        tool("lateen").export(loaded, tmp_path / "out", encoders=True)


def test_the_card_says_what_is_known_and_invents_nothing(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "secret" / "bert" / "README.md").write_text(
        "---\nlicense: mit\nlanguage:\n- en\n- de\n---\n# a BERT\n"
    )
    (tmp_path / "secret" / "bert" / "LICENSE").write_text("MIT")
    out = tmp_path / "out"
    words = ["export", model, "--to", "lateen", "--with-encoders", "--out", out]
    assert call(capsys, *words)[0] == 0
    card = ModelCard.load(out / "README.md")  # refuses metadata that the hub would
    data = card.data.to_dict()
    assert data["language"] == ["en", "de"]
    assert data["library_name"] == "lateen"
    assert data["pipeline_tag"] == "zero-shot-image-classification"
    assert "base_model" not in data and "license" not in data
    assert "| images | vit | unknown: look it up" in card.text
    assert "| texts | bert | mit |" in card.text
    assert (out / "text_encoder" / "LICENSE").read_text() == "MIT"
    assert card.data.eval_results is not None
    first = card.data.eval_results[0]
    assert (first.metric_name, first.metric_value) == ("text → image R@1", 20.0)
    assert first.metric_args["interval"] == [17.5, 22.5]
    assert first.metric_args["images"] == 400
    assert "20.0 | 17.5 to 22.5 | 400" in card.text
    assert "also chose the training step" in card.text
    assert "| pairs | 500 |" in card.text


def test_a_run_s_own_results_are_on_the_card_and_another_model_s_are_refused(
    album: Path, tmp_path: Path, capsys: Capture
) -> None:
    from lateen.experiment import run

    recipe = {
        "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.25},
        "vision": {"encoder": "toys:colour_encoder"}, "text": {"encoder": "toys:word_encoder"},
        "head": {"dim": 4, "dropout": 0.0}, "train": {"batch": 6, "epochs": 2},
    }  # fmt: skip
    run(recipe, album / "run")
    words = ["export", album / "run" / "model", "--to", "lateen", "--out", tmp_path / "out"]
    code, shown, _ = call(capsys, *words)
    assert (code, "results.json" in shown) == (0, True)
    card = (tmp_path / "out" / "README.md").read_text()
    results = read_json(album / "run" / "results.json")["retrieval"]
    assert f"text → image R@1 | {results['text_to_image']['R@1']:.1f}" in card
    assert "| data name | train.jsonl |" in card and "| loss | sigmoid |" in card
    other = saved_model(tmp_path / "other")
    code, _, err = call(
        capsys, "export", other, "--to", "lateen", "--out", tmp_path / "o2",
        "--results", album / "run" / "results.json",
    )  # fmt: skip
    assert code == 2
    assert "results of another model" in err
    assert not (tmp_path / "o2").exists()
    (tmp_path / "results.json").write_text("[]")  # of another program
    code, _, err = call(capsys, "export", other, "--to", "lateen", "--out", tmp_path / "o2")
    assert (code, "has no results" in err) == (1, True)


def test_what_a_model_remembers_of_its_data_travels(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    record = TrainedOn({"train": ImageGroup.of(["a.jpg"], np.array([7], np.uint64))})
    record.save(model / "trained_on.npz")
    assert call(capsys, "export", model, "--to", "lateen", "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "trained_on.npz").read_bytes() == (
        model / "trained_on.npz"
    ).read_bytes()


def test_a_folder_of_other_things_and_a_model_are_not_overwritten(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "beach.jpg").write_bytes(b"a photo")
    words = ["export", model, "--to", "lateen", "--out"]
    code, _, err = call(capsys, *words, out, "--overwrite")
    assert code == 2
    assert "is not empty and not the folder of a model (it holds beach.jpg)" in err
    code, _, err = call(capsys, *words, tmp_path / "secret" / "vit", "--overwrite")
    assert (code, "no folder of a model" in err) == (2, True)
    (out / "beach.jpg").unlink()
    assert call(capsys, *words, out)[0] == 0
    code, _, err = call(capsys, *words, out)
    assert (code, "already holds a model" in err) == (2, True)
    assert call(capsys, *words, out, "--overwrite")[0] == 0
    code, _, err = call(capsys, *words, out / "config.json")
    assert (code, "is a file" in err) == (2, True)


def test_a_clip_is_handed_on_like_any(clip_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    before = embedded_here(open_model(clip_folder))
    words = ["export", clip_folder, "--to", "lateen", "--with-encoders", "--out", tmp_path / "out"]
    code, _, err = call(capsys, *words)
    assert (code, err) == (0, "")
    again = AlignedModel.from_pretrained(tmp_path / "out")
    for now, then in zip(embedded_here(again), before, strict=True):
        assert torch.equal(now, then)
    assert "they already end in one space" in (tmp_path / "out" / "README.md").read_text()
    assert "eval_results" not in json.dumps(
        ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    )


def test_options_of_one_tool_are_refused_with_another(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["export", model, "--to", "sail", "--out", tmp_path / "a.pt"]
    code, _, err = call(capsys, *words, "--with-encoders")
    assert (code, "--with-encoders belongs to --to lateen" in err) == (2, True)


def test_the_parts_of_a_fused_encoder_travel_without_their_folders(
    model: Path, tmp_path: Path, capsys: Capture
) -> None:
    from lateen.encoders import FusedEncoder

    secret = tmp_path / "secret"
    shutil.copytree(secret / "vit", secret / "vit2")
    vision = FusedEncoder(
        [load_encoder(str(secret / name), "image", pooling="cls") for name in ("vit", "vit2")],
        [1, 2],
    )
    text = load_encoder(str(secret / "bert"), "text", pooling="mean")
    head = HeadSection(dropout=0.0, dim=8)
    fused = AlignedModel.build(
        AlignmentHeads(head, 32, 16), vision.info.as_dict(), text.info.as_dict(),
        head.model_dump(mode="json"),
    )  # fmt: skip
    fused.save_pretrained(tmp_path / "fused")
    before = embedded_here(fused)
    words = ["export", tmp_path / "fused", "--to", "lateen", "--with-encoders", "--out"]
    assert call(capsys, *words, tmp_path / "out")[0] == 0
    config = (tmp_path / "out" / "config.json").read_text()
    assert str(tmp_path) not in config and "./vit2" in config
    shutil.rmtree(secret)
    again = AlignedModel.from_pretrained(tmp_path / "out")
    for now, then in zip(embedded_here(again), before, strict=True):
        assert torch.equal(now, then)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| images | vit |" in card and "| images | vit2 |" in card


def test_a_model_of_imported_features_is_handed_on_without_encoders(
    tmp_path: Path, capsys: Capture
) -> None:
    side = {"id": "some encoder", "imported": ".npy", "dim": 6}
    head = HeadSection(dropout=0.0, dim=8)
    made = AlignedModel.build(
        AlignmentHeads(head, 6, 6), {**side, "modality": "image"}, {**side, "modality": "text"},
        head.model_dump(mode="json"),
    )  # fmt: skip
    made.save_pretrained(tmp_path / "m")
    words = ["export", tmp_path / "m", "--to", "lateen", "--out", tmp_path / "out"]
    code, _, err = call(capsys, *words, "--with-encoders")
    assert (code, "does not know how to load its vision encoder" in err) == (1, True)
    assert call(capsys, *words)[0] == 0
    again = AlignedModel.from_pretrained(tmp_path / "out")
    features = torch.randn(2, 6)
    assert torch.equal(again.project_image(features), made.project_image(features))
    assert (
        "| images | some encoder | unknown: look it up" in (tmp_path / "out/README.md").read_text()
    )
