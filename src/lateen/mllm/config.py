"""How a multimodal model is trained: the recipe of ``lateen mllm train``, its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator

from lateen.config import (
    LayeredRecipe,
    Section,
    with_preset,
)
from lateen.errors import RecipeError
from lateen.mllm.templates import CAPTION_PROMPT, IMAGE

Norm = Literal["layer", "none"]
"""What is done to each token of a tower before the projector: a LayerNorm without weights, or
nothing."""

# LLaVA-1.5's published scripts: pretrain.sh, finetune.sh and finetune_lora.sh of scripts/v1_5.
_LLAVA: dict[str, Any] = {
    "warmup": 0.03, "weight_decay": 0.0, "max_length": 2048, "epochs": 1.0, "clip_norm": 1.0,
    "caption_prompt": f"{IMAGE}\n", "gradient_checkpointing": True,
}  # fmt: skip
_LLAVA_STAGES: dict[tuple[str, str], dict[str, Any]] = {
    ("projector", "full"): {"lr": 1e-3, "batch": 256},
    ("instruct", "full"): {"lr": 2e-5, "batch": 128},
    ("instruct", "lora"): {
        "lr": 2e-4, "projector_lr": 2e-5, "batch": 128, "lora_rank": 128, "lora_alpha": 256,
        "lora_dropout": 0.05,
    },
}  # fmt: skip
# For a language model of 135 M parameters: the first values that were tried, not searched.
_SMALL_STAGES: dict[tuple[str, str], dict[str, Any]] = {
    ("projector", "full"): {"lr": 1e-3, "batch": 16},
    ("instruct", "full"): {"lr": 5e-5, "batch": 16},
    ("instruct", "lora"): {
        "lr": 5e-4, "projector_lr": 5e-4, "batch": 16, "lora_rank": 16, "lora_alpha": 32,
        "lora_dropout": 0.0,
    },
}  # fmt: skip
_OF_MODEL: dict[str, dict[str, Any]] = {"llava-1.5": {"norm": "none"}}
MLLM_PRESETS: dict[str, dict[tuple[str, str], dict[str, Any]]] = {
    "small": _SMALL_STAGES,
    "llava-1.5": {stage: {**_LLAVA, **values} for stage, values in _LLAVA_STAGES.items()},
}
"""By stage and what is tuned in it."""


class DataSection(Section):
    """What is learned from."""

    root: str | None = Field(
        None, description="LLaVA's JSON, any dataset with captions, or a set of questions"
    )
    questions: str | None = Field(
        None, description="set of questions that `root` has, whose right answers are learned: as "
        "`lateen mllm evaluate --list` names them"
    )  # fmt: skip
    images: str | None = Field(None, description="folder that names of images are relative to")
    split: str | None = Field(None, description="of the data (of questions: train)")


class StageSection(Section):
    """How a stage goes."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    projector_lr: float | None = Field(
        None, gt=0, description="of the projector, where it is another (LLaVA, lora: 2e-5)"
    )
    batch: int = Field(16, gt=0, description="conversations per step")
    device_batch: int | None = Field(
        None, gt=0, description="of them in memory at a time; the step stays that of the batch "
        "(without it, the whole batch)"
    )  # fmt: skip
    epochs: float = Field(1.0, gt=0, description="passes over the conversations")
    steps: int | None = Field(None, gt=0, description="steps, instead of epochs")
    warmup: float = Field(0.03, ge=0, lt=1, description="share of steps with rising rate")
    weight_decay: float = Field(0.0, ge=0, description="not on biases and norms")
    clip_norm: float | None = Field(1.0, gt=0, description="gradient norm limit, null for none")
    max_length: int = Field(
        2048, gt=0, description="tokens of a conversation with its images; of a longer one the "
        "last turns are left out, and counted"
    )  # fmt: skip
    caption_prompt: str = Field(
        CAPTION_PROMPT, description="what stands before captions in the stage projector; LLaVA has "
        "the image alone"
    )  # fmt: skip
    tune_tower: bool = Field(False, description="the tower learns too (the papers' VTune)")
    lora_rank: int = Field(16, gt=0, description="rank of the additions (tune=lora)")
    lora_alpha: int = Field(32, gt=0, description="their scale is this over the rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="in front of them")
    features: str = Field(
        "auto", description="image tokens, where the tower is frozen: made once and stored (auto: "
        "where they take at most 20 GB), live = made in every step, or a folder to keep them in"
    )  # fmt: skip
    holdout: int = Field(
        200, ge=0, description="images held out to measure the loss on, at most a tenth of all; 0 "
        "for none"
    )  # fmt: skip
    validations: int = Field(2, ge=1, description="times that it is measured after the start")
    checkpoints: int = Field(4, ge=1, description="checkpoints that a killed run goes on from")
    gradient_checkpointing: bool = Field(
        False, description="compute layers anew in the backward pass: less memory, more time"
    )
    seed: int = Field(0, ge=0, description="of the projector's start, of order and of lora")

    @property
    def at_once(self) -> int:
        """Conversations in memory at a time: so many that whole times make the batch."""
        most = min(self.device_batch or self.batch, self.batch)
        return next(size for size in range(most, 0, -1) if self.batch % size == 0)

    @property
    def rate_of_projector(self) -> float:
        """Its peak learning rate."""
        return self.projector_lr or self.lr


class MultimodalRecipe(LayeredRecipe):
    """One stage of a training: what is put together, what it learns from, and how."""

    kind: ClassVar[str] = "multimodal"
    command: ClassVar[str] = "lateen mllm train"
    shape: ClassVar[str] = "It has the keys tower and llm, or start; see mllm-flickr8k."

    preset: str = Field(
        "small", description="values beneath those given here: small, or LLaVA-1.5's",
        examples=list(MLLM_PRESETS),
    )  # fmt: skip
    tower: tuple[str, ...] = Field(
        (), description="model, CLIP or vision encoder; several are fused"
    )
    mix: Literal["additive", "interleaved", "channels"] | None = Field(
        None, description="of several towers, as `lateen mllm build --mix` has it"
    )
    share: float | None = Field(None, gt=0, lt=1, description="of the first, where they are added")
    llm: str | None = Field(None, description="language model: folder, GGUF file or hub id")
    start: str | None = Field(
        None, description="a multimodal model to go on with, instead of tower and llm"
    )
    tokens: Literal["cls+patch", "patch", "cls,patch"] | None = Field(
        None, description="of an image, as `lateen mllm build --tokens` has it"
    )
    layer: int | None = Field(None, description="hidden layer of the backbone, without the head")
    bare: bool = Field(False, description="leave the model's image head out")
    grid: int | None = Field(None, gt=0, description="average the patches to N × N")
    norm: Norm = Field(
        "layer", description="of each token, by which a projector learns faster; none as LLaVA"
    )
    template: str | None = Field(None, description="chat template: chatml, vicuna or a file")
    stage: Literal["projector", "instruct"] = Field(
        "projector", description="LLaVA's first, the projector alone on captions; or its second, "
        "the language model too, on conversations"
    )  # fmt: skip
    tune: Literal["full", "lora"] = Field(
        "full", description="of the stage instruct: all of the language model, or additions of low "
        "rank to its layers, which are merged at the end"
    )  # fmt: skip
    data: DataSection = DataSection()
    train: StageSection = StageSection()

    @field_validator("tower", mode="before")
    @classmethod
    def _one_tower(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values`` and put the preset's of their stage beneath them.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one), a value that does not fit,
                or keys that do not go together.
        """
        stage = values.get("stage", "projector"), values.get("tune", "full")
        try:
            stages = {
                name: {**_OF_MODEL.get(name, {}), "train": of.get(stage, {})}
                for name, of in MLLM_PRESETS.items()
            }  # fmt: skip
            recipe = cls.model_validate(with_preset(values, stages))
        except ValidationError as error:
            raise cls.explained(error) from error
        recipe._check()
        return recipe

    def _check(self) -> None:
        """See that keys go together."""
        if self.start is not None and (self.tower or self.llm):
            raise RecipeError(
                "a model to go on with has its tower and its language model",
                "Give --from, or --tower and --llm.",
            )
        if self.start is None and not (self.tower and self.llm):
            lacks = "no tower" if self.llm else "no language model" if self.tower else "no model"
            raise RecipeError(
                f"there is {lacks}", "Give --tower and --llm, or --from with a multimodal model."
            )
        if self.start is not None:
            made = [name for name in ("mix", "share", "tokens", "layer", "grid", "template", "bare")
                    if getattr(self, name)]  # fmt: skip
            if made:
                raise RecipeError(
                    f"{made[0]} is settled by the model to go on with",
                    "Leave it out, or begin with --tower and --llm.",
                )
        if self.data.root is None and self.data.questions is None:
            raise RecipeError("nothing says what to learn from", "Give --data.")
        if self.stage == "projector" and (self.tune == "lora" or self.train.tune_tower):
            raise RecipeError(
                "the stage projector trains the projector alone",
                "Leave tune and train.tune_tower out, or take --stage instruct.",
            )
