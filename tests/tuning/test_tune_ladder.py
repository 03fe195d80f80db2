"""A ladder of tunings: each is done once, and what fails does not stop the rest."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ladder_toys import plan
from tune_toys import TINY, results

from lateen.errors import LateenError, TrainingError, UsageError
from lateen.files import write_json
from lateen.tuning import TuneRecipe, tune_ladder
from lateen.tuning import ladder as ladder_module
from lateen.tuning import tuner as tuner_module
from lateen.tuning.ladder_report import failures
from lateen.tuning.tuner import run_tuning


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[TuneRecipe, Path]]:
    """Tunings that are asked for, in place of their being done; a weight of 13 fails."""
    calls: list[tuple[TuneRecipe, Path]] = []

    def run(given: TuneRecipe, out: Path) -> Any:
        calls.append((given, out))
        (out / "train").mkdir(parents=True)
        (out / "train" / "checkpoint.safetensors").write_bytes(b"large")
        if given.tune.weight == 13:
            raise TrainingError("the loss is nan", "Lower tune.lr.")
        return SimpleNamespace(results=results(images=100 + given.tune.seed))

    monkeypatch.setattr(ladder_module, "run_tuning", run)
    return calls


def test_every_variant_is_tuned_with_every_seed(tuned, tmp_path):
    base = plan(tune={"weight": 2.0})
    found = tune_ladder(base, "kernel, projection, tune.weight=3", tmp_path, seeds=(0, 5))
    assert [(out.name, given.tune.seed, given.tune.weight) for given, out in tuned] == [
        ("kernel", 0, 2.0), ("kernel-seed-5", 5, 2.0), ("projection", 0, 2.0),
        ("weight=3", 0, 3.0), ("weight=3-seed-5", 5, 3.0),
    ]  # fmt: skip
    assert all(given.model_copy(update={"tune": base.tune}) == base for given, _ in tuned)
    kernel, projection, weight = found["variants"]
    assert [run["images"] for run in kernel["runs"]] == [100, 105]
    assert [run["seed"] for run in projection["runs"]] == [0]
    assert weight["set"] == {"tune.weight": 3.0}
    assert weight["tune"]["weight"] == 3.0
    assert "seed" not in weight["tune"]
    run = kernel["runs"][0]
    assert run["folder"] == "kernel"
    assert run["after"]["knn_encoder"]["difference"]["interval"] == pytest.approx([2.9, 5.5])
    assert (run["kernel"]["start"], run["kernel"]["end"]) == (0.0063, 0.0021)
    assert run["stopped"]["step"] == 90
    assert run["left_out"] == ["no linear probe: eval.linear_probe is false"]
    assert json.loads((tmp_path / "ladder.json").read_text()) == found
    assert (tmp_path / "ladder.csv").is_file()
    assert (tmp_path / "report.html").is_file()


def test_numbers_are_kept_and_checkpoints_are_not(tuned, tmp_path):
    tune_ladder(plan(), ["kernel", "tune.weight=13"], tmp_path)
    checkpoints = [path.parent.parent.name for path in tmp_path.rglob("checkpoint.safetensors")]
    assert checkpoints == ["weight=13"]  # what failed may go on from it


def test_what_fails_is_recorded_and_the_others_go_on(tuned, tmp_path):
    found = tune_ladder(plan(), "tune.weight=13, kernel", tmp_path)
    failed, fine = found["variants"]
    assert failed["runs"] == [
        {"seed": 0, "folder": "weight=13", "error": "the loss is nan. Lower tune.lr."}
    ]
    assert "error" not in fine["runs"][0]
    assert failures(found) == {"weight=13": "the loss is nan. Lower tune.lr."}


def test_what_is_known_is_written_after_every_tuning(tuned, tmp_path, monkeypatch):
    once = ladder_module.run_tuning

    def killed(given: TuneRecipe, out: Path) -> Any:
        if given.tune.weight == 3:
            raise KeyboardInterrupt
        return once(given, out)

    monkeypatch.setattr(ladder_module, "run_tuning", killed)
    with pytest.raises(KeyboardInterrupt):
        tune_ladder(plan(), "kernel, tune.weight=3", tmp_path)
    found = json.loads((tmp_path / "ladder.json").read_text())
    assert [len(variant["runs"]) for variant in found["variants"]] == [1, 0]
    assert "Not yet done: weight=3." in (tmp_path / "report.html").read_text()


def test_the_folder_of_something_else_is_refused(tuned, tmp_path):
    (tmp_path / "results.json").write_text("{}")  # of a single tuning
    with pytest.raises(LateenError, match="not the folder of a ladder of tunings"):
        tune_ladder(plan(), "kernel", tmp_path)
    assert not tuned


def test_a_single_tuning_does_not_go_into_the_folder_of_a_ladder(tuned, tmp_path):
    tune_ladder(plan(), "kernel", tmp_path)
    with pytest.raises(LateenError, match="not empty and not the folder of a tuning"):
        run_tuning(plan(), tmp_path)


def test_nothing_is_done_for_a_ladder_that_cannot_be(tuned, tmp_path):
    with pytest.raises(UsageError):
        tune_ladder(plan(), "kernel, kernl", tmp_path)
    assert not tuned
    assert not any(tmp_path.iterdir())


def real_plan(model: Path, target: Path, images: Path, judged: Path) -> TuneRecipe:
    given = {"model": str(model), "images": str(images), "target.encoder": str(target), **TINY}
    return TuneRecipe.above(
        None,
        {**given, "tune.epochs": 1, "tune.validations": 1, "eval.classes": str(judged),
         "eval.linear_probe": False, "precision": "float32"},
    )  # fmt: skip


def test_a_tiny_clip_in_three_ways(clip_folder, vit_folder, photographs, tmp_path, monkeypatch):
    base, out = real_plan(clip_folder, vit_folder, photographs, photographs), tmp_path / "ladder"
    found = tune_ladder(base, "kernel, projection, 50%", out)
    kernel, projection, half = (variant["runs"][0] for variant in found["variants"])
    assert (kernel["images"], half["images"]) == (19, 9)
    assert kernel["before"] == half["before"] == projection["before"]
    assert kernel["kernel"]["end"] != kernel["kernel"]["start"]
    assert kernel["after"]["knn_embedding"]["difference"]["interval"] is not None
    assert (out / "50-percent" / "model").is_dir()

    monkeypatch.setattr(tuner_module, "fit", None)  # what is done is not done again
    monkeypatch.setattr(tuner_module, "save_tuned", None)
    assert tune_ladder(base, "kernel, projection, 50%", out) == found


def test_done_is_what_had_the_same_settings_and_data(
    clip_folder, vit_folder, photographs, tmp_path
):
    judged = tmp_path / "judged"
    for path in photographs.rglob("*.png"):
        (judged / path.parent.name).mkdir(parents=True, exist_ok=True)
        (judged / path.parent.name / path.name).write_bytes(path.read_bytes())
    base = real_plan(clip_folder, vit_folder, photographs, judged)
    base = TuneRecipe.above(base, {"tune.method": "projection"})
    out = tmp_path / "out"
    first = run_tuning(base, out).results
    (out / "report.html").unlink()  # as where it was killed just before
    assert run_tuning(base, out).results == first
    assert (out / "report.html").is_file()

    red, blue = (sorted((judged / kind).iterdir())[0] for kind in ("red", "blue"))
    swapped = red.read_bytes()
    red.write_bytes(blue.read_bytes())
    blue.write_bytes(swapped)
    with pytest.raises(TrainingError, match="has a tuning with other settings, model, images or"):
        run_tuning(base, out)
    # A lateen that kept no key cannot be asked: it is done again.
    del first["conditions"]["key"]
    write_json(out / "results.json", first)
    again = run_tuning(base, out).results
    assert again["conditions"]["key"]
