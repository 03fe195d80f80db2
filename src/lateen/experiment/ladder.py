"""Train and measure every rung of an ablation ladder with every seed.

A ladder is one strict YAML file: a base recipe, and rungs that change a few keys each.

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
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from lateen.config import Section, first_fault, parse_value, read_yaml
from lateen.errors import RecipeError, choices, nearest
from lateen.evaluation import retrieval_result
from lateen.experiment.ladder_report import write_ladder_report
from lateen.experiment.overlap import warn_of_splits
from lateen.experiment.recipe import Recipe, keys
from lateen.experiment.stages import (
    STORE_MARKS,
    chosen_captions,
    encode_splits,
    headline,
    hold_out,
    load_encoders,
    with_absolute_paths,
)
from lateen.experiment.training import build_model
from lateen.features import Pairs
from lateen.files import content_key, folder_lock, read_json, refuse_foreign, write_json
from lateen.model.trained_on import TrainedOn
from lateen.progress import log
from lateen.training.loop import CHECKPOINT, train

_FREE = ("head", "train")  # what a rung may set beside data.captions: the features stay the same
_CAPTIONS, _SEED = "data.captions", "train.seed"
LADDER = "ladder.json"
_RUN = "result.json"


class Published(Section):
    """A paper's numbers for a rung, in percent, to hold beside those measured here."""

    in1k: float | None = Field(None, description="zero-shot ImageNet-1K top-1")
    t2i: float | None = Field(None, description="text → image R@1")
    i2t: float | None = Field(None, description="image → text R@1")


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
    """

    base: dict[str, Any]
    paper: str = ""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), min_length=1)
    rungs: tuple[Rung, ...] = Field(min_length=1)

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
        changed = {"base": _with(ladder.base, overrides or {}), "rungs": _linked(ladder.rungs)}
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
        result[section] = {**(result.get(section) or {}), key: value} if key else value
    return result


def _check_keys(rung: Rung) -> None:
    names = [path for path in keys() if path.split(".")[0] in _FREE and path != _SEED]
    for dotted in rung.set:
        if dotted not in (*names, _CAPTIONS):
            near = nearest(dotted, names)
            hint = f"Did you mean {near!r}? " if near else ""
            raise RecipeError(
                f"rung {rung.name!r} cannot set {dotted!r}",
                f"{hint}A rung sets keys of head and train, and data.captions; seeds have their "
                "own list, and all else is the same for every rung: set it in base.",
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


def ablate(
    ladder: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Train and measure every rung of a ladder with every seed, on features encoded once.

    What is already done, by content, is skipped; a killed training goes on. ``out`` gets
    ``ladder.json`` (every run with its conditions), ``ladder.csv``, ``ladder.png`` and
    ``report.html``. Of the trainings, ``out/train`` keeps numbers and curves, not weights.

    All rungs are judged on the same images, with all captions of the first caption column of the
    base: on its test split, else on its validation split, else on its holdout. The seed of the base
    recipe decides the holdout, so that it is the same for every seed of the ladder.

    Args:
        ladder: the path of a YAML file, or its values; see :mod:`lateen.experiment.ladder`.
        out: the ladder's folder.
        overrides: of the base recipe, by dotted key; what a rung sets stands above them.
        seeds: instead of the ladder's.

    Returns:
        The JSON of ``ladder.json``.

    Raises:
        RecipeError: an unknown key, a value that does not fit, a rung that builds on none above it.
        DataError: captions that a rung names and some image does not have.
        BusyError: another process writes to ``out``.
        LateenError: any stage's own errors.
    """
    if isinstance(ladder, Mapping):
        checked = Ladder.build(ladder, overrides, seeds)
    else:
        checked = Ladder.load(Path(ladder), overrides, seeds)
    base, folder = with_absolute_paths(checked.base_recipe()), Path(out)
    if base.text.train:
        raise RecipeError(
            "the rungs of a ladder share features that are encoded once, and text.train trains the "
            "encoder",
            "Leave text.train out of the base.",
        )
    recipes = checked.recipes()
    refuse_foreign(
        folder, "the folder of a ladder", (LADDER, *STORE_MARKS), ("train", "*.yaml", "*.yml")
    )
    with folder_lock(folder):
        data = _Data.encode(base, list(recipes.values()), folder / "stores")
        pairs = {name: chosen_captions(data.train, plan.data) for name, plan in recipes.items()}
        rungs = [
            _rung(rung, recipes[rung.name], checked.seeds, pairs[rung.name], data, folder / "train")
            for rung in checked.rungs
        ]
        results = {
            "task": "ablation", "split": data.judged_on, "chose_step": data.chose_step,
            "images": len(data.judged), "seeds": list(checked.seeds), "paper": checked.paper,
            "rungs": rungs, "base": base.model_dump(mode="json"),
        }  # fmt: skip
        write_json(folder / LADDER, results)
        write_ladder_report(results, folder)
    return results


