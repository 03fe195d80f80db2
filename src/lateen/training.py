"""Pairs of features to an AlignedModel: the public function around the training loop."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from lateen.align.trainer import TrainResult
from lateen.align.trainer import train as train_heads
from lateen.model import AlignedModel
from lateen.recipe import HeadSection, Recipe, TrainSection
from lateen.store import Pairs, Store
from lateen.store.manifest import library_versions

_HEAD_KEYS = frozenset(HeadSection.model_fields) - {"name"}


def train(
    pairs: Pairs,
    *,
    validation: Pairs | None = None,
    preset: str = "small",
    head: str | None = None,
    holdout: float = 0.05,
    out: str | Path | None = None,
    **settings: Any,
) -> AlignedModel:
    """Train alignment heads on pairs of frozen features.

    Args:
        pairs: from :func:`lateen.pair`.
        validation: pairs that choose the best step; without them, ``holdout`` of ``pairs`` does.
        preset: ``small``, ``sail`` or ``probe``: values beneath those given here.
        head: ``linear``, ``mlp`` or ``glu``.
        holdout: share of the images held out where there is no ``validation``.
        out: folder for checkpoints and metrics, so that a killed run can go on; a temporary one
            that is removed if not given.
        settings: any key of the recipe's ``head`` and ``train`` sections: ``dim=1024``,
            ``lr=1e-3``, ``epochs=50``, ….

    Raises:
        RecipeError: an unknown key or a value that does not fit.
        TrainingError: features with NaN, a diverging loss, a checkpoint of other settings.
    """
    values: dict[str, dict[str, Any]] = {"head": {}, "train": {}}
    if head is not None:
        values["head"]["name"] = head
    for key, value in settings.items():
        values["head" if key in _HEAD_KEYS else "train"][key] = value
    recipe = Recipe.build({"preset": preset, **values})
    if validation is None:
        pairs, validation = pairs.holdout(holdout, recipe.train.seed)
    with tempfile.TemporaryDirectory(prefix="lateen-") as temporary:
        result = train_heads(
            pairs, validation=validation, head=recipe.head, settings=recipe.train,
            out=Path(out or temporary),
        )  # fmt: skip
    return build_model(pairs, result, recipe.head, recipe.train)


def build_model(
    pairs: Pairs, result: TrainResult, head: HeadSection, settings: TrainSection
) -> AlignedModel:
    """The trained heads with the names of the encoders whose features they were trained on."""
    conditions = {
        "pairs": len(pairs),
        "captions": sum(int(column.counts.sum()) for column in pairs.texts),
        "data": pairs.key,
        "seed": settings.seed,
        "steps": result.steps,
        "kept_step": result.best_step,
        **{f"{name} version": version for name, version in library_versions().items()},
        "validation": result.best_metrics,
    }
    return AlignedModel.build(
        result.heads, _side(pairs.image), _side(pairs.texts[0].store), head.model_dump(mode="json"),
        training=conditions,
    )  # fmt: skip


def _side(store: Store) -> dict[str, Any]:
    """What the model must remember of a store's encoder."""
    return {**store.manifest.description.encoder, "dim": store.dim}
