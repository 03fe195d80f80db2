"""What a stage of multimodal training will cost on this machine, before it is run."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lateen.encoders.resolve import check_language_model, folder_here
from lateen.errors import UsageError
from lateen.features.rates import Cost, check_positive, default_samples, sums
from lateen.hardware import use_hardware
from lateen.machine import room, this_machine
from lateen.mllm.config import MultimodalRecipe
from lateen.mllm.instructions import Conversation, Instructions, open_instructions
from lateen.mllm.labelling import Labelled
from lateen.mllm.preparation import check_trainable, count_steps, hold_out, open_start
from lateen.mllm.training import require_trainer, validated_at
from lateen.mllm.trial import Sample, TowerTokens, Trial, try_steps

_NOT_INCLUDED = (
    "what an earlier run has done", "hashes of the images' files", "reading stored tokens",
    "writing checkpoints and the model", "the answers on the page",
)  # fmt: skip


def plan_stage(
    plan: MultimodalRecipe, *, out: str | Path | None = None, samples: int | None = None,
    gpu_tflops: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Predict what a stage of training costs, by doing a little of it.

    A few steps are done with the real model and batch, on this machine and as it is loaded now,
    and a few images go through the tower where their tokens are stored; the rest is counted.
    Nothing is written but to a temporary folder, and what an earlier run has done is not looked at.

    Args:
        plan: the recipe of :func:`~lateen.mllm.train`.
        out: where the training would write, whose free disk counts; the current folder if not
            given.
        samples: images to time the tower on; by default three rounds of a batch for each preparing
            thread.
        gpu_tflops: what some GPU sustains, in 10¹² operations a second, to state hours.

    Returns:
        JSON-ready: ``items`` (item, stage, seconds with ``low`` and ``high``, count, bytes),
        ``seconds`` by stage and in total, ``largest``, ``data``, ``sample`` (tokens of a
        conversation, and what does not fit), ``step`` (seconds measured), ``rates`` of the tower,
        ``memory`` and ``disk`` in bytes, ``operations``, ``gpu_hours``, ``machine`` and
        ``not_included``. ``memory["peak"]`` is that of this process, which includes what it did
        before.

    Raises:
        UsageError: a number that is not above 0, or the language model is not on this machine.
        MissingExtraError: TRL or peft is not installed.
        LateenError: the training's own errors, as far as they show.
    """
    check_positive(samples=samples, gpu_tflops=gpu_tflops)
    require_trainer()
    with plan.on_hardware(), use_hardware(precision=plan.precision):
        return _predict(plan, Path(out or "."), samples, gpu_tflops)


def _predict(
    plan: MultimodalRecipe, out: Path, samples: int | None, gpu_tflops: float | None
) -> dict[str, Any]:
    """What :func:`plan_stage` returns."""
    machine = this_machine()
    _require_here(plan)
    data = plan.data
    instructions = open_instructions(
        data.root, questions=data.questions, images=data.images, split=data.split
    )
    begin = time.perf_counter()
    start = open_start(plan)
    check_trainable(start)
    seconds = 2 * (time.perf_counter() - begin)  # at the end it is opened anew
    loading = Cost.timed("load the model twice", "load", 1, "time", seconds)
    model_bytes = sum(p.nbytes for p in start.model.parameters())  # as it is saved
    tokens = TowerTokens.of(plan, start, instructions, samples or default_samples())
    sample = Sample.of(plan, start, instructions, tokens.images)
    size = _Size.of(plan, instructions, sample)
    trial = try_steps(plan, start, tokens, sample)
    costs = [
        loading, *tokens.costs(len(instructions.images)),
        Cost.timed("label conversations", "encode", len(instructions.conversations), "conversation",
                   sample.seconds / sample.drawn),
        trial.cost(size.steps), *_validating(plan, trial, size),
    ]  # fmt: skip
    operations = _operations(plan, trial, sample, size, tokens, len(instructions.images))
    hours = None if gpu_tflops is None else operations["total"] / (gpu_tflops * 1e12) / 3600
    return {
        "task": "plan", "machine": machine, **sums(costs),
        "data": {"name": instructions.name, "skipped": len(instructions.skips), **asdict(size)},
        "sample": sample.as_dict(), "step": trial.as_dict(plan, sample),
        "rates": [] if tokens.rate is None else [asdict(tokens.rate)],
        "features": "stored" if tokens.stored else "live", "memory": trial.memory,
        "disk": _disk(sum(cost.bytes for cost in costs), trial, model_bytes, out),
        "operations": operations, "gpu_tflops": gpu_tflops, "gpu_hours": hours,
        "not_included": list(_NOT_INCLUDED), "recipe": plan.model_dump(mode="json"),
    }  # fmt: skip


