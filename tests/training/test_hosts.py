"""Two agents of torchrun, as on two hosts that share a disk: they train what one process trains,
stop together, and go on with the same bytes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys
from safetensors.torch import load_file

import lateen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "LATEEN_SLOW" not in os.environ, reason="starts torchrun six times: set LATEEN_SLOW=1"
    ),
]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def agents(out: Path, *words: str) -> list[subprocess.Popen[str]]:
    """One for each of two hosts, which meet on loopback."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-id", out.name,
        "--rdzv-endpoint", f"localhost:{free_port()}", "-m", "lateen", "train", *words,
        "--out", str(out),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return [
        subprocess.Popen(
            command, cwd=Path(toys.__file__).parent, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip


def trainers(agent: subprocess.Popen[str]) -> list[int]:
    """The processes that an agent has started."""
    listed = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    return [int(each) for each in listed]


def test_two_hosts_train_what_one_process_trains_and_go_on_after_a_kill(album: Path) -> None:
    images = lateen.encode(album / "images", "toys:colour_encoder", album / "i", dtype="float32")
    texts = lateen.encode(album / "train.jsonl", "toys:word_encoder", album / "t", dtype="float32")
    words = (
        "--images", str(images.path), "--texts", str(texts.path), "--preset", "small",
        "--train.epochs", "120", "--train.batch", "12", "--train.precision", "float32",
        "--train.validations", "4", "--train.cca", "0", "--holdout", "0.2",
    )  # fmt: skip
    whole = agents(album / "whole", *words)
    for agent in whole:
        _, said = agent.communicate(timeout=150)
        assert agent.returncode == 0, said
    # A rank of the second host is killed once there is a checkpoint.
    killed = agents(album / "killed", *words)
    deadline = time.monotonic() + 120
    while not list((album / "killed").rglob("*checkpoint*")):
        assert time.monotonic() < deadline and all(each.poll() is None for each in killed)
        time.sleep(0.05)
    os.kill(trainers(killed[1])[0], signal.SIGKILL)
    for agent in killed:
        agent.communicate(timeout=120)
        assert agent.returncode != 0
    again = agents(album / "killed", *words)
    for agent in again:
        _, said = agent.communicate(timeout=150)
        assert agent.returncode == 0, said
    weights = [load_file(album / each / "model" / "model.safetensors")
               for each in ("whole", "killed")]  # fmt: skip
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
