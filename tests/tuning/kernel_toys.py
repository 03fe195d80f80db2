from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateen.tuning.kernels import (
    Cosine,
    Gaussian,
    Kernel,
    Normalized,
    Polynomial,
)

Array = NDArray[np.float64]

# One of every kind, and kinds of kinds.
KINDS: dict[str, Kernel] = {
    "polynomial": Polynomial(0.3, 0.7, 3),
    "as it is": Polynomial(0.3, 0.7, 2, normalized=False),
    "odd, no c": Polynomial(0.3, 0, 3),
    "linear": Polynomial(2, 0, 1, normalized=False),
    "gaussian": Gaussian(1.7),
    "cosine": Cosine(),
    "sum": Polynomial(0.3, 0.7, 2, normalized=False) + Gaussian(2),
    "product": Polynomial(0.3, 0.7) * Gaussian(2) * Cosine(),
    "normalized": Normalized(Gaussian(2) * (Polynomial(0.3, normalized=False) + Cosine())),
}


def vectors(rows: int = 9, dim: int = 5, seed: int = 0) -> Tensor:
    """``[rows, dim]`` in float64."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0.3, 1, (rows, dim)))


def polynomial(x: Array, gamma: float, coef0: float, degree: int, normalized: bool) -> Array:
    """The plain twin: a pair at a time, divided after the power."""

    def k(u: Array, v: Array) -> float:
        return float((gamma * (u @ v) + coef0) ** degree)

    matrix = np.array([[k(u, v) for v in x] for u in x])
    return (
        matrix / np.sqrt(np.outer(matrix.diagonal(), matrix.diagonal())) if normalized else matrix
    )


def gaussian(x: Array, sigma: float) -> Array:
    return np.array([[np.exp(-np.sum((u - v) ** 2) / (2 * sigma**2)) for v in x] for u in x])


def cosine(x: Array) -> Array:
    return np.array([[u @ v / np.sqrt((u @ u) * (v @ v)) for v in x] for u in x])
