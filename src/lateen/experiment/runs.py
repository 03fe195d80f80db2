"""One recipe from images and captions to a model, its results and a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lateen.data import Sample
from lateen.encoders import Encoder, TextEncoder, TokenEncoder
from lateen.evaluation import evaluate_classification, retrieval_result
from lateen.experiment.layer_choice import open_layers, settle_layers
from lateen.experiment.overlap import warn_of_splits
from lateen.experiment.preflight import RESULTS, CheckedRecipe, check_run, split_dataset
from lateen.experiment.recipe import DataSection, Recipe
from lateen.experiment.stages import (
    encode_splits,
    headline,
    held_out_features,
    hold_out,
    load_encoders,
    save_tower,
    trained_side,
    training_pairs,
    unpaired_stores,
)
from lateen.experiment.training import add_bank, build_model
from lateen.experiment.unpaired import with_unpaired
from lateen.features import Pairs
from lateen.files import LOG, content_key, folder_lock, read_json, write_json
from lateen.model import AlignedModel
from lateen.model.trained_on import TrainedOn
from lateen.progress import log, log_file
from lateen.training.config import AUTO
from lateen.training.heads import FROZEN, AlignmentHeads, FrozenEncoders
from lateen.training.lit import TrainedText
from lateen.training.loop import TrainResult
from lateen.training.loop import train as train_heads
from lateen.training.ranks import Ranks, alone, process_group
from lateen.training.tracking import Tracked


@dataclass
class RunResult:
    """What a run left behind.

    Attributes:
        out: the run's folder; the model is in ``model``, the features in ``stores``.
        model: the trained model, its encoders loaded.
        results: the JSON of ``results.json``.
        pairs: the features of the split that the results lead with.
        samples: its samples, for showing examples.
        skipped: how much was left out of each store that lacks something.
        metrics: the training's ``metrics.jsonl``.
        seconds: wall-clock time of each stage in this call; near 0 where it was already done.
    """

    out: Path
    model: AlignedModel
    results: dict[str, Any]
    pairs: Pairs
    samples: dict[str, Sample]
    skipped: dict[Path, int]
    metrics: Path
    seconds: dict[str, float] = field(default_factory=dict)


def run(
    recipe: Recipe | CheckedRecipe | str | Path | Mapping[str, Any], out: str | Path
) -> RunResult:
    """Encode, train and evaluate as a recipe says; what is already done, by content, is skipped.

    All splits, encoders and class folders are opened before anything is encoded. Processes that
    ``torchrun`` started together each encode shards of their own and share every batch; the first
    one evaluates. All must see ``out``.

    Args:
        recipe: a Recipe, the path of a YAML file, the name of one that comes with lateen, its
            values, or what :func:`lateen.experiment.preflight.check_run` made of any of these.
        out: the run's folder; a killed run goes on when called again.

    Raises:
        RecipeError: the recipe has an unknown key or a value that does not fit.
        BusyError: another process runs in ``out``.
        LateenError: any stage's own errors.
    """
    checked = recipe if isinstance(recipe, CheckedRecipe) else check_run(recipe, out)
    folder, clock = Path(out), _Clock()
    with checked.plan.on_hardware(), process_group() as ranks, _held(folder, ranks):
        made = _train(checked, folder, clock, ranks)
        if ranks.leads:
            with alone():  # the other processes wait
                model, results = _finish(made, folder, clock)
        ranks.wait()
        if not ranks.leads:
            model = AlignedModel.from_pretrained(folder / "model")
            results = read_json(folder / RESULTS)
    leading = headline(made.splits, made.chosen_on)
    shown = made.splits[leading]
    samples = _samples(made.plan.data, leading, set(shown.ids))
    return RunResult(
        folder, model, results, shown, samples, made.skipped, made.trained.metrics, clock.seconds
    )  # fmt: skip


@contextmanager
def _held(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Hold the run's folder, and write its log: the first of several processes does for all."""
    if not ranks.leads:
        yield
        return
    with folder_lock(folder), log_file(folder / LOG):
        yield


@dataclass
class _Trained:
    """What is known once a run has trained.

    Attributes:
        plan: the recipe with all that it left open.
        layers: how layers were chosen, if any were open.
        vision: the vision encoder.
        text: the text encoder, as it was before the training.
        tower: the same, if it was trained.
        what: what was trained beside the heads.
        splits: those that are evaluated on.
        chosen_on: which of them chose the step.
        pairs: what was trained on.
        trained: the training's outcome.
        warnings: of splits that overlap.
        skipped: how much was left out of each store that lacks something.
    """

    plan: Recipe
    layers: dict[str, Any]
    vision: Encoder
    text: Encoder
    tower: TextEncoder | None
    what: FrozenEncoders
    splits: dict[str, Pairs]
    chosen_on: str
    pairs: Pairs
    trained: TrainResult[AlignmentHeads]
    warnings: list[str]
    skipped: dict[Path, int]


