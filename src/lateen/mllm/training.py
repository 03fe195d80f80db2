"""A stage of LLaVA-1.5's training: the projector on captions, or the language model too on
conversations (arXiv:2310.03744), with TRL's SFTTrainer and peft."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lateen.errors import MissingExtraError, TrainingError, UsageError
from lateen.files import (
    LOG,
    folder_lock,
    jsonl,
    library_versions,
    make_folder,
    read_json,
    refuse_foreign,
    write_json,
    write_text,
)
from lateen.hardware import use_hardware
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.assembly import RECORD, write_model
from lateen.mllm.card import TRAINED
from lateen.mllm.config import MultimodalRecipe
from lateen.mllm.evaluation import model_facts, model_key
from lateen.mllm.held_out import measure, say
from lateen.mllm.instructions import Instructions, open_instructions
from lateen.mllm.labelling import images_of
from lateen.mllm.preparation import (
    Preparation,
    check_trainable,
    open_start,
    prepare_stage,
)
from lateen.mllm.training_page import write_training_page
from lateen.model.trained_on import ImageGroup, TrainedOn
from lateen.progress import log, log_file
from lateen.report.text import without_folders

RESULTS, PAGE, FOLDER = "training.json", "training.html", "train"
SKIPPED = "skipped.jsonl"
_IDENTITY = "identity.json"
_TOKENS = "tokens"
_SAID, _LONGEST_SAID = 12, 32  # conversations that the page shows, and tokens of an answer
_ELSEWHERE = ("device", "batch_size", "workers")  # keys of where it runs, not of what it is


@dataclass(frozen=True)
class Trained:
    """What a stage gives.

    Attributes:
        out: folder of the multimodal model.
        results: the content of its ``training.json``.
    """

    out: Path
    results: Mapping[str, Any]


def train(
    tower: str | Path | Sequence[str | Path] | None = None, llm: str | Path | None = None,
    data: str | Path | None = None, *, out: str | Path, start: str | Path | None = None,
    stage: str | None = None, tune: str | None = None, preset: str | None = None,
    recipe: str | Path | MultimodalRecipe | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Trained:  # fmt: skip
    """Train a stage of a multimodal language model.

    Stage ``projector`` learns the projector alone, on images and their captions; ``instruct`` the
    language model with it, whole or by low-rank additions, on conversations. What is measured is
    the loss on images that are held out, under their own and under another's. A killed training
    goes on at its last checkpoint; a finished one is given back.

    Args:
        tower: a model, a CLIP or a vision encoder; several are fused.
        llm: a language model.
        data: captions, conversations or a set of questions, as
            :func:`~lateen.mllm.instructions.open_instructions` takes them.
        out: folder of the multimodal model.
        start: a multimodal model to go on with, instead of tower and language model.
        stage: ``projector`` (the default) or ``instruct``.
        tune: ``full`` (the default) or ``lora``.
        preset: a name of :data:`~lateen.mllm.config.MLLM_PRESETS`.
        recipe: YAML file with these and all settings; what is given here stands above it.
        settings: any key by dotted path: ``{"train.lr": 1e-3, "grid": 3}``.

    Raises:
        RecipeError: an unknown key or a value that does not fit, or something is not said.
        TrainingError: a loss that is not finite, or ``out`` has a training with other settings.
        MissingExtraError: TRL or peft is not installed.
        LateenError: any step's own errors.
    """
    given = {
        "llm": llm, "data.root": data, "start": start, "stage": stage,
        "tune": tune, "preset": preset,
    }  # fmt: skip
    named: dict[str, Any] = {key: str(each) for key, each in given.items() if each is not None}
    if tower is not None:
        several = [tower] if isinstance(tower, str | Path) else tower
        named["tower"] = [str(each) for each in several]
    return run_stage(MultimodalRecipe.above(recipe, named | dict(settings or {})), Path(out))


def run_stage(plan: MultimodalRecipe, out: Path) -> Trained:
    """:func:`train` with a whole recipe."""
    require_trainer()
    refuse_foreign(out, "the folder of a multimodal model", (RECORD,), (FOLDER,))
    begin = time.perf_counter()
    folder = out / FOLDER
    with plan.on_hardware(), use_hardware(precision=plan.precision), folder_lock(out):
        make_folder(folder)
        with log_file(folder / LOG):
            instructions = open_instructions(
                plan.data.root, questions=plan.data.questions, images=plan.data.images,
                split=plan.data.split,
            )  # fmt: skip
            start = open_start(plan)
            check_trainable(start)
            identity = _identity(plan, start, instructions)
            if (found := _finished(out, identity)) is not None:
                log.info("%s is already trained", out)
                if not (out / PAGE).is_file():  # killed just before
                    write_training_page(found, out / PAGE, instructions.images)
                return Trained(out, found)
            write_json(folder / _IDENTITY, identity)
            facts = model_facts(start, plan.start)
            prepared = prepare_stage(plan, start, instructions, folder / _TOKENS)
            write_text(folder / SKIPPED, jsonl([each.as_dict() for each in prepared.skips]))
            outcome = _trained(start, prepared, folder)
            del start
            model = _with_weights(plan, outcome)
            one_each = {each.images: each for each in reversed(prepared.held)}
            some = list(one_each.values())[::-1][:_SAID]
            said = say(model, prepared.collator, some, max_tokens=_LONGEST_SAID)
            results = {
                **_results(plan, instructions, prepared, outcome),
                "model": facts, "said": said, "identity": identity,
                "seconds": time.perf_counter() - begin, "versions": library_versions(),
            }  # fmt: skip
            _save(model, out, results, _trained_on(prepared, model, instructions))
            write_training_page(results, out / PAGE, instructions.images)
            for done_with in (folder / _TOKENS, *folder.glob("checkpoint-*")):
                shutil.rmtree(done_with, ignore_errors=True)
    return Trained(out, results)


def require_trainer() -> None:
    """See that TRL and peft are there, and that this is the only process.

    Raises:
        UsageError: it is not.
        MissingExtraError: one is not.
    """
    try:
        import peft  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "mllm", "training a multimodal model") from error
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "multimodal models are trained by one process", "Start it without torchrun."
        )


def _identity(
    plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions
) -> dict[str, Any]:
    """What the result depends on."""
    values = plan.model_dump(mode="json", exclude=set(_ELSEWHERE))
    for name in ("start", "tower", "llm"):  # their content counts, not where they lie
        values.pop(name)
    values["data"].pop("root")
    values["data"].pop("images")
    for name in ("features", "checkpoints", "device_batch"):
        values["train"].pop(name)
    return {"recipe": values, "start": model_key(start), "data": instructions.fingerprint}


def _finished(out: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The results of this very training, if they are there.

    Raises:
        TrainingError: the folder has another training.
    """
    if (out / RESULTS).is_file() and (out / RECORD).is_file():
        found: dict[str, Any] = read_json(out / RESULTS)
        _refuse_other(out, found["identity"], identity)
        return found
    if (begun := out / FOLDER / _IDENTITY).is_file():
        _refuse_other(out, read_json(begun), identity)
    elif (out / RECORD).is_file():
        raise TrainingError(
            f"{out} has a model that was not trained there", "Choose another --out."
        )
    return None


