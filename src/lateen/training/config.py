"""How heads look and how they are trained: the sections ``head`` and ``train``, and the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from lateen.config import Precision, Section

AUTO = "auto"
LONGEST_CCA = 4096
"""Features up to which canonical directions are there unless asked otherwise: beyond,
O(features³) takes minutes."""

_Ridge = Annotated[float, Field(gt=0)]
TrackerName = Literal["tensorboard", "wandb", "trackio"]
HeadName = Literal["linear", "mlp", "glu", "sharelock", "identity"]
_LION_AT_SCALE = {
    "cca": 0.0, "optimizer": "lion", "lr": 1e-5, "betas": (0.9, 0.99), "batch": 32768,
    "epochs": 100, "warmup": 0.1, "clip_norm": None, "precision": "auto",
}  # fmt: skip
_SAIL_LOSS = {"loss": "sigmoid", "normalization": "batch_squared", "positives": "sum"}
# METHODS §1.4 and §1.7. `auto` is what `lateen run` uses where nothing else is said. sharelock's
# values are those of its authors' configuration, for some 560,000 pairs.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    AUTO: {},  # is filled in when the pairs are known: training/auto.py
    "small": {},
    "sail": {
        "head": {"name": "glu", "dim": 1024, "width": 8, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, **_SAIL_LOSS, "weight_decay": 1e-4, "micro_batch": 1024},
    },
    "probe": {
        "head": {"name": "linear", "dim": 2048, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, **_SAIL_LOSS, "weight_decay": 1e-7},
    },
    # The heads and loss of `probe` with steps for thousands of pairs: a second or two for
    # 6,000 images, within a point or two of R@10 of four times as many epochs.
    "probe-small": {
        "head": {"name": "linear", "dim": 256, "dropout": 0.3, "text_dropout": 0.1},
        "train": {
            "cca": 0.0, "lr": 5e-3, "batch": 512, "epochs": 15, "validations": 1, "checkpoints": 1,
        },
    },
    "linear-infonce": {
        "head": {"name": "linear", "dim": 1024, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, "loss": "infonce", "weight_decay": 1e-4},
    },
    "sharelock": {
        "head": {"name": "sharelock", "dropout": 0.0},
        "train": {
            "loss": "infonce", "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4,
            "betas": (0.9, 0.999), "batch": 16384, "epochs": 145, "warmup": 0.03, "clip_norm": 1.0,
            "precision": "auto",
        },
    },
    # LiT's method (locked image side, softmax loss) at the size of a small machine.
    "lit": {
        "text": {"train": True},
        "head": {"name": "linear", "vision": "identity", "dropout": 0.5},
        "train": {
            "loss": "infonce", "optimizer": "adamw", "lr": 3e-3, "tower_lr": 5e-5, "batch": 256,
            "micro_batch": 128, "epochs": 8, "init_scale": 50.0, "validations": 4, "checkpoints": 4,
        },
    },
}  # fmt: skip
# Those whose training reads stored features alone, as `lateen train` does.
FEATURE_PRESETS = [
    name for name, values in PRESETS.items() if not values.get("text", {}).get("train")
]


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


class LoopSection(Section):
    """How anything is trained: what the loop itself asks for."""

    section: ClassVar[str] = "train"
    """The recipe's section that it is, by which errors name its keys."""

    optimizer: Literal["adamw", "lion"] = Field("adamw", description="optimiser")
    lr: float = Field(3e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="not on biases, norms, scale and bias")
    betas: tuple[float, float] | None = Field(None, description="(0.9, 0.99 lion; 0.9, 0.95 adamw)")
    batch: int = Field(512, gt=1, description="images per step at most; an epoch is split evenly")
    epochs: int = Field(60, ge=0, description="passes over the images; 0 for train.cca alone")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with rising rate")
    clip_norm: float | None = Field(1.0, gt=0, description="gradient norm limit, null for none")
    micro_batch: int | None = Field(
        None, gt=0, description="images in memory at a time; the step stays that of the whole "
        "batch, for another forward pass (without it, the whole batch)"
    )  # fmt: skip
    precision: Precision = Field("auto", description="of the matrix products in training")
    validations: int = Field(10, ge=1, description="validation retrievals during training")
    checkpoints: int = Field(10, ge=1, description="checkpoints during training")
    seed: int = Field(0, ge=0, description="of weights, order, captions and dropout")

    def in_precision(self, precision: Precision) -> Self:
        """The same in a precision, unless it has one of its own.

        Args:
            precision: in place of ``auto``.
        """
        own = precision if self.precision == "auto" else self.precision
        return self.model_copy(update={"precision": own})

    def warmup_of(self, steps: int) -> int:
        """How many of the training's steps are warm-up."""
        return round(self.warmup * steps)

    @property
    def loss_rows(self) -> int:
        """Rows of the batch that the loss holds a matrix for; 1 where it cannot be divided."""
        return 1

    @property
    def dividing(self) -> str:
        """The keys by which a step is divided, which change no result, in words."""
        return f"{self.section}.micro_batch"

    def with_loss_rows(self, rows: int) -> Self:
        """The same with other :attr:`loss_rows`."""
        del rows
        return self

    @property
    def compiles(self) -> bool | Literal["auto"]:
        """Whether networks run through :func:`torch.compile`."""
        return False

    @property
    def tracker(self) -> TrackerName | None:
        """What looks on, if anything."""
        return None


