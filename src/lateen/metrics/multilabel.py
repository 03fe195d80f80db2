"""Multi-label classification: a pure metric on yes and no per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lateen.errors import DataError


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