def _require_here(plan: MultimodalRecipe) -> None:
    """See that the model need not be downloaded to be measured.

    Raises:
        ModelError: there is none.
        UsageError: it would have to be.
    """
    if plan.llm is not None:
        check_language_model(plan.llm)
    name = plan.llm or plan.start or ""
    if not Path(name).expanduser().exists() and folder_here(name) is None:
        what = "language model" if plan.llm else "multimodal model"
        raise UsageError(
            f"the {what} {name} is not on this machine, and a plan is measured with the model "
            "and the data",
            "Download it first, or give its folder.",
        )


@dataclass(frozen=True)
class _Size:
    """How much there is to do.

    Attributes:
        conversations: that are learned.
        images: that these are about.
        held_out: conversations that the loss is measured on.
        steps: of the training.
        exact: whether it was counted; otherwise as many fit as of the sample.
    """

    conversations: int
    images: int
    held_out: int
    steps: int
    exact: bool

    @classmethod
    def of(cls, plan: MultimodalRecipe, instructions: Instructions, sample: Sample) -> _Size:
        """Of all conversations, by those that were labelled."""
        if sample.whole:
            learned, held = sample.prepared.learned, sample.prepared.held
            count, held_out = len(learned), len(held)
        else:
            first = 1 if plan.stage == "projector" else None  # image that is taken
            learned, held = hold_out(
                [_unlabelled(each, first) for each in instructions.conversations], plan
            )
            fit = sample.fit / sample.drawn
            count, held_out = max(1, round(fit * len(learned))), round(fit * len(held))
        images = len({name for each in learned for name in each.images})
        return cls(count, images, held_out, count_steps(plan.train, count), sample.whole)

    def seen(self, batch: int) -> float:
        """Conversations that go through the model, one as often as it does."""
        return self.steps * self.conversations / math.ceil(self.conversations / batch)


def _unlabelled(conversation: Conversation, first: int | None) -> Labelled:
    """A conversation that is not labelled: of which images it is, is enough to count."""
    nothing = np.empty(0, np.int32)
    return Labelled(nothing, nothing.astype(bool), conversation.images[:first])


def _validating(plan: MultimodalRecipe, trial: Trial, size: _Size) -> list[Cost]:
    """Of measuring the loss on what is held out: at the start and on the way, under the own image
    and under another's."""
    if not size.held_out:
        return []
    times = len({0, *validated_at(size.steps, plan.train.validations)})
    return [trial.validation(2 * times * size.held_out)]


def _disk(tokens: int, trial: Trial, model: int, out: Path) -> dict[str, Any]:
    """Bytes that a training needs, and that are free where it would write."""
    # A checkpoint has what learns and the optimiser; the last one goes after the next is written.
    checkpoints = 2 * (trial.memory["trained"] + trial.memory["optimizer"])
    total = tokens + checkpoints + model
    return {"tokens": tokens, "checkpoints": checkpoints, "model": model, **room(total, out)}


def _operations(
    plan: MultimodalRecipe, trial: Trial, sample: Sample, size: _Size, images: TowerTokens,
    sources: int,
) -> dict[str, float]:  # fmt: skip
    """Of the whole training by part, without measuring; ``step`` is an average one."""
    seen = size.seen(plan.train.batch)
    parts = trial.operations.step(
        seen * float(np.mean(sample.tokens)), seen * sample.answered, seen * sample.images,
        images.per_image,
    )  # fmt: skip
    step = sum(parts.values()) / size.steps
    if images.stored:  # once for each
        parts["tower"] = float(sources * images.operations)
    return {**parts, "total": sum(parts.values()), "step": step, "image": images.operations}
