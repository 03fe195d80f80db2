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
from pydantic import BaseModel, Field, ValidationError

from lateen.config import Section, read_yaml
from lateen.encoders.config import (
    FusedPart,
    FusedText,
    TextSection,
    VisionSection,
)
from lateen.errors import RecipeError, choices
from lateen.files import write_text
from lateen.training.config import PRESETS, HeadSection, Preset, TrainSection

_TYPE_NAMES = {
    str: "text",
    Path: "path",
    int: "whole number",
    float: "number",
    bool: "true | false",
}


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


class EvaluateSection(Section):
    """What is measured at the end."""

    retrieval: bool = Field(True, description="R@1/5/10, both ways, on validation and test")
    classification: str | None = Field(
        None, description="class folder for zero-shot classification, relative to data.root"
    )


class Recipe(Section):
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
            recipe = cls.model_validate(merged)
        except ValidationError as error:
            raise _explain(error) from error
        if recipe.head.name == recipe.head.image_name == "identity" and not recipe.text.train:
            raise RecipeError(
                "two identity heads leave nothing to train",
                "Choose another head.name; identity on both sides is what a ready CLIP has.",
            )
        return recipe

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a YAML recipe; ``overrides`` are ``{"train.lr": "1e-4"}``, values as YAML text."""
        values = read_yaml(path, "recipe") or {}
        if not isinstance(values, dict):
            raise RecipeError(f"{path} is not a recipe", "It must be a mapping of sections.")
        if isinstance(values.get("vision"), list):
            raise RecipeError(
                f"{path} lists candidates: it is a recipe of `lateen assess`",
                "Give one that names one vision and one text encoder; see recipes/.",
            )
        for dotted, text in (overrides or {}).items():
            assign(values, dotted, text)
        return cls.build(values)

    @classmethod
    def of(cls, recipe: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
        """A recipe from itself, from the path of a YAML file, or from its values."""
        if isinstance(recipe, Recipe):
            return recipe
        return cls.build(recipe) if isinstance(recipe, Mapping) else cls.load(Path(recipe))

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
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{{{', '.join(annotation.model_fields)}}}"
    return _TYPE_NAMES.get(annotation, str(annotation))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merge(result[key], value) if both else value
    return result


def assign(values: dict[str, Any], dotted: str, text: Any) -> None:
    """Set the value at a dotted key in place; text is read as :func:`parse_value` reads it.

    Raises:
        RecipeError: the key leads through something that is no section.
    """
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
    if kinds.startswith("list of") and text != "null" and not text.startswith(("[", "{")):
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
    for prefix, part in (("vision.fuse.", FusedPart), ("text.fuse.", FusedText)):
        if dotted.startswith(prefix):
            word = dotted.rpartition(".")[2]
            return RecipeError(f"unknown recipe key {dotted!r}", choices(word, part.model_fields))
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
    errors = error.errors()  # a misspelt key may also be missing: it says more
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    dotted = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        inside = first["input"]  # a whole section, if it is the section that is unknown
        first_key = next(iter(inside), "") if isinstance(inside, dict) else ""
        return _unknown(f"{dotted}.{first_key}" if first_key else dotted)
    parent = dotted.rpartition(".")[0]
    if parent in {name for name, *_ in keys()}:  # pydantic adds which of several types it tried
        dotted = parent
    rule = first["msg"].lower().removeprefix("value error, ")
    return RecipeError(
        f"recipe key {dotted!r} cannot be {first['input']!r}: {rule}",
        "See `lateen keys` for every key, its type and its default.",
    )
