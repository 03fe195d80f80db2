"""A little of a stage of training, done to see what the whole costs: images through the tower,
conversations labelled, steps."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from lateen.features.pipeline import Item
from lateen.features.rates import PATIENCE, Cost, Rate, image_rate
from lateen.machine import peak_gpu_memory, peak_memory
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.assembly import made_up_pictures
from lateen.mllm.config import MultimodalRecipe
from lateen.mllm.held_out import losses_of
from lateen.mllm.image_tokens import Array, ImageTokens, LiveImages, TowerEncoder, bytes_of
from lateen.mllm.instructions import Instructions
from lateen.mllm.operations import Operations, forward_operations, operations_of
from lateen.mllm.preparation import Preparation, stores_tokens, tokens_of, with_tokens

_STEPS = 4  # that are timed
_CONVERSATIONS = 1000  # that are labelled, of more; at least those of the steps
_PICTURES = 8  # different ones, whose tokens stand for those of all images


# -- images ---------------------------------------------------------------------------------------


class _Imagined:
    """Tokens of a few pictures, which stand for those of all images.

    Args:
        tokens: ``[pictures, tokens, width]``.
    """

    def __init__(self, tokens: Tensor) -> None:
        self._tokens = tokens

    def of(self, images: Sequence[str]) -> Tensor:
        """Tokens ``[n, tokens, width]``."""
        return self._tokens[torch.arange(len(images)) % len(self._tokens)]

    def hashes(self, images: Sequence[str]) -> Array:
        """Zeros, as of images that cannot be read: none is."""
        return np.zeros(len(images), np.uint64)

    def readable(self, images: Sequence[str]) -> bool:
        """They are taken to be."""
        del images
        return True


@dataclass(frozen=True)
class TowerTokens:
    """The tokens of images.

    Attributes:
        images: what stands for images in the steps that are timed.
        stored: whether they are made once.
        rate: of the tower, where they are.
        per_image: how many an image has.
        size: of one image's, stored, in bytes.
        operations: of one image's forward pass.
    """

    images: ImageTokens
    stored: bool
    rate: Rate | None
    per_image: int
    size: int
    operations: int

    @classmethod
    def of(
        cls, plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions,
        samples: int,
    ) -> TowerTokens:  # fmt: skip
        """Time the tower on so many images, where their tokens are stored."""
        tower, processor = start.model.model.vision_tower, start.processor.image_processor
        sources, per_image = instructions.images, tokens_of(start)
        pixels = processor(images=made_up_pictures(1), return_tensors="pt")["pixel_values"]
        parameter = next(tower.parameters())
        operations = forward_operations(tower, pixels.to(parameter.device, parameter.dtype))
        if not stores_tokens(plan, start, len(sources)):
            live = LiveImages(sources, processor)
            return cls(live, False, None, per_image, 0, operations)
        encoder = TowerEncoder(tower, processor)
        chosen = random.Random(0).sample(sorted(sources), min(samples, len(sources)))
        items = [Item(name, sources[name], sources[name].name) for name in chosen]
        tower.to(memory_format=torch.channels_last)  # as where they are stored
        try:
            rate = image_rate(encoder, items, "float16")
            made = encoder.encode(encoder.prepare(made_up_pictures(_PICTURES)))
        finally:
            tower.to(memory_format=torch.contiguous_format)
        imagined = _Imagined(made.view(_PICTURES, per_image, -1))
        size = bytes_of(1, per_image, tower.config.hidden_size)
        return cls(imagined, True, rate, per_image, size, operations)

    def costs(self, images: int) -> list[Cost]:
        """Of making them."""
        if self.rate is None:
            return []
        return [Cost.of("encode images", "encode", images, "image", self.rate,
                        bytes=images * self.size)]  # fmt: skip


# -- conversations --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Conversations that were labelled.

    Attributes:
        prepared: the steps that are timed.
        drawn: how many conversations there were.
        whole: whether these are all.
        seconds: of labelling them.
    """

    prepared: Preparation
    drawn: int
    whole: bool
    seconds: float

    @classmethod
    def of(
        cls, plan: MultimodalRecipe, start: MultimodalModel, instructions: Instructions,
        images: ImageTokens,
    ) -> Sample:  # fmt: skip
        """Draw and label some.

        Raises:
            DataError: not one of them can be learned from.
        """
        every = instructions.conversations
        # With those that are held out there are enough for the steps not to see one twice.
        count = min(len(every), max(_CONVERSATIONS, 2 * (1 + _STEPS) * plan.train.batch))
        rows = sorted(random.Random(0).sample(range(len(every)), count))
        few = replace(instructions, conversations=tuple(every[row] for row in rows), skips=())
        timed = plan.train.model_copy(update={"steps": 1 + _STEPS})
        begin = time.perf_counter()
        prepared = with_tokens(plan.model_copy(update={"train": timed}), start, few, images)
        seconds = time.perf_counter() - begin
        prepared = replace(prepared, stored=not isinstance(images, LiveImages))
        return cls(prepared, count, count == len(every), seconds)

    @property
    def fit(self) -> int:
        """How many of them can be learned from."""
        return self.drawn - len(self.prepared.skips)

    @property
    def tokens(self) -> list[int]:
        """Of each conversation that is learned, those of images among them."""
        each_image, place = self.prepared.collator.tokens, self.prepared.collator.image_token
        return [
            len(each.ids) + (each_image - 1) * int((each.ids == place).sum())
            for each in self.prepared.learned
        ]

    @property
    def answered(self) -> float:
        """Tokens of a conversation that have a label, on average."""
        return float(np.mean([each.learned.sum() for each in self.prepared.learned]))

    @property
    def images(self) -> float:
        """Of a conversation, on average."""
        return float(np.mean([len(each.images) for each in self.prepared.learned]))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; tokens and images are of a conversation."""
        skips, tokens = self.prepared.skips, self.tokens
        reasons = Counter(skip.reason.partition(" (")[0] for skip in skips)
        return {
            "conversations": self.drawn, "left_out": len(skips), "reasons": dict(reasons),
            "turns_left_out": self.prepared.turns_left_out,
            "tokens": float(np.mean(tokens)), "longest": max(tokens), "answered": self.answered,
            "images": self.images, "tokens_per_image": self.prepared.collator.tokens,
        }  # fmt: skip


# -- steps ----------------------------------------------------------------------------------------


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times steps, with the making of their batches, and ends the training after a few; nothing is
    saved."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first."""
        return [after - before for before, after in pairwise(self._ends)]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the time."""
        del args, state
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        done = self.seconds
        control.should_training_stop = len(done) >= _STEPS or sum(done) > PATIENCE
        control.should_save = False


@dataclass(frozen=True)
class Trial:
    """What a few steps showed.

    Attributes:
        seconds: of each.
        forward: seconds of the loss of a conversation, without training: of each time.
        memory: in bytes.
        operations: of the model as it is trained.
        precision: that it is trained in.
    """

    seconds: Sequence[float]
    forward: Sequence[float]
    memory: Mapping[str, int]
    operations: Operations
    precision: str

    def cost(self, steps: int) -> Cost:
        """Of all steps."""
        low, middle, high = (steps * each for each in _spread(self.seconds))
        return Cost("train", "train", middle, low, high, steps, "step")

    def validation(self, count: int) -> Cost:
        """Of the loss of so many conversations."""
        low, middle, high = (count * each for each in _spread(self.forward))
        return Cost("held-out loss", "evaluate", middle, low, high, count, "conversation")

    def as_dict(self, plan: MultimodalRecipe, sample: Sample) -> dict[str, Any]:
        """JSON-ready; tokens are those of an average step."""
        low, middle, high = _spread(self.seconds)
        batch = min(plan.train.batch, len(sample.prepared.learned))
        return {
            "conversations": batch, "at_once": min(plan.train.at_once, batch),
            "tokens": batch * float(np.mean(sample.tokens)), "timed": len(self.seconds),
            "seconds": middle, "low": low, "high": high, "precision": self.precision,
        }  # fmt: skip


def _spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    """The fastest, the median and the slowest."""
    return min(seconds), median(seconds), max(seconds)


def try_steps(
    plan: MultimodalRecipe, start: MultimodalModel, tokens: TowerTokens, sample: Sample
) -> Trial:
    """Do a first step that does not count and a few that do, as the training would."""
    from lateen.mllm.trainer import open_trainer, quiet_training

    prepared, clock = sample.prepared, _Clock()
    with tempfile.TemporaryDirectory(prefix="lateen-plan-") as folder, quiet_training():
        trainer, _, half = open_trainer(start, prepared, Path(folder), clock)
        trainer.train()
    batch = plan.train.at_once
    some = (prepared.held or prepared.learned)[:batch]
    forward: list[float] = []
    while len(forward) < _STEPS and sum(forward) * len(some) < PATIENCE:
        begin = time.perf_counter()
        with trainer.accelerator.autocast():
            losses_of(trainer.model, prepared.collator, some, batch=batch)
        forward.append((time.perf_counter() - begin) / len(some))
    operations = operations_of(
        start.model, image=tokens.operations, tower=_tower_passes(plan, tokens),
        again=plan.train.gradient_checkpointing,
    )  # fmt: skip
    precision = "bfloat16" if half else "float32"
    return Trial(clock.seconds, forward, _memory(trainer.model), operations, precision)


def _tower_passes(plan: MultimodalRecipe, tokens: TowerTokens) -> int:
    """Passes of the tower in a step, for each image: forward, and of one that learns the gradients
    of its activations and, unless only additions to them learn, of its weights."""
    if not plan.train.tune_tower:
        return 0 if tokens.stored else 1
    return 3 if plan.tune == "full" else 2


def _memory(model: Any) -> dict[str, int]:
    """Bytes of what is frozen, of what learns with its gradients and AdamW's two moments, and the
    most that this process has held."""
    learns = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    gpu = peak_gpu_memory()
    return {
        "frozen": sum(p.nbytes for p in model.parameters()) - learns, "trained": learns,
        "gradients": learns, "optimizer": 2 * learns, "peak": peak_memory(),
        **({"gpu": gpu} if gpu else {}),
    }  # fmt: skip
