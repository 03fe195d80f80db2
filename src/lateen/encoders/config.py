"""What names an encoder and how it is to be run: sections of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lateen.config import Precision, Section
from lateen.encoders.base import EncoderOptions
from lateen.encoders.resolve import is_gguf

Pooling = Literal["cls", "mean", "cls+mean", "pooler", "projection"]
TextPooling = Literal["mean", "first", "last", "pooler", "projection"]


class EncoderConfig(Section):
    """What names one encoder, and how it is loaded: the keys that both sides have."""

    encoder: str = Field(
        description="hub id, folder or GGUF file (also below data.root), or module:factory"
    )
    layer: int | None = Field(None, description="hidden layer; 0 = embeddings (last if not given)")
    precision: Precision = Field("auto", description="auto = bfloat16 where the processor has it")
    revision: str | None = Field(None, description="hub branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run the model repository's own code")
    untrained: bool = Field(False, description="random weights in its architecture: a baseline")

    def options(self) -> EncoderOptions:
        """How it is loaded."""
        return EncoderOptions(**self.model_dump(include=_LOADING))

    def in_precision(self, precision: Precision) -> Self:
        """The same, and the parts fused with it, in a precision unless they have one of their own.

        Args:
            precision: in place of ``auto``.
        """
        own = precision if self.precision == "auto" else self.precision
        parts = tuple(part.in_precision(precision) for part in getattr(self, "fuse", ()))
        return self.model_copy(update={"precision": own, **({"fuse": parts} if parts else {})})

    def found_below(self, root: Path) -> str:
        """The encoder's folder or GGUF file, where it is one: as it is named, or below ``root``;
        else its name.

        Every command that has a recipe seeks it so.
        """
        places = (Path(self.encoder).expanduser(), root / self.encoder)
        here = (p for p in places if p.is_dir() or (is_gguf(p) and p.is_file()))
        return next((str(place.resolve()) for place in here), self.encoder)


class VisionConfig(EncoderConfig):
    """One vision encoder."""

    pooling: Pooling | None = Field(None, description="token pooling (the encoder's own if known)")


class TextConfig(EncoderConfig):
    """One text encoder."""

    pooling: TextPooling | None = Field(None, description="pooling (the encoder's own if known)")
    prompt: str | None = Field(
        None, description="before every text, or around it where it has {} (the encoder's own)"
    )
    max_tokens: int | None = Field(None, gt=1, description="longer texts are cut (encoder's own)")


# All keys above but the name: EncoderOptions has them, too.
_LOADING = {*VisionConfig.model_fields, *TextConfig.model_fields} - {"encoder"}


class _Part(Section):
    """What fused encoders have beside an encoder's own keys; a name alone stands for one."""

    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="the first has weight 1")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"encoder": value} if isinstance(value, str) else value


class FusedPart(_Part, VisionConfig):
    """A further vision encoder (or layer, or pooling) whose features join the first one's."""


class VisionSection(VisionConfig):
    """The frozen vision encoder, or several whose features are fused."""

    encoder: str = Field(
        "facebook/dinov2-small",
        description="hub id, folder or GGUF file (also below data.root), or module:factory",
    )
    fuse: tuple[FusedPart, ...] = Field(
        (), description="further encoders, layers or poolings fused with it, weights beside its 1"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")


class FusedText(_Part, TextConfig):
    """A further text encoder (or layer, or pooling) whose features join the first one's."""


class TextSection(TextConfig):
    """The text encoder, frozen if nothing else is said, or several whose features are fused."""

    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="hub id, folder or GGUF file (also below data.root), or module:factory",
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
