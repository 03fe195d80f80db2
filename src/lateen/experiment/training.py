"""Pairs of features to an AlignedModel: the public function around the training loop."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lateen.data.hub import is_hub_name
from lateen.errors import DataError, RecipeError, UsageError, nearest
from lateen.experiment.recipe import Recipe
from lateen.experiment.stages import default_holdout
from lateen.experiment.unpaired import with_unpaired
from lateen.features import Pairs, Store
from lateen.files import content_key, library_versions, refuse_foreign
from lateen.model import AlignedModel
from lateen.model.query_bank import QueryBank
from lateen.model.trained_on import TrainedOn
from lateen.progress import log
from lateen.training.config import AUTO, BankSection, HeadSection, TrainSection
from lateen.training.heads import FROZEN, AlignmentHeads, FrozenEncoders
from lateen.training.loop import CHECKPOINT, METRICS, TrainResult, is_begun
from lateen.training.loop import train as train_heads
from lateen.training.ranks import process_group
from lateen.training.tracking import Tracked, check_tracker

_FEWEST = 3  # two to contrast with each other, one to validate on
_SECTIONS = {
    "head": HeadSection.model_fields, "train": TrainSection.model_fields,
    "bank": BankSection.model_fields,
}  # fmt: skip


def train(
    pairs: Pairs,
    *,
    validation: Pairs | None = None,
    preset: str | None = None,
    head: str | None = None,
    holdout: float | None = None,
    holdout_seed: int = 0,
    out: str | Path | None = None,
    **settings: Any,
) -> AlignedModel:
    """Train alignment heads on pairs of frozen features.

    Among processes started by ``torchrun``, each calls this with the same arguments and gets the
    same model; they share every batch.

    Args:
        pairs: from :func:`lateen.pair`.
        validation: pairs that choose the best step; without them, ``holdout`` of ``pairs`` does.
        preset: values beneath those given here, a name of
            :data:`lateen.training.config.PRESETS`; ``auto`` if not given, or ``small`` where
            heads are not linear, or ``out`` has a training that was begun with it.
        head: ``linear``, ``mlp``, ``glu`` or ``sharelock``.
        holdout: share of the images held out where there is no ``validation``; if not given 5 %,
            but 200 to 10,000 images, and at most 40 %.
        holdout_seed: which images are held out.
        out: folder for checkpoints and metrics, so that a killed run can go on; a temporary one
            that is removed if not given.
        settings: any key of the recipe's ``head``, ``train`` and ``bank`` sections, alone or with
            its section: ``dim=1024``, ``lr=1e-3``, ``**{"train.epochs": 50}``, …. Stores of images
            without captions and of texts without images are named so:
            ``unpaired={"images": "stores/more-images", "texts": "stores/more-texts"}``.

    Raises:
        RecipeError: an unknown key or a value that does not fit.
        UsageError: a key that is given twice, a ``holdout`` outside (0, 1), or a preset that trains
            the text encoder itself.
        DataError: too few images to hold any out, or unpaired ones that are in ``validation``.
        PairingError: unpaired features of other encoders.
        LateenError: ``out`` holds something else.
        TrainingError: features with NaN, a diverging loss, a checkpoint of other settings.
    """
    named = {} if preset is None else {"preset": preset}
    recipe = Recipe.build({**named, **_sections(head, settings)})
    check_tracker(recipe.train.track)
    if recipe.train.track is not None and out is None:
        raise UsageError("train.track has no folder to go by", "Give out.")
    if recipe.text.train:
        raise UsageError(
            f"preset {preset!r} trains the text encoder, which needs captions, not their features",
            "Use `lateen run` (lateen.run) with this preset.",
        )
    if out is not None:
        refuse_foreign(Path(out), "the folder of a training", (CHECKPOINT, METRICS), ("model",))
    name = "validation" if validation is not None else "holdout"
    if validation is None:
        pairs, validation = _hold_out(pairs, holdout, holdout_seed)
    begun = out is not None and recipe.preset == AUTO and not named and is_begun(
        pairs, validation, head=recipe.head, settings=recipe.train, out=Path(out)
    )  # fmt: skip
    recipe = recipe.as_begun() if begun else recipe.suited_to(pairs)
    trained: FrozenEncoders = FROZEN
    if recipe.train.unpaired is not None:
        sources = recipe.train.unpaired.sources
        stores = {side: Store.open(source) for side, source in sources.items()}
        trained = with_unpaired(pairs, recipe.train, stores, {name: validation}, "holdout")
    with process_group() as ranks, tempfile.TemporaryDirectory(prefix="lateen-") as temporary:
        if out is None and ranks.size > 1:
            raise UsageError(
                f"{ranks.size} processes have no folder to train in", "Give out, on a shared disk."
            )
        result = train_heads(
            pairs, validation=validation, head=recipe.head, settings=recipe.train,
            out=Path(out or temporary), trained=trained, ranks=ranks,
            tracked=None if out is None else _tracked(recipe, Path(out)),
        )  # fmt: skip
    record = TrainedOn.of(pairs, validation, trained.images)
    model = build_model(pairs, result, recipe.train, trained_on=record, what=trained)
    add_bank(model, pairs, validation, recipe.bank.size)
    return model


def _tracked(recipe: Recipe, out: Path) -> Tracked:
    """The recipe's sections that say how these pairs are trained on."""
    return Tracked(out.resolve().name, recipe.model_dump(mode="json", include={*_SECTIONS}))


