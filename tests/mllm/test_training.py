"""Stages of a tiny multimodal model: what moves, what does not, and that a killed one goes on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.config import shipped_recipes
from lateen.errors import RecipeError, TrainingError
from lateen.evaluation.task import was_trained_on
from lateen.experiment import Recipe
from lateen.mllm import (
    MultimodalModel,
    MultimodalRecipe,
    evaluate_questions,
    open_questions,
    train,
)
from lateen.mllm.batches import Collator, losses
from lateen.mllm.config import StageSection
from lateen.mllm.held_out import measure
from lateen.mllm.image_tokens import LiveImages, StoredTokens, store_tokens
from lateen.mllm.instructions import open_instructions
from lateen.mllm.labelling import Labeller
from lateen.mllm.preparation import prepare_stage
from mllm.conftest import picture

QUICK = {"train.batch": 4, "train.steps": 3, "train.holdout": 4, "train.validations": 1}


def conversations(captioned: Path, folder: Path) -> Path:
    """LLaVA's JSON about the same pictures, with rows that do not fit."""

    def row(at: int, image: str | None, *turns: str) -> dict[str, Any]:
        spoken = zip(("human", "gpt") * 4, turns, strict=False)
        said = [{"from": who, "value": text} for who, text in spoken]
        return {"id": f"r{at}", **({"image": image} if image else {}), "conversations": said}

    rows = [row(at, f"{at}.png", "<image>\nWhich?", f"It is {at}.", "Sure?", "Yes.")
            for at in range(30)]  # fmt: skip
    rows += [
        row(30, None, "What is two and two?", "Four."),
        row(31, "31.png", "No place for it", "Nothing."),
        row(32, "32.png", "<image> and <image>?", "Two."),
        row(33, "absent.png", "<image>\nWhich?", "None."),
        row(34, "34.png", "<image>\nWhich?"),
    ]
    file = folder / "llava.json"
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture(scope="session")
def first(
    aligned: Callable[..., Path], llm_folder: Path, captioned: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A model after the stage projector."""
    out = tmp_path_factory.mktemp("first") / "m1"
    train(aligned(), llm_folder, captioned, out=out, settings={**QUICK, "precision": "float32"})
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return dict(MultimodalModel.from_pretrained(folder, device="cpu").model.state_dict())


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_the_first_stage_moves_the_projector_alone(first: Path, folder: Path) -> None:
    changed = moved(tensors(folder), tensors(first))
    assert len(changed) == 4
    assert all("multi_modal_projector" in name for name in changed)
    record = json.loads((first / "mllm.json").read_text())
    assert record["projector"] == "trained"
    [stage] = record["stages"]
    assert (stage["stage"], stage["data"]["images"], stage["check"]["n"]) == ("projector", 36, 4)
    for name in ("own", "another", "lower"):
        low, high = stage["check"]["intervals"][name]
        assert low <= stage["check"][name] <= high
    assert "untrained" not in (first / "README.md").read_text()
    answer = MultimodalModel.from_pretrained(first, device="cpu").answer(
        "Which?", picture(), max_tokens=2
    )
    assert answer.notes[-1].startswith("The model has learned captions alone")


def test_scores_at_labelled_positions_are_those_of_all_positions(
    first: Path, captioned: Path
) -> None:
    mllm = MultimodalModel.from_pretrained(first, device="cpu")
    tokens = mllm.model.config.vision_config.num_tokens
    image_token = mllm.model.config.image_token_index
    instructions = open_instructions(captioned)
    label = Labeller(
        mllm.processor, "projector", image_token=image_token, tokens=tokens, max_length=250
    )
    some = [label(each) for each in instructions.conversations[:6]]
    live = LiveImages(instructions.images, mllm.processor.image_processor)
    batch = Collator(image_token, tokens, 0, live)(some)
    with torch.no_grad():
        each, row = losses(mllm.model, batch)
        plain = mllm.model(**batch).loss
    torch.testing.assert_close(each.mean(), plain)
    assert row.bincount().tolist() == [int(s.learned.sum()) for s in some]


def test_tokens_made_before_are_those_of_every_step(
    first: Path, captioned: Path, tmp_path: Path
) -> None:
    """But for the rounding of float16."""
    mllm = MultimodalModel.from_pretrained(first, device="cpu")
    images = open_instructions(captioned).images
    processor, tower = mllm.processor.image_processor, mllm.model.model.vision_tower
    store = store_tokens(tower, processor, images, tmp_path / "tokens", device="cpu")
    names = list(images)[3:6]
    stored = StoredTokens(store, tower.config.num_tokens).of(names)
    with torch.no_grad():
        live = tower(LiveImages(images, processor).of(names)).hidden_states[-1]
    torch.testing.assert_close(stored, live, atol=2e-3, rtol=2e-3)


def test_an_image_that_cannot_be_read_is_left_out(
    aligned: Callable[..., Path], llm_folder: Path, captioned: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(captioned.parent, data)
    (data / "images" / "7.png").write_bytes(b"no image")
    out = tmp_path / "out"
    trained = train(aligned(), llm_folder, data / captioned.name, out=out, settings=QUICK)
    assert trained.results["data"]["skipped"] == 3  # the image, and its two captions
    lines = (out / "train" / "skipped.jsonl").read_text().splitlines()
    skipped = [json.loads(line) for line in lines]
    assert {"7.png#0", "7.png#1"} < {each["id"] for each in skipped}


@pytest.mark.parametrize(
    ("tune", "tower", "expected"),
    [
        ("lora", False, {"language_model", "multi_modal_projector"}),
        ("full", False, {"language_model", "multi_modal_projector", "lm_head"}),
        ("lora", True, {"language_model", "multi_modal_projector", "vision_tower"}),
        ("full", True, {"language_model", "multi_modal_projector", "lm_head", "vision_tower"}),
    ],
)
def test_what_the_second_stage_moves(
    first: Path, captioned: Path, tmp_path: Path, tune: str, tower: bool, expected: set[str]
) -> None:
    data = conversations(captioned, tmp_path)
    out = tmp_path / "m2"
    trained = train(
        data=data, start=first, stage="instruct", tune=tune, out=out,
        settings={
            **QUICK, "data.images": str(captioned.parent / "images"), "train.lr": 1e-2,
            "train.tune_tower": tower, "precision": "float32",
        },
    )  # fmt: skip
    changed = moved(tensors(first), tensors(out))
    known = ("language_model", "multi_modal_projector", "lm_head", "vision_tower")
    parts = {part for part in known if any(part in name for name in changed)}
    assert parts == expected
    if tune == "lora":  # which is on linear layers alone
        assert not any("norm" in name or "embed" in name for name in changed)
    found = trained.results
    assert (found["data"]["skipped"], found["features"]) == (4, "live" if tower else "stored")
    # What was measured at the end is what the saved model gives: merged, cast and loaded again.
    mllm = MultimodalModel.from_pretrained(out, device="cpu")
    record = json.loads((out / "mllm.json").read_text())
    assert [stage["stage"] for stage in record["stages"]] == ["projector", "instruct"]
    again = held_out_of(mllm, trained.results["recipe"], data, captioned)
    assert again["own"] == pytest.approx(found["checks"][-1]["own"], rel=2e-3)
    assert again["own"] != pytest.approx(found["checks"][0]["own"], rel=2e-3)


def held_out_of(
    mllm: MultimodalModel, recipe: dict[str, Any], data: Path, captioned: Path
) -> dict[str, Any]:
    """The loss of the same held-out conversations, about live images."""
    plan = MultimodalRecipe.build(
        recipe | {"train": {**recipe["train"], "features": "live"}, "precision": "float32"}
    )
    instructions = open_instructions(data, images=captioned.parent / "images")
    prepared = prepare_stage(plan, mllm, instructions, data.parent / "unused")
    return measure(mllm.model, prepared.collator, prepared.held, batch=4)


def test_a_killed_training_ends_with_the_same_bytes(
    first: Path, captioned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        **QUICK, "train.steps": 6, "train.checkpoints": 3, "train.lora_dropout": 0.1,
        "precision": "float32", "data.images": str(captioned.parent / "images"),
    }  # fmt: skip
    given: dict[str, Any] = {
        "data": conversations(captioned, tmp_path), "start": first, "stage": "instruct",
        "tune": "lora", "settings": settings,
    }  # fmt: skip
    train(out=tmp_path / "whole", **given)

    def interrupt(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lateen.mllm.trainer.Progress.on_step_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "killed", **given)
    assert not (tmp_path / "killed" / "mllm.json").exists()
    assert list((tmp_path / "killed" / "train").glob("checkpoint-4"))
    train(out=tmp_path / "killed", **given)
    assert not moved(tensors(tmp_path / "whole"), tensors(tmp_path / "killed"))


def test_a_finished_training_is_given_back_and_another_is_refused(
    first: Path, aligned: Callable[..., Path], llm_folder: Path, captioned: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("lateen.mllm.training._trained", None)  # nothing is trained
        again = train(
            aligned(), llm_folder, captioned, out=first,
            settings={**QUICK, "precision": "float32", "train.device_batch": 2},
        )  # fmt: skip
    assert again.results == json.loads((first / "training.json").read_text())
    with pytest.raises(TrainingError, match="a training with other settings"):
        train(aligned(), llm_folder, captioned, out=first, settings={**QUICK, "train.lr": 1e-4})
    with pytest.raises(TrainingError, match="with another model to begin with"):
        train(aligned("mean"), llm_folder, captioned, out=first,
              settings={**QUICK, "precision": "float32"})  # fmt: skip


def test_parts_of_a_batch_make_the_step_of_the_whole(
    aligned: Callable[..., Path], llm_folder: Path, captioned: Path, first: Path, tmp_path: Path
) -> None:
    settings = {**QUICK, "precision": "float32", "train.device_batch": 1}
    train(aligned(), llm_folder, captioned, out=tmp_path / "parts", settings=settings)
    whole, parts = tensors(first), tensors(tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-5, rtol=1e-3)


def test_the_page_shows_what_it_says_of_held_out_images(first: Path) -> None:
    page = (first / "training.html").read_text()
    results = json.loads((first / "training.json").read_text())
    assert len(results["said"]) == 4
    assert all(each["right"] in page for each in results["said"])
    assert "none of which is learned" in page
    assert "The projector alone was trained" in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tower": "t"}, r"there is no language model.*--tower and --llm"),
        ({"start": "m", "tower": "t"}, r"has its tower and its language model.*--from"),
        ({"start": "m", "settings": {"grid": 3}}, "grid is settled by the model"),
        ({"start": "m", "tune": "lora"}, "trains the projector alone"),
        ({"start": "m", "settings": {"train.lrr": 1}}, r"unknown recipe key 'train\.lrr'.*lr"),
        ({"start": "m", "settings": {"train.batch": 0}}, r"'train\.batch' cannot be 0"),
        ({"start": "m", "preset": "llava"}, r"unknown preset 'llava'.*llava-1\.5"),
    ],
)
def test_recipes_that_do_not_fit(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        train(data=tmp_path, out=tmp_path / "out", **given)
    assert re.search(said, f"{error.value.message} {error.value.remedy}", re.S)


@pytest.mark.parametrize(("most", "at_once"), [(None, 16), (16, 16), (5, 4), (1, 1), (99, 16)])
def test_parts_of_a_batch_are_as_many_each(most: int | None, at_once: int) -> None:
    settings = StageSection(batch=16, device_batch=most)
    assert settings.at_once == at_once
    assert settings.batch % settings.at_once == 0


def test_the_presets_are_those_of_their_stage(tmp_path: Path) -> None:
    def settings(**values: Any) -> Any:
        common = {"start": "m", "data": {"root": "d"}, "preset": "llava-1.5"}
        return MultimodalRecipe.build(common | values).train

    assert (settings().lr, settings().batch) == (1e-3, 256)
    full = settings(stage="instruct")
    assert (full.lr, full.rate_of_projector, full.batch) == (2e-5, 2e-5, 128)
    lora = settings(stage="instruct", tune="lora", train={"batch": 16})
    assert (lora.lr, lora.rate_of_projector, lora.batch, lora.lora_rank) == (2e-4, 2e-5, 16, 128)


def test_without_trl_it_is_said_what_to_install(
    vit_folder: Path, llm_folder: Path, captioned: Path, tmp_path: Path
) -> None:
    """In a process of its own, in which nothing has loaded it."""
    code = (
        "import sys; sys.modules['trl'] = None\n"
        "from lateen.cli import main\n"
        f"main(['mllm', 'train', '--tower', {str(vit_folder)!r}, '--llm', {str(llm_folder)!r}, "
        f"'--data', {str(captioned)!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "needs the package 'trl'" in ran.stderr
    assert "lateen[mllm]" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_that_a_model_was_trained_on_what_it_is_judged_on_is_said(
    first: Path, folder: Path, captioned: Path, tmp_path: Path
) -> None:
    questions = open_questions("captions-of", captioned)
    result = evaluate_questions(first, questions, answered_by="likelihood", out=tmp_path)
    assert result["trained_on"]["images"] == 36  # four are held out
    assert "36 of 40 images trained on" in result["warnings"]
    assert was_trained_on(result) == "36 of 40 images trained on"
    untrained = evaluate_questions(folder, questions, limit=4, answered_by="likelihood")
    assert untrained["trained_on"] is None
    # What learns on has both.
    train(
        data=conversations(captioned, tmp_path), start=first, stage="instruct", tune="lora",
        out=tmp_path / "m2",
        settings={**QUICK, "data.images": str(captioned.parent / "images"), "train.steps": 1},
    )  # fmt: skip
    both = MultimodalModel.from_pretrained(tmp_path / "m2", device="cpu").trained_on
    assert both is not None
    assert both.groups["train"].count >= 36


def test_recipes_that_come_with_lateen_are_whole_and_known_elsewhere() -> None:
    recipes = [name for name, each in shipped_recipes().items() if each.kind == "multimodal"]
    assert len(recipes) == 3
    for name in recipes:
        assert MultimodalRecipe.load(Path(name)).data.root
        with pytest.raises(RecipeError, match="a recipe of `lateen mllm train`"):
            Recipe.load(Path(name))
