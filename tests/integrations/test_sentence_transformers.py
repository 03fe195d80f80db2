"""SentenceTransformer loads what is exported, and embeds as the model does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, saved_model
from PIL import Image
from sentence_transformers import SentenceTransformer

from lateen.encoders import FusedEncoder, load_encoder
from lateen.errors import ModelError
from lateen.integrations import sentence_transformers as door
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image

from .conftest import built, small_model

TEXTS = ["a dog runs on the beach", "", "DOG", "a big red cat " * 20, "Zwei 海辺"]


def test_texts_and_images_are_embedded_as_by_the_model(
    tmp_path: Path, small: AlignedModel, odd_images: list[Path]
) -> None:
    door.export(small, tmp_path / "out")
    loaded = SentenceTransformer(
        str(tmp_path / "out"), local_files_only=True, trust_remote_code=True
    )
    texts, images = small.encode_text(TEXTS).numpy(), small.encode_image(odd_images).numpy()
    np.testing.assert_allclose(loaded.encode(TEXTS), texts, atol=1e-6)
    np.testing.assert_allclose(loaded.encode(TEXTS, batch_size=2), texts, atol=1e-6)
    opened = [as_image(path) for path in odd_images]
    np.testing.assert_allclose(loaded.encode(opened), images, atol=1e-6)
    np.testing.assert_allclose(loaded.encode([str(p) for p in odd_images]), images, atol=1e-6)
    similar = loaded.similarity(loaded.encode(opened), loaded.encode(TEXTS))
    torch.testing.assert_close(similar, torch.from_numpy(images @ texts.T), atol=1e-5, rtol=0)
    assert loaded.get_embedding_dimension() == 8
    assert loaded.modalities == ["text", "image"]


def test_what_it_saves_is_loaded_again(tmp_path: Path, small: AlignedModel) -> None:
    door.export(small, tmp_path / "out")
    first = SentenceTransformer(
        str(tmp_path / "out"), local_files_only=True, trust_remote_code=True
    )
    first.save(str(tmp_path / "again"))
    again = SentenceTransformer(
        str(tmp_path / "again"), local_files_only=True, trust_remote_code=True
    )
    np.testing.assert_allclose(again.encode(TEXTS), first.encode(TEXTS), atol=1e-6)
    image = Image.new("RGB", (30, 20), "navy")
    np.testing.assert_allclose(again.encode([image]), small.encode_image(image), atol=1e-6)


def test_without_lateen(tmp_path: Path, small: AlignedModel) -> None:
    door.export(small, tmp_path / "out")
    Image.new("RGB", (50, 40), "red").save(tmp_path / "photo.jpg")
    [code] = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(),
                        re.DOTALL)  # fmt: skip
    code = code.replace("path/to/this/folder", str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['lateen'] = None\n{code}"], cwd=tmp_path,
        capture_output=True, text=True, check=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "hub")},
    )  # fmt: skip
    printed = np.array(re.findall(r"-?\d\.\d+", done.stdout), float)
    image = as_image(tmp_path / "photo.jpg")
    expected = small.encode_image(image) @ small.encode_text(["a dog on a beach", "a cat"]).T
    np.testing.assert_allclose(printed, expected[0].numpy(), atol=2e-4)


def test_encoders_of_several_networks_need_lateen(
    tmp_path: Path, vit_folder: Path, resnet_folder: Path, bert_folder: Path,
    odd_images: list[Path], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    images = [load_encoder(str(each), "image", pooling="mean", precision="float32")
              for each in (vit_folder, resnet_folder)]  # fmt: skip
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    model = built(FusedEncoder(images), text)
    door.export(model, tmp_path / "out")
    assert "needs lateen where it is loaded" in caplog.text
    loaded = SentenceTransformer(
        str(tmp_path / "out"), local_files_only=True, trust_remote_code=True
    )
    opened = [as_image(path) for path in odd_images]
    np.testing.assert_allclose(loaded.encode(opened), model.encode_image(odd_images), atol=1e-6)
    np.testing.assert_allclose(loaded.encode(TEXTS), model.encode_text(TEXTS), atol=1e-6)
    assert loaded.modalities == ["text", "image"] and loaded.get_embedding_dimension() == 8
    loaded.save(str(tmp_path / "again"))
    again = SentenceTransformer(
        str(tmp_path / "again"), local_files_only=True, trust_remote_code=True
    )
    np.testing.assert_allclose(again.encode(TEXTS), model.encode_text(TEXTS), atol=1e-6)


def test_the_models_own_prompt_is_put_before_texts(
    tmp_path: Path, vit_folder: Path, bert_folder: Path
) -> None:
    model = small_model(vit_folder, bert_folder, prompt="a big ", pooling="first")
    door.export(model, tmp_path / "out")
    loaded = SentenceTransformer(
        str(tmp_path / "out"), local_files_only=True, trust_remote_code=True
    )
    filled = [text for text in TEXTS if text]  # no tokenizer puts anything before nothing
    np.testing.assert_allclose(loaded.encode(filled), model.encode_text(filled), atol=1e-6)
    np.testing.assert_allclose(
        loaded.encode(["dog"], prompt="red "), model.encode_text(["red dog"]), atol=1e-6
    )


def test_an_encoder_that_is_code_is_refused_and_nothing_marks_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is code and cannot be saved"):
        door.export(open_model(saved_model(tmp_path / "toy")), tmp_path / "out")
    assert not (tmp_path / "out" / "modules.json").exists()


def test_the_command(
    tmp_path: Path, small: AlignedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_pretrained(tmp_path / "model")
    code, out, _ = call(capsys, "export", tmp_path / "model", "--to", "sentence-transformers",
                        "--out", tmp_path / "out")  # fmt: skip
    assert code == 0 and "README.md" in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "SentenceTransformer(" in card and str(tmp_path) not in card