def _sections(head: str | None, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings by section, each once."""
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    named = [("head.name", head)] if head is not None else []
    for key, value in [*named, *settings.items()]:
        section, name = _section_and_name(key)
        *outer, last = name.split(".")
        within = values[section]
        for word in outer:
            within = within.setdefault(word, {})
        if last in within:
            raise UsageError(
                f"{section}.{name} is given twice, as {within[last]!r} and {value!r}",
                "Give it once.",
            )
        within[last] = value
    return values


def _section_and_name(key: str) -> tuple[str, str]:
    """The section and the name of a key that has its section before it or not; the name of a key
    further inside has dots, such as ``unpaired.weight``."""
    for section, fields in _SECTIONS.items():
        name = key.removeprefix(f"{section}.")
        if name.partition(".")[0] in fields:
            return section, name
    prefix, _, name = key.rpartition(".")
    plain = {name: section for section, fields in _SECTIONS.items() for name in fields}
    near = nearest(name, plain)
    hint = f"Did you mean '{plain[near]}.{near}'? " if near else ""
    raise RecipeError(
        f"unknown recipe key {key if prefix else f'train.{key}'!r}",
        f"{hint}The keys here are those of "
        + ", ".join(f"{section} ({', '.join(fields)})" for section, fields in _SECTIONS.items())
        + ".",
    )


def _hold_out(pairs: Pairs, share: float | None, seed: int) -> tuple[Pairs, Pairs]:
    if share is None:
        share = default_holdout(len(pairs))
    if not 0 < share < 1:
        raise UsageError(
            f"the holdout cannot be {share}: it is a share of the images, above 0 and below 1",
            "Give a share such as 0.05, or validation pairs of their own.",
        )
    if len(pairs) < _FEWEST:
        raise DataError(
            f"{len(pairs)} paired images are too few to hold any out and train on two",
            "Give more pairs, or validation pairs of their own.",
        )
    return pairs.holdout(share, seed)


def build_model(
    pairs: Pairs,
    result: TrainResult[AlignmentHeads],
    settings: TrainSection,
    text: Mapping[str, Any] | None = None,
    trained_on: TrainedOn | None = None,
    what: FrozenEncoders = FROZEN,
) -> AlignedModel:
    """The trained heads with the names of the encoders whose features they were trained on.

    Args:
        pairs: what they were trained on.
        result: the trained heads.
        settings: of the training.
        text: what to remember of the text encoder, where it is not that of ``pairs``.
        trained_on: hashes of the images that were trained on.
        what: was trained, which may be on more than ``pairs``.
    """
    conditions = {
        "pairs": len(pairs),
        "captions": sum(int(column.counts.sum()) for column in pairs.texts),
        "data name": _data_name(pairs.image),
        "data": pairs.key,
        **what.told,
        "loss": settings.loss,
        "seed": settings.seed,
        "settings": content_key(settings.deciding(seed=False)),
        **_closed_form(settings),
        "steps": result.steps,
        "kept_step": result.best_step,
        **{f"{name} version": version for name, version in library_versions().items()},
        "validation": result.best_metrics,
        **({"calibration": result.calibration.as_dict()} if result.calibration else {}),
    }
    return AlignedModel.build(
        result.heads, _side(pairs.image), dict(text or _side(pairs.texts[0].store)),
        result.heads.settings.model_dump(mode="json"), training=conditions, trained_on=trained_on,
    )  # fmt: skip


def add_bank(model: AlignedModel, pairs: Pairs, held_out: Pairs, size: int) -> None:
    """Give a trained model its query bank.

    Args:
        model: with frozen encoders.
        pairs: that it was trained on.
        held_out: that chose its step, by which the bank's temperature is found.
        size: images, and captions; 0 for none.
    """
    if size:
        model.query_bank = QueryBank.of(model, pairs, size=size, held_out=held_out)
        log.info("query bank: %s of the training pairs (bank.size)", model.query_bank)


def _closed_form(settings: TrainSection) -> dict[str, str]:
    """Share and ridges of the canonical directions, where they were chosen for the pairs."""
    if settings.cca_ridge is None:
        return {}
    image, text = settings.cca_ridge
    return {"closed form": f"share {settings.cca}, ridges {image} (images) and {text} (captions)"}


def _data_name(store: Store) -> str:
    """What was encoded, in a word: a dataset's hub name, or a file's or folder's without the path,
    which may say more of its owner than of the data."""
    source = store.manifest.description.source
    return source if is_hub_name(source) and not Path(source).exists() else Path(source).name


def _side(store: Store) -> dict[str, Any]:
    """What the model must remember of a store's encoder."""
    description = store.manifest.description
    return {**description.encoder, "dim": store.dim, "dtype": description.dtype}
