"""How good a vision encoder is by itself: kNN and linear probe on a labelled set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lateen.assessment.kept import kept
from lateen.errors import DataError, LateenError
from lateen.files import content_key
from lateen.metrics import Features, knn_accuracy, linear_probe, linear_probe_folds
from lateen.progress import log
from lateen.recipe.assessment import MeasureSection
from lateen.store import Store, StoreRows

Labels = Mapping[str, str]


@dataclass(frozen=True)
class LabelledFeatures:
    """Rows of a store that have a label.

    Attributes:
        features: ``[n, d]``.
        labels: ``[n]`` index of each row's class.
        key: of their content.
    """

    features: StoreRows
    labels: torch.Tensor
    key: str

    @classmethod
    def of(cls, store: Store, labels: Labels, names: list[str]) -> LabelledFeatures:
        """The rows of ``store`` that have ``labels``, in the order of these.

        Folds and ties go by the order of rows, which must not tell encoders apart.

        Args:
            store: that has them all.
            labels: of :func:`shared_labels`.
            names: of the classes.
        """
        row_of = {sample: row for row, sample in enumerate(store.ids)}
        rows = [row_of[sample] for sample in labels]
        found = list(labels.values())
        place = {name: index for index, name in enumerate(names)}
        target = torch.tensor([place[name] for name in found])
        key = content_key([store.manifest.content, rows, found])
        return cls(StoreRows(store, np.array(rows, dtype=np.int64)), target, key)


def shared_labels(labels: Labels, stores: Sequence[Store]) -> Labels:
    """The labels of the images that every store has: what one encoder could not read leaves for
    all, so that their accuracies can be compared.

    Raises:
        DataError: there is none.
    """
    known = [set(store.ids) for store in stores]
    shared = {sample: labels[sample] for sample in labels if all(sample in ids for ids in known)}
    for store, ids in zip(stores, known, strict=True):
        if not shared and not ids & labels.keys():
            raise DataError(
                f"none of the {len(store)} images in {store.path} has a label: their ids look like "
                f"{store.ids[0]!r}, those with labels like {next(iter(labels), '')!r}",
                "Give labels by the ids of the image stores.",
            )
    if not shared:
        raise DataError(
            f"no image with a label is in all {len(stores)} image stores",
            "Encode the same labelled images with every encoder.",
        )
    return shared


def class_names(*parts: Labels) -> list[str]:
    """The classes of a labelled set, sorted.

    Raises:
        DataError: fewer than two, or a part with other classes than the first.
    """
    names = sorted(set(parts[0].values()))
    if len(names) < 2:
        raise DataError(
            f"the labelled set has {len(names)} classes, and one alone is always right",
            "Give a folder with one subfolder of images for each of at least two classes.",
        )
    for other in parts[1:]:
        unknown = sorted(set(other.values()) - set(names))
        if unknown:
            raise DataError(
                f"the class {unknown[0]!r} of the labelled test part is not in its training part",
                "Give both parts the same class folders.",
            )
    return names


def quality(
    train: LabelledFeatures, test: LabelledFeatures | None, settings: MeasureSection, folder: Path
) -> dict[str, Any]:
    """kNN and linear-probe accuracy in percent; what is done, by content, is not done again.

    Args:
        train: labelled features.
        test: features to be judged; without them all of ``train`` are, by the others.
        settings: numbers of neighbours, temperature, seed.
        folder: of the results.

    Returns:
        JSON-ready: ``knn`` (accuracy by number of neighbours, as text), ``linear_probe`` with its
        ``accuracy`` and ``c``, ``notes`` where one is ``None``.
    """
    conditions = [list(settings.knn), settings.temperature, settings.seed]
    decides = [train.key, test.key if test else None, conditions]
    return kept(folder, "quality", decides, lambda _: _measure(train, test, settings))


def _measure(
    train: LabelledFeatures, test: LabelledFeatures | None, settings: MeasureSection
) -> dict[str, Any]:
    result: dict[str, Any] = {"knn": None, "linear_probe": None, "notes": {}}
    try:
        result["knn"] = _knn(train, test, settings)
    except LateenError as error:
        result["notes"]["knn"] = error.message
    try:
        result["linear_probe"] = _linear(train, test, settings.seed)
    except LateenError as error:
        result["notes"]["linear_probe"] = error.message
    return result


def _knn(
    train: LabelledFeatures, test: LabelledFeatures | None, settings: MeasureSection
) -> dict[str, float]:
    gallery = len(train.labels) - (test is None)
    ks = [k for k in settings.knn if k <= gallery]
    if not ks:
        raise DataError(f"{gallery} labelled images have fewer than {min(settings.knn)} neighbours",
                        "Give more of them.")  # fmt: skip
    if len(ks) < len(settings.knn):
        log.warning("kNN of %d labelled images: only k up to %d", gallery, max(ks))
    judged = (test.features, test.labels) if test else (None, None)
    accuracy = knn_accuracy(
        train.features, train.labels, *judged, ks=tuple(ks), temperature=settings.temperature
    )
    return {str(k): value for k, value in accuracy.items()}


def _linear(train: LabelledFeatures, test: LabelledFeatures | None, seed: int) -> dict[str, Any]:
    features = _all(train.features)
    if test is None:
        found = linear_probe_folds(features, train.labels, seed=seed)
    else:
        found = linear_probe(features, train.labels, _all(test.features), test.labels, seed=seed)
    return {"accuracy": found.accuracy, "c": found.c}


def _all(features: Features) -> torch.Tensor:
    return features[0 : len(features)]
