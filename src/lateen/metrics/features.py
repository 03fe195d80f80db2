"""What the metrics of frozen features read: rows in memory or on disk, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError


class Features(Protocol):
    """Rows of features: a tensor ``[n, d]``, or a ``Store``, which reads them from disk."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def __getitem__(self, rows: slice, /) -> Tensor:
        """Some neighbouring rows ``[m, d]``."""
        ...


def block(x: Features, start: int, size: int) -> Tensor:
    """Rows from ``start`` on, at most ``size``: ``[m, d]`` in float64, where the features are.

    Raises:
        DataError: they are no matrix, or hold NaN or infinity.
    """
    rows = x[start : start + size].detach()
    if rows.ndim != 2:
        raise DataError(
            f"features of shape {list(rows.shape)} are no rows of numbers",
            "Give one vector per sample: [n, d].",
        )
    bad = ~rows.isfinite().all(1)
    if bad.any():
        raise DataError(
            f"features hold NaN or infinity, first in row {start + int(bad.nonzero()[0])}",
            "Encode that sample again in float32, or leave it out.",
        )
    return rows.double()


def blocks(x: Features, size: int) -> Iterator[Tensor]:
    """All rows in order, ``size`` at a time, as :func:`block` gives them."""
    return (block(x, start, size) for start in range(0, len(x), size))


def check_rows(rows: int, least: int, purpose: str) -> None:
    """Refuse too few rows.

    Raises:
        DataError: fewer than ``least`` rows.
    """
    if rows < least:
        raise DataError(
            f"{rows} rows of features are too few: {purpose} needs at least {least}",
            "Give more samples.",
        )


def check_paired(x: Features, y: Features) -> None:
    """Refuse two sides that cannot describe the same samples.

    Raises:
        DataError: they differ in the number of rows.
    """
    if len(x) != len(y):
        raise DataError(
            f"one side has {len(x)} rows of features and the other {len(y)}",
            "Row i of both must describe the same sample: join them by id first.",
        )


def check_labels(labels: Tensor, rows: int) -> Tensor:
    """Labels ``[n]`` as int64 on the CPU.

    Raises:
        DataError: not one class index from 0 for each of ``rows`` rows.
    """
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != (rows,) or not whole or bool((labels < 0).any()):
        raise DataError(
            f"labels of shape {list(labels.shape)} and {labels.dtype} do not give each of {rows} "
            "rows its class",
            "Give one class index from 0 for every row.",
        )
    return labels.cpu().long()


def check_classes(train: Tensor, test: Tensor | None = None) -> None:
    """Refuse labels from which nothing can be learned.

    Args:
        train: ``[n]`` labels to learn from.
        test: ``[m]`` labels to be found.

    Raises:
        DataError: a single class, no row to test, or a class to be found that cannot be learned.
    """
    classes = np.unique(train.numpy())
    if len(classes) < 2:
        raise DataError(
            f"labels name {len(classes)} classes, and one alone is always right",
            "Give rows of at least two classes.",
        )
    if test is None:
        return
    if len(test) == 0:
        raise DataError("there is no row to test", "Give labelled rows to test.")
    unknown = np.setdiff1d(test.numpy(), classes)
    if len(unknown):
        raise DataError(
            f"class {unknown[0]} is to be found, but none of the rows to learn from has it",
            "Give both parts the same classes, numbered alike.",
        )
