"""What names an encoder and how it is to be run: sections of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

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
    python: str | None = Field(
        None, description="Python of another environment, which the encoder runs in (this one)"
    )
    untrained: bool = Field(False, description="random weights in its architecture: a baseline")

    def options(self) -> EncoderOptions:
        """How it is loaded."""
        return EncoderOptions(**self.model_dump(include=_LOADING))

    @property
    def further(self) -> dict[str, tuple[Any, ...]]:
        """Further encoders that it names, by the key that does."""
        lists = {name: getattr(self, name, ()) for name in ("fuse", "candidates")}
        return {name: parts for name, parts in lists.items() if parts and parts != "auto"}

    def in_precision(self, precision: Precision) -> Self:
        """The same, and further encoders, in a precision unless they have one of their own.

        Args:
            precision: in place of ``auto``.
        """
        own = precision if self.precision == "auto" else self.precision
        parts = {
            name: tuple(part.in_precision(precision) for part in parts)
            for name, parts in self.further.items()
        }
        return self.model_copy(update={"precision": own, **parts})

    def placed(self, root: Path) -> Self:
        """The same, to be loaded from any working directory.

        Args:
            root: below which encoders are sought, too.
        """
        python = self.python
        if python is not None and Path(python).name != python:  # else it is on the search path
            python = str(Path(python).expanduser().absolute())
        return self.model_copy(update={"encoder": self.found_below(root), "python": python})

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


class FusedText(_Part, TextConfig):
    """A further text encoder (or layer, or pooling) whose features join the first one's."""


def _as_layer(value: Any) -> Any:
    """A layer's number, ``best``, or nothing, for an error of its own."""
    if isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    if value is None or value == "best" or isinstance(value, int):
        return value
    raise ValueError("it is a whole number, or best")


def _as_parts(value: Any) -> Any:
    """``auto``, which the command line has as a list of one, or a list, for an error of its own."""
    if value == "auto" or (isinstance(value, list | tuple) and list(value) == ["auto"]):
        return "auto"
    if isinstance(value, list | tuple):
        return value
    raise ValueError("it is auto, or a list of further encoders")


class _Side(EncoderConfig):
    """What both sides of a recipe have beside an encoder's own keys."""

    layer: Annotated[int | Literal["best"] | None, BeforeValidator(_as_layer)] = Field(  # type: ignore[assignment]
        None,
        description="hidden layer; 0 = embeddings, or the first map of a convolutional network "
        "(last if not given); best = whose neighbours are most alike on both sides",
    )
    fuse: tuple[_Part, ...] | Literal["auto"] = ()
    candidates: tuple[_Part, ...] = ()
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")

    @property
    def undecided(self) -> Literal["layer", "fuse"] | None:
        """The key whose layers are still to be chosen, if there is one."""
        if self.fuse == "auto":
            return "fuse"
        return "layer" if self.layer == "best" else None

    @model_validator(mode="after")
    def _chooses_one_way(self) -> Self:
        if self.fuse == "auto" and self.layer == "best":
            raise ValueError("fuse: auto takes several layers, and layer: best one: give only one")
        if self.fuse != "auto" and self.candidates:
            raise ValueError("candidates are what fuse: auto chooses among: give fuse: auto, too")
        return self


_FUSE = (
    "further encoders, layers or poolings fused with it, weights beside its 1; auto = the layers "
    "that add most"
)
_CANDIDATES = (
    "further encoders whose layers fuse: auto may take, too (with a layer: that one alone)"
)


class VisionSection(_Side, VisionConfig):
    """The frozen vision encoder, or several whose features are fused."""

    encoder: str = Field(
        "facebook/dinov2-small",
        description="hub id, folder or GGUF file (also below data.root), or module:factory",
    )
    fuse: Annotated[tuple[FusedPart, ...] | Literal["auto"], BeforeValidator(_as_parts)] = Field(
        (), description=_FUSE
    )
    candidates: tuple[FusedPart, ...] = Field((), description=_CANDIDATES)


class TextSection(_Side, TextConfig):
    """The text encoder, frozen if nothing else is said, or several whose features are fused."""

    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="hub id, folder or GGUF file (also below data.root), module:factory, or "
        "openai+http://HOST/v1#MODEL",
    )
    fuse: Annotated[tuple[FusedText, ...] | Literal["auto"], BeforeValidator(_as_parts)] = Field(
        (), description=_FUSE
    )
    candidates: tuple[FusedText, ...] = Field((), description=_CANDIDATES)
    train: bool = Field(
        False, description="train the encoder with its head, at train.tower_lr (LiT)"
    )

    @model_validator(mode="after")
    def _one_to_train(self) -> TextSection:
        if self.train and self.undecided:
            raise ValueError("an encoder that is trained gives its last layer: leave best and auto "
                             "out")  # fmt: skip
        if self.train and self.python:
            raise ValueError("an encoder of another environment cannot be trained: leave "
                             "text.python out")  # fmt: skip
        if self.train and self.fuse:
            raise ValueError("several fused text encoders cannot be trained: leave text.fuse out")
        return self
