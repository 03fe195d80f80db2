"""``lateen tune --ladder``: several ways to tune, shown beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import call
from tune_toys import results

from lateen.errors import TrainingError
from lateen.tuning import ladder as ladder_module


@pytest.fixture
def tune(
    clip_folder: Path, vit_folder: Path, draw: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:  # fmt: skip
    """The command with its inputs; a tuning gives made-up numbers, one with weight 13 fails."""

    def run(plan: Any, out: Path) -> Any:
        if plan.tune.weight == 13:
            raise TrainingError("the loss is nan", "Lower tune.lr.")
        return SimpleNamespace(results=results())

    monkeypatch.setattr(ladder_module, "run_tuning", run)
    images = draw("images/a.png").parent
    return lambda *words: call(
        capsys, "tune", clip_folder, "--target", vit_folder, "--images", images,
        "--out", tmp_path / "out", *words,
    )  # fmt: skip


def test_a_table_and_the_files(tune, tmp_path):
    code, out, err = tune("--ladder", "kernel, tune.weight=3", "--tune.lr", "1e-3")
    assert (code, err) == (0, "")
    assert "Against the start" in out
    assert "weight=3" in out
    for file in ("ladder.json", "ladder.csv", "report.html"):
        assert str(tmp_path / "out" / file) in out
        assert (tmp_path / "out" / file).is_file()
    found = json.loads((tmp_path / "out" / "ladder.json").read_text())
    assert [variant["tune"]["lr"] for variant in found["variants"]] == [1e-3, 1e-3]


def test_json_and_seeds(tune):
    code, out, _ = tune("--ladder", "kernel,projection", "--seeds", "0,1", "--json")
    assert code == 0
    assert [len(variant["runs"]) for variant in json.loads(out)["variants"]] == [2, 1]


def test_tables_alone(tune):
    code, out, _ = tune("--ladder", "kernel", "--format", "markdown")
    assert code == 0
    assert out.startswith("**Against the start**")
    assert "ladder.json" not in out


def test_a_variant_that_failed_is_an_exit_code_after_all_is_shown(tune):
    code, out, err = tune("--ladder", "tune.weight=13, kernel")
    assert code == 1
    assert "failed" in out
    assert "ladder.json" in out
    assert "error: 1 of 2 tunings failed, the first weight=13: the loss is nan." in err
    assert "The same command tries those again" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ladder", "kernel, kernel"], "the variant 'kernel' is there twice"),
        (["--ladder", "tune.wieght=3"], "Did you mean 'tune.weight'?"),
        (["--ladder", "kernel", "--seeds", "a"], "--seeds cannot be 'a'"),
        (["--ladder", "kernel", "--seeds", "1,1"], "seeds cannot be 1, 1"),
        (["--seeds", "0,1"], "--seeds belongs to --ladder. Give one tuning its --tune.seed."),
    ],
)
def test_bad_words_are_refused_before_anything_is_done(tune, tmp_path, words, message):
    code, out, err = tune(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()
