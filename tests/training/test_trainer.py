from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.errors import BusyError, TrainingError
from lateen.features import Pairs
from lateen.files import folder_lock
from lateen.training import loop, validation
from lateen.training.config import HeadSection, TrainSection
from lateen.training.loop import CHECKPOINT, METRICS, TrainResult, train

from .conftest import MakePairs

HEAD = {"name": "linear", "dim": 8, "dropout": 0.1}
TRAIN = {"lr": 0.02, "batch": 16, "epochs": 6, "captions_per_image": 2, "validations": 4,
         "checkpoints": 5, "cca": 0.0}  # fmt: skip
COUNTS = [3, 1, 2, 5] * 12  # 48 images: 3 steps an epoch, 18 in all


def run(
    pairs: Pairs, out: Path, validation: Pairs | None = None, head: Any = None, **settings: Any
) -> TrainResult:
    return train(
        pairs, validation=validation, head=HeadSection.model_validate({**HEAD, **(head or {})}),
        settings=TrainSection.model_validate({**TRAIN, **settings}), out=out,
    )  # fmt: skip


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def weights(result: TrainResult) -> dict[str, torch.Tensor]:
    return dict(result.heads.state_dict())


def same(a: TrainResult, b: TrainResult) -> bool:
    return all(map(torch.equal, weights(a).values(), weights(b).values()))


