"""An experiment tracker looks on: it gets what the log gets, and changes nothing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from lateen import train as train_model
from lateen.assessment.recipe import AssessmentRecipe
from lateen.errors import LateenError, MissingExtraError, TrainingError, UsageError
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs
from lateen.training import loop, tracking
from lateen.training.auto import TrainingSize, suited
from lateen.training.config import HeadSection, TrackerName, TrainSection
from lateen.training.loop import CHECKPOINT, METRICS, TrainResult, train
from lateen.training.tracking import Tracked

from .conftest import MakePairs

HEAD = HeadSection(dim=8)
TRAIN = {"lr": 0.02, "batch": 16, "epochs": 6, "validations": 4, "checkpoints": 5, "cca": 0.0}

# A tracker's package, with the same names as wandb's and trackio's.
FAKE = """
runs = []

class Run:
    def __init__(self, **given):
        print("a word of its own")
        self.given, self.rows, self.open = given, [], True
        runs.append(self)

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.open = False

init = Run

def finish():
    runs[-1].finish()
"""


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str = FAKE) -> Any:
    """The package, as if it were installed."""
    (tmp_path / "site").mkdir(exist_ok=True)
    (tmp_path / "site" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def both(make_pairs: MakePairs) -> tuple[Pairs, Pairs]:
    """Pairs to train on, and pairs that choose the step."""
    return make_pairs([2] * 48), make_pairs([2] * 20, seed=1, name="v")


def run(
    both: tuple[Pairs, Pairs], out: Path, track: str | None, tracked: Tracked | None = None
) -> TrainResult[Any]:
    pairs, judged = both
    settings = TrainSection.model_validate({**TRAIN, "track": track})
    return train(pairs, validation=judged, head=HEAD, settings=settings, out=out, tracked=tracked)


def logged(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_gets_what_the_log_gets(
    name: str, both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    package = fake(tmp_path, monkeypatch, name)
    told = Tracked("mine", {"train": {"lr": 0.02}})
    run(both, tmp_path / "out", name, told)
    (made,) = package.runs
    assert not made.open and made.given["config"] == told.config
    assert made.given["name"].startswith("mine") and made.given["project"] == "lateen"
    expected = logged(tmp_path / "out")
    assert [step for step, _ in made.rows] == [row["step"] for row in expected]
    steps = [(row, values) for row, (_, values) in zip(expected, made.rows, strict=True)]
    for row, values in steps:
        if "validation" not in row:
            for key in ("loss", "lr", "logit_scale", "logit_bias"):
                assert values[key] == pytest.approx(row[key], rel=1e-5)
        else:
            recall = row["validation"]["text_to_image"]["R@1"]
            assert values["validation/text_to_image/R@1"] == pytest.approx(recall)
    assert sum("validation" in row for row, _ in steps) == 4
    printed = capsys.readouterr()
    assert "a word of its own" in printed.err and not printed.out


def test_a_tracked_training_is_the_same_training(
    both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fake(tmp_path, monkeypatch, "wandb")
    run(both, tmp_path / "plain", None)
    run(both, tmp_path / "tracked", "wandb")
    for file in (CHECKPOINT, METRICS):
        plain, tracked = (tmp_path / name / file for name in ("plain", "tracked"))
        assert plain.read_bytes() == tracked.read_bytes(), file
    # Each finds the other's done, and a finished one is not looked at again.
    assert run(both, tmp_path / "plain", "wandb").skipped
    assert run(both, tmp_path / "tracked", None).skipped
    assert len(package.runs) == 1


def test_a_training_that_goes_on_is_the_same_run(
    both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fake(tmp_path, monkeypatch, "wandb")
    save, saved = loop.save_checkpoint, []

    def killed(*arguments: Any) -> None:
        save(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        run(both, tmp_path / "out", "wandb")
    result = run(both, tmp_path / "out", "wandb")
    first, second = package.runs
    assert not first.open and first.given["id"] == second.given["id"]
    assert 0 < result.resumed_from < second.rows[0][0]
    run(both, tmp_path / "plain", None)
    assert (tmp_path / "out" / CHECKPOINT).read_bytes() == (
        tmp_path / "plain" / CHECKPOINT
    ).read_bytes()


def test_a_tracker_that_fails_is_left_behind(
    both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    package = fake(tmp_path, monkeypatch, "wandb")

    def fails(self: object, values: Mapping[str, float], step: int) -> None:
        raise OSError("the network is down")

    monkeypatch.setattr(package.Run, "log", fails)
    with caplog.at_level(logging.WARNING, "lateen"):
        assert run(both, tmp_path / "out", "wandb").steps == 18
    assert caplog.text.count("the tracker failed") == 1 and "network is down" in caplog.text


def test_one_that_cannot_start_ends_the_training_with_a_remedy(
    both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = fake(tmp_path, monkeypatch, "wandb")

    def refuses(**given: Any) -> None:
        raise RuntimeError("no login")

    monkeypatch.setattr(package, "init", refuses)
    with pytest.raises(TrainingError, match=r"wandb cannot be started \(no login\).*WANDB_MODE"):
        run(both, tmp_path / "out", "wandb")
    assert not (tmp_path / "out" / CHECKPOINT).exists()


@pytest.mark.parametrize("name", get_args(TrackerName))
def test_a_missing_package_is_told_before_anything_is_done(
    name: str, both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util, "find_spec", lambda each: None if each == name else found(each)
    )
    for out in (tmp_path / "out", None):
        with pytest.raises(MissingExtraError, match=f"pip install {name}"):
            train_model(both[0], out=out, track=name)
    assert not (tmp_path / "out").exists()


def test_a_training_without_a_folder_is_not_tracked(
    both: tuple[Pairs, Pairs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "wandb")
    with pytest.raises(UsageError, match="Give out"):
        train_model(both[0], track="wandb")


def test_no_dump_and_no_key_knows_of_it() -> None:
    plain, tracked = TrainSection(), TrainSection(track="tensorboard")
    assert plain.model_dump() == tracked.model_dump() and plain.deciding() == tracked.deciding()
    recipe = Recipe.build({"train": {"track": "wandb"}})
    assert recipe.train.tracker == "wandb"
    size = TrainingSize(images=500, captions=500, image_dim=8, text_dim=8)
    assert suited(HEAD, recipe.train, size)[1].tracker == "wandb"
    with pytest.raises(LateenError, match=r"leave train\.track out"):
        AssessmentRecipe.build(
            {"data": {"train": "a"}, "vision": [{"encoder": "a"}], "text": [{"encoder": "b"}],
             "probe": {"train": {"track": "wandb"}}}
        )  # fmt: skip


def test_tensorboard_reads_the_curves(both: tuple[Pairs, Pairs], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", exc_type=ImportError)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(both, tmp_path / "out", "tensorboard", Tracked("mine", {"train": {"lr": 0.02}}))
    read = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    read.Reload()
    expected = [row for row in logged(tmp_path / "out") if "validation" not in row]
    events = read.Scalars("loss")
    assert [event.step for event in events] == [row["step"] for row in expected]
    losses = [row["loss"] for row in expected]
    assert [event.value for event in events] == pytest.approx(losses, rel=1e-5)
    assert {"lr", "logit_scale", "logit_bias", "validation/image_to_text/R@10"} <= set(
        read.Tags()["scalars"]
    )
    assert "lr: 0.02" in str(read.Tensors("recipe/text_summary")[0].tensor_proto.string_val[0])
