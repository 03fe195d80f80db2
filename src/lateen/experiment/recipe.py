"""The whole experiment as one strict, frozen, re-runnable YAML file.

A recipe has the sections ``data``, ``vision``, ``text``, ``head``, ``train``, ``bank`` and
``evaluate``, and a ``preset`` that fills in a paper's values beneath those given explicitly. Every
key can be overridden by its dotted name (``--train.lr 1e-4``). Unknown keys are errors that name
the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml
from pydantic import Field, ValidationError

from lateen.config import (
    RECIPE_FILE,
    Key,
    RecipeFile,
    Section,
    assigned,
    find_recipe,
    first_fault,
    keys_of,
    merged,
    read_yaml,
    recipe_kind,
    with_preset,
)
from lateen.encoders.config import (
    TextSection,
    VisionSection,
)
from lateen.errors import RecipeError, choices, nearest
from lateen.files import write_text
from lateen.progress import log
from lateen.training.auto import TrainingSize, suited
from lateen.training.config import AUTO, PRESETS, BankSection, HeadSection, TrainSection

if TYPE_CHECKING:
    from lateen.features import Pairs


_NOT_IN_LADDERS = ("text.train", "train.unpaired")


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
    holdout: float | None = Field(
        None, gt=0, lt=0.5, description="share of train images held out without `validation` (5 %, "
        "but 200 to 10,000 images, and at most 40 %)"
    )  # fmt: skip
    holdout_seed: int = Field(0, ge=0, description="which images are held out")
    pairs: int | None = Field(
        None, gt=1, description="train on so many images with their captions, drawn from those "
        "that are not held out (all if not given)"
    )  # fmt: skip
    pairs_seed: int | None = Field(
        None, ge=0, description="which are drawn: fewer are part of more (train.seed if not given)"
    )
    image_column: str | None = Field(None, description="image column (guessed if not given)")
    captions: tuple[str, ...] = Field(
        (),
        description="caption columns, each a positive of its own (guessed if not given); "
        "caption#0 trains on each image's first alone",
    )
    captions_beside: tuple[str, ...] = Field(
        (), description="files of further captions of the training images by id, as `lateen "
        "caption` makes them: each of their columns is a positive beside those of `train`"
    )  # fmt: skip


class EvaluateSection(Section):
    """What is measured at the end."""

    retrieval: bool = Field(True, description="R@1/5/10, both ways, on validation and test")
    classification: str | None = Field(
        None, description="class folder for zero-shot classification, relative to data.root"
    )


class Recipe(RecipeFile):
    """One experiment: data, two frozen encoders, a head, its training, its evaluation."""

    preset: str = Field(
        AUTO,
        description="a paper's values beneath those given here, or what suits the pairs",
        examples=list(PRESETS),
    )
    data: DataSection = DataSection()
    vision: VisionSection = VisionSection()
    text: TextSection = TextSection()
    head: HeadSection = HeadSection()
    train: TrainSection = TrainSection()
    bank: BankSection = BankSection()
    evaluate: EvaluateSection = EvaluateSection()

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values`` and put the preset's beneath them.

        Args:
            values: nested, as in a YAML file, or by dotted key: ``{"train.lr": 1e-4}``.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one) or a value that does not fit.
        """
        dotted = {name: value for name, value in values.items() if "." in name}
        plain = {name: value for name, value in values.items() if name not in dotted}
        values = assigned(plain, dotted, keys()) if dotted else values
        values = with_preset(spelled_out(values), PRESETS)
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise _explain(error) from error
        if recipe.precision != "auto":
            recipe = recipe._in_precision()
        if recipe.text.train and recipe.train.unpaired is not None:
            raise RecipeError(
                "train.unpaired needs features of both encoders, and text.train changes one",
                "Leave one of them out.",
            )
        if recipe.head.name == recipe.head.image_name == "identity" and not recipe.text.train:
            raise RecipeError(
                "two identity heads leave nothing to train",
                "Choose another head.name; identity on both sides is what a ready CLIP has.",
            )
        return recipe._with_fit_preset()

    def _with_fit_preset(self) -> Self:
        """With preset ``small`` where nobody named one and :meth:`suited_to` has no values.

        Raises:
            RecipeError: there it was named.
        """
        names = {self.head.name, self.head.image_name}
        if self.preset != AUTO or (names == {"linear"} and not self.text.train):
            return self
        if "preset" not in self.model_fields_set:
            return self.model_copy(update={"preset": "small"})
        what = "a text encoder that is trained" if self.text.train else "heads that are not linear"
        keep = "leave text.train out" if self.text.train else "use head.name linear"
        raise RecipeError(
            f"auto (preset: auto, or train: auto) has no values for {what}",
            f"Leave it out, or {keep}.",
        )

    def suited_to(self, pairs: Pairs) -> Self:
        """With what ``preset: auto`` takes for these pairs wherever nobody gave a value, which is
        said; the same recipe with any other preset.

        Args:
            pairs: to train on.
        """
        if self.preset != AUTO:
            return self
        size = TrainingSize(
            len(pairs), sum(len(column.rows) for column in pairs.texts), pairs.image.dim,
            pairs.texts[0].store.dim,
        )  # fmt: skip
        head, train, taken = suited(self.head, self.train, size)
        log.info("%s", taken)
        preset = self.preset if head.name == "linear" else "sail"  # what it is from MANY on
        return self.model_copy(update={"head": head, "train": train, "preset": preset})

    def as_begun(self) -> Self:
        """The recipe, which names no preset, as it was when that meant ``small``: what was begun so
        goes on, or is found done."""
        log.info("preset small, with which it was begun; preset auto goes by the number of pairs")
        return self.model_copy(update={"preset": "small"})

    def _in_precision(self) -> Self:
        """The recipe with its ``precision`` wherever ``auto`` stands, for results go by it."""
        return self.model_copy(
            update={
                "vision": self.vision.in_precision(self.precision),
                "text": self.text.in_precision(self.precision),
                "train": self.train.in_precision(self.precision),
            }
        )

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a YAML recipe; ``overrides`` are ``{"train.lr": "1e-4"}``, values as YAML text.

        Args:
            path: a file, the folder of a ``lateen.yaml``, or the name of a recipe that comes with
                lateen. A ``lateen.yaml`` lies with its data: its folder is ``data.root`` where
                neither it nor ``overrides`` say another.
            overrides: by dotted key.

        Raises:
            RecipeError: there is no such file, it is not a recipe, or does not fit.
        """
        file = find_recipe(path)
        values = read_yaml(file, "recipe") or {}
        if not isinstance(values, dict):
            raise RecipeError(f"{file} is not a recipe", "It must be a mapping of sections.")
        if (kind := recipe_kind(values)) != "recipe":
            what = {
                "assessment": "lists candidates: it is a recipe of `lateen assess`",
                "ladder": "has rungs: it is a ladder of `lateen ablate`",
                "tuning": "names a target: it is a recipe of `lateen tune`",
                "multimodal": "has a language model: it is a recipe of `lateen mllm train`",
            }[kind]
            raise RecipeError(
                f"{path} {what}",
                "Give one that names one vision and one text encoder; see recipes/.",
            )
        values = spelled_out(values)
        if file.name == RECIPE_FILE and isinstance(values.get("data", {}), dict):
            values = merged({"data": {"root": str(file.parent)}}, values)
        return cls.build(assigned(values, overrides or {}, keys()))

    def save(self, path: Path) -> None:
        """Write every value, also the defaults, so that the file alone re-runs to the same."""
        values = self.model_dump(mode="json")
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def spelled_out(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a recipe with ``train: auto`` as what it is short for, ``preset: auto``.

    Raises:
        RecipeError: they name another preset.
    """
    if values.get("train") != AUTO:
        return values
    preset = values.get("preset", AUTO)
    if preset != AUTO:
        raise RecipeError(
            f"train: auto and preset {preset!r} are two choices of the same values",
            "Leave one of them out.",
        )
    return {**values, "preset": AUTO, "train": {}}


