"""Folders of models that other libraries wrote."""

import json
from pathlib import Path

import pytest
from commands import call
from labelled_toys import class_folder
from safetensors.torch import save_file
from torch import zeros


@pytest.mark.parametrize("words", [["--pooling", "cls"], []], ids=["with pooling", "plain"])
def test_a_checkpoint_of_timm_is_named_with_what_reads_it(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    config = {"architecture": "resnet10t", "num_classes": 3, "num_features": 8,
              "pretrained_cfg": {"tag": "none", "input_size": [3, 32, 32]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"stem.weight": zeros(8, 3, 1, 1)}, folder / "model.safetensors")
    photos = class_folder(tmp_path / "photos", ["red"], count=2)
    code, out, err = call(
        capsys, "encode", photos, "--encoder", folder, *words, "--out", tmp_path / "store"
    )
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"error: {folder} is a checkpoint of timm")
    for remedy in ("transformers' form", "an encoder of your own", "pip install timm"):
        assert remedy in err
    assert "unexpected" not in err
    assert not (tmp_path / "store").exists()