def all_recalls(value: float) -> dict[str, float]:
    return dict.fromkeys(("R@1", "R@5", "R@10"), value)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "infonce", "positives": "mean"},
        {"optimizer": "lion", "lr": 0.004, "normalization": "batch_squared", "clip_norm": None},
        {"precision": "bfloat16", "chunk": 5},
    ],
)
@pytest.mark.parametrize("name", ["linear", "mlp", "glu"])
def test_training_learns_to_retrieve(
    make_pairs: MakePairs, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    fit, held = make_pairs([3] * 120).holdout(0.3)
    result = run(fit, tmp_path / "out", held, head={"name": name, "width": 2},
                 **{"epochs": 20, **settings})  # fmt: skip
    assert result.best_metrics is not None
    for direction in result.best_metrics.values():
        assert direction["R@10"] > 60  # chance is 10 of 36
    assert not result.heads.training


def test_the_log_has_a_row_per_step_and_validations(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(COUNTS)
    result = run(pairs, tmp_path, pairs)
    steps = [row for row in rows(tmp_path) if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 19))
    assert [row["epoch"] for row in steps] == [1 + i // 3 for i in range(18)]
    assert set(steps[0]) == {
        "step", "epoch", "loss", "lr", "logit_scale", "logit_bias", "grad_norm",
    }  # fmt: skip
    assert steps[0]["logit_scale"] == pytest.approx(20)
    assert steps[0]["logit_bias"] == -10
    assert steps[1]["lr"] == max(row["lr"] for row in steps)  # warm-up is a tenth of 18 steps
    validations = [row for row in rows(tmp_path) if "validation" in row]
    assert [row["step"] for row in validations] == [5, 9, 14, 18]
    assert result.metrics == tmp_path / METRICS
    assert result.steps == 18


def test_the_best_validation_is_kept(
    make_pairs: MakePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs(COUNTS)
    recalls = iter([10.0, 30.0, 30.0, 20.0])
    seen: list[dict[str, torch.Tensor]] = []

    def validate(heads: torch.nn.Module, _: Pairs) -> dict[str, dict[str, float]]:
        seen.append({name: p.clone() for name, p in heads.state_dict().items()})
        recall = next(recalls)
        return {"text_to_image": all_recalls(recall), "image_to_text": all_recalls(recall)}

    monkeypatch.setattr(validation, "validate", validate)
    result = run(pairs, tmp_path, pairs)
    assert result.best_step == 9
    thirty = all_recalls(30.0)
    assert result.best_metrics == {"text_to_image": thirty, "image_to_text": thirty}
    assert all(map(torch.equal, weights(result).values(), seen[1].values()))
    again = run(pairs, tmp_path, pairs)
    assert again.skipped
    assert again.best_step == 9
    assert same(again, result)


def test_without_validation_the_last_heads_are_given_back(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    result = run(make_pairs(COUNTS), tmp_path)
    assert result.best_step == result.steps == 18
    assert result.best_metrics is None
    assert rows(tmp_path)[-1]["step"] == 18


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(COUNTS)
    first, second = run(pairs, tmp_path / "a", pairs), run(pairs, tmp_path / "b", pairs)
    for name in (METRICS, CHECKPOINT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert same(first, second)
    assert not same(first, run(pairs, tmp_path / "c", pairs, seed=1))


def test_validation_and_checkpoints_do_not_change_the_training(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(COUNTS)
    run(pairs, tmp_path / "a", checkpoints=1)
    run(pairs, tmp_path / "b", pairs, validations=18, checkpoints=18)
    losses = [[row["loss"] for row in rows(tmp_path / out) if "loss" in row] for out in "ab"]
    assert losses[0] == losses[1]


def test_the_global_random_state_is_left_alone(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(COUNTS)
    torch.manual_seed(5)
    first = run(pairs, tmp_path / "a")
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(6)
    assert same(first, run(pairs, tmp_path / "b"))


def test_a_finished_training_is_found_again_without_work(
    make_pairs: MakePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs(COUNTS)
    first = run(pairs, tmp_path)
    monkeypatch.setattr(loop, "training_step", None)
    again = run(pairs, tmp_path)
    assert again.skipped
    assert not first.skipped
    assert same(first, again)
    assert again.steps == 18


_KILLED = """
import os, signal, sys
from pathlib import Path
from lateen.training import checkpoint, log, loop
from lateen.experiment.recipe import HeadSection, TrainSection
from lateen.features import pair

folder, out, head, settings, when = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
write, save = log.MetricsLog.write, checkpoint.save_file
saved = []

def killed_in_log(self, row):
    write(self, row)
    if row["step"] == 12:
        self._file.write('{"step": 13, "lo')
        self._file.flush()
        die()

def killed_in_checkpoint(tensors, path, metadata):
    save(tensors, path, metadata=metadata)
    saved.append(path)
    if len(saved) == 3:
        path.write_bytes(path.read_bytes()[:100])
        die()

if when == "log":
    log.MetricsLog.write = killed_in_log
else:
    checkpoint.save_file = killed_in_checkpoint
pairs = pair(folder + "/a-image", folder + "/a-text0")
loop.train(
    pairs, validation=pairs, head=HeadSection.model_validate_json(head),
    settings=TrainSection.model_validate_json(settings), out=Path(out),
)
"""


@pytest.mark.parametrize(
    ("when", "changes"),
    [
        ("log", {"optimizer": "adamw"}),
        ("checkpoint", {"optimizer": "lion", "micro_batch": 5, "block": 4}),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bytes(
    make_pairs: MakePairs, tmp_path: Path, when: str, changes: dict[str, Any]
) -> None:
    pairs = make_pairs(COUNTS)
    whole = run(pairs, tmp_path / "whole", pairs, **changes)
    settings = json.dumps({**TRAIN, **changes})
    out = tmp_path / "killed"
    command = [sys.executable, "-c", _KILLED, tmp_path, out, json.dumps(HEAD), settings, when]
    killed = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (out / METRICS).read_bytes() != (tmp_path / "whole" / METRICS).read_bytes()
    result = run(pairs, out, pairs, **changes)
    assert result.resumed_from == {"log": 11, "checkpoint": 8}[when]
    assert same(result, whole)
    for name in (METRICS, CHECKPOINT):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_training_of_other_settings_or_data_is_not_touched(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(COUNTS)
    run(pairs, tmp_path / "out", pairs)
    before = (tmp_path / "out" / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match=r"train\.lr: 0\.02 there, 0\.5 now"):
        run(pairs, tmp_path / "out", pairs, lr=0.5)
    with pytest.raises(TrainingError, match=r"head\.dim: 8 there, 9 now"):
        run(pairs, tmp_path / "out", pairs, head={"dim": 9})
    with pytest.raises(TrainingError, match=r"data\.pairs: "):
        run(make_pairs(COUNTS, seed=1, name="b"), tmp_path / "out", pairs)
    with pytest.raises(TrainingError, match=r"data\.validation: .* there, None now"):
        run(pairs, tmp_path / "out")
    assert (tmp_path / "out" / CHECKPOINT).read_bytes() == before


def test_a_diverging_loss_names_step_and_rate_and_keeps_the_last_checkpoint(
    make_pairs: MakePairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = loop.training_step

    def poisoned(state: Any, *arguments: Any) -> Any:
        if state.step == 11:
            state.heads.logit_bias.data.fill_(math.nan)
        return step(state, *arguments)

    pairs = make_pairs(COUNTS)
    whole = run(pairs, tmp_path / "whole")
    monkeypatch.setattr(loop, "training_step", poisoned)
    with pytest.raises(TrainingError, match=r"step 12 has loss nan .* rate 0\.00805") as caught:
        run(pairs, tmp_path / "out")
    assert "train.lr" in caught.value.remedy
    monkeypatch.setattr(loop, "training_step", step)
    result = run(pairs, tmp_path / "out")
    assert result.resumed_from == 11
    assert same(result, whole)


def test_a_folder_in_use_is_left_alone(make_pairs: MakePairs, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "out"), pytest.raises(BusyError):
        run(make_pairs(COUNTS), tmp_path / "out")


def test_several_columns_are_several_positives(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(COUNTS, columns=2)
    result = run(pairs, tmp_path, pairs)
    assert result.best_metrics is not None
    assert result.best_metrics["text_to_image"]["R@10"] > 60