@cache
def ladder_keys() -> dict[str, Key]:
    """The keys of a ladder's base: without what ladders refuse, and ``small`` where no preset is
    named."""
    known = {path: key for path, key in keys().items() if not path.startswith(_NOT_IN_LADDERS)}
    return {**known, "preset": known["preset"]._replace(default="small")}


@cache
def keys() -> dict[str, Key]:
    """Every recipe key by its dotted path, for help, docs and options."""
    return {key.path: key for key in keys_of(Recipe)}


def _explain(error: ValidationError) -> RecipeError:
    fault = first_fault(error, Recipe)
    if fault.kind != "unknown":
        return RecipeError(
            f"recipe key {fault.dotted!r} cannot be {fault.value!r}: {fault.rule}",
            "See `lateen keys` for every key, its type and its default.",
        )
    dotted = fault.dotted
    if len(fault.path) == 1:  # a whole section, of which the first key says what was meant
        first = next(iter(fault.value), "") if isinstance(fault.value, Mapping) else ""
        dotted = f"{dotted}.{first}" if first else dotted
        near = nearest(dotted, keys())
        hint = f"Did you mean {near!r}? " if near else ""
        sections = ", ".join(Recipe.model_fields)
        remedy = f"{hint}The sections are {sections}; see `lateen keys`."
        return RecipeError(f"unknown recipe key {dotted!r}", remedy)
    parent = fault.dotted.rpartition(".")[0]
    inside = parent.count(".") > 0  # of a part of fuse, whose keys stand alone
    known = fault.choices if inside else [f"{parent}.{name}" for name in fault.choices]
    word = str(fault.path[-1]) if inside else dotted
    return RecipeError(f"unknown recipe key {dotted!r}", choices(word, known))
