"""Classification, zero-shot and of several labels: pure metrics on embeddings and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lateen.errors import DataError, LateenError
from lateen.metrics.features import Features

_CHUNK = 8192  # images whose scores against all classes are held at a time


def class_embeddings(prompts: Tensor) -> Tensor:
    """One embedding per class: prompts averaged and normalised again (METHODS §1.6).

    Args:
        prompts: L2-normalised prompt embeddings ``[classes, templates, dim]``.

    Returns:
        ``[classes, dim]``, L2-normalised.
    """
    return torch.nn.functional.normalize(prompts.mean(dim=1), dim=-1)


def class_scores(image: Tensor, classes: Tensor) -> Tensor:
    """Cosine of every image with every class ``[n, c]``, to the bit the same for equal classes.

    Args:
        image: L2-normalised image embeddings ``[n, dim]``.
        classes: L2-normalised class embeddings ``[c, dim]``.

    Raises:
        LateenError: an embedding has NaN.
    """
    different, columns = torch.unique(classes, dim=0, return_inverse=True)
    # A product may round the columns of equal classes differently, and a tie would be none.
    scores: Tensor = (image @ different.T)[:, columns]
    if scores.isnan().any():
        raise LateenError(
            "embeddings of images or classes have NaN among their values",
            "Training may have diverged (lower train.lr), or the features hold such values.",
        )
    return scores


def classification(
    image: Features, classes: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, Any]:
    """Top-1, top-5, per-class and mean per-class accuracy in percent.

    ``mean_per_class`` is of the classes that have images, each counting the same. A tie counts
    against the right class, so embeddings that have collapsed to a point score 0. With fewer than
    five classes, top-5 is over all of them and so is 100 or undefined by ties.

    Args:
        image: L2-normalised image embeddings ``[n, dim]``: a tensor, or rows that are read from
            disk.
        classes: L2-normalised class embeddings ``[c, dim]``.
        labels: index of each image's class ``[n]``.
        names: the ``c`` class names.

    Raises:
        DataError: fewer than two classes, or no image.
        LateenError: an embedding has NaN.
    """
    return classification_of_ranks(class_ranks(image, classes, labels), labels, names)


def class_ranks(image: Features, classes: Tensor, labels: Tensor) -> Tensor:
    """Rank of every image's own class among all, from 1 ``[n]``; ties count against it.

    Args:
        image: L2-normalised image embeddings ``[n, dim]``.
        classes: L2-normalised class embeddings ``[c, dim]``.
        labels: index of each image's class ``[n]``.

    Raises:
        DataError: fewer than two classes, or no image.
        LateenError: an embedding has NaN.
    """
    if len(classes) < 2:
        raise DataError(
            f"there are {len(classes)} classes, and one alone is always right",
            "Give a folder with a subfolder of images for each of at least two classes.",
        )
    if len(image) == 0:
        raise DataError("there is no image to classify", "Check the folder.")
    parts = [
        _better(class_scores(image[part], classes), labels[part])
        for part in (slice(i, i + _CHUNK) for i in range(0, len(image), _CHUNK))
    ]
    return torch.cat(parts) + 1


def classification_of_ranks(ranks: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """What :func:`classification` gives, of the ranks that :func:`class_ranks` gives."""
    right = ranks <= 1
    per_class = {index: _percent(right[labels == index]) for index in sorted({*labels.tolist()})}
    return {
        "top1": _percent(right),
        "top5": _percent(ranks <= 5),
        "mean_per_class": sum(per_class.values()) / len(per_class),
        "per_class": {names[index]: accuracy for index, accuracy in per_class.items()},
    }


def confusion_matrix(image: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """How often an image of one class is taken for another ``[c, c]``: rows are the right class.

    What an image is taken for is the class with the highest score, of equals the first; an image
    whose right class ties with another is taken for the other, as in :func:`classification`, so
    that the diagonal counts what is right there.

    Args:
        image: L2-normalised image embeddings ``[n, dim]``.
        classes: L2-normalised class embeddings ``[c, dim]``, at least two.
        labels: index of each image's class ``[n]``.
    """
    count = len(classes)
    counts = torch.zeros(count * count, dtype=torch.int64)
    for start in range(0, len(image), _CHUNK):
        own = labels[start : start + _CHUNK]
        scores = class_scores(image[start : start + _CHUNK], classes)
        others = scores.scatter(1, own[:, None], -torch.inf).argmax(dim=1)
        taken = torch.where(_better(scores, own) < 1, own, others)
        counts += torch.bincount(own * count + taken, minlength=count * count)
    return counts.view(count, count)


def most_confused(
    counts: Tensor, names: Sequence[str], limit: int = 20
) -> list[dict[str, str | int | float]]:
    """The pairs of classes with the largest share of one's images taken for the other.

    Args:
        counts: a confusion matrix ``[c, c]``, rows the right class.
        names: of the classes.
        limit: how many pairs at most.

    Returns:
        JSON-ready: ``class``, ``taken_for``, ``images`` (how many) and ``percent`` (of the class's
        images), the largest share first; of equals the one of more images, then in the order of
        the classes.
    """
    wrong = counts.clone().fill_diagonal_(0)
    share = 100 * wrong.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    pairs = sorted(
        ((row, column) for row, column in wrong.nonzero().tolist()),
        key=lambda pair: (-float(share[pair]), -int(wrong[pair])),
    )
    return [
        {
            "class": names[row], "taken_for": names[column],
            "images": int(wrong[row, column]), "percent": float(share[row, column]),
        }
        for row, column in pairs[:limit]
    ]  # fmt: skip


def _better(scores: Tensor, labels: Tensor) -> Tensor:
    """How many wrong classes score at least as high as the right one ``[n]``."""
    own = scores.gather(1, labels[:, None])
    return (scores >= own).sum(dim=1) - 1


def _percent(hits: Tensor) -> float:
    return 100.0 * hits.double().mean().item()


def multilabel(predicted: Tensor, truth: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Macro recall and precision, and recall per class, in percent.

    Both are means over the classes that some row has; a class that is never predicted has precision
    0. Recall alone rewards who says yes to everything: read it beside precision.

    Args:
        predicted: bool ``[n, classes]``.
        truth: bool ``[n, classes]``.
        names: of the classes.

    Raises:
        DataError: no row has any class.
    """
    there = truth.any(dim=0)
    if not bool(there.any()):
        raise DataError("no row to test has a label", "Test on more rows.")
    hits = (predicted & truth).double().sum(dim=0)[there]
    recall = 100 * hits / truth.double().sum(dim=0)[there]
    precision = 100 * hits / predicted.double().sum(dim=0)[there].clamp_min(1)
    present = [name for name, is_there in zip(names, there.tolist(), strict=True) if is_there]
    return {
        "macro_recall": recall.mean().item(),
        "macro_precision": precision.mean().item(),
        "per_class": dict(zip(present, recall.tolist(), strict=True)),
    }