@dataclass(frozen=True)
class _Data:
    """The features that all rungs share.

    Attributes:
        train: the images to train on, with all their captions.
        validation: those that choose the step.
        judged: those that the numbers are of.
        judged_on: the name of that split.
    """

    train: Pairs
    validation: Pairs
    judged: Pairs
    judged_on: str

    @property
    def chose_step(self) -> bool:
        """Whether the numbers are of the images that chose the step."""
        return self.judged is self.validation

    @classmethod
    def encode(cls, base: Recipe, recipes: Sequence[Recipe], folder: Path) -> _Data:
        """Encode the caption columns of the base, then those that only some rung names."""
        captions = base.data.captions
        if captions:
            captions += tuple(name for recipe in recipes for name in recipe.data.captions)
        data = base.data.model_copy(update={"captions": captions})
        plan = base.model_copy(update={"data": data})
        splits = encode_splits(plan, *load_encoders(plan), folder)
        chosen_on = hold_out(plan, splits)
        warn_of_splits(splits)
        judged_on = headline(splits, chosen_on)
        return cls(splits["train"], splits[chosen_on], splits[judged_on], judged_on)


def _rung(
    rung: Rung, recipe: Recipe, seeds: Sequence[int], pairs: Pairs, data: _Data, folder: Path
) -> dict[str, Any]:
    """A rung's conditions and its run with each seed."""
    runs = []
    for seed in seeds:
        train_section = recipe.train.model_copy(update={"seed": seed})
        plan = recipe.model_copy(update={"train": train_section})
        runs.append(_run(plan, pairs, data, folder))
        recalls = [f"{runs[-1][way]['R@1']:.1f}" for way in ("text_to_image", "image_to_text")]
        log.info("%s, seed %d: T2I and I2T R@1 %s", rung.name, seed, " and ".join(recalls))
    return {
        "name": rung.name, "from": rung.base, "set": rung.set,
        "published": rung.published.model_dump(exclude_none=True),
        "head": recipe.head.model_dump(mode="json"),
        "train": recipe.train.model_dump(mode="json", exclude={"seed"}),
        "captions": [column.name for column in pairs.texts], "runs": runs,
    }  # fmt: skip


def _run(plan: Recipe, pairs: Pairs, data: _Data, folder: Path) -> dict[str, Any]:
    """One training, measured; in a folder that goes by everything that decides the numbers."""
    key = content_key(
        [pairs.key, data.validation.key, data.judged.key, plan.head.model_dump(mode="json"),
         plan.train.model_dump(mode="json")]
    )  # fmt: skip
    out = folder / key[:12]
    if (out / _RUN).is_file():
        done: dict[str, Any] = read_json(out / _RUN)
        return done
    begin = time.perf_counter()
    trained = train(pairs, validation=data.validation, head=plan.head, settings=plan.train, out=out)
    seconds = time.perf_counter() - begin
    record = TrainedOn.of(pairs, data.validation)
    model = build_model(pairs, trained, plan.train, trained_on=record)
    whole = not (trained.resumed_from or trained.skipped)
    run = {
        "seed": plan.train.seed,
        **retrieval_result(model, data.judged),
        "steps": trained.steps, "kept_step": trained.best_step, "metrics": out.name,
        "training_data": pairs.key, "seconds": round(seconds, 1) if whole else None,
    }  # fmt: skip
    write_json(out / _RUN, run)
    (out / CHECKPOINT).unlink(missing_ok=True)  # a wide GLU's is 150 MB, and the numbers are kept
    return run