class UnpairedSection(Section):
    """Images without captions and texts without images, from which heads learn beside the pairs
    (SOTAlign, METHODS §3)."""

    images: str | None = Field(
        None, description="store of images without captions; `lateen run` also takes what it can "
        "encode, relative to data.root (the pairs' own images, if only texts are given)"
    )  # fmt: skip
    texts: str | None = Field(
        None, description="likewise of texts without images (the pairs' own captions)"
    )
    weight: float = Field(1.0, gt=0, description="of the transport loss beside the contrastive one")
    batch: int = Field(512, gt=1, description="such images, and as many texts, per step at most")

    @property
    def sources(self) -> dict[str, str]:
        """What is given, by side: ``images``, ``texts``."""
        sides = {"images": self.images, "texts": self.texts}
        return {side: source for side, source in sides.items() if source is not None}

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.images is None and self.texts is None:
            raise ValueError("it names images, texts or both")
        return self


class TrainSection(LoopSection):
    """How the heads are trained (METHODS §1.3, §1.4)."""

    newer: ClassVar[frozenset[str]] = frozenset({"cca_ridge", "unpaired"})
    """Keys without which trainings of earlier versions were made."""

    loss: Literal["sigmoid", "infonce"] = Field("sigmoid", description="contrastive loss")
    normalization: Literal["batch", "batch_squared"] = Field(
        "batch", description="sigmoid loss over B (SigLIP) or B² (SAIL)"
    )
    positives: Literal["sum", "mean"] = Field("sum", description="over caption columns")
    chunk: int = Field(1024, gt=0, description="rows of the logit matrix held at a time")
    compile: bool | Literal["auto"] = Field(
        "auto", description="run the heads through torch.compile; auto = on a GPU"
    )
    captions_per_image: int = Field(
        1, gt=0, description="captions of each column drawn per image and step, each a positive"
    )
    tower_lr: float = Field(
        5e-5, gt=0, description="peak learning rate of a text encoder that is trained (text.train)"
    )
    cca: float | None = Field(
        None, ge=0, description="weight of closed-form canonical directions put beside the trained "
        "ones, as further dims of linear heads (preset auto: by the number of pairs; else 0.8 with "
        "linear heads on up to 4096 values, 0 with others)"
    )  # fmt: skip
    cca_ridge: tuple[_Ridge, _Ridge] | None = Field(
        None, description="ridges of the closed form, image and text, in mean variances of a "
        "feature (preset auto: by the number of pairs; else 1.0, 0.06, with train.unpaired times "
        "6,000 / pairs, at least 1)"
    )  # fmt: skip
    init_scale: float = Field(20.0, gt=0, description="t at the start (stored as its log)")
    init_bias: float = Field(-10.0, description="b at the start")
    block: int | None = Field(
        None, gt=0, description="neighbouring images read and shuffled together (1 up to 256 MiB "
        "of features, which are held in memory; beyond, what makes reads of 1 MiB, but at most a "
        "64th of a batch)"
    )  # fmt: skip
    unpaired: UnpairedSection | None = Field(
        None, description="images without captions and texts without images to learn from, too"
    )

    # Left out of every dump, and so of all keys and of what a run saves: it decides no result.
    track: TrackerName | None = Field(
        None, exclude=True, description="experiment tracker that also gets what goes into "
        "metrics.jsonl (off)"
    )  # fmt: skip

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        if self.unpaired is not None and self.epochs == 0:
            raise ValueError("0 epochs train nothing, and learn nothing from what is unpaired")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the newer keys where they are not given: trainings are found by these values,
        also those of versions that did not know them."""
        known: dict[str, Any] = values(self)
        return {k: v for k, v in known.items() if v is not None or k not in self.newer}

    def deciding(self, *, seed: bool = True) -> dict[str, Any]:
        """The values that decide a training's result, as JSON values. Where its data are does not:
        those go by content.

        Args:
            seed: with the seed.
        """
        return self.model_dump(
            mode="json", exclude={"unpaired": {"images", "texts"}, "seed": not seed}
        )

    @property
    def loss_rows(self) -> int:
        """``chunk``."""
        return self.chunk

    @property
    def dividing(self) -> str:
        """Also ``chunk``."""
        return f"{super().dividing} and {self.section}.chunk"

    def with_loss_rows(self, rows: int) -> Self:
        """With another ``chunk``."""
        return self.model_copy(update={"chunk": rows})

    @property
    def compiles(self) -> bool | Literal["auto"]:
        """``compile``."""
        return self.compile

    @property
    def tracker(self) -> TrackerName | None:
        """``track``."""
        return self.track


class BankSection(Section):
    """The query bank that a trained model carries (:mod:`lateen.model.query_bank`)."""

    size: int = Field(
        2048, ge=0, description="training captions, and images, by which hubs are told when "
        "photographs or texts are ranked; 0 for no bank"
    )  # fmt: skip

    @field_validator("size")
    @classmethod
    def _more_than_one(cls, size: int) -> int:
        if size == 1:
            raise ValueError("a bank of one tells no hub from others: give more, or 0 for none")
        return size
