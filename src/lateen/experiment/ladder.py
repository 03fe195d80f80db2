"""Train and measure every rung of an ablation ladder with every seed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.data import Dataset
from lateen.errors import DataError
from lateen.evaluation import retrieval_result
from lateen.experiment.ladder_report import write_ladder_report
from lateen.experiment.layer_choice import settle_layers
from lateen.experiment.overlap import warn_of_splits
from lateen.experiment.recipe import Recipe
from lateen.experiment.rungs import ALL, LADDER, CheckedLadder, Ladder, Rung, check_ladder
from lateen.experiment.stages import (
    encode_splits,
    headline,
    hold_out,
    load_encoders,
    training_pairs,
)
from lateen.experiment.training import add_bank, build_model
from lateen.features import Pairs
from lateen.files import LOG, content_key, folder_lock, read_json, write_json
from lateen.model.trained_on import TrainedOn
from lateen.progress import log, log_file
from lateen.training.loop import CHECKPOINT, train
from lateen.training.tracking import Tracked

_RUN = "result.json"


def ablate(
    ladder: str | Path | Mapping[str, Any] | CheckedLadder,
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
    base: on its test split, else on its validation split, else on its holdout, which is the same
    for every seed of the ladder.

    Args:
        ladder: the path of a YAML file, the name of one that comes with lateen, or its values, see
            :mod:`lateen.experiment.rungs`; or what
            :func:`~lateen.experiment.rungs.check_ladder` made of it.
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
        ladder = check_ladder(Ladder.build(ladder, overrides, seeds), out)
    elif not isinstance(ladder, CheckedLadder):
        ladder = check_ladder(Ladder.load(Path(ladder), overrides, seeds), out)
    checked, recipes, folder = ladder.ladder, ladder.recipes, Path(out)
    with ladder.plan.on_hardware(), folder_lock(folder), log_file(folder / LOG):
        plan, layers = settle_layers(ladder.plan, folder / "stores", ladder.datasets)
        data = _Data.encode(plan, ladder.datasets, folder / "stores")
        _check_counts(checked.pairs, data.train)
        rungs = [
            _rung(rung, _limited(recipes[rung.name], count), checked.seeds, data, folder / "train")
            for rung in checked.rungs
            for count in checked.pairs or (ALL,)
        ]
        results = {
            "task": "ablation", "split": data.judged_on, "chose_step": data.chose_step,
            "images": len(data.judged), "seeds": list(checked.seeds), "paper": checked.paper,
            "rungs": rungs, "base": _with_layers(ladder.base, plan).model_dump(mode="json"),
            "curves": [each.model_dump(mode="json") for each in checked.curves],
            "over_pairs": bool(checked.pairs), **({"layers": layers} if layers else {}),
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
    def encode(cls, plan: Recipe, opened: dict[str, Dataset], folder: Path) -> _Data:
        """Encode the splits of ``plan``, which are taken from those ``opened``."""
        splits = encode_splits(plan, *load_encoders(plan), folder, opened)
        chosen_on = hold_out(plan, splits)
        warn_of_splits(splits)
        judged_on = headline(splits, chosen_on)
        return cls(splits["train"], splits[chosen_on], splits[judged_on], judged_on)


def _with_layers(base: Recipe, settled: Recipe) -> Recipe:
    """The base with the layers that it left open, as they were chosen."""
    return base.model_copy(update={"vision": settled.vision, "text": settled.text})


def _check_counts(counts: Sequence[int | str], train: Pairs) -> None:
    """See that there are so many pairs, before anything is trained.

    Raises:
        DataError: there are not.
    """
    most = max((each for each in counts if isinstance(each, int)), default=0)
    if most > len(train):
        raise DataError(
            f"the ladder trains on {most:,} pairs, and there are {len(train):,} that are not held "
            "out",
            "Leave the larger numbers out of its pairs; all stands for as many as there are.",
        )


def _limited(recipe: Recipe, count: int | str) -> Recipe:
    """The recipe on so many pairs."""
    if not isinstance(count, int):
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"pairs": count})})


def _rung(
    rung: Rung, recipe: Recipe, seeds: Sequence[int], data: _Data, folder: Path
) -> dict[str, Any]:
    """A rung's conditions, those that all its runs share, and its run with each seed."""
    runs = []
    for seed in seeds:
        pairs = training_pairs(data.train, recipe.data, seed)
        plan = recipe.suited_to(pairs)
        train_section = plan.train.model_copy(update={"seed": seed})
        plan = plan.model_copy(update={"train": train_section})
        taken = {
            "head": plan.head.model_dump(mode="json"),
            "train": plan.train.model_dump(mode="json", exclude={"seed"}),
        }
        runs.append({**_run(rung.name, plan, pairs, data, folder), **taken})
        recalls = [f"{runs[-1][way]['R@1']:.1f}" for way in ("text_to_image", "image_to_text")]
        log.info("%s, %d pairs, seed %d: T2I and I2T R@1 %s", rung.name, len(pairs), seed,
                 " and ".join(recalls))  # fmt: skip
    return {
        "name": rung.name, "from": rung.base, "set": rung.set, "pairs": len(pairs),
        "published": rung.published.model_dump(exclude_none=True),
        **{section: _shared([run[section] for run in runs]) for section in ("head", "train")},
        "captions": [column.name for column in pairs.texts], "runs": runs,
    }  # fmt: skip


def _shared(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all runs have: preset auto goes by the pairs, and so by the seed that draws them."""
    first, *others = settings
    return {
        key: value for key, value in first.items()
        if all(each.get(key, ...) == value for each in others)
    }  # fmt: skip


def _run(rung: str, plan: Recipe, pairs: Pairs, data: _Data, folder: Path) -> dict[str, Any]:
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
    trained = train(
        pairs, validation=data.validation, head=plan.head, settings=plan.train, out=out,
        tracked=Tracked(
            f"{rung}, {len(pairs)} pairs, seed {plan.train.seed}", plan.model_dump(mode="json")
        ),
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    record = TrainedOn.of(pairs, data.validation)
    model = build_model(pairs, trained, plan.train, trained_on=record)
    add_bank(model, pairs, data.validation, plan.bank.size)
    whole = not (trained.resumed_from or trained.skipped)
    run = {
        "seed": plan.train.seed,
        **retrieval_result(model, data.judged, bank=model.query_bank),
        "steps": trained.steps, "kept_step": trained.best_step, "metrics": out.name,
        "training_data": pairs.key, "seconds": round(seconds, 1) if whole else None,
    }  # fmt: skip
    write_json(out / _RUN, run)
    (out / CHECKPOINT).unlink(missing_ok=True)  # a wide GLU's is 150 MB, and the numbers are kept
    return run
