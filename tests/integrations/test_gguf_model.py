"""A model whose text encoder is a GGUF file: run, exported with the file, and used elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from commands import call
from gguf_toys import write_gguf

from lateen.errors import ModelError
from lateen.files import read_json
from lateen.model import AlignedModel

Capture = pytest.CaptureFixture[str]
TEXTS = ["a red square", "green", ""]


def test_a_run_with_it_is_found_done_and_its_model_is_handed_on(
    album: Path, vit_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    write_gguf(album / "tiny.gguf")
    values = {
        "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.25},
        "vision": {"encoder": str(vit_folder), "pooling": "cls"},
        "text": {"encoder": "tiny.gguf", "pooling": "last", "layer": 1, "prompt": 'It is "{}":'},
        "train": {"epochs": 2, "batch": 8},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    run = tmp_path / "run"
    assert call(capsys, "run", recipe, "--out", run)[0] == 0
    [store] = (run / "stores").glob("*-text-*")
    written = {each: each.stat().st_mtime_ns for each in store.glob("*.safetensors")}
    assert written
    assert call(capsys, "run", recipe, "--out", run)[0] == 0
    assert {each: each.stat().st_mtime_ns for each in store.glob("*.safetensors")} == written
    before = AlignedModel.from_pretrained(run / "model").encode_text(TEXTS)

    out = tmp_path / "out"
    code, _, err = call(
        capsys, "export", run / "model", "--to", "lateen", "--with-encoders", "--out", out
    )
    assert (code, err) == (0, "")
    assert [each.name for each in (out / "text_encoder").iterdir()] == ["tiny.gguf"]
    bare = tmp_path / "bare"
    assert call(capsys, "export", run / "model", "--to", "lateen", "--out", bare)[0] == 0
    assert read_json(bare / "config.json")["text"]["load"]["name"] == "./tiny.gguf"

    moved = Path(shutil.move(album / "tiny.gguf", tmp_path / "moved.gguf"))
    with pytest.raises(ModelError, match=r"called tiny\.gguf where the model was made.*--text"):
        AlignedModel.from_pretrained(bare).encode_text(TEXTS)
    whole = AlignedModel.from_pretrained(out)
    given = AlignedModel.from_pretrained(bare, text_encoder=str(moved))
    for model in (whole, given):
        assert torch.equal(model.encode_text(TEXTS), before)
    whole.save_pretrained(tmp_path / "again", encoders=True)
    assert (tmp_path / "again" / "text_encoder" / "tiny.gguf").is_file()
    write_gguf(moved, seed=1)
    with pytest.raises(ModelError, match="is not the one this model was trained with: weights"):
        AlignedModel.from_pretrained(bare, text_encoder=str(moved)).encode_text(TEXTS)
