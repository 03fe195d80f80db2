"""Nearest neighbours and linear probe on labelled images: what features know without a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lateen.data.labels import LabelledImages, open_labelled
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.classification import (
    described,
    labelled_conditions,
    labelled_features,
    one_source,
)
from lateen.features import Store, StoreRows
from lateen.metrics import Features, knn_accuracy, linear_probe, linear_probe_folds
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.progress import log
from lateen.report.chance import top_k

Source = Literal["encoder", "embedding", "both"]


_FOLDS = 5


_TRAIN = ("train", "training")


@dataclass(frozen=True)
class _Part:
    """Labelled images of one part, with their features by what they are of."""

    labelled: LabelledImages
    store: Store
    rows: list[int]
    target: Tensor
    features: Mapping[str, Features]


@dataclass(frozen=True)
class _Probed:
    """What a probe learns from and what it is judged on; without ``train`` both are ``test``."""

    train: _Part | None
    test: _Part

    @property
    def protocol(self) -> str | None:
        """The split that is learned from, if there is one."""
        return self.train.labelled.split if self.train is not None else None


def evaluate_knn(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    set: str | None = None,
    split: str | None = None,
    train: str | None = None,
    column: str | None = None,
    features: Source = "both",
    k: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of a weighted vote among the nearest neighbours, in percent, for each k.

    Without a split to learn from, each image is classified by all the others (METHODS §1.5).

    Args:
        model: an aligned model.
        images: labelled images in any form that
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same.
        set: which of the field's sets they are.
        split: the part that is judged.
        train: the part whose images vote; ``train`` where there is one.
        column: the label column of rows that have several.
        features: of the frozen encoder, of the aligned embedding, or both.
        k: numbers of neighbours; those beyond the images that can vote are left out.
        temperature: of the votes.
        cache: where to keep features; lateen's cache folder if not given.

    Returns:
        JSON-ready: ``encoder`` and ``embedding``, each accuracy by k as text.

    Raises:
        DataError: nothing labelled, one class, fewer images than the smallest k, or a class to be
            found that no image to learn from has.
        UsageError: no or two sources, or an unknown set or split.
    """
    options = {"name": set, "split": split, "column": column}
    ks = list(k) if isinstance(k, Sequence) else [k]
    found = _open(model, one_source("knn", images, data), options, train, features, cache)
    voters = len(found.train.rows) if found.train is not None else len(found.test.rows) - 1
    _check_classes(found, least=1)
    if not ks or not all(isinstance(each, int) for each in ks):
        raise UsageError(f"{ks} are no numbers of neighbours", "Give one or more as --k.")
    kept = [each for each in ks if each <= voters]
    if not kept:
        raise DataError(
            f"{max(voters, 0)} images can vote, fewer than the k of {min(ks)}",
            "Give more images, or a smaller --k.",
        )
    if len(kept) < len(ks):
        log.warning("kNN: %d images can vote, so only k up to %d", voters, max(kept))

    def accuracy(name: str) -> dict[str, float]:
        judged = (found.test.features[name], found.test.target)
        if found.train is None:
            scores = knn_accuracy(*judged, ks=kept, temperature=temperature)
        else:
            learned = (found.train.features[name], found.train.target)
            scores = knn_accuracy(*learned, *judged, ks=kept, temperature=temperature)
        return {str(each): value for each, value in scores.items()}

    return {
        **_measured(model, found, accuracy),
        "k_left_out": [each for each in ks if each not in kept],
        "temperature": temperature,
    }


