"""Where networks run, and how much at a time, is said once and holds for all that is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import toys
from commands import call, saved_model

from lateen.assessment.recipe import AssessmentRecipe
from lateen.device import default_batch, default_workers, resolve_device, resolve_precision
from lateen.errors import UsageError
from lateen.experiment.recipe import Recipe
from lateen.hardware import Hardware, hardware, use_hardware, wait_asleep_where_busy

CPU = torch.device("cpu")


def test_what_is_said_holds_inside_and_is_forgotten_outside() -> None:
    with use_hardware("meta", batch_size=7):
        with use_hardware(workers=3, precision="bfloat16"):
            assert hardware() == Hardware("meta", 7, 3, "bfloat16")
            assert resolve_device() == torch.device("meta")
            assert resolve_device("cpu") == CPU  # what a call says stands above it
            assert (default_batch(True), default_batch(False), default_workers()) == (7, 7, 3)
            assert resolve_precision("auto", CPU) == "bfloat16"
            assert resolve_precision("float32", CPU) == "float32"
        assert hardware() == Hardware("meta", 7)
    assert hardware() == Hardware()


@pytest.mark.parametrize("given", [{"batch_size": 0}, {"workers": -1}, {"precision": "fp16"}])
def test_what_cannot_be_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError), use_hardware(**given):
        pass


def test_a_device_that_is_not_there_is_one_line_with_those_that_are() -> None:
    for name in ("cuda:97", "mps", "gpu", ""):
        with pytest.raises(UsageError, match=r"there is no device .*Use auto.* or cpu"):
            resolve_device(name)
    with pytest.raises(UsageError, match=r"one device.*are for `lateen encode`"):
        resolve_device("cuda:0,cuda:1")


def test_the_precision_of_a_recipe_is_that_of_all_that_has_none_of_its_own() -> None:
    values = {
        "precision": "bfloat16",
        "vision": {"encoder": "a", "precision": "float32", "fuse": ["b"]},
        "text": {"encoder": "c"},
    }
    recipe = Recipe.build(values)
    assert recipe.vision.precision == "float32"
    assert recipe.vision.fuse[0].precision == recipe.text.precision == "bfloat16"
    assert recipe.train.precision == "bfloat16"
    assert Recipe.build(recipe.model_dump()) == recipe  # as recipe.yaml has it

    sides = {side: [{"encoder": "a"}, {"encoder": "b", "precision": "float32"}]
             for side in ("vision", "text")}  # fmt: skip
    assessment = AssessmentRecipe.build({"precision": "bfloat16", **sides})
    assert [each.precision for each in assessment.text] == ["bfloat16", "float32"]
    assert assessment.probe.recipe(10).train.precision == "bfloat16"


def test_a_run_elsewhere_in_other_pieces_is_found_done(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["run", album / "recipe.yaml", "--data.root", album, "--out", album / "run",
           "--vision.encoder", "toys:colour_encoder", "--text.encoder", "toys:word_encoder",
           "--data.train", "train.jsonl", "--train.epochs", 1, "--train.batch", 6]  # fmt: skip
    (album / "recipe.yaml").write_text("{}")
    code, _, err = call(capsys, *run)
    assert code == 0, err
    monkeypatch.setattr(toys.ColourEncoder, "encode", lambda *_: pytest.fail("encoded again"))
    trainings = list((album / "run" / "train").iterdir())
    code, _, err = call(
        capsys, *run, "--device", "cpu", "--batch-size", 2, "--workers", 1, "--precision", "auto"
    )
    assert code == 0, err
    assert list((album / "run" / "train").iterdir()) == trainings
    assert "device: cpu\nbatch_size: 2\nworkers: 1\n" in (album / "run/recipe.yaml").read_text()


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "MODEL", "--task", "retrieval", "--captions", "train.jsonl"),
        ("search", "MODEL", "a red picture", "--images", "images"),
        ("encode", "images", "--encoder", "toys:colour_encoder", "--out", "store"),
    ],
)
def test_what_encodes_takes_the_size_of_its_batches(
    words: tuple[str, ...], album: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sizes = []
    encode = toys.ColourEncoder.encode

    def counted(self: toys.ColourEncoder, prepared: list[torch.Tensor]) -> torch.Tensor:
        sizes.append(len(prepared))
        return encode(self, prepared)

    monkeypatch.setattr(toys.ColourEncoder, "encode", counted)
    monkeypatch.setenv("LATEEN_CACHE", str(album / "cache"))
    monkeypatch.chdir(album)
    named = [str(saved_model(album / "model")) if word == "MODEL" else word for word in words]
    sizes.clear()
    code, _, err = call(capsys, *named, "--batch-size", 5, "--workers", 2, "--device", "cpu")
    assert code == 0, err
    assert sizes == [5, 5, 5, 5, 4]
    code, _, err = call(capsys, *named, "--batch-size", 0)
    assert code == 2
    assert "is 0. It must be at least 1." in err


def test_a_device_that_is_not_there_ends_a_command(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["encode", album / "images", "--encoder", "toys:colour_encoder", "--out", album / "s"]
    code, _, err = call(capsys, *words, "--device", "cuda:97")
    assert code == 2
    assert err.startswith("error: there is no device 'cuda:97'")


@pytest.mark.parametrize(
    ("running", "asleep"), [([1, 1, 1, 1, 1], False), ([9, 1, 1, 9, 1], False), ([5] * 5, True)]
)
def test_threads_sleep_while_they_wait_where_others_want_the_cores(
    running: list[int], asleep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    looks = iter(running)
    monkeypatch.setattr("lateen.hardware._running", lambda: next(looks))
    assert wait_asleep_where_busy() is asleep
    assert os.environ.get("OMP_WAIT_POLICY") == ("PASSIVE" if asleep else None)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_a_policy_that_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr("lateen.hardware._running", lambda: 99)
    assert not wait_asleep_where_busy()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
