"""Retrieval both ways, on any source of images with captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lateen.data import open_dataset
from lateen.errors import DataError, UsageError
from lateen.evaluation.cache import cached_features
from lateen.evaluation.embedding import conditions, project_rows
from lateen.metrics import retrieval
from lateen.model import AlignedModel
from lateen.store import Pairs, pair


def evaluate_retrieval(
    model: AlignedModel,
    *,
    captions: Path | str | None = None,
    images: Path | str | None = None,
    column: str | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """R@1/5/10 and median rank of text → image and image → text retrieval.

    Args:
        model: an aligned model.
        captions: any source of pairs that :func:`~lateen.data.open_dataset` reads.
        images: folder of the images that ``captions`` names, or a source of pairs itself.
        column: the caption column, if there are several.
        split: of a caption file or datasets name that has splits.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        UsageError: neither captions nor images are given.
        DataError: there are no captions.
    """
    source = captions or images
    if source is None:
        raise UsageError("retrieval needs image-caption pairs", "Give --captions (and --images).")
    dataset = open_dataset(
        source, images=images if captions else None, split=split,
        captions=(column,) if column else (),
    )  # fmt: skip
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