def _refuse_other(out: Path, before: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    if before == identity:
        return
    differs = [name for name in ("start", "data") if before.get(name) != identity[name]]
    words = {"start": "another model to begin with", "data": "other data"}
    said = " and ".join(words[name] for name in differs) or "other settings"
    raise TrainingError(f"{out} has a training with {said}", "Choose another --out.")


@dataclass(frozen=True)
class _Outcome:
    """What training left.

    Attributes:
        weights: what moved, by its name in the trained module.
        lora: what peft added, if anything.
        checks: of the held-out conversations, by step; the start first.
        log: rows of the loss.
        parameters: that moved.
        half: whether it was trained in bfloat16.
    """

    weights: dict[str, torch.Tensor]
    lora: Any
    checks: Sequence[dict[str, Any]]
    log: Sequence[dict[str, Any]]
    parameters: int
    half: bool


def _trained(start: MultimodalModel, prepared: Preparation, folder: Path) -> _Outcome:
    """Train what is to move."""
    from transformers.trainer_utils import get_last_checkpoint

    from lateen.mllm.trainer import Progress, open_trainer, quiet_training, trained_weights

    settings = prepared.plan.train
    checks = _Checks(folder / "checks.jsonl")

    def check(step: int) -> None:
        if prepared.held and not checks.has(step):
            with trainer.accelerator.autocast():
                checks.add(step, measure(trainer.model, prepared.collator, prepared.held,
                                         batch=settings.at_once))  # fmt: skip

    progress = Progress(check, validated_at(prepared.steps, settings.validations))
    with quiet_training():
        trainer, lora, half = open_trainer(start, prepared, folder, progress)
        last = get_last_checkpoint(str(folder))
        if last is None:
            checks.clear()
        check(0)
        with contextlib.closing(progress):
            trainer.train(resume_from_checkpoint=last)
    weights = trained_weights(trainer.model)
    rows = [{"step": row["step"], "loss": row["loss"], "lr": row["learning_rate"]}
            for row in trainer.state.log_history if "loss" in row]  # fmt: skip
    count = sum(value.numel() for value in weights.values())
    return _Outcome(weights, lora, checks.rows, rows, count, half)


def validated_at(steps: int, times: int) -> list[int]:
    """Of so many steps those after which the loss on held-out conversations is measured."""
    return [round((k + 1) * steps / times) for k in range(times)]


class _Checks:
    """What was measured on the way, on disk, so that a killed training has it when it goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            self.rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def clear(self) -> None:
        """Forget a training that left no checkpoint."""
        self.rows = []

    def has(self, step: int) -> bool:
        """Whether it was measured at a step."""
        return any(row["step"] == step for row in self.rows)

    def add(self, step: int, check: Mapping[str, Any]) -> None:
        """Keep and say what was measured."""
        self.rows.append({"step": step, **check})
        write_text(self._path, jsonl(self.rows))
        low, high = check["intervals"]["lower"]
        log.info(
            "step %d: held-out loss %.3f under the own image, %.3f under another's; own lower for "
            "%.1f %% (%.1f to %.1f, chance 50) of %d images",
            step, check["own"], check["another"], check["lower"], low, high, check["n"],
        )  # fmt: skip


def _with_weights(plan: MultimodalRecipe, outcome: _Outcome) -> MultimodalModel:
    """The model that was begun with, as it is stored, with what moved put in its place.

    So what was frozen keeps its bits, whatever the precision of the training was.
    """
    from lateen.mllm.trainer import put_weights, quiet_training

    fresh = open_start(plan)
    module = fresh.model
    if outcome.lora is not None:
        from peft import get_peft_model

        with quiet_training():
            module = get_peft_model(fresh.model, copy.deepcopy(outcome.lora))
    put_weights(module, outcome.weights)
    if outcome.lora is not None:
        fresh.model = module.merge_and_unload()
    fresh.model.requires_grad_(False).eval()
    return fresh


def _results(
    plan: MultimodalRecipe, instructions: Instructions, prepared: Preparation, outcome: _Outcome
) -> dict[str, Any]:
    """What was learned from, how, and what was measured."""
    return {
        "stage": plan.stage,
        "tune": plan.tune if plan.stage == "instruct" else None,
        "data": {
            "name": instructions.name, "conversations": len(prepared.learned),
            "images": prepared.images, "skipped": len(prepared.skips),
            "turns_left_out": prepared.turns_left_out,
        },
        "steps": prepared.steps, "parameters": outcome.parameters,
        "precision": "bfloat16" if outcome.half else "float32",
        "features": "stored" if prepared.stored else "live",
        "checks": list(outcome.checks), "log": list(outcome.log),
        "recipe": plan.model_dump(mode="json"),
    }  # fmt: skip


def _trained_on(
    prepared: Preparation, model: MultimodalModel, instructions: Instructions
) -> TrainedOn:
    """The images that were learned from, and those of the stages and the tower before."""
    names = list(dict.fromkeys(images_of(prepared.learned)))
    hashes = prepared.collator.images.hashes(names)
    group = TrainedOn({"train": ImageGroup.of(names, hashes)})
    return group.after(model.trained_on, instructions.name)


def _save(
    model: MultimodalModel, out: Path, results: Mapping[str, Any], trained_on: TrainedOn
) -> None:
    """Write the model, its record last: it says that the folder is whole."""
    told = ("stage", "tune", "data", "steps", "parameters", "seconds")
    stage = {name: results[name] for name in told}
    stage["data"] = {**stage["data"], "name": without_folders(stage["data"]["name"])}
    stage["check"] = results["checks"][-1] if results["checks"] else None
    record = {
        **model.record, "projector": TRAINED,
        "stages": [*model.record.get("stages", []), stage],
    }  # fmt: skip
    if results["stage"] == "projector":
        record["caption_prompt"] = results["recipe"]["train"]["caption_prompt"]
    write_json(out / RESULTS, results)
    made = out / FOLDER / "model"
    shutil.rmtree(made, ignore_errors=True)  # of a killed process
    made.mkdir()
    write_model(made, model.model, model.processor, record, out.name, trained_on)
    files = sorted(made.iterdir(), key=lambda file: file.name == RECORD)
    for file in files:
        file.replace(out / file.name)
    made.rmdir()
