"""A tiny CLIP is tuned to another encoder from end to end: trained, measured, killed, saved."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from tuner_toys import own_cache, tuned, values_of

from lateen.encoders import request
from lateen.errors import LateenError, TrainingError, UsageError
from lateen.evaluation.features import model_key
from lateen.hardware import use_hardware
from lateen.model import clip_saving
from lateen.model.clip import open_model
from lateen.training import checkpoint, loop
from lateen.training.step import TrainState
from lateen.tuning import tuner
from lateen.tuning.preparation import Preparation


@pytest.mark.parametrize("kind", ["clip_folder", "siglip_folder"])
def test_a_model_comes_out_in_the_form_it_came_in(
    kind: str, vit_folder: Path, photographs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    result = tuned(source, vit_folder, photographs, tmp_path / "out",
                   eval__classes=str(photographs), eval__linear_probe=False)  # fmt: skip
    results = result.results
    assert results["steps"] == results["kept_step"] == 12
    assert [check["step"] for check in results["checkpoints"]] == [0, 6, 12]
    assert results["kernel"]["end"] < results["kernel"]["start"]
    assert {"zero_shot", "knn_encoder", "knn_embedding"} <= results["after"].keys()
    assert (tmp_path / "out" / "report.html").is_file()
    card = (tmp_path / "out" / "model" / "README.md").read_text(encoding="utf-8")
    value = results["after"]["zero_shot"]["value"]
    assert f"| classification | {photographs.name} | zero-shot top-1 | {value:.1f} |" in card
    with use_hardware(precision="float32"):
        check_model(source, tmp_path / "out" / "model", photographs, results["images"])


def check_model(source: Path, out: Path, photographs: Path, images: int) -> None:
    """The text side is the same, the image side another; transformers alone reads it."""
    before, after = open_model(source), open_model(out)
    picture = [next(photographs.rglob("*.png"))]
    assert not torch.allclose(before.encode_image(picture), after.encode_image(picture), atol=1e-4)
    texts = ["a red thing", "a blue thing"]
    torch.testing.assert_close(before.encode_text(texts), after.encode_text(texts), rtol=0, atol=0)
    record = after.trained_on
    assert record is not None
    assert record.groups["train"].count == images
    from transformers import AutoModel

    alone = AutoModel.from_pretrained(out)
    ours = after.vision_encoder
    pixels = torch.stack(list(ours.prepare([Image.open(picture[0]).convert("RGB")])))
    with torch.no_grad():
        output = alone.get_image_features(pixel_values=pixels)
    expected = getattr(output, "pooler_output", output)
    torch.testing.assert_close(ours.encode(list(pixels)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_precision_is_that_of_student_target_and_training(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path, precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    seen: list[Preparation] = []

    def trained(prepared: Preparation, *_: Any) -> None:
        seen.append(prepared)
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner, "_trained", trained)
    with pytest.raises(KeyboardInterrupt):
        tuned(clip_folder, vit_folder, photographs, tmp_path / "out", precision=precision)
    [this] = seen
    found = {this.encoder.info.precision, this.target.info.precision, this.plan.tune.precision}
    assert found == {precision}
    with use_hardware(precision=precision):
        assert this.key["model"] == model_key(open_model(clip_folder))


def test_weights_are_not_rounded_where_a_device_would_hold_them_in_bfloat16(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    low = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    monkeypatch.setattr(request, "weights_dtype", lambda device, precision: low[precision])
    out = tmp_path / "out"
    tuned(clip_folder, vit_folder, photographs, out, precision="bfloat16", tune__epochs=1,
          tune__parameters="projection", tune__lr=1e-2)  # fmt: skip
    start, found = load_file(clip_folder / "model.safetensors"), tensors(out)
    moved = [name for name in start if not torch.equal(start[name], found[name])]
    assert moved == ["visual_projection.weight"]


# -- interrupted ----------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {"tune__epochs": 2, "tune__lr": 1e-3, "tune__checkpoints": 3}


@pytest.fixture(scope="module")
def whole(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tuning of six steps that nothing interrupted; it is measured at steps 3 and 6."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with own_cache(tmp_path_factory.mktemp("cache")):
        tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    return out


def tensors(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def lines(out: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl``, without how long a check took."""
    text = (out / "train" / "metrics.jsonl").read_text()
    return [json.loads(re.sub(r'"seconds": ?[0-9.e-]+', '"seconds":0', row))
            for row in text.splitlines()]  # fmt: skip


def alike(out: Path, whole: Path) -> None:
    """Both ended with the same bytes, and the same results but for times."""
    for name in ("model.safetensors", "trained_on.npz"):
        assert (out / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    assert lines(out) == lines(whole)
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (out, whole))
    for results in (one, other):
        results.pop("seconds")
        for check in results["checkpoints"]:
            check.pop("seconds", None)
    assert one == other


