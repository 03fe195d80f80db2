"""Runners: a model and a dataset to a result with its conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lateen.data import ImageFolder, Sample, open_dataset
from lateen.data.prompts import TEMPLATES, class_prompts
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.cache import cached_features
from lateen.files import content_key
from lateen.metrics.classification import class_embeddings, classification
from lateen.metrics.retrieval import retrieval
from lateen.model import AlignedModel
from lateen.store import Pairs, Store, pair
from lateen.store.manifest import library_versions

TASKS = ("retrieval", "classification")
Task = Literal["retrieval", "classification"]
_ROWS = 8192  # features projected at a time


def evaluate(
    model: AlignedModel | str | Path,
    task: Task,
    *,
    images: str | Path | None = None,
    captions: str | Path | None = None,
    column: str | None = None,
    split: str | None = None,
    templates: Sequence[str] = TEMPLATES,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model; features are cached by content, so that a second run costs little.

    Args:
        model: an AlignedModel or its folder.
        task: ``retrieval`` or ``classification``.
        images: retrieval: folder of the images that ``captions`` names. Classification: a folder
            with one subfolder of images per class.
        captions: retrieval: any source of pairs that :func:`~lateen.data.open_dataset` reads.
        column: the caption column, if there are several.
        split: of a caption file or datasets name that has splits.
        templates: prompts with ``{}`` for the class name.
        cache: where to keep features; lateen's cache folder if not given.

    Returns:
        JSON-ready: ``task``, the metrics in percent, counts, and ``conditions``.

    Raises:
        UsageError: an unknown task, or one without its data.
        DataError: nothing to evaluate on.
    """
    ready = model if isinstance(model, AlignedModel) else AlignedModel.from_pretrained(model)
    if task == "retrieval":
        source = captions or images
        if source is None:
            raise UsageError(
                "retrieval needs image-caption pairs", "Give --captions (and --images)."
            )
        return evaluate_retrieval(ready, source, images if captions else None, column, split, cache)
    if task == "classification":
        if images is None:
            raise UsageError("classification needs a class folder", "Give --images.")
        return evaluate_classification(ready, images, templates, cache)
    raise UsageError(f"unknown task {task!r}", choices(str(task), TASKS))


def evaluate_retrieval(
    model: AlignedModel,
    source: str | Path,
    images: str | Path | None = None,
    column: str | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Retrieval both ways on any source of pairs; see :func:`evaluate`."""
    dataset = open_dataset(source, images=images, split=split, captions=(column,) if column else ())
    columns = [column] if column else dataset.columns[:1]
    if not columns:
        raise DataError(f"{dataset.name} has no captions", "Give --captions.")
    image = cached_features(
        dataset, model.vision_encoder, folder=cache and cache / "images",
        dtype=model.config.feature_dtype("vision"),
    )  # fmt: skip
    text = cached_features(
        dataset, model.text_encoder, columns[0], folder=cache and cache / f"texts-{columns[0]}",
        dtype=model.config.feature_dtype("text"),
    )  # fmt: skip
    return retrieval_result(model, pair(image, text))


def retrieval_result(model: AlignedModel, pairs: Pairs) -> dict[str, Any]:
    """Retrieval on pairs of features that the model's encoders made (first caption column)."""
    image = project_rows(model.project_image, pairs.image, pairs.image_rows)
    column = pairs.texts[0]
    text = project_rows(model.project_text, column.store, column.rows)
    skipped = {(s["id"], s["source"]) for s in pairs.image.skipped + column.store.skipped}
    return {
        "task": "retrieval",
        **retrieval(image, text, torch.from_numpy(column.owner)),
        "images": len(pairs),
        "captions": len(text),
        "skipped": len(skipped),
        "conditions": conditions(model, pairs.key),
    }


def evaluate_classification(
    model: AlignedModel,
    folder: str | Path,
    templates: Sequence[str] = TEMPLATES,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Zero-shot classification on a class folder; see :func:`evaluate`."""
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
    image = project_rows(model.project_image, store, rows)
    target = torch.tensor([names.index(labels[store.ids[row]]) for row in rows])
    prompts = [class_prompts(name, templates) for name in names]
    text = model.encode_text([prompt for each in prompts for prompt in each])
    classes = class_embeddings(text.view(len(names), -1, text.shape[-1]))
    return {
        "task": "classification",
        **classification(image, classes, target, names),
        "images": len(rows),
        "classes": len(names),
        "skipped": len(store.skipped),
        "templates": list(templates),
        "conditions": conditions(model, store.manifest.content),
    }


@torch.no_grad()
def project_rows(
    project: Callable[[Tensor], Tensor], features: Store | Tensor, rows: Sequence[int] | Any
) -> Tensor:
    """Embeddings ``[len(rows), dim]`` of these rows on the CPU, a few thousand at a time.

    Args:
        project: ``project_image`` or ``project_text`` of a model.
        features: a store, or features ``[n, feature dim]``.
        rows: which of them, in order.
    """
    parts = [project(features[rows[i : i + _ROWS]]).cpu() for i in range(0, len(rows), _ROWS)]
    return torch.cat(parts)


def conditions(model: AlignedModel, data: str) -> dict[str, Any]:
    """What a number depends on: the model's weights, the data's content, library versions.

    Args:
        model: the evaluated model.
        data: content key of the features.
    """
    return {"model": model_key(model), "data": data, "versions": library_versions()}


def model_key(model: AlignedModel) -> str:
    """Content key (64 hex digits) of a model's heads and of what its encoders are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    sides = [
        {k: v for k, v in getattr(model.config, side).items() if k not in ("id", "load")}
        for side in ("vision", "text")
    ]
    return content_key([digest.hexdigest(), *sides])
