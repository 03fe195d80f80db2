"""A run that is tracked is the run that is not: found done by it, and finding it done."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lateen.errors import MissingExtraError
from lateen.experiment import ablate, run
from lateen.training import tracking
from lateen.training.tracking import Tracked

TOY = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 16, "dropout": 0.0},
}
TRAIN = {"batch": 6, "epochs": 4, "lr": 0.01}


class Sink:
    """Keeps what it is told."""

    made: list[Sink]

    def __init__(self, told: Tracked, out: Path, start: int) -> None:
        self.told, self.steps = told, []
        self.made.append(self)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.steps.append(step)

    def close(self) -> None: ...


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> list[Sink]:
    monkeypatch.setattr(Sink, "made", [], raising=False)
    monkeypatch.setitem(tracking._SINKS, "wandb", Sink)
    monkeypatch.setattr(tracking, "check_tracker", lambda name: None)
    for module in ("training.loop", "experiment.preflight", "experiment.rungs"):
        monkeypatch.setattr(f"lateen.{module}.check_tracker", lambda name: None)
    return Sink.made


def recipe(root: Path, **train: object) -> dict[str, Any]:
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25}
    return {**TOY, "train": {**TRAIN, **train}, "data": data}


def test_tracking_is_in_no_key_of_a_run(album: Path, sinks: list[Sink]) -> None:
    first = run(recipe(album, track="wandb"), album / "tracked")
    (sink,) = sinks
    assert sink.told.name == "tracked" and sink.steps[-1] == 12
    assert sink.told.config["vision"]["encoder"] == "toys:colour_encoder"
    written = first.metrics.read_bytes()
    again = run(recipe(album), album / "tracked")
    assert again.metrics == first.metrics and again.metrics.read_bytes() == written
    plain = run(recipe(album), album / "plain")
    run(recipe(album, track="wandb"), album / "plain")
    assert len(sinks) == 1  # what is done is not tracked
    assert plain.metrics.parent.name == first.metrics.parent.name
    assert (album / "tracked" / "recipe.yaml").read_bytes() == (
        album / "plain" / "recipe.yaml"
    ).read_bytes()


def test_each_training_of_a_ladder_is_a_run_of_its_own(album: Path, sinks: list[Sink]) -> None:
    ladder = {
        "base": recipe(album, track="wandb"),
        "rungs": [{"name": "a"}, {"name": "b", "set": {"train.lr": 0.02}}],
    }
    ablate(ladder, album / "ladder", seeds=[0, 1])
    assert [sink.told.name for sink in sinks] == [
        f"{rung}, 18 pairs, seed {seed}" for rung in "ab" for seed in (0, 1)
    ]


def test_a_missing_tracker_is_told_before_anything_is_encoded(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util, "find_spec",
        lambda name, *where: None if name == "trackio" else found(name, *where),
    )  # fmt: skip
    with pytest.raises(MissingExtraError, match=r"train\.track: trackio .*pip install trackio"):
        run(recipe(album, track="trackio"), album / "run")
    assert not (album / "run" / "stores").exists()
