"""How an image tower is tuned: the recipe of ``lateen tune``, its section ``tune``, its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError

from lateen.config import (
    LayeredRecipe,
    first_fault,
    with_preset,
)
from lateen.encoders.config import VisionConfig
from lateen.errors import RecipeError
from lateen.training.config import LoopSection
from lateen.tuning.checks import EvalSection, Stop

# METHODS §2. `small` is what is used where nothing else is said: chosen on held-out training
# images of Flickr8k, for thousands of images and a tower of any norm.
_PAPER = {
    "pull": "mean", "space": "raw", "diagonal": "include", "kernel": "polynomial", "degree": 3,
    "optimizer": "adamw", "betas": [0.9, 0.999], "lr": 1e-5, "weight_decay": 1e-4,
    "clip_norm": None,
}  # fmt: skip
TUNE_PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {},
    "b16": {"tune": {**_PAPER, "weight": 0.5, "batch": 128, "epochs": 2, "warmup_steps": 1400}},
    "l14": {"tune": {**_PAPER, "weight": 0.5, "batch": 64, "epochs": 2, "warmup_steps": 2800}},
    "l14-336": {"tune": {**_PAPER, "weight": 1.0, "batch": 32, "epochs": 4, "warmup_steps": 5600}},
}


class TuneSection(LoopSection):
    """What is tuned, towards what, and how (METHODS §2)."""

    section: ClassVar[str] = "tune"

    method: Literal["kernel", "feature", "projection"] = Field(
        "kernel", description="what is matched: kernel matrices (KUEA); baselines: feature = the "
        "target's features through a learned linear map of the embeddings; projection = no tuning, "
        "the target encoder with a closed-form linear map into the shared space"
    )  # fmt: skip
    parameters: Literal["whole", "blocks", "lora", "projection"] = Field(
        "whole", description="what moves: the whole tower with its projection; its last `blocks` "
        "and the projection; low-rank additions to its linear layers (peft); the projection alone"
    )  # fmt: skip
    blocks: int = Field(4, gt=0, description="how many of the last blocks move (parameters=blocks)")
    lora_rank: int = Field(16, gt=0, description="rank of the additions (parameters=lora)")
    weight: float = Field(1.0, ge=0, description="w: of the kernel term beside the drift")
    drift: float = Field(1.0, ge=0, description="weight of the drift from the start; 0 for none")
    pull: Literal["mean", "relative"] = Field(
        "relative", description="kernel term as published (mean over pairs), or relative to its "
        "value at the start, which does not depend on batch, kernel and encoders"
    )  # fmt: skip
    space: Literal["raw", "unit"] = Field(
        "unit", description="drift of the embeddings as they are (published), or L2-normalised"
    )
    diagonal: Literal["include", "exclude"] = Field(
        "exclude", description="whether an image's similarity with itself counts (published: yes)"
    )
    patches: bool = Field(False, description="the same term on patch tokens within each image")
    kernel: Literal["polynomial", "gaussian", "cosine"] = Field(
        "polynomial", description="of both sides; the student's is fitted to the target's"
    )
    degree: int = Field(3, gt=0, description="p of the polynomial kernel")
    learn_kernel: bool = Field(
        True, description="learn the student's kernel too (the paper); false: as fitted (its code)"
    )
    kernel_lr: float = Field(1e-2, gt=0, description="peak rate of the kernel's log parameters")
    fit_images: int = Field(512, gt=1, description="images that the student's kernel is fitted on")
    fraction: float = Field(1.0, gt=0, le=1, description="share of the images that is used")
    holdout: float = Field(
        0.05, gt=0, lt=0.5, description="share of the images held out to measure the kernel term on"
    )
    augment: Literal["none", "crop"] = Field(
        "none", description="crop = a random crop and flip that both encoders see; the target's "
        "features are then computed in every step"
    )  # fmt: skip
    warmup_steps: int | None = Field(
        None, gt=0, description="steps with rising rate, at most a tenth of all (instead of warmup)"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute blocks anew in the backward pass: less memory, more time"
    )
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    batch: int = Field(128, gt=1, description="images per step at most; an epoch is split evenly")
    epochs: int = Field(2, gt=0, description="passes over the images")
    betas: tuple[float, float] | None = Field((0.9, 0.999), description="of the optimiser")
    validations: int = Field(4, ge=1, description="checkpoints that are measured (eval, stop)")
    checkpoints: int = Field(8, ge=1, description="checkpoints that a killed run goes on from")

    def warmup_of(self, steps: int) -> int:
        """As for any training; ``warmup_steps`` of a paper are those of its own data, and so at
        most a tenth."""
        if self.warmup_steps is None:
            return super().warmup_of(steps)
        return max(1, min(self.warmup_steps, steps // 10))


class TuneRecipe(LayeredRecipe):
    """One tuning: a CLIP, a stronger encoder, images, and what is measured on the way."""

    kind: ClassVar[str] = "tuning"
    command: ClassVar[str] = "lateen tune"
    shape: ClassVar[str] = "It has the keys model, target and images; see tune-flickr8k."

    preset: str = Field(
        "small", description="values beneath those given here: small, or those of KUEA",
        examples=list(TUNE_PRESETS),
    )  # fmt: skip
    model: str = Field(description="the model: folder or hub id of an AlignedModel, CLIP or SigLIP")
    images: str = Field(description="images to tune on, without captions: a folder, or any source")
    target: VisionConfig
    tune: TuneSection = TuneSection()
    eval: EvalSection = EvalSection()
    stop: Stop = Stop()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values`` and put the preset's beneath them.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one) or a value that does not fit.
        """
        values = with_preset(values, TUNE_PRESETS)
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise cls.explained(error) from error
        if recipe.precision == "auto":
            return recipe
        return recipe.model_copy(
            update={
                "target": recipe.target.in_precision(recipe.precision),
                "tune": recipe.tune.in_precision(recipe.precision),
            }
        )

    @classmethod
    def explained(cls, error: ValidationError) -> RecipeError:
        """What pydantic found, in terms of keys; what is missing in terms of options."""
        fault = first_fault(error, cls)
        if fault.kind != "missing":
            return super().explained(error)
        option = {"model": "MODEL", "images": "--images DIR"} | dict.fromkeys(
            ("target", "target.encoder"), "--target ENCODER"
        )
        return RecipeError(
            f"nothing says which {fault.dotted.removesuffix('.encoder')} to take",
            f"Give {option.get(fault.dotted, f'--{fault.dotted}')}, or a --recipe that has it.",
        )
