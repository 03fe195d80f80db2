"""Two processes that talk by gloo, against one process with the whole batch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lateen.errors import TrainingError
from lateen.training.ranks import ALONE, Ranks, alone, present, process_group

from .conftest import MakePairs

_LOSSES = """
import sys, torch
import torch.nn.functional as F
from lateen.training.losses import infonce_loss, sigmoid_loss
from lateen.training.ranks import process_group

def run(ranks):
    g = torch.Generator().manual_seed(0)
    unit = lambda: F.normalize(torch.randn(7, 5, generator=g, dtype=torch.float64), dim=1)
    mine = ranks.share(7)
    image, *texts = (unit()[mine].requires_grad_() for _ in range(3))
    scale = torch.tensor(13.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-4.0, dtype=torch.float64, requires_grad=True)
    for name, loss in (
        ("sigmoid", lambda: sigmoid_loss(image, texts, scale, bias, chunk_size=3, ranks=ranks)),
        ("infonce", lambda: infonce_loss(image, texts, scale, chunk_size=3, ranks=ranks)),
    ):
        value = loss()
        leaves = [image, *texts, scale, bias]
        yield name, value.detach(), torch.autograd.grad(3 * value, leaves, allow_unused=True)

with process_group() as ranks:
    torch.save(list(run(ranks)), f"{sys.argv[1]}/{ranks.size}-{ranks.rank}.pt")
"""

_TRAIN = """
import json, sys
from pathlib import Path
from safetensors.torch import save_file
from lateen.training.ranks import process_group
from lateen.training.loop import train
from lateen.experiment.recipe import HeadSection, TrainSection
from lateen.features import pair

folder, out, head, settings = sys.argv[1:]
pairs = pair(folder + "/a-image", folder + "/a-text0", folder + "/a-text1")
with process_group() as ranks:
    result = train(
        pairs, validation=pairs, head=HeadSection.model_validate_json(head),
        settings=TrainSection.model_validate_json(settings), out=Path(out), ranks=ranks,
    )
    save_file(result.heads.state_dict(), f"{out}/heads-{ranks.rank}.safetensors")
"""

# Batch normalisation takes out what is the same for all rows, so that the gradients of these are
# rounding errors, of which AdamW makes whole steps.
_CANCELLED = re.compile(r"network\.(layers\.\d\.bias|norms\.\d\.running_mean)|text\.norm\.bias")
_COUNTS = [3, 1, 2, 5, 1, 2, 2, 3, 1, 4, 2]
_SETTINGS: dict[str, Any] = {
    "lr": 1e-2, "batch": 6, "epochs": 3, "captions_per_image": 2, "precision": "float32",
    "validations": 2, "cca": 0.0,
}  # fmt: skip


def launch(script: Path, *arguments: object, processes: int, fails: bool = False) -> str:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes),
                    "--master-port", "0", "--rdzv-backend", "c10d",
                    "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=120,
        check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr


def test_losses_and_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    script = tmp_path / "losses.py"
    script.write_text(_LOSSES)
    for processes in (1, 2):
        launch(script, tmp_path, processes=processes)
    whole = torch.load(tmp_path / "1-0.pt")
    shares = [torch.load(tmp_path / f"2-{rank}.pt") for rank in range(2)]
    for (name, value, gradients), first, second in zip(whole, *shares, strict=True):
        torch.testing.assert_close(first[1], value)
        torch.testing.assert_close(second[1], value)
        for index, gradient in enumerate(gradients):
            parts = [share[2][index] for share in (first, second)]
            if gradient is None:  # InfoNCE knows no bias
                assert (name, index) == ("infonce", 4)
                assert parts == [None, None]
            elif gradient.ndim:  # of rows: each has its own
                torch.testing.assert_close(torch.cat(parts), gradient)
            else:  # of scale and bias: parts of a sum
                torch.testing.assert_close(parts[0] + parts[1], gradient)


def _heads(folder: Path, rank: int, name: str) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / f"heads-{rank}.safetensors")
    left_out = _CANCELLED if name == "sharelock" else re.compile("^$")
    return {name: tensor for name, tensor in tensors.items() if not left_out.search(name)}


@pytest.mark.parametrize(
    ("head", "changes"),
    [
        ({"dim": 8, "dropout": 0.5}, {"loss": "sigmoid", "micro_batch": 2}),
        ({"name": "sharelock", "width": 2, "dropout": 0.2}, {"loss": "infonce"}),
    ],
)
def test_two_processes_train_the_heads_that_one_trains(
    make_pairs: MakePairs, tmp_path: Path, head: dict[str, Any], changes: dict[str, Any]
) -> None:
    make_pairs(_COUNTS, columns=2)
    script = tmp_path / "train.py"
    script.write_text(_TRAIN)
    settings = json.dumps({**_SETTINGS, **changes})
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launch(script, tmp_path, out, json.dumps(head), settings, processes=processes)
    name = head.get("name", "linear")
    whole = _heads(tmp_path / "1", 0, name)
    for rank in range(2):
        torch.testing.assert_close(_heads(tmp_path / "2", rank, name), whole, atol=2e-5, rtol=1e-4)
    logs = [(tmp_path / str(n) / "metrics.jsonl").read_text().splitlines() for n in (1, 2)]
    for one, two in zip(*(map(json.loads, log) for log in logs), strict=True):
        assert two.keys() == one.keys()
        assert two.get("loss", 0) == pytest.approx(one.get("loss", 0), rel=1e-4)


def test_processes_with_other_data_stop_instead_of_waiting(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    make_pairs(_COUNTS, columns=2)
    script = tmp_path / "train.py"
    # The second process has the stores of one caption column only.
    text = 'folder + "/a-text1"'
    script.write_text(_TRAIN.replace(text, f'*[{text}][: 1 - int(os.environ["RANK"])]')
                      .replace("import json, sys", "import json, os, sys"))  # fmt: skip
    said = launch(
        script, tmp_path, tmp_path / "out", "{}", json.dumps(_SETTINGS), processes=2, fails=True
    )
    assert "process 1 of 2 has other settings or data than process 0" in said
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_a_process_whose_companion_has_ended_stops_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(f"torch.distributed.{name}", lambda value=value: value)

    def step(message: str) -> None:
        with process_group() as ranks:
            assert present() == ranks == Ranks(1, 2)
            with alone():
                assert present() == ALONE
            raise RuntimeError(message)

    with pytest.raises(TrainingError, match=r"process 1 of 2 stops, as another one has ended"):
        step("[gloo/transport/tcp/pair.cc:554] Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        step("mat1 and mat2 shapes cannot be multiplied")
    assert present() == ALONE