@pytest.mark.parametrize("at", [1, 3, 5])
def test_an_interrupted_tuning_ends_with_the_same_bytes(
    clip_folder: Path, vit_folder: Path, photographs: Path, whole: Path, tmp_path: Path, at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    step, seen = loop.training_step, []

    def interrupted(state: TrainState, *rest: Any) -> Mapping[str, float]:
        if state.step == at:
            raise KeyboardInterrupt
        return step(state, *rest)

    def counted(state: TrainState, *rest: Any) -> Mapping[str, float]:
        seen.append(state.step)
        return step(state, *rest)

    out = tmp_path / "out"
    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    assert not (out / "results.json").exists()
    monkeypatch.setattr(loop, "training_step", counted)
    tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    assert seen == list(range(at - at % 2, 6))  # from the last checkpoint on
    alike(out, whole)
    seen.clear()
    tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    assert not seen
    alike(out, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"tune__parameters": "lora", "tune__kernel": "gaussian"},
        {
            "tune__method": "feature",
            "tune__optimizer": "lion",
            "tune__gradient_checkpointing": True,
        },
        {"tune__augment": "crop", "tune__micro_batch": 3, "tune__patches": True},
    ],
)
def test_every_way_of_tuning_goes_on_exactly(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path, changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    step, settings = loop.training_step, {**WHOLE, **changes}

    def interrupted(state: TrainState, *rest: Any) -> Mapping[str, float]:
        if state.step == 4:
            raise KeyboardInterrupt
        return step(state, *rest)

    tuned(clip_folder, vit_folder, photographs, tmp_path / "whole", **settings)
    monkeypatch.setattr(loop, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(clip_folder, vit_folder, photographs, tmp_path / "out", **settings)
    monkeypatch.setattr(loop, "training_step", step)
    tuned(clip_folder, vit_folder, photographs, tmp_path / "out", **settings)
    alike(tmp_path / "out", tmp_path / "whole")


_SLOWLY = """
import sys, time
from pathlib import Path
import tuner_toys
from lateen.training import loop

step = loop.training_step
def slowly(*given):
    time.sleep(0.3)
    return step(*given)
loop.training_step = slowly
model, target, images, out = map(Path, sys.argv[1:])
tuner_toys.tuned(model, target, images, out, tune__epochs=2, tune__lr=1e-3, tune__checkpoints=3)
"""


def test_kill_9_in_mid_epoch_loses_nothing(
    clip_folder: Path, vit_folder: Path, photographs: Path, whole: Path, tmp_path: Path
) -> None:
    out, here = tmp_path / "out", Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    words = [sys.executable, "-c", _SLOWLY, clip_folder, vit_folder, photographs, out]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    metrics = out / "train" / "metrics.jsonl"
    with subprocess.Popen(list(map(str, words)), env=environment) as process:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if metrics.is_file() and metrics.read_text().count("\n") >= 3:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "results.json").exists()
    tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    alike(out, whole)


def test_other_settings_are_refused_by_name(
    clip_folder: Path, vit_folder: Path, photographs: Path, whole: Path
) -> None:
    before = (whole / "results.json").read_bytes()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tune__lr": 2e-3}, r"tune\.lr: 0\.001 there, 0\.002 now"),
        ({"target__pooling": "cls"}, r"data\.target: "),
        (
            {"stop__knn_encoder": 1.0, "eval__classes": str(photographs)},
            r"eval\.classes: None there",
        ),
        ({"tune__method": "feature"}, r"tune\.method: kernel there, feature now"),
        ({"tune__method": "projection"}, r"tune\.method: kernel there, projection now"),
    ]
    for settings, said in cases:
        with pytest.raises(TrainingError, match=rf"other settings or data.*{said}.*another --out"):
            tuned(clip_folder, vit_folder, photographs, whole, **{**WHOLE, **settings})
    assert (whole / "results.json").read_bytes() == before


