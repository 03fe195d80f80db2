"""Evaluations of embeddings that are ready: stores in one space, made by whatever model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from lateen.errors import DataError, PairingError
from lateen.evaluation.features import conditions
from lateen.evaluation.tasks.classification import classification_facts
from lateen.evaluation.tasks.retrieval import retrieval_result
from lateen.features import Store, pair
from lateen.features.pairs import rows_by_id
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
    return retrieval_result(_as_they_are(image, text), pairs, per_image=per_image, folds=folds)


def read_labels(path: Path) -> dict[str, str]:
    """The label of every id in a CSV file with the columns id and label.

    Raises:
        DataError: it cannot be read, has no such columns or no row, or two labels for one id.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the labels in {path}: {error}", "Give a CSV file.") from error
    if not rows or not {"id", "label"} <= set(rows[0]):
        raise DataError(f"{path} has no columns id and label", "Write a header line: id,label.")
    labels: dict[str, str] = {}
    for row in rows:
        if (
            row["id"]
            and row["label"]
            and labels.setdefault(row["id"], row["label"]) != row["label"]
        ):
            raise DataError(
                f"{path} says of {row['id']!r} that it is {labels[row['id']]!r} and "
                f"{row['label']!r}",
                "Give each image one label.",
            )
    return labels


def _as_they_are(image: Store, text: Store) -> AlignedModel:
    """A model of identity heads, which takes embeddings for features."""
    head = {"name": "identity", "vision": "identity", "dim": image.dim, "dropout": 0.0}
    sides = [{**s.manifest.description.encoder, "dim": s.dim} for s in (image, text)]
    model = AlignedModel(AlignedConfig(vision=sides[0], text=sides[1], head=head))
    model.eval()
    return model


def _classify(image: Store, text: Store, labels: dict[str, str]) -> dict[str, Any]:
    named = rows_by_id(text)
    names = list(named)
    index_of = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(labels.values()) - set(index_of))
    if unknown:
        raise DataError(
            f"the label {unknown[0]!r} is no class among the texts in {text.path}, whose ids are "
            f"{', '.join(map(repr, names[:3]))}, …",
            "Give each text the name of its class as its id.",
        )
    rows = [row for row, sample in enumerate(image.ids) if sample in labels]
    if not rows:
        raise DataError(
            f"none of the {len(image)} images in {image.path} has a label: their ids look like "
            f"{image.ids[0]!r}",
            "Give labels by the ids of the images.",
        )
    prompts = F.normalize(text[:], dim=-1)
    classes = [class_embeddings(prompts[rows][None])[0] for rows in named.values()]
    target = torch.tensor([index_of[labels[image.ids[row]]] for row in rows])
    fingerprints = [store.manifest.description.fingerprint for store in (image, text)]
    data = content_key([*fingerprints, sorted(labels.items())])
    ranks = class_ranks(F.normalize(image[rows], dim=-1), torch.stack(classes), target)
    return {
        "task": "classification", **classification_of_ranks(ranks, target, names),
        **classification_facts(ranks, target, [image.ids[row] for row in rows]),
        "images": len(rows), "classes": len(names),
        "unlabelled": len(image) - len(rows), "skipped": len(image.skipped),
        "conditions": conditions(_as_they_are(image, text), data),
    }  # fmt: skip
