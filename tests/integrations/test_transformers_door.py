"""transformers loads what is exported, with lateen or without it, and embeds as the model does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call, saved_model
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    pipeline,
)

from lateen.encoders import FusedEncoder, load_encoder
from lateen.errors import ModelError
from lateen.integrations import transformers as door
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image

from .conftest import built, small_model

TEXTS = ["a dog runs on the beach", "", "DOG", "a big red cat " * 20, "Zwei 海辺"]


def embedded(folder: Path, images: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """What the folder's model gives, as a user would ask for it."""
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=TEXTS, images=[as_image(path) for path in images], padding=True, truncation=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        output = model(**inputs)
    return output.image_embeds.numpy(), output.text_embeds.numpy()


def assert_alike(model: AlignedModel, folder: Path, images: list[Path]) -> None:
    found = embedded(folder, images)
    np.testing.assert_allclose(found[0], model.encode_image(images).numpy(), atol=2e-6)
    np.testing.assert_allclose(found[1], model.encode_text(TEXTS).numpy(), atol=2e-6)


HEADS = [
    {"name": "mlp"},
    {"name": "glu", "depth": 2, "width": 2},
    {"name": "sharelock", "vision": "linear"},
    {"name": "linear", "vision": "identity", "dim": 16},
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(map(str, head.values())))
def test_every_head(
    head: dict[str, Any], tmp_path: Path, vit_folder: Path, bert_folder: Path,
    odd_images: list[Path],
) -> None:  # fmt: skip
    vision = load_encoder(str(vit_folder), "image", pooling="cls", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    model = built(vision, text, **head)
    door.export(model, tmp_path / "out")
    assert_alike(model, tmp_path / "out", odd_images)


VIEWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"pooling": "mean"}, {"pooling": "first"}),
    ({"pooling": "cls+mean", "layer": 1}, {"pooling": "last", "layer": 1}),
    ({"pooling": "cls", "layer": -2}, {"pooling": "mean", "layer": 0}),
]


@pytest.mark.parametrize(("vision", "text"), VIEWS, ids=str)
def test_every_pooling_and_layer(
    vision: dict[str, Any], text: dict[str, Any], tmp_path: Path, vit_folder: Path,
    bert_folder: Path, odd_images: list[Path],
) -> None:  # fmt: skip
    model = built(
        load_encoder(str(vit_folder), "image", precision="float32", **vision),
        load_encoder(str(bert_folder), "text", precision="float32", **text),
    )
    door.export(model, tmp_path / "out")
    assert_alike(model, tmp_path / "out", odd_images)


