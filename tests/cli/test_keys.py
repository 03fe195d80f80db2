"""Every key of a recipe is an option that the command's help shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import pytest
from commands import call
from rich.console import Console

import lateen.assessment
import lateen.encoders
import lateen.evaluation
import lateen.experiment
import lateen.mllm.benchmarks
import lateen.tuning
from lateen.assessment.recipe import AssessmentRecipe, assessment_keys
from lateen.cli.app import app, main
from lateen.config import Section
from lateen.errors import UsageError
from lateen.experiment.recipe import Recipe
from lateen.training.config import FEATURE_PRESETS, PRESETS, HeadSection, TrainSection


def fields(section: type[Section], prefix: str = "") -> list[str]:
    """The dotted keys, taken from the class alone."""
    paths = []
    for name, kind in get_type_hints(section).items():
        if name.startswith(("model_", "_")) or get_origin(kind) is ClassVar:
            continue
        # A section, or a section or nothing, which is not listed as a whole.
        kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        inner = next((each for each in kinds if _is_section(each)), None)
        paths += fields(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return paths


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What ``--help`` prints where lines are so long that none is broken, whatever else has been
    printed by this process."""
    app([command, "--help"], result_action="return_value", console=Console(width=300))
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "plan", "ablate"])
def test_help_shows_every_key_of_a_recipe(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of(command, capsys)
    refused = ("text.train", "train.unpaired") if command == "ablate" else ()
    for path in fields(Recipe):
        assert (f"--{path} " in shown) is not path.startswith(refused)
    assert "--train.unpaired " not in shown  # its keys are listed, and it is none of them
    assert f"[default: {'small' if command == 'ablate' else 'auto'}]" in shown
    assert "peak learning rate [default: 0.003]" in shown
    assert "[choices: sigmoid, infonce]" in shown


def test_help_of_train_and_assess_shows_theirs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = help_of("train", capsys)
    for section, name in ((HeadSection, "head"), (TrainSection, "train")):
        for path in fields(section, f"{name}."):
            assert f"--{path} " in shown
    shown = help_of("assess", capsys)
    paths = {*assessment_keys(), *fields(AssessmentRecipe)} - {"probe.head", "probe.train"}
    for path in paths - {"labelled"}:  # whose keys are listed
        assert f"--{path} " in shown
    assert "--probe.train.cca " in shown and "--probe.train.unpaired" not in shown
    assert "(measure.seed if not given)" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_of_help_is_wider_than_the_terminal(width: int) -> None:
    command = [sys.executable, "-m", "lateen", "run", "--help"]
    environment = {**os.environ, "COLUMNS": str(width)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert max(map(len, done.stdout.splitlines())) == width


def test_train_takes_the_presets_that_the_library_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"[choices: {', '.join(FEATURE_PRESETS)}]" in help_of("train", capsys)
    assert f"[choices: {', '.join(PRESETS)}]" in help_of("run", capsys)
    images = lateen.import_features(
        _array(tmp_path / "i.npy"), tmp_path / "i", ids=list("abcd"), modality="image", encoder="a"
    )
    texts = lateen.import_features(
        _array(tmp_path / "t.npy"), tmp_path / "t", ids=list("abcd"), modality="text", encoder="b"
    )
    pairs = lateen.pair(images, texts)
    for name in PRESETS:
        if name in FEATURE_PRESETS:
            if name != "sharelock":  # whose heads are 4,096 wide
                small = {"epochs": 1, "batch": 4, "dim": 4, "head.width": 1, "cca": 0.0}
                assert lateen.train(pairs, preset=name, holdout=0.25, **small)
        else:
            with pytest.raises(UsageError, match="needs captions"):
                lateen.train(pairs, preset=name)
    words = (
        "train",
        "--images",
        tmp_path / "i",
        "--texts",
        tmp_path / "t",
        "--out",
        tmp_path / "o",
    )
    code, _, err = call(capsys, *words, "--preset", "lit")
    assert code == 2
    assert "lit" in err


def _array(path: Path) -> Path:
    import numpy as np

    np.save(path, np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    return path


def test_an_option_stands_above_the_file_and_the_file_above_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("preset: sail\ntrain: {lr: 0.5, epochs: 7}\n")
    recipe = Recipe.load(file, {"train.lr": "2e-3", "head.dim": "16"})
    assert (recipe.train.lr, recipe.train.epochs, recipe.train.batch) == (2e-3, 7, 32768)
    assert (recipe.head.name, recipe.head.dim) == ("glu", 16)


@pytest.mark.parametrize("command", ["run", "train", "assess", "plan", "encode"])
def test_help_loads_no_torch(command: str) -> None:
    code = (
        "import sys; from lateen.cli.app import app; "
        f"app([{command!r}, '--help'], result_action='return_value'); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "package",
    [
        lateen,
        lateen.assessment,
        lateen.encoders,
        lateen.evaluation,
        lateen.experiment,
        lateen.mllm.benchmarks,
        lateen.tuning,
    ],
)
def test_what_a_package_exports_is_what_type_checkers_see(package: object) -> None:
    import ast

    source = Path(str(package.__file__)).read_text()  # type: ignore[attr-defined]
    [block] = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    seen = {
        (f"{node.module}", alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name for _, name in seen} == set(package.__all__)  # type: ignore[attr-defined]
    for _, name in seen:
        assert getattr(package, name) is not None


def test_the_shipped_recipes_are_listed_with_their_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = call(capsys, "init", "--list")
    assert code == 0
    for name, command in (("flickr8k", "run"), ("curve-flickr8k", "ablate"), ("mllm-flickr8k", "")):
        assert any(name in line and command in line for line in out.splitlines())


def test_auto_as_an_option_is_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["run", "a.yaml"], ["ablate", "a.yaml", "--out", "b"], ["plan", "a.yaml"]):
        with pytest.raises(SystemExit):
            main([*command, "--train", "auto"])
        assert "Did you mean --preset auto?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tune", "a.yaml", "--out", "b", "--train", "auto"])
    assert "--preset auto" not in capsys.readouterr().err


def test_a_ladder_says_that_a_key_is_not_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for path in ("train.unpaired.images", "text.train"):
        with pytest.raises(SystemExit):
            main(["ablate", "a.yaml", "--out", "b", f"--{path}", "c"])
        assert f"{path!r} is a key of `lateen run`, and none of this command" in (
            capsys.readouterr().err
        )
