"""Centred kernel alignment of two feature spaces, linear, streamed in feature space."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lateen.errors import DataError
from lateen.metrics.features import Features, blocks, check_paired, check_rows
from lateen.metrics.moments import Moments, cross_product

_NOTHING = 1e-12  # of what it is the difference of: less is rounding


def cka(x: Features, y: Features, *, unbiased: bool = False, chunk: int = 8192) -> float:
    """Linear CKA (Kornblith et al. 2019): from 0, nothing shared, to 1, equal up to rotation.

    With ``X`` and ``Y`` centred, ``‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖)`` in Frobenius norms. It rises with
    dims / rows even between unrelated features. Unbiased, the three HSICs in it are the U-statistic
    HSIC₁ of Song et al. 2012 (eq. 5): 0 on average between unrelated features, so it can be
    slightly negative; it lies within ±1. Both are computed exactly in float64, with memory
    O(d² + chunk · d + n), never n × n.

    Args:
        x: features ``[n, dx]``: a tensor, or a store read from disk.
        y: features ``[n, dy]`` of the same samples.
        unbiased: HSIC₁ instead of HSIC.
        chunk: rows read at a time.

    Raises:
        DataError: fewer than 3 rows (unbiased: 4), numbers of rows that differ, NaN or infinity,
            constant features; unbiased also rows that are all equally far apart, of which HSIC₁
            is 0.
    """
    check_rows(len(x), 4 if unbiased else 3, "unbiased CKA" if unbiased else "CKA")
    check_paired(x, y)
    k, l = (LinearKernel.of(Moments.of(side, chunk)) for side in (x, y))  # noqa: E741
    cross = cross_product(x, k.mean, y, l.mean, chunk)
    return kernel_cka(k, l, float(cross.square().sum()), unbiased)


@dataclass(frozen=True)
class LinearKernel:
    """What CKA needs of one space alone, for comparing it with many.

    Attributes:
        mean: ``[d]``.
        squares: squared length of every centred row ``[n]``.
        norm: ``‖XᵀX‖``.
        hsic: ``n (n − 3) HSIC₁`` of the kernel with itself; 0 if rows are equally far apart.
    """

    mean: Tensor
    squares: Tensor
    norm: float
    hsic: float

    @classmethod
    def of(cls, moments: Moments) -> LinearKernel:
        """The kernel of a space with these moments."""
        # HSIC₁ of a kernel with itself is a sum of squares (Székely & Rizzo 2014): never below 0.
        # Below four rows it is undefined.
        several = len(moments.squares) > 3
        norm = float(moments.product.norm())
        hsic = float(_hsic(norm**2, moments.squares, moments.squares)) if several else 0.0
        return cls(moments.mean, moments.squares, norm, hsic if hsic > _NOTHING * norm**2 else 0.0)

    def permuted(self, order: Tensor) -> LinearKernel:
        """That of the features ``x[order]``."""
        return replace(self, squares=self.squares[order])


def kernel_cka(x: LinearKernel, y: LinearKernel, trace: float, unbiased: bool) -> float:
    """:func:`cka` of two spaces of which the kernels, and the trace of their product, are known.

    Args:
        x: of one space.
        y: of the other.
        trace: ``tr(XXᵀ YYᵀ) = ‖XᵀY‖²`` of the centred features.
        unbiased: HSIC₁ instead of HSIC.

    Raises:
        DataError: unbiased, and the rows of one side are all equally far apart.
    """
    if not unbiased:
        return min(trace / (x.norm * y.norm), 1.0)
    if min(x.hsic, y.hsic) <= 0:
        raise DataError(
            "all rows of features on one side are equally far apart, so unbiased CKA is undefined",
            "Give more samples.",
        )
    value = float(_hsic(trace, x.squares, y.squares)) / math.sqrt(x.hsic * y.hsic)
    return max(-1.0, min(value, 1.0))


def gram(x: Features, mean: Tensor, chunk: int) -> Tensor:
    """``XXᵀ`` ``[n, n]`` of the centred features, in float32 to be permuted quickly."""
    rows = torch.cat([part - mean for part in blocks(x, chunk)])
    return (rows @ rows.T).float()


def permuted_trace(k: Tensor, l: Tensor, order: Tensor, size: int = 256) -> float:  # noqa: E741
    """``tr(KPLPᵀ)``: the trace of a kernel with another of which the rows are permuted.

    Args:
        k: ``[n, n]``, symmetric.
        l: ``[n, n]``, likewise.
        order: ``[n]``; row i of ``k`` belongs to row ``order[i]`` of ``l``.
        size: rows taken at a time.
    """
    total = torch.zeros((), dtype=torch.float64)
    # What lies right of a block counts twice: the kernels are symmetric.
    for start in range(0, len(order), size):
        rows = l.index_select(0, order[start : start + size]).index_select(1, order[start:])
        sums = (rows * k[start : start + size, start:]).double()
        total += 2 * sums.sum() - sums[:, : len(sums)].sum()
    return float(total)


def _hsic(trace: float, k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 - the paper's letters
    """``n (n − 3) HSIC₁`` of linear kernels of centred features.

    With the diagonals k and l taken out of the kernels ``K`` and ``L``, of centred features:
    ``tr(K̃L̃) = ‖XᵀY‖² − Σ k l``, ``1ᵀK̃1 = −Σ k`` and, as ``K̃1 = −k``, ``1ᵀK̃L̃1 = Σ k l``.
    """
    n = len(k)
    return (
        trace
        - (k @ l) * n / (n - 2)
        + k.sum() * l.sum() / ((n - 1) * (n - 2))
    )  # fmt: skip
