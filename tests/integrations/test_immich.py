"""The folder, read as Immich's machine learning reads it, gives the model's embeddings.

What is read here is what immich_ml's published classes for OpenCLIP models read (machine-learning/
immich_ml/models/clip of its repository): one text at a time as padded int32 ids, one image as
normalised pixels, the first output's first row.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from commands import saved_model
from PIL import Image
from tokenizers import Tokenizer

from lateen.errors import ModelError
from lateen.integrations import immich as door
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image

from .conftest import small_model

TEXTS = ["a dog runs on the beach", "DOG", "a big red cat " * 30, "Zwei 海辺"]


class Textual:
    """A folder's text side, as Immich has it."""

    def __init__(self, folder: Path) -> None:
        length = json.loads((folder / "config.json").read_text())["text_cfg"]["context_length"]
        config = json.loads((folder / "textual" / "tokenizer_config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "textual" / "tokenizer.json"))
        pad = config["pad_token"]
        self.tokenizer.enable_padding(
            length=length, pad_token=pad, pad_id=self.tokenizer.token_to_id(pad)
        )
        self.tokenizer.enable_truncation(max_length=length)
        self.session = onnxruntime.InferenceSession(str(folder / "textual" / "model.onnx"))

    def __call__(self, text: str) -> np.ndarray:
        ids = np.array([self.tokenizer.encode(" ".join(text.split())).ids], np.int32)
        return self.session.run(None, {"text": ids})[0][0]


class Visual:
    """A folder's vision side, as Immich has it."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "visual" / "preprocess_cfg.json").read_text())
        self.session = onnxruntime.InferenceSession(str(folder / "visual" / "model.onnx"))

    def __call__(self, image: Image.Image) -> np.ndarray:
        size, mean, std = (self.config[name] for name in ("size", "mean", "std"))
        resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
        if self.config["resize_mode"] == "squash":
            image = image.resize((size, size), resample[self.config["interpolation"]])
        else:
            scale = size / min(image.size)
            whole = (max(size, int(image.width * scale)), max(size, int(image.height * scale)))
            image = image.resize(whole, resample[self.config["interpolation"]])
            left, top = (image.width - size) // 2, (image.height - size) // 2
            image = image.crop((left, top, left + size, top + size))
        pixels = (np.asarray(image, np.float32) / 255 - np.array(mean, np.float32)) / np.array(
            std, np.float32
        )
        [embedding] = self.session.run(None, {"image": pixels.transpose(2, 0, 1)[None]})[0]
        return embedding


def check(folder: Path, model: AlignedModel, images: list[Path], width: int) -> None:
    """Cosines with the model's own embeddings, and zeros behind them."""
    textual, visual = Textual(folder), Visual(folder)
    for text in TEXTS:
        found, own = textual(text), model.encode_text(text)[0].numpy()
        assert found.shape == (width,) and not found[len(own) :].any()
        assert float(found[: len(own)] @ own) > 0.9999, text
    for path in images:
        found, own = visual(as_image(path)), model.encode_image(path)[0].numpy()
        assert found.shape == (width,) and not found[len(own) :].any()
        assert float(found[: len(own)] @ own) > 0.9999, path


def test_it_is_embedded_as_by_the_model(
    tmp_path: Path, small: AlignedModel, odd_images: list[Path]
) -> None:
    door.export(small, tmp_path / "out")
    check(tmp_path / "out", small, odd_images, 512)
    assert "ViT-B-32__openai" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_a_plain_clip(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = open_model(request.getfixturevalue(name))
    door.export(model, tmp_path / "out")
    check(tmp_path / "out", model, [], 512)


def test_what_immich_has_no_place_for_is_refused(
    tmp_path: Path, small: AlignedModel, vit_folder: Path, bert_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    prompted = small_model(vit_folder, bert_folder, prompt="a big ")
    with pytest.raises(ModelError, match="needs a prompt"):
        door.export(prompted, tmp_path / "out")
    with pytest.raises(ModelError, match="is no plain transformers model"):
        door.export(open_model(saved_model(tmp_path / "toy")), tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(door, "PLACES", {4: "tiny"})
        with pytest.raises(ModelError, match="Immich knows none longer than 4"):
            door.export(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()
