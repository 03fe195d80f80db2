"""Labelled images as tasks judge them: which are judged, and which are learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from lateen.data.labels import LabelledImages, open_labelled
from lateen.data.samples import split_word
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.features import (
    JudgedImages,
    conditions,
    find_trained_on,
    side_features,
)
from lateen.evaluation.intervals import Arrays, resampled, shares
from lateen.evaluation.task import FeaturesOf
from lateen.features import Store, StoreRows
from lateen.files import content_key
from lateen.metrics import Features, LinearProbe, knn_hits, linear_probe, linear_probe_folds
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.progress import log
from lateen.report.chance import top_k

FEATURES = {"encoder": "frozen encoder", "embedding": "aligned embedding"}  # in tables
FOLDS = 5  # of a linear probe without a part to learn from


@dataclass(frozen=True)
class LabelledFeatures:
    """Rows of features that have a label.

    Attributes:
        features: ``[n, d]``.
        labels: ``[n]`` index of each row's class.
    """

    features: Features
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def one_source(task: str, images: str | Path | None, data: str | Path | None) -> str | Path:
    """The one of two options that is given.

    Raises:
        UsageError: none or both are.
    """
    if (images is None) == (data is None):
        given = "no images" if images is None else "both --images and --data"
        raise UsageError(f"{task} is given {given}", "Give one of --images and --data.")
    return images if images is not None else data  # type: ignore[return-value]


def labelled_rows(
    model: AlignedModel, labelled: LabelledImages, cache: Path | None
) -> tuple[Store, list[int], Tensor]:
    """The vision encoder's features, which rows have a label, and those rows' classes ``[n]``.

    Raises:
        DataError: not one labelled image could be read.
    """
    name = f"classes-{labelled.split}" if labelled.split else "classes"
    store = side_features(model, "vision", labelled.dataset, folder=cache and cache / name)
    rows = [row for row, sample in enumerate(store.ids) if sample in labelled.labels]
    if not rows:
        raise DataError(
            f"not one labelled image of {labelled.dataset.name} could be read",
            f"See {store.path / 'skipped.jsonl'}.",
        )
    target = torch.tensor([labelled.labels[store.ids[row]] for row in rows], dtype=torch.int64)
    return store, rows, target


def labelled_conditions(model: AlignedModel, *parts: LabelledImages) -> dict[str, Any]:
    """What a number on labelled images depends on: those judged, and those learned from."""
    keys = [key for part in parts for key in (part.dataset.fingerprint, part.key)]
    return conditions(model, content_key(keys))


def described(labelled: LabelledImages, store: Store, rows: Sequence[int]) -> dict[str, Any]:
    """What was evaluated on, JSON-ready."""
    return {
        "set": labelled.set.name if labelled.set is not None else None,
        "split": labelled.split,
        "images": len(rows),
        "classes": len(labelled.names),
        "skipped": len(store.skipped) + labelled.duplicates,
        "unlabelled": labelled.unlabelled,
        "empty_classes": list(labelled.empty),
        "named_by": labelled.named_by or "numbers",
    }


@dataclass(frozen=True)
class LabelledPart:
    """Labelled images of one part, to judge or to learn from, with a model's features of them.

    Attributes:
        labelled: the images.
        store: the vision encoder's features of them.
        rows: those of the store that have a label.
        target: ``[n]`` index of each row's class.
        features: ``[n, d]``, by what they are of: ``encoder``, ``embedding``.
    """

    labelled: LabelledImages
    store: Store
    rows: list[int]
    target: Tensor
    features: Mapping[str, Features]

    @property
    def ids(self) -> list[str]:
        """Each row's image."""
        return [self.store.ids[row] for row in self.rows]

    def of(self, kind: str) -> LabelledFeatures:
        """The features of one kind, with the classes."""
        return LabelledFeatures(self.features[kind], self.target)


@dataclass(frozen=True)
class Probed:
    """What a probe learns from and what it is judged on; without ``train`` both are ``test``."""

    train: LabelledPart | None
    test: LabelledPart

    def of(self, kind: str) -> tuple[LabelledFeatures, LabelledFeatures | None]:
        """What is judged and what is learned from, by features of one kind."""
        return self.test.of(kind), self.train.of(kind) if self.train is not None else None

    @property
    def voters(self) -> int:
        """How many images can vote on one that is judged."""
        return len(self.train.rows) if self.train is not None else len(self.test.rows) - 1

    @property
    def protocol(self) -> str | None:
        """The split that is learned from, if there is one."""
        return self.train.labelled.split if self.train is not None else None


def train_split(splits: Sequence[str], judged: str | None) -> str | None:
    """The split to learn from, where another is judged; ``None`` if there is none."""
    return next((name for name in splits if split_word(name) == "train" and name != judged), None)