def _train(checked: CheckedRecipe, folder: Path, clock: _Clock, ranks: Ranks) -> _Trained:
    """Encode and train, in all processes."""
    with clock("choose layers") if open_layers(checked.plan) else nullcontext():
        plan, layers = settle_layers(checked.plan, folder / "stores", checked.datasets)
    vision, text = load_encoders(plan)
    tower = text if plan.text.train and isinstance(text, TextEncoder) else None
    with clock("encode"):
        texts = TokenEncoder(tower) if tower else text
        splits = encode_splits(plan, vision, texts, folder / "stores", checked.datasets)
        unpaired = unpaired_stores(plan, vision, text, folder / "stores", checked.datasets)
    what: FrozenEncoders = TrainedText(tower) if tower else FROZEN
    stores = [store for pairs in splits.values() for store in pairs.stores]
    stores += unpaired.values()
    skipped = {store.path: len(store.skipped) for store in stores if store.skipped}
    chosen_on = hold_out(
        plan, splits,
        lambda train, held: _training_folder(
            plan, training_pairs(train, plan.data, plan.train.seed), held, what, folder
        ).is_dir(),
    )  # fmt: skip
    warnings = warn_of_splits(splits)
    pairs = training_pairs(splits.pop("train"), plan.data, plan.train.seed)
    chooser = splits[chosen_on]
    plan = _suited(plan, pairs, chooser, what, folder)
    if unpaired:
        what = with_unpaired(pairs, plan.train, unpaired, splits, "holdout")
    ranks.wait()  # until all have seen what was begun, before the first begins
    with clock("train"):
        trained = train_heads(
            pairs, validation=chooser, head=plan.head, settings=plan.train, trained=what,
            out=_training_folder(plan, pairs, chooser, what, folder), ranks=ranks,
            tracked=Tracked(folder.resolve().name, plan.model_dump(mode="json")),
        )  # fmt: skip
    return _Trained(plan, layers, vision, text, tower, what, splits, chosen_on, pairs, trained,
                    warnings, skipped)  # fmt: skip


def _finish(made: _Trained, folder: Path, clock: _Clock) -> tuple[AlignedModel, dict[str, Any]]:
    """Save the model and evaluate it."""
    plan, tower, text, side = made.plan, made.tower, made.text, None
    chooser = made.splits[made.chosen_on]
    if tower:
        text = save_tower(made.trained.heads, tower, plan.text, folder / "model")
        made.splits = held_out_features(made.splits, text, plan, folder / "stores")
        side = trained_side(text, plan.text)
    model = build_model(
        made.pairs, made.trained, plan.train, text=side, what=made.what,
        trained_on=TrainedOn.of(made.pairs, chooser, made.what.images),
    )  # fmt: skip
    model.set_encoders(made.vision, text)
    if tower is None:
        add_bank(model, made.pairs, chooser, plan.bank.size)
    elif plan.bank.size:
        log.info("no query bank, as the text encoder was trained (lateen bank makes one)")
    model.save_pretrained(folder / "model")
    with clock("evaluate"):
        results = _evaluate(plan, model, made.splits, made.chosen_on, folder)
    results |= {"warnings": made.warnings, **({"layers": made.layers} if made.layers else {})}
    write_json(folder / RESULTS, results)
    plan.save(folder / "recipe.yaml")
    return model, results


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin
        log.info("%s: %.1f s", stage, self.seconds[stage])


def _samples(data: DataSection, split: str, ids: set[str]) -> dict[str, Sample]:
    """The samples with these ids."""
    dataset = split_dataset(data, split)
    return {s.id: s for s in dataset if isinstance(s, Sample) and s.id in ids}


def _training_folder(
    plan: Recipe, pairs: Pairs, validation: Pairs, what: FrozenEncoders, folder: Path
) -> Path:
    """A folder that goes by everything that decides the result, and so is never stale."""
    key = content_key(
        [pairs.key, validation.key, plan.head.model_dump(mode="json"), plan.train.deciding(),
         *what.key.values()]
    )  # fmt: skip
    return folder / "train" / key[:12]


def _suited(
    plan: Recipe, pairs: Pairs, validation: Pairs, what: FrozenEncoders, folder: Path
) -> Recipe:
    """The recipe with what suits the pairs, unless it was begun without."""
    open_to = plan.preset == AUTO and "preset" not in plan.model_fields_set
    if open_to and _training_folder(plan, pairs, validation, what, folder).is_dir():
        return plan.as_begun()
    return plan.suited_to(pairs)


def _evaluate(
    plan: Recipe, model: AlignedModel, splits: Mapping[str, Pairs], chosen_on: str, folder: Path
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if plan.evaluate.retrieval:
        by_split = {
            name: {
                **retrieval_result(model, pairs, bank=model.query_bank),
                "split": name, "chose_step": name == chosen_on,
            }
            for name, pairs in splits.items()
        }  # fmt: skip
        results["retrieval"] = by_split.pop(headline(splits, chosen_on))
        results["other_splits"] = by_split
    if plan.evaluate.classification is not None:
        results["classification"] = evaluate_classification(
            model, images=plan.data.root / plan.evaluate.classification,
            cache=folder / "stores" / f"evaluation-{model.vision_encoder.info.key[:8]}",
        )  # fmt: skip
    results["recipe"] = plan.model_dump(mode="json")
    return results