def evaluate_linear_probe(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    set: str | None = None,
    split: str | None = None,
    train: str | None = None,
    column: str | None = None,
    features: Source = "both",
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of logistic regression on frozen features, in percent; its strength is swept.

    Without a split to learn from, each of five stratified folds is predicted by the others.

    Args:
        model: an aligned model.
        images: labelled images in any form that
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same.
        set: which of the field's sets they are.
        split: the part that is judged.
        train: the part that is learned from; ``train`` where there is one.
        column: the label column of rows that have several.
        features: of the frozen encoder, of the aligned embedding, or both.
        seed: of the folds and of the images that choose the strength.
        cache: where to keep features; lateen's cache folder if not given.

    Returns:
        JSON-ready: ``encoder`` and ``embedding``, each with ``accuracy``, the chosen ``c`` and the
        ``validation`` accuracy by C.

    Raises:
        DataError: nothing labelled, one class, or a class with too few images.
        UsageError: no or two sources, or an unknown set or split.
    """
    options = {"name": set, "split": split, "column": column}
    source = one_source("linear-probe", images, data)
    found = _open(model, source, options, train, features, cache)
    _check_classes(found, least=2 if found.train is not None else _FOLDS)

    def accuracy(name: str) -> dict[str, Any]:
        judged = (_all(found.test.features[name]), found.test.target)
        if found.train is None:
            probe = linear_probe_folds(*judged, folds=_FOLDS, seed=seed)
        else:
            learned = (_all(found.train.features[name]), found.train.target)
            probe = linear_probe(*learned, *judged, seed=seed)
        validation = {f"{c:g}": value for c, value in probe.validation.items()}
        return {"accuracy": probe.accuracy, "c": probe.c, "validation": validation}

    folds = {"folds": _FOLDS} if found.train is None else {}
    return {**_measured(model, found, accuracy), **folds, "seed": seed}


def _open(
    model: AlignedModel, source: str | Path, options: Mapping[str, Any], train: str | None,
    features: Source, cache: Path | None,
) -> _Probed:  # fmt: skip
    if features not in get_args(Source):
        raise UsageError(f"there are no features {features!r}", choices(features, get_args(Source)))
    wanted = ("encoder", "embedding") if features == "both" else (features,)
    test = open_labelled(source, **options)
    if train is None:
        train = next((p for p in _TRAIN if p in test.splits and p != test.split), None)
    elif train == test.split:
        raise UsageError(
            f"the split {train!r} is to be judged and to be learned from", "Give another --train."
        )
    if train is None:
        return _Probed(None, _part(model, test, wanted, cache))
    learned = open_labelled(source, **{**options, "split": train})
    test = _with_names(test, learned.names)
    return _Probed(_part(model, learned, wanted, cache), _part(model, test, wanted, cache))


def _with_names(labelled: LabelledImages, names: Sequence[str]) -> LabelledImages:
    """The same images, with the classes of the part that is learned from."""
    if labelled.names == names:
        return labelled
    if unknown := [name for name in labelled.names if name not in names]:
        raise DataError(
            f"the class {unknown[0]!r} of the split {labelled.split!r} is not in the one to learn "
            "from",
            "Give both parts the same classes.",
        )
    labels = {
        sample: names.index(labelled.names[label]) for sample, label in labelled.labels.items()
    }
    return replace(labelled, names=tuple(names), labels=labels)


def _part(
    model: AlignedModel, labelled: LabelledImages, wanted: Sequence[str], cache: Path | None
) -> _Part:
    store, rows, target = labelled_features(model, labelled, cache)
    makers: dict[str, Callable[[], Features]] = {
        "encoder": lambda: StoreRows(store, np.array(rows, dtype=np.int64)),
        "embedding": lambda: project_rows(model.project_image, store, rows),
    }
    if not rows:
        raise DataError(
            f"not one labelled image of {labelled.dataset.name} could be read",
            f"See {store.path / 'skipped.jsonl'}.",
        )
    return _Part(labelled, store, rows, target, {name: makers[name]() for name in wanted})


def _check_classes(found: _Probed, *, least: int) -> None:
    """Refuse by name what the metrics would refuse by number."""
    learned = found.train or found.test
    names = learned.labelled.names
    counts = torch.bincount(learned.target, minlength=len(names))
    for index in sorted({*learned.target.tolist(), *found.test.target.tolist()}):
        if counts[index] < least:
            images = f"{int(counts[index])} image{'' if counts[index] == 1 else 's'}"
            raise DataError(
                f"the class {names[index]!r} has {images} to learn from, and {least} are needed",
                "Give more images of it, or leave the class out.",
            )


def _measured(
    model: AlignedModel, found: _Probed, accuracy: Callable[[str], Any]
) -> dict[str, Any]:
    learned = found.train
    parts = [part.labelled for part in (found.test, learned) if part is not None]
    return {
        **{name: accuracy(name) for name in found.test.features},
        "metric": "top1",
        "chance": top_k(1, len(found.test.labelled.names)),
        "train": found.protocol,
        "train_images": len(learned.rows) if learned is not None else None,
        "train_skipped": len(learned.store.skipped) if learned is not None else None,
        **described(found.test.labelled, found.test.store, found.test.rows),
        "conditions": labelled_conditions(model, *parts),
    }


def _all(features: Features) -> Tensor:
    return features[0 : len(features)]
