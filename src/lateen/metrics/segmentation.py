"""Semantic segmentation: a pure metric on class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lateen.errors import DataError


def confusion_matrix(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How many pixels of each class were predicted as which ``[classes, classes + 1]``, int64.

    Row: true class. Column: predicted class; the last counts pixels without a prediction. Matrices
    of several images add up.

    Args:
        predicted: class indices of any shape; what is not in ``0 … classes - 1`` is no prediction.
        truth: class indices of the same shape; pixels with others are not counted.
        classes: how many there are.
    """
    counted = (truth >= 0) & (truth < classes)
    rows, columns = truth[counted].long(), predicted[counted].long()
    columns = columns.where((columns >= 0) & (columns < classes), classes)
    cells = torch.bincount(rows * (classes + 1) + columns, minlength=classes * (classes + 1))
    return cells.view(classes, classes + 1)


def class_pixels(confusion: Tensor) -> Tensor:
    """Pixels of each class ``[classes, 3]``: rightly predicted, in truth or prediction, in truth.

    Args:
        confusion: as :func:`confusion_matrix` lays it out.
    """
    hits, true = confusion.diagonal(), confusion.sum(dim=1)
    union = true + confusion[:, : len(confusion)].sum(dim=0) - hits
    return torch.stack([hits, union, true], dim=-1)


def segmentation(confusion: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """mIoU, pixel accuracy and IoU per class, in percent.

    A class's IoU is |predicted ∩ true| / |predicted ∪ true| over the pixels of all images together.
    mIoU is the mean over the classes that are in the truth or a prediction of any image, as in
    MMSegmentation; a class that is in neither has no IoU.

    Args:
        confusion: of all images, as :func:`confusion_matrix` lays it out.
        names: of the classes.

    Raises:
        DataError: no pixel was counted.
    """
    if confusion.sum() == 0:
        raise DataError(
            "there is no pixel of any class to measure",
            "Check that the indices in the masks are those of the class names.",
        )
    cells = confusion.double()
    hits, union, _ = class_pixels(cells).unbind(-1)
    there = union > 0
    iou = 100 * hits[there] / union[there]
    present = [name for name, is_there in zip(names, there.tolist(), strict=True) if is_there]
    return {
        "miou": iou.mean().item(),
        "pixel_accuracy": (100 * hits.sum() / cells.sum()).item(),
        "per_class": dict(zip(present, iou.tolist(), strict=True)),
    }


def segmentation_baselines(confusion: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """What knows nothing of the images would score on the same masks, in percent.

    ``chance`` guesses each pixel's class evenly (the IoU of the expected counts); ``best_constant``
    says the class that has the most pixels, everywhere.

    Args:
        confusion: of all images, as :func:`confusion_matrix` lays it out; only the truth is used.
        names: of the classes.

    Raises:
        DataError: no pixel was counted.
    """
    true = confusion.double().sum(dim=1)
    even = torch.zeros(len(names), len(names) + 1, dtype=torch.float64)
    even[:, : len(names)] = true[:, None] / len(names)
    most = int(true.argmax())
    constant = torch.zeros(len(names), len(names) + 1, dtype=torch.float64)
    constant[:, most] = true
    scores = [segmentation(each, names) for each in (even, constant)]
    chance, always = ({k: s[k] for k in ("miou", "pixel_accuracy")} for s in scores)
    return {"chance": chance, "best_constant": {"class": names[most], **always}}