def test_a_prompt_is_put_before_texts_but_for_an_empty_one(
    tmp_path: Path, vit_folder: Path, bert_folder: Path, odd_images: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    model = small_model(vit_folder, bert_folder, prompt="a big ", max_tokens=9)
    door.export(model, tmp_path / "out")
    assert "an empty text will get no prompt" in caplog.text
    found, own = embedded(tmp_path / "out", odd_images)[1], model.encode_text(TEXTS).numpy()
    filled = [place for place, text in enumerate(TEXTS) if text]
    np.testing.assert_allclose(found[filled], own[filled], atol=2e-6)
    assert np.abs(found[1] - own[1]).max() > 1e-3


def test_texts_are_put_in_lower_case_and_ended(
    tmp_path: Path, vit_folder: Path, bert_folder: Path, odd_images: list[Path]
) -> None:
    model = small_model(vit_folder, bert_folder)
    model.text_encoder.tokenizer.eos_token = "[SEP]"
    model.text_encoder._settings |= {"lower": True, "append_eos": True, "max_tokens": 8}
    model.text_encoder.info.preprocessing.update(lower=True, append_eos=True, max_tokens=8)
    door.export(model, tmp_path / "out")
    assert_alike(model, tmp_path / "out", odd_images)
    tokenizer = AutoProcessor.from_pretrained(tmp_path / "out").tokenizer
    ids = tokenizer("a big red cat " * 9, truncation=True)["input_ids"]
    assert ids == model.text_encoder.prepare(["a big red cat " * 9])[0]


def test_layers_of_one_network(
    tmp_path: Path, vit_folder: Path, bert_folder: Path, odd_images: list[Path]
) -> None:
    vision = load_encoder(str(vit_folder), "image", pooling="cls", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    images = FusedEncoder([vision, vision.view("mean", 1)], weights=[1.0, 0.5])
    texts = FusedEncoder([text, text.view("first"), text.view("mean", 1)])
    model = built(images, texts)
    door.export(model, tmp_path / "out")
    assert_alike(model, tmp_path / "out", odd_images)


@pytest.mark.parametrize("folder", ["resnet_folder", "mae_folder"])
def test_maps_and_masked_autoencoders(
    folder: str, tmp_path: Path, bert_folder: Path, odd_images: list[Path],
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    where = str(request.getfixturevalue(folder))
    vision = load_encoder(where, "image", pooling="mean", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    model = built(vision, text)
    door.export(model, tmp_path / "out")
    assert_alike(model, tmp_path / "out", odd_images)


@pytest.mark.parametrize("loss", ["sigmoid", "infonce"])
def test_the_pipelines_probabilities_are_those_of_the_loss(
    loss: str, tmp_path: Path, vit_folder: Path, bert_folder: Path, odd_images: list[Path]
) -> None:
    model = built(
        load_encoder(str(vit_folder), "image", pooling="cls", precision="float32"),
        load_encoder(str(bert_folder), "text", pooling="mean", precision="float32"), loss,
    )  # fmt: skip
    with torch.no_grad():
        model.logit_bias.fill_(-1.0)
    door.export(model, tmp_path / "out")
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path / "out"))
    image = as_image(odd_images[0])
    found = classify(image, candidate_labels=["dog", "cat"], hypothesis_template="a {}.")
    cosines = (model.encode_image(image) @ model.encode_text(["a dog.", "a cat."]).T)[0]
    logits = model.logit_scale.exp() * cosines + model.logit_bias
    own = logits.sigmoid() if loss == "sigmoid" else logits.softmax(0)
    scores = {each["label"]: each["score"] for each in found}
    assert scores == pytest.approx(dict(zip(["dog", "cat"], own.tolist(), strict=True)), abs=1e-5)
    features = pipeline("image-feature-extraction", model=str(tmp_path / "out"))(image)
    np.testing.assert_allclose(features, model.encode_image(image).numpy(), atol=2e-6)


def test_classes_are_known_and_outputs_are_transformers_own(
    tmp_path: Path, small: AlignedModel
) -> None:
    out = tmp_path / "out"
    door.export(small, out)
    assert AutoConfig.from_pretrained(out).model_type == "lateen_siglip"
    model = AutoModelForZeroShotImageClassification.from_pretrained(out)
    pixels = torch.zeros(1, 3, *small.vision_encoder.image_size)
    whole = model.get_image_features(pixels)
    assert whole.pooler_output.shape == (1, 8)
    [bare] = model.get_image_features(pixels, return_dict=False)
    assert torch.equal(bare, whole.pooler_output)
    assert torch.equal(model(pixel_values=pixels).pooler_output, whole.pooler_output)
    ids = torch.ones(2, 3, dtype=torch.long)
    logits, transposed, *_ = model(pixel_values=pixels, input_ids=ids, return_dict=False)
    assert logits.shape == (1, 2) and torch.equal(logits.T, transposed)
    with pytest.raises(ValueError, match="give pixel_values, input_ids, or both"):
        model()
    with pytest.raises(ValueError, match=r"truncation=True"):
        model(input_ids=torch.ones(1, 999, dtype=torch.long))


def test_where_lateen_is_not_installed_the_cards_code_runs(
    tmp_path: Path, small: AlignedModel
) -> None:
    out = tmp_path / "out"
    door.export(small, out)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    card = (out / "README.md").read_text()
    assert str(tmp_path) not in card and str(tmp_path) not in (out / "config.json").read_text()
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace("path/to/this/folder", str(out))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['lateen'] = None\n{code}\n"
         f"model.save_pretrained({str(tmp_path / 'again')!r})"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "hub")},
    )  # fmt: skip
    printed = np.array(re.findall(r"-?\d+\.\d+(?:e-\d+)?", done.stdout.split("grad_fn")[0]), float)
    image = as_image(tmp_path / "photo.jpg")
    cosines = small.encode_image(image) @ small.encode_text(["a dog on a beach", "a cat"]).T
    expected = small.logit_scale.exp() * cosines + small.logit_bias
    np.testing.assert_allclose(printed, expected[0].detach().numpy(), atol=1e-3)
    assert {"configuration_lateen.py", "modeling_lateen.py"} <= {
        path.name for path in (tmp_path / "again").iterdir()
    }  # so that push_to_hub takes the code along


def test_what_cannot_be_handed_on_leaves_nothing_behind(
    tmp_path: Path, small: AlignedModel, clip_folder: Path, vit_folder: Path, resnet_folder: Path,
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="transformers loads as it is") as plain:
        door.export(open_model(clip_folder), out)
    assert str(clip_folder) in str(plain.value)
    with pytest.raises(ModelError, match="is no plain transformers model"):
        door.export(open_model(saved_model(tmp_path / "toy")), out)
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    two = [load_encoder(str(each), "image", pooling="mean", precision="float32")
           for each in (vit_folder, resnet_folder)]  # fmt: skip
    with pytest.raises(ModelError, match="fused of several networks"):
        door.export(built(FusedEncoder(two), text), out)
    tower = load_encoder(str(clip_folder), "image", pooling="projection", precision="float32")
    with pytest.raises(ModelError, match=r"a tower of a CLIP|a part of a larger"):
        door.export(built(tower, text), out)
    native = AlignedModel.encode_text
    with monkeypatch.context() as patched:
        patched.setattr(AlignedModel, "encode_text", lambda *a, **k: native(*a, **k).flip(1))
        with pytest.raises(ModelError, match="the text side of the folder gives other embeddings"):
            door.export(small, out)
    assert not out.exists() or not any(out.iterdir())


def test_the_command(
    tmp_path: Path, small: AlignedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_pretrained(tmp_path / "model")
    given = ("export", tmp_path / "model", "--to", "transformers", "--out", tmp_path / "out")
    code, out, _ = call(capsys, *given)
    assert code == 0 and "README.md" in out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"]["AutoModel"]
    code, _, error = call(capsys, *given)
    assert code == 2 and "--overwrite" in error
    assert call(capsys, *given, "--overwrite")[0] == 0
