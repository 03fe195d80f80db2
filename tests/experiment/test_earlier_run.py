"""A run that an earlier version made is found done: content keys outlive refactoring.

``earlier_run`` was made with lateen 0.1.0 before its modules were regrouped: an album of eight
pictures, and the folder that ``lateen.run`` left behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import toys

import lateen

RECIPE = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder", "dtype": "float32"},
    "head": {"dim": 4, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 3, "lr": 0.01, "checkpoints": 1, "validations": 1},
}


def test_a_run_of_an_earlier_version_is_found_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(Path(__file__).parent / "earlier_run", tmp_path / "earlier")
    made = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for part in ("stores", "train")
        for path in (root / "run" / part).rglob("*")
        if path.is_file()
    }
    model = (root / "run" / "model" / "model.safetensors").read_bytes()
    for encoder in (toys.ColourEncoder, toys.WordEncoder):
        monkeypatch.setattr(encoder, "encode", lambda *_: pytest.fail("encoded again"))
    data = {"root": str(root / "album"), "train": "train.jsonl", "holdout": 0.25}

    result = lateen.run({**RECIPE, "data": data}, root / "run")

    assert len(made) == 8
    for path, before in made.items():
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before, path
    now = {
        path
        for part in ("stores", "train")
        for path in (root / "run" / part).rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    assert now == set(made)
    assert (root / "run" / "model" / "model.safetensors").read_bytes() == model
    conditions = result.results["retrieval"]["conditions"]
    assert conditions["model"].startswith("4ebc69c13a10eb8a")
    assert conditions["data"].startswith("337c04aecdeb5320")
