"""A whole run that processes of torchrun share: stores of one process, and after a kill the same
model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toys
import yaml
from safetensors.numpy import load_file

import lateen
from lateen.model import AlignedModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LATEEN_SLOW" not in os.environ, reason="starts torchrun three times: set LATEEN_SLOW=1"
    ),
]

# The images' colours and layers of a network, side by side: one fused store, made in turn.
RECIPE = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder", "dtype": "float32"},
    "head": {"dim": 16, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 60, "lr": 0.01, "precision": "float32", "checkpoints": 5},
}


def started(recipe: Path, out: Path, processes: int = 2) -> subprocess.Popen[str]:
    """`lateen run` under torchrun."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(processes), "-m", "lateen", "run", str(recipe), "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=Path(toys.__file__).parent, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(run: subprocess.Popen[str]) -> tuple[str, str]:
    out, said = run.communicate(timeout=200)
    assert run.returncode == 0, said
    return out, said


def stores(run: Path) -> dict[str, bytes]:
    return {
        f"{path.parent.name}/{path.name}": path.read_bytes()
        for path in (run / "stores").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_processes_share_a_run_and_go_on_after_a_kill(album: Path, vit_folder: Path) -> None:
    fused = [{"encoder": str(vit_folder), "pooling": "cls", "layer": layer} for layer in (1, 2)]
    plan = {
        **RECIPE,
        "vision": {**RECIPE["vision"], "fuse": fused},
        "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.25},
    }  # fmt: skip
    recipe = album / "plan.yaml"
    recipe.write_text(yaml.safe_dump(plan))
    one = lateen.run(recipe, album / "one")
    out, _ = finished(started(recipe, album / "two"))
    assert out.count("model    ") == 1  # one process speaks for all
    # Stores to the byte; the model but for the order of sums.
    assert stores(album / "two") == stores(album / "one")
    assert not list((album / "two" / "stores").glob("*.rank-*"))
    results = json.loads((album / "two" / "results.json").read_text())
    assert results["retrieval"]["images"] == one.results["retrieval"]["images"] == 6
    weights = [load_file(album / run / "model" / "model.safetensors") for run in ("one", "two")]
    for name, values in weights[0].items():
        np.testing.assert_allclose(weights[1][name], values, atol=1e-3)
    assert AlignedModel.from_pretrained(album / "two" / "model").query_bank is not None

    # One process is killed: the other stops with a line, and they go on with the same bytes.
    killed = started(recipe, album / "killed")
    deadline = time.monotonic() + 120
    while not list((album / "killed" / "train").glob("*/checkpoint*")):
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.01)
    listed = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    os.kill(int(listed[-1]), signal.SIGKILL)
    _, said = killed.communicate(timeout=120)
    assert killed.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 1, said
    assert all("another one has ended" in line for line in errors)
    assert "report the trace" not in said
    finished(started(recipe, album / "killed"))
    again = load_file(album / "killed" / "model" / "model.safetensors")
    assert all((again[name] == values).all() for name, values in weights[1].items())
