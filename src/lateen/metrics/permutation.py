"""Whether two spaces are more alike than chance: similarities held against permuted rows.

Measures of similarity have a floor, which grows with dims / rows, and their highest value over many
pairs of layers grows with the number of pairs. Which row of one space belongs to which of the other
is all that a permutation of rows destroys, so that what is left is that floor (arXiv 2602.14486).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError, UsageError

HIGHEST = 1.0  # what every measure of similarity gives a space with itself


@dataclass(frozen=True)
class Calibrated:
    """A similarity beside what permuted rows give.

    Attributes:
        score: 0 where no more alike than chance, 1 where the same: ``max((s − τ) / (1 − τ), 0)``.
        p: share of permutations, the given order among them, with a similarity as high or higher.
        threshold: τ, the ``⌈(1 − α)(K + 1)⌉``-th lowest of K permutations.
    """

    score: float
    p: float
    threshold: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def calibrate(value: float, null: Sequence[float], *, alpha: float = 0.05) -> Calibrated:
    """A similarity of two spaces held against those of permuted rows (arXiv 2602.14486).

    ``p = (1 + #{s_k ≥ s}) / (K + 1)``. Of a maximum, over pairs of layers for instance, ``null``
    has the maximum of each permutation, the same one for all pairs.

    Args:
        value: s, at most 1.
        null: s_k of every permutation ``[K]``.
        alpha: how often chance alone may be above the threshold.

    Raises:
        UsageError: an alpha that is not between 0 and 1, or for which K is too small.
        DataError: NaN or infinity.
    """
    check_alpha(alpha, len(null))
    ordered = np.sort(np.asarray(null, np.float64))
    if not (np.isfinite(ordered).all() and math.isfinite(value)):
        raise DataError("a similarity to calibrate is NaN or infinite", "Leave it out.")
    threshold = float(ordered[_rank(alpha, len(ordered)) - 1])
    p = (1 + int((ordered >= value).sum())) / (len(ordered) + 1)
    # A threshold of 1 leaves no room above it: nothing is more than chance.
    score = (value - threshold) / (HIGHEST - threshold) if threshold < HIGHEST else 0.0
    return Calibrated(min(max(score, 0.0), 1.0), p, threshold)


def row_permutations(rows: int, count: int, *, seed: int = 0, alpha: float = 0.05) -> Tensor:
    """Orders of rows, the same for the same rows and seed: the first of more are those of fewer.

    Args:
        rows: n.
        count: K.
        seed: of the orders.
        alpha: that they are to be used with.

    Returns:
        ``[K, n]`` int64.

    Raises:
        UsageError: an alpha that is not between 0 and 1, or for which K is too small.
        DataError: rows that have too few orders for K.
    """
    check_alpha(alpha, count)
    if rows < 20 and math.factorial(rows) <= count:
        raise DataError(
            f"{rows} rows have no more than {math.factorial(rows)} orders, too few for {count} "
            "permutations",
            "Give more samples, or fewer permutations.",
        )
    generator = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([generator.permutation(rows) for _ in range(count)]))


def check_alpha(alpha: float, count: int) -> None:
    """Refuse a share that so many permutations cannot tell.

    Raises:
        UsageError: it is not between 0 and 1, or no permutation is as rare.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}", "Give a share between 0 and 1, such as 0.05.")
    if count < 1 or _rank(alpha, count) > count:
        raise UsageError(
            f"{count} permutations are too few for alpha {alpha:g}",
            f"Give at least {math.ceil(round(1 / alpha, 9)) - 1}.",
        )


def _rank(alpha: float, count: int) -> int:
    """Which of the sorted permutations is the threshold, from 1."""
    return max(1, math.ceil(round((1 - alpha) * (count + 1), 9)))
