"""One recipe from images and captions to a model, its results and a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lateen.align.trainer import TrainResult
from lateen.align.trainer import train as train_heads
from lateen.data import Dataset, Sample, open_dataset
from lateen.encoders import Encoder, load_encoder
from lateen.encoding import encode
from lateen.errors import DataError
from lateen.evaluation import evaluate_classification, retrieval_result
from lateen.files import content_key, folder_lock, write_json
from lateen.model import AlignedModel
from lateen.progress import log
from lateen.recipe import DataSection, Recipe, TextSection, VisionSection
from lateen.store import Pairs, Store, pair
from lateen.training import build_model

RESULTS = "results.json"


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


def run(recipe: Recipe | str | Path | Mapping[str, Any], out: str | Path) -> RunResult:
    """Encode, train and evaluate as a recipe says; what is already done, by content, is skipped.

    Args:
        recipe: a Recipe, the path of a YAML file, or its values.
        out: the run's folder; a killed run goes on when called again.

    Raises:
        RecipeError: the recipe has an unknown key or a value that does not fit.
        BusyError: another process runs in ``out``.
        LateenError: any stage's own errors.
    """
    plan = _as_recipe(recipe)
    folder = Path(out)
    clock = _Clock()
    with folder_lock(folder):
        vision = load_encoder(plan.vision.encoder, "image", **_options(plan.vision))
        text = load_encoder(plan.text.encoder, "text", **_options(plan.text))
        with clock("encode"):
            splits = _encode_splits(plan, vision, text, folder / "stores")
        stores = [store for pairs in splits.values() for store in pairs.stores]
        skipped = {store.path: len(store.skipped) for store in stores if store.skipped}
        train_pairs = splits.pop("train")
        chosen_on = "validation" if "validation" in splits else "holdout"
        if "validation" not in splits:
            train_pairs, held = train_pairs.holdout(plan.data.holdout, plan.train.seed)
            splits["holdout"] = held
        with clock("train"):
            trained = _train(plan, train_pairs, splits[chosen_on], folder)
        model = build_model(train_pairs, trained, plan.head, plan.train)
        model.set_encoders(vision, text)
        model.save_pretrained(folder / "model")
        with clock("evaluate"):
            results = _evaluate(plan, model, splits, chosen_on, folder)
        write_json(folder / RESULTS, results)
        plan.save(folder / "recipe.yaml")
    headline = _headline(splits, chosen_on)
    shown = splits[headline]
    samples = _samples(plan.data, headline, set(shown.ids))
    return RunResult(
        folder, model, results, shown, samples, skipped, trained.metrics, clock.seconds
    )  # fmt: skip


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - begin
        log.info("%s: %.1f s", stage, self.seconds[stage])


def _as_recipe(recipe: Recipe | str | Path | Mapping[str, Any]) -> Recipe:
    """The recipe with absolute paths, so that it can be run again from anywhere."""
    if isinstance(recipe, Mapping):
        recipe = Recipe.build(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = Recipe.load(Path(recipe))
    sections = {"data": recipe.data.model_copy(update={"root": recipe.data.root.resolve()})}
    for name in ("vision", "text"):
        section = getattr(recipe, name)
        encoder = Path(section.encoder).expanduser()
        if encoder.is_dir():
            sections[name] = section.model_copy(update={"encoder": str(encoder.resolve())})
    return recipe.model_copy(update=sections)


def _options(section: VisionSection | TextSection) -> dict[str, Any]:
    return section.model_dump(exclude={"encoder", "dtype"})


def _encode_splits(plan: Recipe, vision: Encoder, text: Encoder, folder: Path) -> dict[str, Pairs]:
    """The joined features of every split that the recipe names."""
    splits = {}
    for name in ("train", "validation", "test"):
        source = getattr(plan.data, name)
        if source is None:
            continue
        dataset = _open(plan.data, source, name)
        columns = plan.data.captions or dataset.columns
        if not columns:
            raise DataError(f"{dataset.name} has no captions", "Name a caption file in data.")
        image = _store(dataset, vision, plan.vision.dtype, folder, f"{name}-vision")
        texts = [
            _store(dataset, text, plan.text.dtype, folder, f"{name}-text-{column}", column)
            for column in columns
        ]
        splits[name] = pair(image, *texts)
        log.info("%s: %d images with captions", name, len(splits[name]))
    return splits


def _open(data: DataSection, source: str, name: str) -> Dataset:
    """A split's dataset: what lies below the root, or else a datasets name.

    ``file.json#val`` names a split inside it; of a datasets name it is by default ``name``.
    """
    source, _, split = source.partition("#")
    path = data.root / source
    hub = not path.exists() and source.count("/") == 1 and not Path(source).suffix
    return open_dataset(
        source if hub else path,
        images=data.root / data.images if data.images else None,
        image_column=data.image_column, captions=data.captions,
        split=split or (name if hub else None),
    )  # fmt: skip


def _samples(data: DataSection, split: str, ids: set[str]) -> dict[str, Sample]:
    """The samples with these ids; those of the holdout are in the training split."""
    name = "train" if split == "holdout" else split
    dataset = _open(data, getattr(data, name), name)
    return {s.id: s for s in dataset if isinstance(s, Sample) and s.id in ids}


def _store(
    dataset: Dataset, encoder: Encoder, dtype: Any, folder: Path, name: str,
    column: str | None = None,
) -> Store:  # fmt: skip
    """One store of the run. Its folder goes by the encoder, so that changing the encoder in a
    recipe keeps the features of the other; stale data below the same encoder is replaced."""
    path = folder / f"{name}-{encoder.info.key[:8]}"
    store = encode(dataset, encoder, path, column=column, dtype=dtype, overwrite=True)
    log.info("%s: %d rows of %d values, %d skipped", path.name, len(store), store.dim,
             len(store.skipped))  # fmt: skip
    return store


def _train(plan: Recipe, pairs: Pairs, validation: Pairs, folder: Path) -> TrainResult:
    """Train in a folder that goes by everything that decides the result, and so is never stale."""
    key = content_key(
        [pairs.key, validation.key, plan.head.model_dump(mode="json"),
         plan.train.model_dump(mode="json")]
    )  # fmt: skip
    return train_heads(
        pairs, validation=validation, head=plan.head, settings=plan.train,
        out=folder / "train" / key[:12],
    )  # fmt: skip


def _headline(splits: Mapping[str, Pairs], chosen_on: str) -> str:
    """The split whose numbers come first: one that chose nothing, where there is one."""
    return "test" if "test" in splits else chosen_on


def _evaluate(
    plan: Recipe, model: AlignedModel, splits: Mapping[str, Pairs], chosen_on: str, folder: Path
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if plan.evaluate.retrieval:
        by_split = {
            name: {**retrieval_result(model, pairs), "split": name, "chose_step": name == chosen_on}
            for name, pairs in splits.items()
        }
        results["retrieval"] = by_split.pop(_headline(splits, chosen_on))
        results["other_splits"] = by_split
    if plan.evaluate.classification is not None:
        results["classification"] = evaluate_classification(
            model, plan.data.root / plan.evaluate.classification,
            cache=folder / "stores" / f"evaluation-{model.vision_encoder.info.key[:8]}",
        )  # fmt: skip
    results["recipe"] = plan.model_dump(mode="json")
    return results
