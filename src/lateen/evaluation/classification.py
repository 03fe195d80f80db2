"""Zero-shot classification of a class folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lateen.data import ImageFolder, Sample
from lateen.data.prompts import TEMPLATES, class_prompts
from lateen.errors import DataError
from lateen.evaluation.cache import cached_features
from lateen.evaluation.embedding import conditions, project_rows
from lateen.metrics import class_embeddings, classification
from lateen.model import AlignedModel


def evaluate_classification(
    model: AlignedModel,
    *,
    images: str | Path,
    templates: Sequence[str] = TEMPLATES,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Top-1, top-5 and per-class accuracy in percent.

    Args:
        model: an aligned model.
        images: a folder with one subfolder of images per class, named after the class.
        templates: prompts with ``{}`` for the class name.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: fewer than two classes.
    """
    folder = images
    dataset = ImageFolder(folder)
    labels = {
        sample.id: sample.label
        for sample in dataset
        if isinstance(sample, Sample) and sample.label is not None
    }
    names = sorted(set(labels.values()))
    if len(names) < 2:
        raise DataError(
            f"{folder} has {len(names)} class folders, zero-shot classification needs two or more",
            "Give a folder with one subfolder of images per class, named after the class.",
        )
    store = cached_features(
        dataset, model.vision_encoder, folder=cache and cache / "classes",
        dtype=model.config.feature_dtype("vision"),
    )  # fmt: skip
    rows = [row for row, sample in enumerate(store.ids) if sample in labels]
    embeddings = project_rows(model.project_image, store, rows)
    target = torch.tensor([names.index(labels[store.ids[row]]) for row in rows])
    prompts = [class_prompts(name, templates) for name in names]
    text = model.encode_text([prompt for each in prompts for prompt in each])
    classes = class_embeddings(text.view(len(names), -1, text.shape[-1]))
    return {
        "task": "classification",
        **classification(embeddings, classes, target, names),
        "images": len(rows),
        "classes": len(names),
        "skipped": len(store.skipped),
        "templates": list(templates),
        "conditions": conditions(model, store.manifest.content),
    }
