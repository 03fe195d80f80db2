"""The ONNX graphs, run by onnxruntime as the folder's README says, give the model's embeddings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, saved_model
from PIL import Image
from transformers import AutoImageProcessor

from lateen.encoders import FusedEncoder, load_encoder
from lateen.errors import MissingExtraError, ModelError
from lateen.integrations import onnx as door
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image

from .conftest import built, small_model

TEXTS = ["a dog runs on the beach", "", "DOG", "a big red cat " * 20, "Zwei 海辺"]


def embedded(folder: Path, kind: str = "") -> dict[str, np.ndarray]:
    """Embeddings of TEXTS by the graph, with the tokenizer and settings of the folder."""
    from tokenizers import Tokenizer

    known = json.loads((folder / "onnx_config.json").read_text())["text"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(known["max_tokens"] - len(known["end"]))
    texts = [known["prompt"] + text for text in TEXTS]
    texts = [text.lower() if known["lower"] else text for text in texts]
    rows = [[*e.ids, *known["end"]] or [known["nothing"]] for e in tokenizer.encode_batch(texts)]
    length = known["pad_to"] or max(map(len, rows))
    ids = np.array([row + [known["pad"]] * (length - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return door.run_graph(folder / f"text{kind}.onnx", {"input_ids": ids, "attention_mask": mask})


def test_photographs_and_texts_are_embedded_as_by_the_model(
    tmp_path: Path, small: AlignedModel, odd_images: list[Path]
) -> None:
    door.export(small, tmp_path / "out", int8=True)
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "out")(
        [as_image(path) for path in odd_images], return_tensors="np"
    )["pixel_values"]
    images = door.run_graph(tmp_path / "out" / "vision.onnx", {"pixel_values": pixels})
    np.testing.assert_allclose(images, small.encode_image(odd_images).numpy(), atol=2e-6)
    texts = embedded(tmp_path / "out")
    np.testing.assert_allclose(texts, small.encode_text(TEXTS).numpy(), atol=2e-6)
    coarse = (embedded(tmp_path / "out", ".int8") * texts).sum(1)
    assert 0.9 < coarse.min() < 1 - 1e-7
    known = json.loads((tmp_path / "out" / "onnx_config.json").read_text())
    assert (known["dim"], known["loss"]) == (8, "sigmoid")
    assert known["logit_scale"] == pytest.approx(small.logit_scale.detach().exp().item())


@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_a_plain_clip(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = open_model(request.getfixturevalue(name))
    door.export(model, tmp_path / "out")
    cosine = (embedded(tmp_path / "out") * model.encode_text(TEXTS).numpy()).sum(1)
    assert cosine.min() > 0.9999


def test_layers_of_one_network(
    tmp_path: Path, vit_folder: Path, bert_folder: Path, odd_images: list[Path]
) -> None:
    vision = load_encoder(str(vit_folder), "image", pooling="cls", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    images = FusedEncoder([vision, vision.view("mean", 1)], weights=[1.0, 0.5])
    model = built(images, FusedEncoder([text, text.view("first", 1)]))
    door.export(model, tmp_path / "out")
    pixels = torch.stack(vision.prepare([as_image(path) for path in odd_images])).numpy()
    found = door.run_graph(tmp_path / "out" / "vision.onnx", {"pixel_values": pixels})
    np.testing.assert_allclose(found, model.encode_image(odd_images).numpy(), atol=2e-6)
    np.testing.assert_allclose(
        embedded(tmp_path / "out"), model.encode_text(TEXTS).numpy(), atol=2e-6
    )


def test_the_readmes_code_runs_without_lateen(tmp_path: Path, small: AlignedModel) -> None:
    out = tmp_path / "out"
    door.export(small, out)
    Image.new("RGB", (50, 40), "red").save(out / "photo.jpg")
    [code] = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['lateen'] = None\n{code}"], cwd=out,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    printed = np.array(re.findall(r"-?\d\.\d+(?:e-\d+)?", done.stdout), float)
    expected = (
        small.encode_image(out / "photo.jpg") @ small.encode_text(["a dog on a beach", "a cat"]).T
    )
    np.testing.assert_allclose(printed, expected[0].numpy(), atol=1e-5)


def test_prompts_go_into_the_config(tmp_path: Path, vit_folder: Path, bert_folder: Path) -> None:
    model = small_model(vit_folder, bert_folder, prompt="a big ", max_tokens=9, pooling="first")
    door.export(model, tmp_path / "out")
    np.testing.assert_allclose(
        embedded(tmp_path / "out"), model.encode_text(TEXTS).numpy(), atol=2e-6
    )


def test_what_cannot_be_exported_leaves_nothing_behind(
    tmp_path: Path, small: AlignedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = open_model(saved_model(tmp_path / "toy"))
    with pytest.raises(ModelError, match="is no plain transformers model"):
        door.export(toy, tmp_path / "out")
    plain = AlignedModel.project_text
    with monkeypatch.context() as patched:
        patched.setattr(AlignedModel, "project_text", lambda *a, **k: plain(*a, **k).flip(1))
        with pytest.raises(ModelError, match=r"text\.onnx gives other embeddings"):
            door.export(small, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pip install 'lateen\[onnx\]'"):
            door.export(small, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_an_earlier_export_is_whole_until_the_next_one_is(
    tmp_path: Path, small: AlignedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    door.export(small, out)
    (out / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(door, "_check", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            door.export(small, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with torch.no_grad():
        small.logit_scale.fill_(1.0)
    door.export(small, out)
    assert (out / "notes.txt").read_text() == "mine"
    known = json.loads((out / "onnx_config.json").read_text())
    assert known["logit_scale"] == pytest.approx(2.71828, abs=1e-4)


def test_the_command(
    tmp_path: Path, small: AlignedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    small.save_pretrained(tmp_path / "model")
    code, out, err = call(capsys, "export", tmp_path / "model", "--to", "onnx", "--out",
                          tmp_path / "out")  # fmt: skip
    assert (code, err) == (0, "")
    assert "README.md" in out
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    code, _, err = call(capsys, "export", tmp_path / "model", "--to", "onnx", "--out",
                        tmp_path / "full")  # fmt: skip
    assert code == 2 and "is not empty" in err
    code, _, err = call(capsys, "export", tmp_path / "model", "--to", "lateen", "--int8", "--out",
                        tmp_path / "x")  # fmt: skip
    assert code == 2 and "--int8 belongs to --to onnx" in err
