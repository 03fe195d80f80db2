"""The sections of a recipe: every key, its type, its default and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Pooling = Literal["cls", "mean", "cls+mean", "pooler", "projection"]
TextPooling = Literal["mean", "first", "last", "pooler", "projection"]
Precision = Literal["auto", "float32", "bfloat16"]
HeadName = Literal["linear", "mlp", "glu", "sharelock", "identity"]


class Section(BaseModel):
    """Strict, frozen values: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataSection(Section):
    """Where images and captions are."""

    root: Path = Field(
        Path(),
        description="folder that the other paths are relative to; itself relative to where you are",
    )
    images: str | None = Field(
        None, description="image folder of a caption file (its own folder, or images/ in it)"
    )
    train: str = Field("train.csv", description="training split: CSV, TSV, JSONL, Parquet, COCO "
                       "JSON, WebDataset shards, a folder, a datasets name; file#split for one of "
                       "several splits")  # fmt: skip
    validation: str | None = Field(
        None, description="split that picks the best step; without it, `holdout` of train does"
    )
    test: str | None = Field(None, description="split that is only ever evaluated on")
    holdout: float = Field(
        0.05, gt=0, lt=0.5, description="share of train images held out without `validation`"
    )
    image_column: str | None = Field(None, description="image column (guessed if not given)")
    captions: tuple[str, ...] = Field(
        (),
        description="caption columns, each a positive of its own (guessed if not given); "
        "caption#0 trains on each image's first alone",
    )


class _Part(Section):
    """What fused encoders have beside an encoder's own keys; a name alone stands for one."""

    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="the first has weight 1")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"encoder": value} if isinstance(value, str) else value


class _VisionEncoder(Section):
    """What names one vision encoder."""

    encoder: str = Field(description="hub id, folder, or module:factory")
    pooling: Pooling | None = Field(None, description="token pooling (the encoder's own if known)")
    layer: int | None = Field(None, description="hidden layer; 0 = embeddings (last if not given)")
    precision: Precision = Field("auto", description="auto = bfloat16 where the processor has it")
    revision: str | None = Field(None, description="hub branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run the model repository's own code")
    untrained: bool = Field(False, description="random weights in its architecture: a baseline")


class FusedPart(_Part, _VisionEncoder):
    """A further vision encoder (or layer, or pooling) whose features join the first one's."""