def test_a_full_disk_leaves_the_last_checkpoint(
    clip_folder: Path, vit_folder: Path, photographs: Path, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    write, out, files = checkpoint.save_file, tmp_path / "out", []

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    def nearly_full(given: Mapping[str, Tensor], path: Path, **other: Any) -> None:
        if files:
            full()
        files.append(path)
        write(given, path, **other)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", nearly_full)
        with pytest.raises(LateenError, match="disk is full"):
            tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    with monkeypatch.context() as patch:
        patch.setattr(clip_saving, "write_clip_card", full)
        with pytest.raises(LateenError, match="disk is full"):
            tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    assert not (out / "model").exists()
    tuned(clip_folder, vit_folder, photographs, out, **WHOLE)
    alike(out, whole)


# -- stopped --------------------------------------------------------------------------------------


def fallen(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """From a step on, a measure has lost 20 points."""
    from lateen.tuning.compatibility import Compatibility

    check = Compatibility.check

    def falling(self: Compatibility, model: Any, step: int) -> dict[str, Any]:
        found = check(self, model, step)
        value = -20.0 if step >= at else 0.0
        found["measures"]["knn_encoder"]["difference"]["value"] = value
        return found

    monkeypatch.setattr(Compatibility, "check", falling)


def test_a_broken_limit_ends_it_and_the_last_that_held_is_kept(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # Measured at 3, 6, 9 and 12 of 12 steps.
    settings = {
        **WHOLE, "tune__epochs": 4, "tune__validations": 4, "stop__knn_encoder": 0.5,
        "eval__classes": str(photographs), "eval__linear_probe": False,
    }  # fmt: skip
    fallen(monkeypatch, at=9)
    out = tmp_path / "out"
    results = tuned(clip_folder, vit_folder, photographs, out, **settings).results
    assert [check["step"] for check in results["checkpoints"]] == [0, 3, 6, 9]
    assert (results["kept_step"], results["stopped"]["step"], results["steps"]) == (6, 9, 12)
    assert "20.0 points, and 0.5 is the limit" in results["stopped"]["why"][0]
    assert results["after"] == results["checkpoints"][2]["measures"]
    assert results["kernel"]["end"] == results["checkpoints"][2]["held_out"]
    assert "stopped" in results["verdict"]
    kept = tensors(out)
    again = tuned(clip_folder, vit_folder, photographs, out, **settings).results
    assert again["stopped"] == results["stopped"]
    # The one that held is the one that an unlimited run had at that step.
    free = {**settings, "stop__knn_encoder": 50.0}
    patched, steps = loop.training_step, []

    def six(state: TrainState, *rest: Any) -> Mapping[str, float]:
        if state.step == 6:
            steps.append({name: t.clone() for name, t in state.heads.vision.state_dict().items()})
        return patched(state, *rest)

    monkeypatch.setattr(loop, "training_step", six)
    tuned(clip_folder, vit_folder, photographs, tmp_path / "free", **free)
    name = "visual_projection.weight"
    assert torch.equal(steps[0][f"network.dual.{name}"], kept[name])
    assert not torch.equal(kept[name], tensors(tmp_path / "free")[name])

    record = open_model(out / "model").trained_on
    assert record is not None
    assert record.groups["chosen_on"].count == len(list(photographs.rglob("*.png")))
    code, _, said = call(
        capsys, "evaluate", "classification", out / "model", "--images", photographs
    )
    assert code == 0
    assert f"{results['images']} of these 24 images were trained on (same image files)" in said
    assert "24 of these 24 images chose the model's best step" in said


def test_where_nothing_holds_the_start_is_kept(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fallen(monkeypatch, at=3)
    results = tuned(
        clip_folder, vit_folder, photographs, tmp_path / "out", stop__knn_encoder=0.5,
        eval__classes=str(photographs), eval__linear_probe=False, **WHOLE,
    ).results  # fmt: skip
    assert (results["kept_step"], results["stopped"]["step"]) == (0, 3)
    assert results["after"] == results["before"]
    start = load_file(clip_folder / "model.safetensors")
    found = tensors(tmp_path / "out")
    assert found.keys() == start.keys()
    assert all(torch.equal(found[name], start[name]) for name in start)


def test_without_a_limit_nothing_chose_and_no_text_is_told_to_have(whole: Path) -> None:
    record = open_model(whole / "model").trained_on
    assert record is not None
    assert set(record.groups) == {"train"}


def test_a_limit_on_what_is_not_measured_is_said_before_training(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"stop\.retrieval is a limit on what is not measured.*"
                       r"Give its data \(eval\.captions and eval\.images\)"):  # fmt: skip
        tuned(clip_folder, vit_folder, photographs, tmp_path / "out", stop__retrieval=1.0)
    assert not (tmp_path / "out" / "train").exists()


# -- several processes ----------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_ends_with_the_weights_of_one_process(
    clip_folder: Path, vit_folder: Path, photographs: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    keys = [word for name, value in values_of(**WHOLE).items() for word in (f"--{name}", value)]
    words = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", 0,
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "lateen", "tune",
        clip_folder, "--target", vit_folder, "--images", photographs, "--out", out, *keys,
    ]  # fmt: skip
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, expected = tensors(out), tensors(whole)
    for name, tensor in expected.items():
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)
    one, two = (json.loads((folder / "results.json").read_text()) for folder in (whole, out))
    assert two["kernel"]["end"] == pytest.approx(one["kernel"]["end"], rel=1e-3)
    assert (out / "report.html").is_file()


def test_an_export_shows_what_the_tuning_measured(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path
) -> None:
    from lateen.cli import main

    out = tmp_path / "out"
    tuned(
        clip_folder, vit_folder, photographs, out, tune__epochs=1, tune__validations=1,
        eval__classes=str(photographs), eval__linear_probe=False, stop__zero_shot=100,
    )  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(out / "model"), "--to", "lateen", "--out", str(tmp_path / "exported")])
    assert stopped.value.code == 0
    card = (tmp_path / "exported" / "README.md").read_text(encoding="utf-8")
    value = json.loads((out / "results.json").read_text())["after"]["zero_shot"]["value"]
    assert f"| classification | {photographs.name}\\* | zero-shot top-1 | {value:.1f} |" in card
