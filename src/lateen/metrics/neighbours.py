"""Nearest neighbours by cosine, and how far two feature spaces agree on them.

Neighbours come out the same whatever the tiles, threads and machine, ties included. The same dot
product rounds differently in tiles of different shape, so unit vectors are first rounded to
multiples of 2⁻²⁶: their products are multiples of 2⁻⁵² that sum to less than 2, which float64 holds
exactly in any order. That moves a cosine by about 1e-8, less than float32 would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, block, check_paired, check_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array


_GRID = 2.0**26
_TIED = 256  # rows of a tile that are sorted at a time


def nearest_neighbours(x: Features, k: int, *, chunk: int = 2048) -> Tensor:
    """Indices of every row's k nearest other rows by cosine, nearest first.

    Of equally near rows (copies of a row, for instance, which are neighbours of each other like any
    other two) the lower index comes first. A row of zeros has cosine 0 with every other. Memory is
    O(chunk² + chunk · d + n · k); tiles above the diagonal serve both their rows and their columns.

    Args:
        x: features ``[n, d]``: a tensor, or a store read from disk.
        k: neighbours of each row.
        chunk: rows and columns of a tile.

    Returns:
        ``[n, k]`` int64, on the CPU.

    Raises:
        DataError: not more rows than k, or NaN or infinity.
        UsageError: k is below 1.
    """
    return top_similar(x, None, k, chunk)[1]


def top_similar(
    queries: Features, gallery: Features | None, k: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Cosines and indices ``[q, k]`` of the gallery's rows most similar to each query.

    Args:
        queries: ``[q, d]``.
        gallery: ``[n, d]``; ``None`` for the queries themselves, each without itself.
        k: rows to find; equals are ordered by index.
        chunk: rows and columns of a tile.

    Raises:
        DataError: fewer than k rows to choose from, dims that differ, or NaN or infinity.
        UsageError: k is below 1.
    """
    if k < 1:
        raise UsageError(f"k is {k}", "Ask for at least one neighbour.")
    among = queries if gallery is None else gallery
    choice = len(among) - (gallery is None)
    if choice < k:
        raise DataError(
            f"k = {k} neighbours of {max(choice, 0)} rows to choose from are too many",
            "Give more samples, or a smaller k.",
        )
    top = _Top(len(queries), k, queries[:1].device)
    for start in range(0, len(queries), chunk):
        rows = _units(queries, start, chunk)
        if gallery is None:
            top.offer(start, (rows @ rows.T).fill_diagonal_(-torch.inf), start)
        for first in range(start + chunk if gallery is None else 0, len(among), chunk):
            columns = _units(among, first, chunk)
            _check_dims(rows, columns)
            cosines = rows @ columns.T
            top.offer(start, cosines, first)
            if gallery is None:
                top.offer(first, cosines.T.contiguous(), start)
    return top.ordered()


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
    check_rows(len(x), 4, "CKNNA")
    check_paired(x, y)
    _check_tables(nx, ny)
    if nx.shape[1] < 2:
        raise UsageError("CKNNA of 1 neighbour is undefined", "Give tables with k of at least 2.")
    if len(nx) != len(x) or not all(t.min() >= 0 and t.max() < len(x) for t in (nx, ny)):
        raise DataError(
            f"neighbours of {len(nx)} rows do not fit {len(x)} rows of features",
            "Give the tables that nearest_neighbours makes of these features.",
        )
    nx, ny = nx.cpu(), ny.cpu()
    k, l = _kernel(x, nx, chunk), _kernel(y, ny, chunk)  # noqa: E741 - the papers' letters
    in_x, in_y = _sparse(nx, torch.ones(nx.shape)), _sparse(ny, torch.ones(ny.shape))
    own = _hsic(k, k), _hsic(l, l)
    if min(own) <= 0:
        raise DataError(
            "neighbourhoods on one side are too scattered for CKNNA: their HSIC is not positive",
            "Give more samples, or a larger k.",
        )
    return float(_hsic(k * in_y, l * in_x) / (own[0] * own[1]) ** 0.5)


