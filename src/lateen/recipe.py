"""The whole experiment as one strict, frozen, re-runnable YAML file.

A recipe has the sections ``data``, ``vision``, ``text``, ``head``, ``train`` and ``evaluate``, and
a ``preset`` that fills in a paper's values beneath those given explicitly. Every key can be
overridden by its dotted name (``--train.lr 1e-4``). Unknown keys are errors that name the nearest
valid one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lateen.errors import RecipeError, choices
from lateen.files import write_text

Pooling = Literal["cls", "mean", "cls+mean", "pooler", "projection"]
TextPooling = Literal["mean", "first", "last", "pooler", "projection"]
Precision = Literal["auto", "float32", "bfloat16"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataSection(_Section):
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
        (), description="caption columns, each a positive of its own (guessed if not given)"
    )


class VisionSection(_Section):
    """The frozen vision encoder."""

    encoder: str = Field("facebook/dinov2-small", description="hub id, folder, or module:factory")
    pooling: Pooling | None = Field(None, description="token pooling (the encoder's own if known)")
    layer: int | None = Field(None, description="hidden layer; 0 = embeddings (last if not given)")
    precision: Precision = Field("auto", description="auto = bfloat16 where the processor has it")
    revision: str | None = Field(None, description="hub branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run the model repository's own code")
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")


class TextSection(_Section):
    """The frozen text encoder."""

    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="hub id, folder, or module:factory"
    )
    pooling: TextPooling | None = Field(None, description="pooling (the encoder's own if known)")
    layer: int | None = Field(None, description="hidden layer; 0 = embeddings (last if not given)")
    prompt: str | None = Field(None, description="put before every text (the encoder's own)")
    max_tokens: int | None = Field(None, gt=1, description="longer texts are cut (encoder's own)")
    precision: Precision = Field("auto", description="auto = bfloat16 where the processor has it")
    revision: str | None = Field(None, description="hub branch, tag or commit")
    trust_remote_code: bool = Field(False, description="run the model repository's own code")
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")


class HeadSection(_Section):
    """The alignment heads, one per modality (METHODS §1.2)."""

    name: Literal["linear", "mlp", "glu"] = Field("linear", description="shape of both heads")
    dim: int = Field(512, gt=0, description="length of the shared embedding")
    width: int | None = Field(None, gt=0, description="hidden / input width (mlp 4, glu 8)")
    depth: int = Field(1, gt=0, description="how many such blocks, without residuals")
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of the normalised features set to 0 in training"
    )

    @model_validator(mode="after")
    def _one_linear_map(self) -> HeadSection:
        if self.name == "linear" and self.depth > 1:
            raise ValueError("stacked linear maps are one linear map: use depth 1, or mlp or glu")
        return self


class TrainSection(_Section):
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
    weight_decay: float = Field(1e-4, ge=0, description="not on biases, norms, scale and bias")
    betas: tuple[float, float] | None = Field(None, description="(0.9, 0.99 lion; 0.9, 0.95 adamw)")
    batch: int = Field(512, gt=1, description="images per step at most; an epoch is split evenly")
    epochs: int = Field(60, gt=0, description="passes over the images")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with rising rate")
    clip_norm: float | None = Field(1.0, gt=0, description="gradient norm limit, null for none")
    init_scale: float = Field(20.0, gt=0, description="t at the start (stored as its log)")
    init_bias: float = Field(-10.0, description="b at the start")
    chunk: int = Field(1024, gt=0, description="rows of the logit matrix held at a time")
    precision: Precision = Field("auto", description="of the matrix products in training")
    validations: int = Field(10, ge=1, description="validation retrievals during training")
    checkpoints: int = Field(10, ge=1, description="checkpoints during training")
    seed: int = Field(0, ge=0, description="of weights, order, captions and dropout")


class EvaluateSection(_Section):
    """What is measured at the end."""

    retrieval: bool = Field(True, description="R@1/5/10, both ways, on validation and test")
    classification: str | None = Field(
        None, description="class folder for zero-shot classification, relative to data.root"
    )


Preset = Literal["small", "sail", "probe"]

# METHODS §1.4; `small` is what `lateen run` uses where nothing else is said.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {},
    "sail": {
        "head": {"name": "glu", "dim": 1024, "width": 8, "dropout": 0.0},
        "train": {
            "loss": "sigmoid", "normalization": "batch_squared", "positives": "sum",
            "optimizer": "lion", "lr": 1e-5, "weight_decay": 1e-4, "betas": (0.9, 0.99),
            "batch": 32768, "epochs": 100, "warmup": 0.1, "clip_norm": None, "precision": "auto",
        },
    },
    "probe": {
        "head": {"name": "linear", "dim": 2048, "dropout": 0.0},
        "train": {
            "loss": "sigmoid", "normalization": "batch_squared", "positives": "sum",
            "optimizer": "lion", "lr": 1e-5, "weight_decay": 1e-7, "betas": (0.9, 0.99),
            "batch": 32768, "epochs": 100, "warmup": 0.1, "clip_norm": None, "precision": "auto",
        },
    },
}  # fmt: skip


class Recipe(_Section):
    """One experiment: data, two frozen encoders, a head, its training, its evaluation."""

    preset: Preset = Field("small", description="a paper's values beneath those given here")
    data: DataSection = DataSection()
    vision: VisionSection = VisionSection()
    text: TextSection = TextSection()
    head: HeadSection = HeadSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Recipe:
        """Check ``values`` and put the preset's beneath them.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one) or a value that does not fit.
        """
        preset = values.get("preset", "small")
        if preset not in PRESETS:
            raise RecipeError(f"unknown preset {preset!r}", choices(str(preset), PRESETS))
        merged = _merge(PRESETS[preset], values)
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            raise _explain(error) from error

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a YAML recipe; ``overrides`` are ``{"train.lr": "1e-4"}``, values as YAML text."""
        if not path.is_file():
            raise RecipeError(f"there is no recipe {path}", "Give the path of a YAML file.")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{path} is not valid YAML: {' '.join(str(error).split())}", "Correct that line."
            ) from error
        if not isinstance(values, dict):
            raise RecipeError(f"{path} is not a recipe", "It must be a mapping of sections.")
        for dotted, text in (overrides or {}).items():
            _assign(values, dotted, text)
        return cls.build(values)

    def save(self, path: Path) -> None:
        """Write every value, also the defaults, so that the file alone re-runs to the same."""
        values = self.model_dump(mode="json")
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def keys() -> Iterator[tuple[str, str, str, str]]:
    """(dotted key, type, default, description) of every recipe key, for help and docs."""
    for section, info in Recipe.model_fields.items():
        kind = info.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            yield section, _type_name(kind), str(info.default), info.description or ""
            continue
        for name, field in kind.model_fields.items():
            default = "" if field.default is None else _show(field.default)
            yield (
                f"{section}.{name}", _type_name(field.annotation), default, field.description or ""
            )  # fmt: skip


