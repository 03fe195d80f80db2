"""Evaluations of embeddings that are ready: stores in one space, made by whatever model."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.errors import DataError, PairingError
from lateen.evaluation.features import conditions
from lateen.evaluation.tasks.classification import classification_facts
from lateen.evaluation.tasks.retrieval import retrieval_result
from lateen.features import Store, pair
from lateen.files import content_key
from lateen.metrics import class_embeddings, class_ranks, classification_of_ranks
from lateen.model import AlignedConfig, AlignedModel


def evaluate_embeddings(
    images: Store | str | Path,
    texts: Store | str | Path,
    *,
    labels: str | Path | None = None,
    missing: Literal["error", "drop"] = "error",
    per_image: int | None = None,
    folds: int | None = None,
) -> dict[str, Any]:
    """Retrieval, or zero-shot classification, of embeddings that are on disk already.

    Args:
        images: a store of image embeddings.
        texts: a store of text embeddings in the same space. For retrieval, rows with the ids of
            the images they describe; for classification, rows with the names of classes as ids,
            several of one name (prompts) being averaged.
        labels: for classification: a CSV file with the columns id and label.
        missing: of retrieval: what to do with ids that only one side has.
        per_image: of retrieval: only each image's first captions, so many.
        folds: of retrieval: also the mean over this many parts of the images.

    Returns:
        JSON-ready, as the task of that name gives it.

    Raises:
        PairingError: embeddings of different length, or ids that do not fit.
        DataError: labels that cannot be read or name no class among the texts.
    """
    image, text = (s if isinstance(s, Store) else Store.open(s) for s in (images, texts))
    if image.dim != text.dim:
        raise PairingError(
            f"the images' embeddings have {image.dim} values and the texts' {text.dim}",
            "Give embeddings of one space; features of two encoders are for `lateen assess`.",
        )
    if labels is not None:
        return _classify(image, text, read_labels(Path(labels)))
    pairs = pair(image, text, missing=missing)
    return retrieval_result(
        _as_they_are(image, text), pairs, per_image=per_image, folds=folds, embed=ReadEmbeddings
    )


@dataclass(frozen=True)
class ReadEmbeddings:
    """Rows of a store as embeddings, read when they are needed: they may be more than memory holds.

    Attributes:
        project: of rows as they are stored, makes embeddings.
        store: where they are.
        rows: ``[n]`` their numbers.
    """

    project: Callable[[Tensor], Tensor]
    store: Store
    rows: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def __getitem__(self, part: slice) -> Tensor:
        return self.project(self.store[self.rows[part]])


def read_labels(path: Path) -> dict[str, str]:
    """The label of every id in a CSV file with the columns id and label.

    Raises:
        DataError: it cannot be read, has no such columns or no row, or two labels for one id.
    """
    labels: dict[str, str] = {}
    empty = True
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if not {"id", "label"} <= set(row):
                    break
                empty = False
                sample, label = row["id"], row["label"]
                if sample and label and labels.setdefault(sample, label) != label:
                    raise DataError(
                        f"{path} says of {sample!r} that it is {labels[sample]!r} and {label!r}",
                        "Give each image one label.",
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels in {path}: {error}", "Give a CSV file.") from error
    if empty:
        raise DataError(f"{path} has no columns id and label", "Write a header line: id,label.")
    return labels


def _as_they_are(image: Store, text: Store) -> AlignedModel:
    """A model of identity heads, which takes embeddings for features."""
    head = {"name": "identity", "vision": "identity", "dim": image.dim, "dropout": 0.0}
    sides = [{**s.manifest.description.encoder, "dim": s.dim} for s in (image, text)]
    model = AlignedModel(AlignedConfig(vision=sides[0], text=sides[1], head=head))
    model.eval()
    return model


def _classify(image: Store, text: Store, labels: dict[str, str]) -> dict[str, Any]:
    named: dict[str, list[int]] = {}
    for row, name in enumerate(text.ids):
        named.setdefault(name, []).append(row)
    names = list(named)
    index_of = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(labels.values()) - set(index_of))
    if unknown:
        raise DataError(
            f"the label {unknown[0]!r} is no class among the texts in {text.path}, whose ids are "
            f"{', '.join(map(repr, names[:3]))}, …",
            "Give each text the name of its class as its id.",
        )
    rows = np.fromiter((r for r, sample in enumerate(image.ids) if sample in labels), np.int64)
    if not rows.size:
        raise DataError(
            f"none of the {len(image)} images in {image.path} has a label: their ids look like "
            f"{image.ids[0]!r}",
            "Give labels by the ids of the images.",
        )
    classes = [
        class_embeddings(F.normalize(text[prompts], dim=-1)[None])[0] for prompts in named.values()
    ]
    target = torch.tensor([index_of[labels[sample]] for sample in image.ids.take(rows)])
    fingerprints = [store.manifest.description.fingerprint for store in (image, text)]
    data = content_key([*fingerprints, sorted(labels.items())])
    embeddings = ReadEmbeddings(F.normalize, image, rows)
    ranks = class_ranks(embeddings, torch.stack(classes), target)
    return {
        "task": "classification", **classification_of_ranks(ranks, target, names),
        **classification_facts(ranks, target, image.ids.take(rows)),
        "images": len(rows), "classes": len(names),
        "unlabelled": len(image) - len(rows), "skipped": len(image.skipped),
        "conditions": conditions(_as_they_are(image, text), data),
    }  # fmt: skip
