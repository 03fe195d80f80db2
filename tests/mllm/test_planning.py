"""Plans of stages of a tiny multimodal model, against counts by hand and the training itself."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call
from torch import nn

from lateen.errors import DataError, LateenError, UsageError
from lateen.mllm import MultimodalModel, MultimodalRecipe, plan_stage, train
from lateen.mllm.operations import Weights, forward_operations
from lateen.mllm.trial import _Clock
from mllm.test_training import conversations

LAYERS = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48 + 2 * 32) + 32  # of the tiny Llama
HEAD = 320 * 32  # 256 bytes, 2 ends and an image token, to the next multiple of 64
PROJECTOR = 12 * 32 + 32 + 32 * 32 + 32


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("lateen.mllm.trial._STEPS", 2)


@pytest.fixture
def recipe(folder: Path, captioned: Path, tmp_path: Path) -> Callable[..., MultimodalRecipe]:
    def made(stage: str = "projector", **train: Any) -> MultimodalRecipe:
        tune = {"tune": train.pop("tune")} if "tune" in train else {}
        chats = stage == "instruct"
        data = {"root": str(conversations(captioned, tmp_path) if chats else captioned),
                "images": str(captioned.parent / "images")}  # fmt: skip
        return MultimodalRecipe.build({
            "start": str(folder), "stage": stage, **tune, "data": data, "device": "cpu",
            "precision": "float32", "train": {"batch": 4, "holdout": 4, **train},
        })  # fmt: skip

    return made


def contents(*folders: Path) -> dict[Path, str]:
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()
    }  # fmt: skip


def item(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cost for cost in result["items"] if cost["item"] == name)


def tokens_of_an_image(folder: Path) -> int:
    config = json.loads((folder / "config.json").read_text())
    return int(config["image_seq_length"])


def test_what_there_is_to_do_is_counted(
    recipe: Callable[..., MultimodalRecipe], folder: Path, captioned: Path, tmp_path: Path
) -> None:
    before = contents(folder, captioned.parent)
    plan = plan_stage(recipe(), out=tmp_path / "out")
    # 40 pictures with two captions each, 4 of them held out, of which one caption is measured.
    assert plan["data"]["conversations"] == 72
    assert (plan["data"]["images"], plan["data"]["held_out"]) == (36, 4)
    assert (plan["data"]["steps"], plan["data"]["exact"]) == (18, True)
    assert item(plan, "train")["count"] == 18
    # At the start and twice on the way, under the own image and under another's.
    assert item(plan, "held-out loss")["count"] == 4 * 3 * 2
    each = tokens_of_an_image(folder)
    assert plan["sample"]["tokens_per_image"] == each
    assert plan["disk"]["tokens"] == item(plan, "encode images")["bytes"] == 40 * each * 12 * 2
    assert plan["memory"]["trained"] == plan["memory"]["gradients"] == 4 * PROJECTOR
    assert plan["memory"]["optimizer"] == 8 * PROJECTOR
    assert plan["disk"]["checkpoints"] == 2 * 3 * 4 * PROJECTOR
    stored = MultimodalModel.from_pretrained(folder, device="cpu").model
    assert plan["disk"]["model"] == sum(p.nbytes for p in stored.parameters())
    step = plan["step"]
    assert (step["timed"], step["conversations"], step["at_once"]) == (2, 4, 4)
    assert 0 < step["low"] <= step["seconds"] <= step["high"]
    assert item(plan, "train")["seconds"] == pytest.approx(18 * step["seconds"])
    assert plan["seconds"]["total"] == pytest.approx(sum(i["seconds"] for i in plan["items"]))
    # Nothing is written.
    assert contents(folder, captioned.parent) == before
    assert not (tmp_path / "out").exists()


def test_operations_are_those_by_hand(
    recipe: Callable[..., MultimodalRecipe], folder: Path
) -> None:
    plan = plan_stage(recipe(), gpu_tflops=2.0)
    each, sample = tokens_of_an_image(folder), plan["sample"]
    # "picture 7" and "it is 7" by the byte, the line break and end that stand in the prompt aside.
    tokens, answered = 72 * sample["tokens"], 72 * sample["answered"]
    language = 2 * 2 * (LAYERS * tokens + HEAD * answered)  # forward, and back through activations
    projector = 3 * 2 * PROJECTOR * 72 * each
    found = plan["operations"]
    assert found["language_model"] == pytest.approx(language)
    assert found["projector"] == pytest.approx(projector)
    assert found["tower"] == 40 * found["image"]
    assert found["total"] == pytest.approx(language + projector + found["tower"])
    assert found["step"] == pytest.approx((language + projector) / 18)
    assert plan["gpu_hours"] == pytest.approx(found["total"] / 2e12 / 3600)


def test_tokens_are_those_of_the_texts(
    recipe: Callable[..., MultimodalRecipe], folder: Path
) -> None:
    made = recipe(holdout=0, caption_prompt="<image>\n")
    sample = plan_stage(made)["sample"]
    captions = [text for at in range(40) for text in (f"picture {at}", f"it is {at}")]
    said = sum(len(text) for text in captions) / 80  # a token per byte
    each = tokens_of_an_image(folder)
    ends = sample["answered"] - said
    assert ends == pytest.approx(1.0)  # what ends a caption
    assert sample["tokens"] == pytest.approx(each + 1 + said + 1)
    assert sample["longest"] == each + 1 + len("picture 10") + 1


@pytest.mark.parametrize(
    ("settings", "language", "head"),
    [
        ({"tune": "full"}, 3 * LAYERS, 3 * HEAD),
        ({"tune": "full", "gradient_checkpointing": True}, 4 * LAYERS, 3 * HEAD),
        ({"tune": "full", "tune_tower": True}, 3 * LAYERS, 3 * HEAD),
        # Rank 2: of q and o 32 + 32, of k and v 32 + 16, of the three others 32 + 48.
        ({"tune": "lora", "lora_rank": 2},
         2 * LAYERS + 3 * 2 * 2 * (2 * 64 + 2 * 48 + 3 * 80), 2 * HEAD),
    ],
)  # fmt: skip
def test_a_plan_is_what_the_training_does(
    recipe: Callable[..., MultimodalRecipe], tmp_path: Path, settings: dict[str, Any],
    language: int, head: int,
) -> None:  # fmt: skip
    made = recipe("instruct", epochs=0.5, validations=1, **settings)
    plan = plan_stage(made, out=tmp_path / "out")
    done = train(recipe=made, out=tmp_path / "out").results
    assert plan["memory"]["trained"] == 4 * done["parameters"]
    assert plan["data"]["conversations"] == done["data"]["conversations"]
    assert plan["data"]["images"] == done["data"]["images"]
    assert (plan["data"]["steps"], plan["features"]) == (done["steps"], done["features"])
    seen = done["steps"] / -(-done["data"]["conversations"] // 4) * done["data"]["conversations"]
    tokens, answered = (seen * plan["sample"][name] for name in ("tokens", "answered"))
    expected = 2 * (language * tokens + head * answered)
    assert plan["operations"]["language_model"] == pytest.approx(expected)
    if settings.get("tune_tower"):
        assert plan["operations"]["tower"] == pytest.approx(
            3 * seen * plan["sample"]["images"] * plan["operations"]["image"]
        )


def test_of_many_conversations_some_are_labelled(
    recipe: Callable[..., MultimodalRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lateen.mllm.trial._CONVERSATIONS", 30)
    plan = plan_stage(recipe())
    assert (plan["sample"]["conversations"], plan["data"]["exact"]) == (30, False)
    assert (plan["data"]["conversations"], plan["data"]["steps"]) == (72, 18)
    assert (plan["data"]["images"], plan["data"]["held_out"]) == (36, 4)


def test_what_is_too_long_is_said(recipe: Callable[..., MultimodalRecipe], folder: Path) -> None:
    each = tokens_of_an_image(folder)
    # "picture 7" and a line break before and behind fit, "picture 10" does not.
    made = recipe(max_length=each + 11, caption_prompt="<image>\n", holdout=0)
    plan = plan_stage(made)
    assert plan["sample"]["reasons"] == {f"it is too long for {each + 11} tokens": 30}
    assert plan["data"]["conversations"] == 50
    with pytest.raises(DataError, match=r"no conversation to learn from .*too long"):
        plan_stage(recipe(max_length=each))


def test_parts_of_a_batch_are_timed_as_they_are_trained(
    recipe: Callable[..., MultimodalRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lateen.mllm import trainer

    rows: list[int] = []
    real = trainer.losses

    def counting(model: Any, batch: Any) -> Any:
        rows.append(len(batch["input_ids"]))
        return real(model, batch)

    monkeypatch.setattr(trainer, "losses", counting)
    plan = plan_stage(recipe(device_batch=2, features="live"))
    assert (plan["step"]["at_once"], plan["features"], plan["rates"]) == (2, "live", [])
    assert rows == [2] * 6  # a first step and two that count, of four conversations each
    assert plan["disk"]["tokens"] == 0


def test_a_first_step_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    times = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock, states = _Clock(), []
    for _ in range(3):
        control = SimpleNamespace(should_save=True, should_training_stop=False)
        clock.on_step_end(None, None, control)
        states.append((control.should_save, control.should_training_stop))
    assert clock.seconds == [2.0, 3.0]
    assert states == [(False, False), (False, False), (False, True)]


def test_operations_of_layers_are_counted_where_they_are_applied() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 2, stride=2), nn.Flatten(2), nn.Linear(16, 7))
    # 16 places of a kernel of 5 × 3 × 2 × 2; 5 rows of 16 values to 7.
    found = forward_operations(network, torch.zeros(2, 3, 8, 8))
    assert found == 2 * (2 * 16 * 60 + 2 * 5 * 16 * 7)
    assert Weights(10, 4).step(3) == 2 * 3 * (2 * 10 + 4)
    assert Weights(10, 4).step(3, again=True) == 2 * 3 * (3 * 10 + 4)


def test_a_model_that_is_not_here_is_not_invented(captioned: Path, aligned: Any) -> None:
    made = MultimodalRecipe.build({
        "tower": str(aligned()), "llm": "nobody/vicuna-7b", "data": {"root": str(captioned)},
    })  # fmt: skip
    with pytest.raises(UsageError, match=r"nobody/vicuna-7b is not on this machine.*model and"):
        plan_stage(made)


def test_faults_are_those_of_the_training(
    recipe: Callable[..., MultimodalRecipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="gpu_tflops is 0"):
        plan_stage(recipe(), gpu_tflops=0)
    absent = MultimodalRecipe.above(recipe(), {"data.root": str(tmp_path / "absent.csv")})
    with pytest.raises(LateenError, match=r"absent\.csv"):
        plan_stage(absent)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(LateenError, match="lateen\\[mllm\\]"):
        plan_stage(recipe())


def test_the_command_prints_a_table_and_sentences(
    folder: Path, captioned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = ["mllm", "train", "--from", folder, "--data", captioned, "--train.batch", "4",
             "--out", tmp_path / "out", "--device", "cpu"]  # fmt: skip
    code, out, err = call(capsys, *words, "--plan", "--gpu-tflops", "100")
    assert (code, err) == (0, "")
    for shown in ("What this stage costs here", "load the model", "encode images", "train ",
                  "held-out loss", "checkpoints and model", "data     72 conversations about 36",
                  "tokens   ", "step     ", "memory   at least ", "disk     ", "FLOPs    ",
                  "hours at 100 TFLOP/s sustained", "not included: "):  # fmt: skip
        assert shown in out
    assert "warning" not in out
    monkeypatch.setattr("os.getloadavg", lambda: (99.5, 9.0, 9.0))
    code, out, _ = call(capsys, *words, "--plan")
    assert "this machine is busy (load 99.5 on" in out
    assert "hours at" not in out
    code, out, _ = call(capsys, *words, "--plan", "--json")
    assert json.loads(out)["data"]["steps"] == 18
    assert not (tmp_path / "out").exists()
    code, out, err = call(capsys, *words, "--gpu-tflops", "100")
    assert (code, out) == (2, "")
    assert "--gpu-tflops is of --plan" in err
