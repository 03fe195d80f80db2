"""An ablation ladder as one strict YAML file: a base recipe, and rungs that change a few keys each.

::

    base: {preset: sail, data: {…}, …}      a recipe
    paper: SAIL, trained on CC3M            where the published numbers are from
    seeds: [0, 1, 2]
    rungs:
      - name: linear + InfoNCE
        set: {head.name: linear, train.loss: infonce}
        published: {in1k: 33.2, t2i: 11.1, i2t: 13.5}
      - name: MLP × 4                       builds on the rung before it
        set: {head.name: mlp, head.width: 4}
      - name: MLP × 8
        from: linear + InfoNCE              builds on that rung
        set: {head.name: mlp, head.width: 8}

With ``pairs`` each rung is a curve over the number of training pairs, of which every seed draws its
own::

    pairs: [250, 1000, all]
    rungs:
      - {name: small}
      - name: auto
        set: {train: auto}
    curves:                                 published, in percent by number of pairs
      - name: SAIL
        t2i: {1000: 6.4, 10000: 18.9}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from lateen.config import Section, first_fault, parse_value, read_yaml
from lateen.data import Dataset
from lateen.errors import Faults, RecipeError, choices, nearest
from lateen.experiment.preflight import (
    STORE_MARKS,
    check_encoders,
    encoder_sections,
    open_splits,
    with_absolute_paths,
)
from lateen.experiment.recipe import Recipe, keys, spelled_out
from lateen.files import check_writable, refuse_foreign
from lateen.training.config import AUTO
from lateen.training.tracking import check_tracker

LADDER = "ladder.json"
_FREE = ("head", "train")  # what a rung may set beside data.captions: the features stay the same
_CAPTIONS, _SEED = "data.captions", "train.seed"
_AUTO = ("train", AUTO)
ALL = "all"
"""In the place of a number of pairs: as many as there are."""


class Published(Section):
    """A paper's numbers for a rung, in percent, to hold beside those measured here."""

    in1k: float | None = Field(None, description="zero-shot ImageNet-1K top-1")
    t2i: float | None = Field(None, description="text → image R@1")
    i2t: float | None = Field(None, description="image → text R@1")


class PublishedCurve(Section):
    """A paper's R@1 in percent by number of pairs, to hold beside the curves measured here."""

    name: str = Field(min_length=1)
    t2i: dict[int, float] = Field(default_factory=dict, description="text → image R@1")
    i2t: dict[int, float] = Field(default_factory=dict, description="image → text R@1")


class Rung(Section):
    """One rung: what it changes, and in which rung."""

    name: str = Field(min_length=1)
    base: str | None = Field(None, alias="from")
    set: dict[str, Any] = Field(default_factory=dict)
    published: Published = Published()