class _Top:
    """The k most similar rows of every query so far; of equals, those of lowest index."""

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self._k = k
        self._scores = torch.full((queries, k), -torch.inf, dtype=torch.float64, device=device)
        self._indices = torch.zeros((queries, k), dtype=torch.int64, device=device)

    def offer(self, start: int, scores: Tensor, first: int) -> None:
        """Scores ``[m, c]`` of the queries from ``start`` on with the rows from ``first`` on."""
        part = slice(start, start + len(scores))
        rows = torch.arange(first, first + scores.shape[1], device=scores.device)
        best, indices = _best(scores, rows.expand_as(scores), self._k)
        self._scores[part], self._indices[part] = _best(
            torch.cat([self._scores[part], best], dim=1),
            torch.cat([self._indices[part], indices], dim=1),
            self._k,
        )

    def ordered(self) -> tuple[Tensor, Tensor]:
        """Scores and indices ``[q, k]``, best first and of equals the lower index, on the CPU."""
        order = _order(self._scores, self._indices)
        return self._scores.gather(1, order).cpu(), self._indices.gather(1, order).cpu()


def _best(scores: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of every row ``[m, c]``, in any order; of equals, those of lowest index."""
    best, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    if best.shape[1] > k:
        # topk takes any of equals, which matters only where the cut goes through them.
        last, next_one = best[:, k - 1], best[:, k]
        cut = ((last == next_one) & last.isfinite()).nonzero()[:, 0]
        for start in range(0, len(cut), _TIED):
            rows = cut[start : start + _TIED]
            columns[rows] = _order(scores[rows], indices[rows])[:, : k + 1]
        columns = columns[:, :k]
    return scores.gather(1, columns), indices.gather(1, columns)


def _order(scores: Tensor, indices: Tensor) -> Tensor:
    """Where in its row the best, second best and so on stands; of equals the lower index first."""
    by_index = indices.argsort(dim=1)
    by_score = scores.gather(1, by_index).argsort(dim=1, descending=True, stable=True)
    return by_index.gather(1, by_score)


def _units(x: Features, start: int, size: int) -> Tensor:
    """Rows of unit length on the grid on which dot products are exact."""
    return (F.normalize(block(x, start, size).contiguous(), dim=1) * _GRID).round() / _GRID


def _shared(nx: Tensor, ny: Tensor) -> Tensor:
    """Which of ``nx`` ``[n, k]`` are also in ``ny``, row by row."""
    shared = torch.zeros_like(nx, dtype=torch.bool)
    for neighbour in ny.unbind(1):
        shared |= nx == neighbour[:, None]
    return shared


def _kernel(x: Features, neighbours: Tensor, chunk: int) -> csr_array:
    """Cosines between every row and its neighbours, as a sparse matrix."""
    n, k = neighbours.shape
    cosines = torch.empty(n * k, dtype=torch.float64)
    owner = torch.arange(min(chunk, n)).repeat_interleave(k)
    for start in range(0, n, chunk):
        rows = _units(x, start, chunk)
        targets = neighbours[start : start + chunk].flatten()
        for first in range(0, n, chunk):
            columns = _units(x, first, chunk)
            inside = ((targets >= first) & (targets < first + chunk)).nonzero()[:, 0]
            for begin in range(0, len(inside), chunk):
                some = inside[begin : begin + chunk]
                products = rows[owner[some]] * columns[targets[some] - first]
                cosines[start * k + some] = products.sum(1).cpu()
    return _sparse(neighbours, cosines.view(n, k))


def _sparse(neighbours: Tensor, values: Tensor) -> csr_array:
    from scipy.sparse import csr_array  # takes a while to import, and few need it

    n, k = neighbours.shape
    starts = torch.arange(0, n * k + 1, k).numpy()
    return csr_array(
        (values.flatten().numpy(), neighbours.flatten().numpy(), starts), shape=(n, n), copy=True
    )


def _hsic(k: csr_array, l: csr_array) -> float:  # noqa: E741
    n = k.shape[0]
    through = k.sum(axis=0) @ l.sum(axis=1)  # the sum of all entries of k @ l
    return float(
        ((k * l.T).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * through / (n - 2))
        / (n * (n - 3))
    )


def _check_dims(rows: Tensor, columns: Tensor) -> None:
    if rows.shape[1] != columns.shape[1]:
        raise DataError(
            f"features of {rows.shape[1]} and of {columns.shape[1]} dims cannot be compared",
            "Give features of the same encoder.",
        )


def _check_tables(nx: Tensor, ny: Tensor) -> None:
    if nx.ndim != 2 or nx.shape != ny.shape or nx.numel() == 0:
        raise DataError(
            f"tables of neighbours of shapes {list(nx.shape)} and {list(ny.shape)} do not fit",
            "Make both with nearest_neighbours, of the same rows and with the same k.",
        )