class VisionSection(_VisionEncoder):
    """The frozen vision encoder, or several whose features are fused."""

    encoder: str = Field("facebook/dinov2-small", description="hub id, folder, or module:factory")
    fuse: tuple[FusedPart, ...] = Field(
        (), description="further encoders, layers or poolings fused with it, weights beside its 1"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")


class _TextEncoder(Section):
    encoder: str = Field(description="hub id, folder, or module:factory")
    pooling: TextPooling | None = Field(None, description="pooling (the encoder's own if known)")
    layer: int | None = Field(None, description="hidden layer; 0 = embeddings (last if not given)")
    prompt: str | None = Field(None, description="put before every text (the encoder's own)")
    max_tokens: int | None = Field(None, gt=1, description="longer texts are cut (encoder's own)")
    precision: Precision = Field("auto", description="auto = bfloat16 where the processor has it")
    revision: str | None = Field(None, description="hub branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run the model repository's own code")
    untrained: bool = Field(False, description="random weights in its architecture: a baseline")


class FusedText(_Part, _TextEncoder):
    """A further text encoder (or layer, or pooling) whose features join the first one's."""


class TextSection(_TextEncoder):
    """The text encoder, frozen if nothing else is said, or several whose features are fused."""

    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="hub id, folder, or module:factory"
    )
    fuse: tuple[FusedText, ...] = Field(
        (), description="further encoders, layers or poolings fused with it, weights beside its 1"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")
    train: bool = Field(
        False, description="train the encoder with its head, at train.tower_lr (LiT)"
    )

    @model_validator(mode="after")
    def _one_to_train(self) -> TextSection:
        if self.train and self.fuse:
            raise ValueError("several fused text encoders cannot be trained: leave text.fuse out")
        return self


class HeadSection(Section):
    """The alignment heads, one per modality (METHODS §1.2)."""

    name: HeadName = Field("linear", description="shape of both heads")
    vision: HeadName | None = Field(
        None, description="of the image head, where it is another (identity with sharelock)"
    )
    dim: int | None = Field(
        None, gt=0, description="length of the shared embedding (512, or what identity keeps)"
    )
    width: int | None = Field(
        None, gt=0, description="hidden / input width (mlp 4, glu 8; sharelock is 4096 wide)"
    )
    depth: int = Field(1, gt=0, description="how many such blocks, without residuals")
    dropout: float = Field(
        0.7, ge=0, lt=1, description="share of the normalised image features set to 0 in training"
    )
    text_dropout: float = Field(
        0.2, ge=0, lt=1, description="of the text features (like dropout, where that is given)"
    )

    @property
    def image_name(self) -> HeadName:
        """The kind of the image head."""
        return self.vision or ("identity" if self.name == "sharelock" else self.name)

    @model_validator(mode="before")
    @classmethod
    def _one_dropout_for_both(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "dropout" in values and "text_dropout" not in values:
            return {**values, "text_dropout": values["dropout"]}
        return values

    @model_validator(mode="after")
    def _one_linear_map(self) -> HeadSection:
        if self.depth > 1 and not {self.name, self.image_name} <= {"mlp", "glu", "identity"}:
            raise ValueError("only mlp and glu can be stacked: use depth 1")
        return self


class TrainSection(Section):
    """How the heads are trained (METHODS §1.3, §1.4)."""

    loss: Literal["sigmoid", "infonce"] = Field("sigmoid", description="contrastive loss")
    normalization: Literal["batch", "batch_squared"] = Field(
        "batch", description="sigmoid loss over B (SigLIP) or B² (SAIL)"
    )
    positives: Literal["sum", "mean"] = Field("sum", description="over caption columns")
    captions_per_image: int = Field(
        1, gt=0, description="captions of each column drawn per image and step, each a positive"
    )
    optimizer: Literal["adamw", "lion"] = Field("adamw", description="optimiser")
    lr: float = Field(3e-3, gt=0, description="peak learning rate")
    tower_lr: float = Field(
        5e-5, gt=0, description="peak learning rate of a text encoder that is trained (text.train)"
    )
    weight_decay: float = Field(1e-4, ge=0, description="not on biases, norms, scale and bias")
    betas: tuple[float, float] | None = Field(None, description="(0.9, 0.99 lion; 0.9, 0.95 adamw)")
    batch: int = Field(512, gt=1, description="images per step at most; an epoch is split evenly")
    epochs: int = Field(60, ge=0, description="passes over the images; 0 for train.cca alone")
    cca: float | None = Field(
        None, ge=0, description="weight of closed-form canonical directions put beside the trained "
        "ones, as further dims of linear heads (0.8 with linear heads on up to 4096 values, else 0)"
    )  # fmt: skip
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with rising rate")
    clip_norm: float | None = Field(1.0, gt=0, description="gradient norm limit, null for none")
    init_scale: float = Field(20.0, gt=0, description="t at the start (stored as its log)")
    init_bias: float = Field(-10.0, description="b at the start")
    chunk: int = Field(1024, gt=0, description="rows of the logit matrix held at a time")
    micro_batch: int | None = Field(
        None, gt=0, description="images in memory at a time; the step stays that of the whole "
        "batch, for another forward pass (without it, the whole batch)"
    )  # fmt: skip
    block: int | None = Field(
        None, gt=0, description="neighbouring images read and shuffled together (1 up to 256 MiB "
        "of features, which are held in memory; beyond, what makes reads of 1 MiB, but at most a "
        "64th of a batch)"
    )  # fmt: skip
    precision: Precision = Field("auto", description="of the matrix products in training")
    compile: bool | Literal["auto"] = Field(
        "auto", description="run the heads through torch.compile; auto = on a GPU"
    )
    validations: int = Field(10, ge=1, description="validation retrievals during training")
    checkpoints: int = Field(10, ge=1, description="checkpoints during training")
    seed: int = Field(0, ge=0, description="of weights, order, captions and dropout")


class EvaluateSection(Section):
    """What is measured at the end."""

    retrieval: bool = Field(True, description="R@1/5/10, both ways, on validation and test")
    classification: str | None = Field(
        None, description="class folder for zero-shot classification, relative to data.root"
    )