class Ladder(Section):
    """A checked ladder.

    Attributes:
        base: the values of a recipe, as in its YAML.
        seeds: of the trainings of every rung.
        paper: where the published numbers are from.
        rungs: in order; :attr:`Rung.base` of all but the first names an earlier one.
        pairs: numbers of pairs that every rung is trained on, each a draw of every seed; on all if
            none is given.
        curves: published ones over the number of pairs.
    """

    base: dict[str, Any]
    paper: str = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    rungs: tuple[Rung, ...] = Field(min_length=1)
    pairs: tuple[Annotated[int, Field(gt=1)] | Literal["all"], ...] = ()
    curves: tuple[PublishedCurve, ...] = ()

    @field_validator("pairs")
    @classmethod
    def _rising(cls, pairs: tuple[int | str, ...]) -> tuple[int | str, ...]:
        if len(set(pairs)) < len(pairs):
            raise ValueError("the same number of pairs twice is the same training twice")
        numbers = sorted(each for each in pairs if isinstance(each, int))
        return (*numbers, *(each for each in pairs if each == ALL))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("the same seed twice is the same training twice")
        return seeds

    @classmethod
    def build(
        cls,
        values: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Ladder:
        """Check ``values``, and every rung's recipe.

        Args:
            values: ``base``, ``rungs`` and ``seeds``, as in the YAML file.
            overrides: of the base recipe, by dotted key; what a rung sets stands above them.
            seeds: instead of those in ``values``.

        Raises:
            RecipeError: an unknown key (naming the nearest valid one), a value that does not fit,
                or a rung that builds on one that is not above it.
        """
        given = dict(values) if seeds is None else {**values, "seeds": tuple(seeds)}
        try:
            ladder = cls.model_validate(given)
        except ValidationError as error:
            raise _explain(error) from error
        Recipe.build(ladder.base)
        # Where a rung is measured against another, a preset is what was named.
        base = {"preset": "small", **spelled_out(ladder.base)}
        changed = {"base": _with(base, overrides or {}), "rungs": _linked(ladder.rungs)}
        ladder = ladder.model_copy(update=changed)
        ladder.base_recipe()
        ladder.recipes()
        return ladder

    @classmethod
    def load(
        cls,
        path: Path,
        overrides: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Ladder:
        """Read a YAML ladder; text in ``overrides`` is read as YAML too. See :meth:`build`."""
        values = read_yaml(path, "ladder")
        if not isinstance(values, dict):
            raise RecipeError(f"{path} is not a ladder", "It needs a base recipe and rungs.")
        known = keys()
        parsed = {
            path: parse_value(value, known[path].kind if path in known else "")
            if isinstance(value, str) else value
            for path, value in (overrides or {}).items()
        }  # fmt: skip
        return cls.build(values, parsed, seeds)

    def base_recipe(self) -> Recipe:
        """The recipe below all rungs, which names the data and the encoders."""
        return Recipe.build(self.base)

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of every rung, by its name."""
        values: dict[str | None, dict[str, Any]] = {None: self.base}
        recipes = {}
        for rung in self.rungs:
            _check_keys(rung)
            values[rung.name] = _with(values[rung.base], rung.set)
            try:
                recipes[rung.name] = Recipe.build(values[rung.name])
            except RecipeError as error:
                raise RecipeError(f"rung {rung.name!r}: {error.message}", error.remedy) from error
        return recipes


def _linked(rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """The rungs with the one each builds on: an earlier one, so that there is no cycle."""
    linked: dict[str, Rung] = {}
    for rung in rungs:
        if rung.name in linked:
            raise RecipeError(f"two rungs are named {rung.name!r}", "Give each its own name.")
        base = rung.base or next(reversed(linked), None)
        if base is not None and base not in linked:
            raise RecipeError(
                f"rung {rung.name!r} builds on {base!r}, which is no rung above it",
                choices(base, linked) if linked else "The first rung builds on the base recipe.",
            )
        linked[rung.name] = rung.model_copy(update={"base": base})
    return tuple(linked.values())


def _with(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values with some of its dotted keys set."""
    result = dict(values)
    for dotted, value in settings.items():
        section, _, key = dotted.partition(".")
        if (dotted, value) == _AUTO:  # what is set of the section stands above it
            section, value = "preset", AUTO
        result[section] = {**(result.get(section) or {}), key: value} if key else value
    return result


def _check_keys(rung: Rung) -> None:
    names = [path for path in keys() if path.split(".")[0] in _FREE and path != _SEED]
    for dotted, value in rung.set.items():
        if dotted not in (*names, _CAPTIONS) and (dotted, value) != _AUTO:
            near = nearest(dotted, names)
            hint = f"Did you mean {near!r}? " if near else ""
            raise RecipeError(
                f"rung {rung.name!r} cannot set {dotted!r}",
                f"{hint}A rung sets keys of head and train, train: auto, and data.captions; seeds "
                "have their own list, as pairs have, and all else is the same for every rung: set "
                "it in base.",
            )


def _explain(error: ValidationError) -> RecipeError:
    fault = first_fault(error, Ladder)
    words = [str(part + 1) if isinstance(part, int) else part for part in fault.path]
    where = " ".join(words).replace("rungs ", "rung ", 1)
    if fault.kind == "unknown":
        return RecipeError(
            f"unknown key {where!r} in the ladder", choices(words[-1], fault.choices)
        )
    if fault.kind == "missing":
        return RecipeError(f"the ladder has no {where!r}", "See recipes/ablation-flickr8k.yaml.")
    return RecipeError(
        f"{where!r} in the ladder cannot be {fault.value!r}: {fault.rule}",
        "See recipes/ablation-flickr8k.yaml.",
    )


@dataclass(frozen=True)
class CheckedLadder:
    """A ladder of which everything was opened.

    Attributes:
        ladder: the ladder.
        base: its base with absolute paths.
        plan: the same with the captions of all rungs, as they are encoded.
        recipes: of every rung, by its name.
        datasets: as :class:`~lateen.experiment.preflight.CheckedRecipe` has them.
    """

    ladder: Ladder
    base: Recipe
    plan: Recipe
    recipes: Mapping[str, Recipe]
    datasets: dict[str, Dataset]


def check_ladder(ladder: Ladder, out: str | Path) -> CheckedLadder:
    """Open everything that a ladder will need, and see that its folder can be written.

    Args:
        ladder: the ladder.
        out: its folder.

    Raises:
        LateenError: what is wrong, all of it at once.
    """
    base, recipes, folder = with_absolute_paths(ladder.base_recipe()), ladder.recipes(), Path(out)
    if base.text.train:
        raise RecipeError(
            "the rungs of a ladder share features that are encoded once, and text.train trains the "
            "encoder",
            "Leave text.train out of the base.",
        )
    if any(recipe.train.unpaired for recipe in recipes.values()):
        raise RecipeError(
            "a ladder trains on pairs alone, and train.unpaired names more",
            "Leave train.unpaired out, and compare two runs: lateen run, lateen compare.",
        )
    if ladder.pairs:
        _check_curve(base)
    # The caption columns of the base, then those that only some rung names.
    captions = base.data.captions
    if captions:
        captions += tuple(chain.from_iterable(each.data.captions for each in recipes.values()))
    data = base.data.model_copy(update={"captions": captions})
    plan, faults = base.model_copy(update={"data": data}), Faults()
    with faults.note():
        refuse_foreign(
            folder, "the folder of a ladder", (LADDER, *STORE_MARKS), ("train", "*.yaml", "*.yml")
        )
        check_writable(folder)
    for recipe in recipes.values():
        with faults.note():
            check_tracker(recipe.train.track)
    datasets = open_splits(plan.data, faults)
    check_encoders(encoder_sections(plan), faults)
    return CheckedLadder(ladder, base, plan, recipes, datasets)


def _check_curve(base: Recipe) -> None:
    """See that the number of pairs is all that differs along a curve.

    Raises:
        RecipeError: the base has a number of its own, or layers that would be chosen by more pairs
            than those trained on.
    """
    if base.data.pairs is not None:
        raise RecipeError(
            f"data.pairs is {base.data.pairs:,} in the base of a ladder that has pairs itself",
            "Leave data.pairs out; the last of the ladder's pairs can be that number.",
        )
    if base.vision.undecided or base.text.undecided:
        raise RecipeError(
            "layers left open (layer: best, fuse: auto) are chosen once, by more pairs than the "
            "first of a curve are trained on",
            "Name the layers in the base (those of a run are in its recipe.yaml), or leave pairs "
            "out.",
        )