def open_probed(
    model: AlignedModel, source: str | Path, options: Mapping[str, Any], train: str | None,
    features: FeaturesOf, cache: Path | None,
) -> Probed:  # fmt: skip
    """The labelled images that are judged, and those that are learned from, with their features.

    Raises:
        UsageError: no such features, or one split for both.
        DataError: nothing labelled could be read, or the two splits have different classes.
    """
    if features not in get_args(FeaturesOf):
        raise UsageError(
            f"there are no features {features!r}", choices(features, get_args(FeaturesOf))
        )
    kinds = ("encoder", "embedding") if features == "both" else (features,)
    test = open_labelled(source, **options)
    if train is None:
        train = train_split(test.splits, test.split)
    elif train == test.split:
        raise UsageError(
            f"the split {train!r} is to be judged and to be learned from", "Give another --train."
        )
    if train is None:
        return Probed(None, _part(model, test, kinds, cache))
    learned = open_labelled(source, **{**options, "split": train})
    test = _with_names(test, learned.names)
    return Probed(_part(model, learned, kinds, cache), _part(model, test, kinds, cache))


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
    model: AlignedModel, labelled: LabelledImages, kinds: Sequence[str], cache: Path | None
) -> LabelledPart:
    store, rows, target = labelled_rows(model, labelled, cache)
    makers: dict[str, Callable[[], Features]] = {
        "encoder": lambda: StoreRows(store, np.array(rows, dtype=np.int64)),
        "embedding": lambda: project_rows(model.project_image, store, rows),
    }
    return LabelledPart(labelled, store, rows, target, {name: makers[name]() for name in kinds})


def usable_ks(ks: Sequence[int], voters: int) -> list[int]:
    """The numbers of neighbours that there are enough images for; the others are told of.

    Raises:
        DataError: there are fewer than the smallest.
    """
    usable = [k for k in ks if k <= voters]
    if not usable:
        raise DataError(
            f"{max(voters, 0)} images can vote, fewer than the k of {min(ks)}",
            "Give more images, or a smaller --k.",
        )
    if len(usable) < len(ks):
        log.warning("kNN: %d images can vote, so only k up to %d", voters, max(usable))
    return usable


def votes(
    judged: LabelledFeatures,
    learned: LabelledFeatures | None,
    ks: Sequence[int],
    temperature: float,
) -> dict[str, Tensor]:
    """Which rows a vote of neighbours classifies rightly: bool ``[n]`` by how many vote, as text.

    Args:
        judged: rows that are classified.
        learned: rows that vote; without them, all others of ``judged`` do.
        ks: numbers of neighbours.
        temperature: of the votes.
    """
    vote = partial(knn_hits, ks=tuple(ks), temperature=temperature)
    if learned is None:
        hits = vote(judged.features, judged.labels)
    else:
        hits = vote(learned.features, learned.labels, judged.features, judged.labels)
    return {str(k): right for k, right in hits.items()}


def probe_scores(
    judged: LabelledFeatures, learned: LabelledFeatures | None, seed: int
) -> LinearProbe:
    """Logistic regression on features.

    Args:
        judged: rows that are classified.
        learned: rows that are learned from; without them, each fold of ``judged`` by the others.
        seed: of the folds and of what chooses the strength.
    """
    features = judged.features[0 : len(judged)]
    if learned is None:
        return linear_probe_folds(features, judged.labels, folds=FOLDS, seed=seed)
    return linear_probe(
        learned.features[0 : len(learned)], learned.labels, features, judged.labels, seed=seed
    )


def check_classes(probed: Probed, *, least: int) -> None:
    """Refuse by name what the metrics would refuse by number."""
    learned = probed.train or probed.test
    names = learned.labelled.names
    counts = torch.bincount(learned.target, minlength=len(names))
    for index in sorted({*learned.target.tolist(), *probed.test.target.tolist()}):
        if counts[index] < least:
            images = f"{int(counts[index])} image{'' if counts[index] == 1 else 's'}"
            raise DataError(
                f"the class {names[index]!r} has {images} to learn from, and {least} are needed",
                "Give more images of it, or leave the class out.",
            )


def probed_result(
    model: AlignedModel, probed: Probed, accuracy: Mapping[str, Any], hits: Arrays
) -> dict[str, Any]:
    """A probe's result, with all that it depends on.

    Args:
        model: an aligned model.
        probed: what was judged, and what was learned from.
        accuracy: of each kind of features.
        hits: which images were classified rightly, by key path of the accuracy.
    """
    learned, test = probed.train, probed.test
    parts = [part.labelled for part in (probed.test, learned) if part is not None]
    return {
        **accuracy,
        **resampled(shares, hits, test.ids),
        "metric": "top1",
        "chance": top_k(1, len(probed.test.labelled.names)),
        "train": probed.protocol,
        "train_images": len(learned.rows) if learned is not None else None,
        "train_skipped": len(learned.store.skipped) if learned is not None else None,
        **described(probed.test.labelled, probed.test.store, probed.test.rows),
        "trained_on": find_trained_on(model, JudgedImages.of(probed.test.store, probed.test.rows)),
        "conditions": labelled_conditions(model, *parts),
    }


def learned_from(result: Mapping[str, Any]) -> str:
    """What was judged, and what was learned from, as the note of a table."""
    images = f"{result['images']:,} images, {result['classes']:,} classes"
    if result.get("train"):
        return f"{images}; learned from {result['train_images']:,} images of {result['train']}."
    how = f"{result['folds']} folds" if "folds" in result else "each by all others"
    return f"{images}; {how}."