_TYPE_NAMES = {
    str: "text",
    Path: "path",
    int: "whole number",
    float: "number",
    bool: "true | false",
}


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _type_name(annotation: Any) -> str:
    options = [option for option in get_args(annotation) if option is not type(None)]
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, options))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_type_name, options))
    if get_origin(annotation) is tuple:
        return "list of " + _type_name(options[0])
    return _TYPE_NAMES.get(annotation, str(annotation))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if both else value
    return result


def _assign(values: dict[str, Any], dotted: str, text: Any) -> None:
    value = parse_value(text, dotted) if isinstance(text, str) else text
    *sections, last = dotted.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise _unknown(dotted)
        values = inner
    values[last] = value


def parse_value(text: str, dotted: str) -> Any:
    """The value that ``text`` stands for; where a key takes text or a path, that is itself.

    Args:
        text: as given on the command line.
        dotted: the recipe key it is for.
    """
    kinds = {name: kind for name, kind, *_ in keys()}.get(dotted, "")
    if kinds in (_TYPE_NAMES[str], _TYPE_NAMES[Path]):
        return None if text in ("null", "none", "") else text
    if kinds.startswith("list of") and text != "null" and not text.startswith("["):
        return [word.strip() for word in text.split(",")]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as a word
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _unknown(dotted: str) -> RecipeError:
    names = [name for name, *_ in keys()]
    same = [name for name in names if name.split(".")[0] == dotted.split(".")[0]]
    if same:
        return RecipeError(f"unknown recipe key {dotted!r}", choices(dotted, same))
    near = difflib.get_close_matches(dotted, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    sections = ", ".join(Recipe.model_fields)
    return RecipeError(
        f"unknown recipe key {dotted!r}", f"{hint}The sections are {sections}; see `lateen keys`."
    )


def _explain(error: ValidationError) -> RecipeError:
    first = error.errors()[0]
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        inside = first["input"]  # a whole section, if it is the section that is unknown
        first_key = next(iter(inside), "") if isinstance(inside, dict) else ""
        return _unknown(f"{dotted}.{first_key}" if first_key else dotted)
    return RecipeError(
        f"recipe key {dotted!r} cannot be {first['input']!r}: {first['msg'].lower()}",
        "See `lateen keys` for every key, its type and its default.",
    )
