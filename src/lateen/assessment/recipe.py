"""What an assessment compares, as one strict YAML file: candidates, pairs, a labelled set, a probe.

::

    data: {root: …, images: flickr8k/images, train: flickr8k/train.csv, test: flickr8k/dev.csv}
    labelled: imagenette-mini
    vision:
      - encoder: facebook/dinov2-small
        pooling: [cls, mean, cls+mean]     a candidate for each
      - encoder: facebook/vit-mae-base
        layer: [3, 6, 9, 12]
    text:
      - encoder: sentence-transformers/all-MiniLM-L6-v2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lateen.config import Key, RecipeFile, Section, assigned, first_fault, keys_of, read_yaml
from lateen.encoders import EncoderOptions
from lateen.encoders.config import EncoderConfig, FusedPart, FusedText, Pooling, TextPooling
from lateen.errors import RecipeError, UsageError, choices
from lateen.experiment.recipe import DataSection, Recipe
from lateen.training.config import PRESETS, HeadSection, TrainSection

Sweep = Literal["grid", "vision-anchored", "language-anchored"]
_Votes = Annotated[int, Field(gt=0)]
_Seed = Annotated[int, Field(ge=0)]
_FOR_THE_PAPERS_PROBE = 10 * 32768


def _as_list(value: Any) -> Any:
    """One value stands for a list of one."""
    return value if isinstance(value, list | tuple) else (value,)


def _as_numbers(value: Any) -> Any:
    """Those that the command line has as ``10,20``, too."""
    return value.split(",") if isinstance(value, str) else _as_list(value)


_Layers = Annotated[tuple[int | None, ...], BeforeValidator(_as_list), Field(min_length=1)]


class _Candidate(EncoderConfig):
    """One encoder; each of its poolings at each of its layers is a candidate."""

    name: str | None = Field(None, description="to show (the encoder's own if not given)")
    layer: _Layers = Field(  # type: ignore[assignment]
        (None,),
        description="hidden layers, or a convolutional network's maps; 0 = embeddings, "
        "null = the output",
    )
    baseline: bool = Field(False, description="left out of correlations between encoders")
    dtype: Literal["float16", "float32"] = Field("float16", description="of features on disk")

    def options(self) -> EncoderOptions:
        """How all its poolings and layers are loaded; :func:`load_views` is told them apart."""
        return replace(super().options(), pooling=None, layer=None)


class VisionCandidate(_Candidate):
    """A vision encoder with the poolings and layers to assess."""

    pooling: Annotated[
        tuple[Pooling | None, ...], BeforeValidator(_as_list), Field(min_length=1)
    ] = Field((None,), description="token poolings (the encoder's own if not given)")
    fuse: tuple[FusedPart, ...] = Field(
        (), description="encoders fused with it, into one candidate"
    )

    @model_validator(mode="after")
    def _one_when_fused(self) -> VisionCandidate:
        _check_fused(self)
        return self


class TextCandidate(_Candidate):
    """A text encoder with the poolings and layers to assess."""

    pooling: Annotated[
        tuple[TextPooling | None, ...], BeforeValidator(_as_list), Field(min_length=1)
    ] = Field((None,), description="poolings (the encoder's own if not given)")
    prompt: str | None = Field(
        None, description="before every text, or around it where it has {} (the encoder's own)"
    )
    max_tokens: int | None = Field(None, gt=1, description="longer texts are cut (encoder's own)")
    score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="a figure of your own to hold against alignment, such as MTEB's average",
    )
    fuse: tuple[FusedText, ...] = Field(
        (), description="encoders fused with it, into one candidate"
    )

    @model_validator(mode="after")
    def _one_when_fused(self) -> TextCandidate:
        _check_fused(self)
        return self


def _check_fused(candidate: VisionCandidate | TextCandidate) -> None:
    if candidate.fuse and len(candidate.pooling) * len(candidate.layer) > 1:
        raise ValueError("a fused candidate has one pooling and one layer: list it once for each")


class LabelledSection(Section):
    """A labelled set that tells how good a vision encoder is by itself."""

    train: str = Field(
        description="images with labels, in any form that `lateen evaluate knn` takes: a class "
        "folder relative to data.root, shards, a hub name; source#split for one of several splits"
    )
    test: str | None = Field(
        None, description="the same, of the same classes; without it the part of `train` that "
        "tasks judge, or else every image is judged by the others (kNN: leave one out; linear "
        "probe: five folds)"
    )  # fmt: skip
    column: str | None = Field(None, description="the label column of rows that have several")

    @model_validator(mode="after")
    def _apart(self) -> LabelledSection:
        if self.test is not None and Path(self.test) == Path(self.train):
            raise ValueError("train and test are one folder: without test, its images are "
                             "judged by each other")  # fmt: skip
        return self


class ProbeSection(Section):
    """How heads are trained to probe a pair of encoders (METHODS §1.5)."""

    preset: str = Field(
        "auto", description="auto = `probe`, the paper's, from 327,680 training pairs on (ten "
        "steps an epoch), `probe-small` below; it is not the `auto` of `lateen run`"
    )  # fmt: skip
    seeds: Annotated[tuple[_Seed, ...], BeforeValidator(_as_numbers)] = Field(
        (), description="train with each, and take the mean (train.seed alone if not given)"
    )
    head: dict[str, Any] = Field(default_factory=dict, description="keys of a recipe's head")
    train: dict[str, Any] = Field(default_factory=dict, description="keys of a recipe's train")

    @model_validator(mode="after")
    def _known(self) -> ProbeSection:
        if self.preset not in PRESETS:
            raise ValueError(f"the presets are {', '.join(PRESETS)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the same seed twice is the same training twice")
        if self.seeds and "seed" in self.train:
            raise ValueError("seeds stand in the place of train.seed: give one of them")
        if "unpaired" in self.train:
            raise ValueError("a probe learns from the pairs alone: leave train.unpaired out")
        if "track" in self.train:
            raise ValueError("probes are many and short: leave train.track out")
        return self

    def recipe(self, pairs: int) -> Recipe:
        """Head and training for this many training pairs.

        Raises:
            RecipeError: a key or value that a recipe would not take.
        """
        preset = self.preset
        if preset == "auto":
            preset = "probe" if pairs >= _FOR_THE_PAPERS_PROBE else "probe-small"
        return Recipe.build({"preset": preset, "head": self.head, "train": self.train})

    def recipes(self, pairs: int) -> list[Recipe]:
        """:meth:`recipe` with each of the seeds."""
        plan = self.recipe(pairs)
        seeds = self.seeds or (plan.train.seed,)
        return [
            plan.model_copy(update={"train": plan.train.model_copy(update={"seed": seed})})
            for seed in seeds
        ]


class MeasureSection(Section):
    """What is measured without training."""

    k: int = Field(10, ge=2, description="neighbours in mutual kNN, cycle kNN and CKNNA")
    svcca_dim: int | None = Field(
        10, gt=0, description="principal components in SVCCA (null: 99 % of the variance)"
    )
    knn: Annotated[tuple[_Votes, ...], BeforeValidator(_as_numbers), Field(min_length=1)] = Field(
        (10, 20, 100, 200), description="neighbours that vote; the first ranks"
    )
    temperature: float = Field(
        0.07, gt=0, allow_inf_nan=False, description="of the votes, exp(cosine / T)"
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="of the bootstrap over images")
    level: float = Field(0.95, gt=0.5, lt=1, description="of all intervals")
    permutations: int = Field(
        200, ge=0, le=100_000, description="of rows, to tell similarity of spaces from chance; "
        "0: none"
    )  # fmt: skip
    alpha: float = Field(
        0.05, gt=0, lt=1, description="a similarity with a p above this is marked as chance"
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="of folds, resamples and permutations")

    @model_validator(mode="after")
    def _enough_permutations(self) -> MeasureSection:
        if self.permutations and self.model_fields_set & {"permutations", "alpha"}:
            from lateen.metrics.permutation import check_alpha  # loads torch: only where it must

            try:
                check_alpha(self.alpha, self.permutations)
            except UsageError as error:
                least = error.remedy.removeprefix("Give ").rstrip(".")
                raise ValueError(f"{error.message}: give {least}, or 0 for none") from error
        return self


class AssessmentRecipe(RecipeFile):
    """Encoders to compare, and on what."""

    data: DataSection = DataSection()
    labelled: LabelledSection | None = Field(None, description="labelled set for kNN and probe")
    sweep: Sweep = Field(
        "grid", description="grid: every pair; vision-anchored: one vision candidate with every "
        "text candidate; language-anchored: every vision candidate with one text candidate"
    )  # fmt: skip
    vision: tuple[VisionCandidate, ...] = Field(
        min_length=1, description="vision encoders with the poolings and layers to assess"
    )
    text: tuple[TextCandidate, ...] = Field(
        min_length=1, description="text encoders with the poolings and layers to assess"
    )
    probe: ProbeSection = ProbeSection()
    measure: MeasureSection = MeasureSection()

    @property
    def judged_on(self) -> str:
        """The split that is judged on."""
        given = {"test": self.data.test, "validation": self.data.validation}
        return next((name for name, source in given.items() if source), "holdout")

    def encoders(self) -> Iterator[EncoderConfig]:
        """Every encoder that is named, fused ones too, each under the name that finds it."""
        for section in chain[VisionCandidate | TextCandidate](self.vision, self.text):
            each: EncoderConfig
            for each in (section, *section.fuse):
                yield each.model_copy(update={"encoder": each.found_below(self.data.root)})

    @model_validator(mode="after")
    def _one_anchor(self) -> AssessmentRecipe:
        counts = {
            "vision-anchored": sum(len(c.pooling) * len(c.layer) for c in self.vision),
            "language-anchored": sum(len(c.pooling) * len(c.layer) for c in self.text),
        }
        if counts.get(self.sweep, 1) > 1:
            raise ValueError(f"a {self.sweep} sweep has one candidate on that side")
        return self

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("labelled"), str):
            return {**values, "labelled": {"train": values["labelled"]}}
        return values

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values``.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one) or a value that does not fit.
        """
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise _explain(error) from error
        return recipe if recipe.precision == "auto" else recipe._in_precision()

    def _in_precision(self) -> Self:
        """The recipe with its ``precision`` wherever ``auto`` stands, for results go by it."""
        train = {**self.probe.train}
        if train.get("precision", "auto") == "auto":
            train["precision"] = self.precision
        sides = {
            side: tuple(each.in_precision(self.precision) for each in getattr(self, side))
            for side in ("vision", "text")
        }
        return self.model_copy(
            update={**sides, "probe": self.probe.model_copy(update={"train": train})}
        )

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a YAML file; ``overrides`` are ``{"data.root": "…"}``, values as YAML text."""
        values = read_yaml(path, "assessment")
        if not isinstance(values, dict):
            raise RecipeError(
                f"{path} is not a recipe of an assessment", "See recipes/assess-flickr8k.yaml."
            )
        if isinstance(values.get("vision"), dict):
            raise RecipeError(
                f"{path} names one vision encoder: it is a recipe of `lateen run`",
                "An assessment lists candidates; see recipes/assess-flickr8k.yaml.",
            )
        return cls.build(assigned(values, overrides or {}, assessment_keys()))


# A probe learns from pairs alone, and there are many.
_NOT_IN_PROBES = ("probe.train.unpaired", "probe.train.track")


def assessment_keys() -> dict[str, Key]:
    """Every key of an assessment's recipe by its dotted path, those of the probe's heads too."""
    keys = {key.path: key for key in keys_of(AssessmentRecipe)}
    drawn = keys["data.pairs_seed"]
    keys[drawn.path] = drawn._replace(meaning=drawn.meaning.replace("train.seed", "measure.seed"))
    for name, section in (("head", HeadSection), ("train", TrainSection)):
        del keys[f"probe.{name}"]
        keys |= {  # its defaults are those of the probe's preset
            key.path: key._replace(default="")
            for key in keys_of(section, f"probe.{name}.")
            if not key.path.startswith(_NOT_IN_PROBES)
        }
    return keys


def _explain(error: ValidationError) -> RecipeError:
    fault = first_fault(error, AssessmentRecipe)
    if fault.kind == "unknown":
        word = str(fault.path[-1])
        return RecipeError(f"unknown key {fault.dotted!r}", choices(word, fault.choices))
    if fault.kind == "missing":
        return RecipeError(
            f"the recipe of an assessment has no {fault.dotted!r}",
            "See recipes/assess-flickr8k.yaml.",
        )
    return RecipeError(
        f"{fault.dotted!r} cannot be {fault.value!r}: {fault.rule}",
        "See recipes/assess-flickr8k.yaml.",
    )
