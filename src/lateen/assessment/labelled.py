"""The labelled images of an assessment: the same ones of every encoder, with their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lateen.errors import DataError
from lateen.evaluation.labelled import LabelledFeatures
from lateen.features import Store, StoreRows
from lateen.files import content_key

Labels = Mapping[str, str]


@dataclass(frozen=True)
class LabelledStore(LabelledFeatures):
    """The rows of a store that have a label.

    Attributes:
        key: of their content.
    """

    key: str

    @classmethod
    def of(cls, store: Store, labels: Labels, names: list[str]) -> LabelledStore:
        """The rows of ``store`` that have ``labels``, in the order of these.

        Folds and ties go by the order of rows, which must not tell encoders apart.

        Args:
            store: that has them all.
            labels: of :func:`shared_labels`.
            names: of the classes.
        """
        row_of = {sample: row for row, sample in enumerate(store.ids)}
        rows = [row_of[sample] for sample in labels]
        classes = list(labels.values())
        index_of = {name: index for index, name in enumerate(names)}
        target = torch.tensor([index_of[name] for name in classes])
        key = content_key([store.manifest.content, rows, classes])
        return cls(StoreRows(store, np.array(rows, dtype=np.int64)), target, key)


def shared_labels(labels: Labels, stores: Sequence[Store]) -> Labels:
    """The labels of the images that every store has: what one encoder could not read leaves for
    all, so that their accuracies can be compared.

    Raises:
        DataError: there is none.
    """
    ids_of_stores = [set(store.ids) for store in stores]
    shared = {
        sample: labels[sample] for sample in labels if all(sample in ids for ids in ids_of_stores)
    }
    for store, ids in zip(stores, ids_of_stores, strict=True):
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
