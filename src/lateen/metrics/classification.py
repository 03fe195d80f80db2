"""Zero-shot classification: a pure metric on embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lateen.errors import DataError

_CHUNK = 8192  # images whose scores against all classes are held at a time


def class_embeddings(prompts: Tensor) -> Tensor:
    """One embedding per class: prompts averaged and normalised again (METHODS §1.6).

    Args:
        prompts: L2-normalised prompt embeddings ``[classes, templates, dim]``.

    Returns:
        ``[classes, dim]``, L2-normalised.
    """
    return torch.nn.functional.normalize(prompts.mean(dim=1), dim=-1)


def classification(
    image: Tensor, classes: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, Any]:
    """Top-1, top-5 and per-class accuracy in percent.

    A tie counts against the right class, so embeddings that have collapsed to a point score 0.
    With fewer than five classes, top-5 is over all of them and so is 100 or undefined by ties.

    Args:
        image: L2-normalised image embeddings ``[n, dim]``.
        classes: L2-normalised class embeddings ``[c, dim]``.
        labels: index of each image's class ``[n]``.
        names: the ``c`` class names.

    Raises:
        DataError: fewer than two classes, or no image.
    """
    if len(names) < 2:
        raise DataError(
            f"there are {len(names)} classes, and one alone is always right",
            "Give a folder with a subfolder of images for each of at least two classes.",
        )
    if len(image) == 0:
        raise DataError("there is no image to classify", "Check the folder.")
    better = torch.cat(
        [
            _rank(image[start : start + _CHUNK] @ classes.T, labels[start : start + _CHUNK])
            for start in range(0, len(image), _CHUNK)
        ]
    )
    right = better < 1
    return {
        "top1": _percent(right),
        "top5": _percent(better < 5),
        "per_class": {
            name: _percent(right[labels == index])
            for index, name in enumerate(names)
            if bool((labels == index).any())
        },
    }


def _rank(scores: Tensor, labels: Tensor) -> Tensor:
    """How many wrong classes score at least as high as the right one ``[n]``."""
    own = scores.gather(1, labels[:, None])
    return (scores >= own).sum(dim=1) - 1


def _percent(hits: Tensor) -> float:
    return 100.0 * hits.double().mean().item()
