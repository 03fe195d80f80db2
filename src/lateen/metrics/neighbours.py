"""How far two feature spaces agree on who is near whom, from tables of nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, check_paired, check_rows
from lateen.metrics.nearest import Units, paired_cosines, top_similar

_FEWEST = 4  # rows of which HSIC is defined
_COMPARED = 1 << 22  # indices compared at a time


def mutual_knn(nx: Tensor, ny: Tensor) -> float:
    """Share of neighbours that two spaces have in common (Huh et al. 2024), from 0 to 1.

    The mean over rows of ``|nx[i] ∩ ny[i]| / k``; between unrelated spaces k / (n − 1).

    Args:
        nx: ``[n, k]``, of :func:`nearest_neighbours` in one space.
        ny: ``[n, k]``, in the other.

    Raises:
        DataError: tables of different shape.
    """
    _check_tables(nx, ny)
    return _shared(nx, ny).double().mean().item()


def cycle_knn(nx: Tensor, ny: Tensor) -> float:
    """Share of rows that are reached again, from 0 to 1 (Huh et al. 2024, released code).

    From row i to its neighbours in ``ny``, and on to their neighbours in ``nx``: is i among them?

    Args:
        nx: ``[n, k]``, of :func:`nearest_neighbours` in one space.
        ny: ``[n, k]``, in the other. The measure is not symmetric.

    Raises:
        DataError: tables of different shape.
    """
    _check_tables(nx, ny)
    own = torch.arange(len(nx), device=nx.device)[:, None]
    # One of the k neighbours at a time: O(n k) instead of O(n k²).
    back = torch.zeros(len(nx), dtype=torch.bool, device=nx.device)
    for neighbour in ny.unbind(1):
        back |= (nx[neighbour] == own).any(1)
    return back.double().mean().item()


def cknna(x: Features, y: Features, nx: Tensor, ny: Tensor, *, chunk: int = 8192) -> float:
    """CKA of nearest neighbours only (Huh et al. 2024): at most about 1, can be negative.

    With K and L the cosines within either space, the kernels compared keep the entries (i, j) where
    j is among the k neighbours of i in both spaces; a kernel compared with itself keeps its own
    neighbours. Of masked kernels without diagonal,

    ``HSIC = [Σ_ij K_ij L_ji + ΣK ΣL / ((n−1)(n−2)) − 2 Σ(KL) / (n−2)] / (n (n−3))``

    and the result is ``HSIC(K, L) / √(HSIC(K, K) HSIC(L, L))``. The paper's formula centres K and L
    by rows; the released code, whose numbers others report, takes HSIC₁ as above, and so does this,
    but without the code's 1e-6 in the denominator, which counts where n is large. As being a
    neighbour is not mutual, exchanging the spaces changes it a little. Computed sparsely in
    O(n k d), with memory O(n k + chunk · d).

    Args:
        x: features ``[n, dx]``.
        y: features ``[n, dy]`` of the same samples.
        nx: ``[n, k]``, of :func:`nearest_neighbours` of ``x``; k at least 2.
        ny: ``[n, k]``, the same of ``y``.
        chunk: rows read at a time.

    Raises:
        DataError: fewer than 4 rows, tables that do not fit, NaN or infinity, or neighbourhoods
            whose own HSIC is not positive.
        UsageError: k is below 2.
    """
    check_rows(len(x), _FEWEST, "CKNNA")
    check_paired(x, y)
    _check_tables(nx, ny)
    if len(nx) != len(x) or not all(t.min() >= 0 and t.max() < len(x) for t in (nx, ny)):
        raise DataError(
            f"neighbours of {len(nx)} rows do not fit {len(x)} rows of features",
            "Give the tables that nearest_neighbours makes of these features.",
        )
    sides = []
    for features, table in ((x, nx), (y, ny)):
        units = Units(features, chunk)
        cosines = paired_cosines(units, units, table.to(units.device)).cpu()
        sides.append(NeighbourKernel.of_table(table.cpu(), cosines))
    return kernel_cknna(*sides)


@dataclass(frozen=True)
class NeighbourKernel:
    """What measures on neighbours need of one space alone, for comparing it with many.

    Attributes:
        indices: ``[n, k]`` of every row's nearest others.
        cosines: with them ``[n, k]``, in float64.
        hsic: of the kernel with itself.
    """

    indices: Tensor
    cosines: Tensor
    hsic: float

    @classmethod
    def of(cls, x: Features, k: int, chunk: int = 2048) -> NeighbourKernel:
        """Of features ``[n, d]``; raises what :func:`~lateen.metrics.nearest_neighbours` does."""
        cosines, indices = top_similar(x, None, k, chunk)
        return cls.of_table(indices, cosines)

    @classmethod
    def of_table(cls, indices: Tensor, cosines: Tensor) -> NeighbourKernel:
        """Of neighbours that are known, with their cosines."""
        n, k = indices.shape
        row, values = torch.arange(n).repeat_interleave(k), cosines.flatten()
        hsic = _hsic(n, row, indices.flatten(), values, values) if n >= _FEWEST else 0.0
        return cls(indices, cosines, hsic)

    def permuted(self, order: Tensor) -> NeighbourKernel:
        """That of the features ``x[order]``, for a permutation ``[n]``: nothing is sought again."""
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return replace(self, indices=place[self.indices[order]], cosines=self.cosines[order])


def kernel_cknna(x: NeighbourKernel, y: NeighbourKernel) -> float:
    """:func:`cknna` of two spaces whose neighbours, and cosines with them, are known.

    Raises:
        DataError: neighbourhoods whose own HSIC is not positive.
        UsageError: k is below 2.
    """
    if x.indices.shape[1] < 2:
        raise UsageError("CKNNA of 1 neighbour is undefined", "Give tables with k of at least 2.")
    if min(x.hsic, y.hsic) <= 0:
        raise DataError(
            "neighbourhoods on one side are too scattered for CKNNA: their HSIC is not positive",
            "Give more samples, or a larger k.",
        )
    i, a, b = _common(x.indices, y.indices)
    shared = _hsic(len(x.indices), i, x.indices[i, a], x.cosines[i, a], y.cosines[i, b])
    return shared / math.sqrt(x.hsic * y.hsic)


def _common(nx: Tensor, ny: Tensor) -> list[Tensor]:
    """Row i whose a-th neighbour in one table is its b-th in the other: i, a and b ``[m]``."""
    n, k = nx.shape
    size = max(1, _COMPARED // k**2)
    found = [
        (nx[start : start + size, :, None] == ny[start : start + size, None]).nonzero()
        + torch.tensor([start, 0, 0])
        for start in range(0, n, size)
    ]
    return list(torch.cat(found).unbind(1))


def _shared(nx: Tensor, ny: Tensor) -> Tensor:
    """Which of ``nx`` ``[n, k]`` are also in ``ny``, row by row."""
    shared = torch.zeros_like(nx, dtype=torch.bool)
    for neighbour in ny.unbind(1):
        shared |= nx == neighbour[:, None]
    return shared


def _hsic(n: int, row: Tensor, column: Tensor, k: Tensor, l: Tensor) -> float:  # noqa: E741
    """HSIC of two kernels that have entries k and l in the same places, and are 0 elsewhere."""
    codes, order = (row * n + column).sort()
    mirrored = column * n + row
    at = torch.searchsorted(codes, mirrored).clamp(max=max(len(codes) - 1, 0))
    there = codes[at] == mirrored if len(codes) else mirrored.bool()
    opposite = k[there] @ l[order[at[there]]]  # the sum of K_ij L_ji
    # The sum of all entries of the product of K and L.
    through = torch.bincount(column, k, n) @ torch.bincount(row, l, n)
    total = opposite + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * through / (n - 2)
    return float(total / (n * (n - 3)))


def _check_tables(nx: Tensor, ny: Tensor) -> None:
    if nx.ndim != 2 or nx.shape != ny.shape or nx.numel() == 0:
        raise DataError(
            f"tables of neighbours of shapes {list(nx.shape)} and {list(ny.shape)} do not fit",
            "Make both with nearest_neighbours, of the same rows and with the same k.",
        )
