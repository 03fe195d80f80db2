"""Nearest neighbours by cosine, exact: found in float32, decided in float64.

Neighbours come out the same whatever the tiles, threads and machine, ties included. The same dot
product rounds differently in tiles of different shape, so unit vectors are first rounded to
multiples of 2⁻²⁶: their products are multiples of 2⁻⁵² that sum to less than 2, which float64 holds
exactly in any order. That moves a cosine by about 1e-8, less than float32 would.

Most rows are far from any query and float32 is enough to say so, at twice the speed. It leaves each
query the few rows that its error cannot rule out, and these are decided in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.device import matmul
from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, block

_GRID = 2.0**26
_HELD = 1 << 24  # values of unit vectors that are made once and held: 128 MB
_PAYS = 100  # rows for each neighbour sought: of fewer, deciding costs more than float32 saves
_PAIRS = 512  # dot products at a time, whose rows stay in the cache
_TIED = 256  # rows of a tile that are sorted at a time
_GROUP = 32  # columns of a tile that are ruled out together
_SPARE = 24  # candidates beyond k that a query may have before float64 decides over all rows


def nearest_neighbours(x: Features, k: int, *, chunk: int = 2048) -> Tensor:
    """Indices of every row's k nearest other rows by cosine, nearest first.

    Of equally near rows (copies of a row, for instance, which are neighbours of each other like any
    other two) the lower index comes first. A row of zeros has cosine 0 with every other. Memory is
    O(chunk² + chunk · d + n · k), and 128 MB where that holds all unit vectors; tiles above the
    diagonal serve both their rows and their columns.

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
    choice = len(queries) - 1 if gallery is None else len(gallery)
    if choice < k:
        raise DataError(
            f"k = {k} neighbours of {max(choice, 0)} rows to choose from are too many",
            "Give more samples, or a smaller k.",
        )
    rows = Units(queries, chunk)
    columns = rows if gallery is None else Units(gallery, chunk)
    _check_dims(rows, columns)
    top = _Top(len(queries), k, rows.device)
    pays = len(columns) >= _PAYS * k and _float32_is_float32(rows.device)
    undecided = _decide(rows, columns, k, top) if pays else None
    _search_all(rows, columns, top, undecided)
    return top.ordered()


class Units:
    """Rows of unit length on the grid on which dot products are exact, a block at a time.

    Args:
        x: features ``[n, d]``.
        chunk: rows of a block.
    """

    def __init__(self, x: Features, chunk: int) -> None:
        self._features, self.chunk = x, chunk
        some = x[:1]
        self.dims, self.device = some.shape[-1], some.device
        fits = len(x) * self.dims <= _HELD
        self._held = [self._make(start) for start in self.starts] if fits else None

    def __len__(self) -> int:
        return len(self._features)

    @property
    def starts(self) -> range:
        """The first row of every block."""
        return range(0, len(self), self.chunk)

    def block(self, start: int) -> Tensor:
        """The block ``[m, d]`` that begins with this row, in float64."""
        return self._make(start) if self._held is None else self._held[start // self.chunk]

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Every block with its first row."""
        return ((start, self.block(start)) for start in self.starts)

    def _make(self, start: int) -> Tensor:
        rows = block(self._features, start, self.chunk).contiguous()
        return (F.normalize(rows, dim=1) * _GRID).round() / _GRID


def paired_cosines(rows: Units, columns: Units, indices: Tensor) -> Tensor:
    """Exact cosines ``[q, c]`` of every row with the columns that ``indices`` ``[q, c]`` name.

    An index below 0 names none, and has the cosine −∞.
    """
    cosines = torch.full(indices.shape, -torch.inf, dtype=torch.float64, device=rows.device)
    # Block by block, so that what is gathered lies in the cache and a store is read in order.
    for start, left in rows.blocks():
        part = indices[start : start + len(left)]
        for first, right in columns.blocks():
            row, slot = ((part >= first) & (part < first + len(right))).nonzero(as_tuple=True)
            for begin in range(0, len(row), _PAIRS):
                i, j = row[begin : begin + _PAIRS], slot[begin : begin + _PAIRS]
                products = left.index_select(0, i)
                products *= right.index_select(0, part[i, j] - first)
                cosines[start + i, j] = products.sum(1)
    return cosines


def _search_all(rows: Units, columns: Units, top: _Top, only: Tensor | None) -> None:
    """Offer every column to the rows ``only`` names, or to all, in float64."""
    itself = rows is columns
    if only is not None:
        for begin in range(0, len(only), rows.chunk):
            some = only[begin : begin + rows.chunk]
            queries = torch.cat([left[some[(some >= start) & (some < start + len(left))] - start]
                                 for start, left in rows.blocks()])  # fmt: skip
            for first, right in columns.blocks():
                cosines = queries @ right.T
                if itself:
                    cosines[(some[:, None] - first) == torch.arange(
                        len(right), device=some.device)] = -torch.inf  # fmt: skip
                top.offer(some, cosines, first)
        return
    everyone = torch.arange(len(rows), device=rows.device)
    for start, left in rows.blocks():
        here = everyone[start : start + len(left)]
        for first in columns.starts[start // rows.chunk :] if itself else columns.starts:
            right = columns.block(first)
            cosines = left @ right.T
            if itself and first == start:
                cosines.fill_diagonal_(-torch.inf)
            elif itself:
                top.offer(everyone[first : first + len(right)], cosines.T.contiguous(), start)
            top.offer(here, cosines, first)


def _decide(rows: Units, columns: Units, k: int, top: _Top) -> Tensor:
    """Offer each row its candidates alone; the rows ``[m]`` for which there are too many."""
    found = _candidates(rows, columns, k)
    indices, undecided = found.within_error()
    top.replace(paired_cosines(rows, columns, indices), indices, undecided)
    return undecided


def _candidates(rows: Units, columns: Units, k: int) -> _Candidates:
    """Scores of all rows with all columns in float32, of which the best are kept."""
    itself = rows is columns
    mean = torch.stack([units.sum(0) for _, units in columns.blocks()]).sum(0) / len(columns)
    left = _Centred.of(rows, mean)
    right = left if itself else _Centred.of(columns, mean)
    found = _Candidates(len(rows), k, left.margin(right))
    for start in rows.starts:
        queries, shifts = left.block(start)
        for first in columns.starts[start // rows.chunk :] if itself else columns.starts:
            others, offsets = right.block(first)
            scores = matmul(queries, others.T).add_(offsets).add_(shifts[:, None])
            if itself and first == start:
                scores.fill_diagonal_(-torch.inf)
            elif itself:
                found.offer(first, scores.T.contiguous(), start)
            found.offer(start, scores, first)
    return found


class _Centred:
    """Unit vectors x as a + m, since a float32 product of short vectors errs less.

    With the gallery's mean m, ``x·y = a·b + β(x) + β(y) + m·m``, where ``β(x) = m·a``; the last is
    the same everywhere and left out. Vectors that all point one way, as those of many encoders do,
    have short a and small β.

    Attributes:
        units: the vectors.
        mean: m ``[d]``.
        lengths: of every a ``[n]``.
        offsets: β of every vector ``[n]``.
    """

    def __init__(self, units: Units, mean: Tensor, lengths: Tensor, offsets: Tensor) -> None:
        self.units, self.mean, self.lengths, self.offsets = units, mean, lengths, offsets

    @classmethod
    def of(cls, units: Units, mean: Tensor) -> _Centred:
        """All of it, in one pass."""
        lengths = torch.cat([(x - mean).norm(dim=1) for _, x in units.blocks()])
        offsets = torch.cat([(x - mean) @ mean for _, x in units.blocks()])
        return cls(units, mean, lengths, offsets)

    def block(self, start: int) -> tuple[Tensor, Tensor]:
        """a ``[m, d]`` and β ``[m]`` of a block, in float32."""
        x = self.units.block(start)
        return (x - self.mean).float(), self.offsets[start : start + len(x)].float()

    def margin(self, gallery: _Centred) -> Tensor:
        """By how much the score of each vector with any of the gallery may err, at most: ``[n]``.

        A dot product of d terms in arithmetic of unit roundoff u, summed in any order, with or
        without fused multiply-add, errs by at most ``γ_d Σ|a_i b_i|``, ``γ_d = d u / (1 − d u)``
        (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., eq. 3.5), where
        ``Σ|a_i b_i| ≤ ‖a‖ ‖b‖``. That a and b are rounded to float32 first adds two factors
        (1 + u), so that the product errs by at most ``γ_(d+2) ‖a‖ ‖b‖`` (Lemma 3.3). Both β are
        rounded and added: four roundings of numbers of at most ``‖a‖ ‖b‖ + |β(x)| + |β(y)|``.
        Float64 rounds too, in β products of vectors no longer than 2 and 1. Numbers so small that
        float32 has no more than zero for them add less than 2⁻¹⁰⁰.
        """
        u, d = 2.0**-24, self.units.dims
        gamma = (d + 2) * u / (1 - (d + 2) * u)
        products = self.lengths * gallery.lengths.max()
        size = products + self.offsets.abs() + gallery.offsets.abs().max()
        # A hundredth more than the bound, for products of two small errors and this sum's rounding.
        error = gamma * products + 4 * u * size + (d + 8) * 2.0**-51 * (size + 1)
        return 1.01 * error + 2.0**-100


class _Candidates:
    """For every query the rows that may be among its k most similar, by scores that err.

    Of scores that err by at most e, the k-th highest is at most e above the true one. So a row
    whose score is more than 2 e below it is not among the k, ties included.
    """

    def __init__(self, queries: int, k: int, margin: Tensor) -> None:
        self._k, self._room = k, 2 * k + _SPARE
        self._twice = 2 * margin.float() * (1 + 2.0**-20)  # rounded up
        shape, device = (queries, self._room), margin.device
        self._scores = torch.full(shape, -torch.inf, device=device)
        self._indices = torch.full(shape, -1, dtype=torch.int64, device=device)
        self._dropped = torch.full((queries,), -torch.inf, device=device)

    def offer(self, start: int, scores: Tensor, first: int) -> None:
        """Scores ``[m, c]`` of the queries from ``start`` on with the rows from ``first`` on."""
        # The highest score of a group of neighbouring columns rules most groups out as a whole.
        size = max(1, min(_GROUP, scores.shape[1] // (4 * self._k)))
        if scores.shape[1] % size:
            scores = F.pad(scores, (0, -scores.shape[1] % size), value=-torch.inf)
        part, count = slice(start, start + len(scores)), scores.shape[1] // size
        groups = scores.view(len(scores), count, size)
        highest = groups.amax(2)
        least = self._scores[part, self._k - 1] - self._twice[part]
        near = highest >= least[:, None]
        if near.sum() > 2 * self._k * len(near) and count >= self._k:
            # So many are only where few rows were seen before, or worse ones. The highest scores
            # of k groups are those of k rows.
            least = least.maximum(highest.topk(self._k).values[:, -1] - self._twice[part])
            near = highest >= least[:, None]
        row, group = near.nonzero(as_tuple=True)
        values = groups.view(-1, size).index_select(0, row * count + group)
        # Then what is left of them, one by one.
        line, within = (values >= least[row, None]).nonzero(as_tuple=True)
        if len(line):
            indices = first + group[line] * size + within
            self._keep(part, row[line], values[line, within], indices)

    def _keep(self, part: slice, row: Tensor, values: Tensor, indices: Tensor) -> None:
        """Merge scores, given by ascending row, into the best of their rows."""
        touched, count = torch.unique_consecutive(row, return_counts=True)
        line = torch.arange(len(touched), device=row.device).repeat_interleave(count)
        slot = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[line]
        most = self._room + int(count.max())
        scores = torch.full((len(touched), most), -torch.inf, device=row.device)
        columns = torch.full((len(touched), most), -1, dtype=torch.int64, device=row.device)
        own = part.start + touched
        scores[:, : self._room], columns[:, : self._room] = self._scores[own], self._indices[own]
        scores[line, self._room + slot], columns[line, self._room + slot] = values, indices
        best, order = scores.topk(self._room + 1, dim=1)
        self._scores[own] = best[:, :-1]
        self._indices[own] = columns.gather(1, order[:, :-1])
        self._dropped[own] = self._dropped[own].maximum(best[:, -1])

    def within_error(self) -> tuple[Tensor, Tensor]:
        """Candidates ``[q, c]``, −1 where there is none; and the queries that have more."""
        least = self._scores[:, self._k - 1] - self._twice
        close = self._scores >= least[:, None]
        width = int(close.sum(1).max())  # they are sorted by score
        indices = torch.where(close, self._indices, -1)[:, :width]
        return indices, (self._dropped >= least).nonzero()[:, 0]


class _Top:
    """The k most similar rows of every query so far; of equals, those of lowest index."""

    def __init__(self, queries: int, k: int, device: torch.device) -> None:
        self._k = k
        self._scores = torch.full((queries, k), -torch.inf, dtype=torch.float64, device=device)
        self._indices = torch.zeros((queries, k), dtype=torch.int64, device=device)

    def replace(self, scores: Tensor, indices: Tensor, but: Tensor) -> None:
        """The best of these ``[q, c]`` alone, for every query ``but`` some, which have none yet."""
        order = _order(scores, indices)[:, : self._k]
        self._scores, self._indices = scores.gather(1, order), indices.gather(1, order)
        self._scores[but] = -torch.inf

    def offer(self, queries: Tensor, scores: Tensor, first: int) -> None:
        """Scores ``[m, c]`` of these queries ``[m]`` with the rows from ``first`` on."""
        rows = torch.arange(first, first + scores.shape[1], device=scores.device)
        best, indices = _best(scores, rows.expand_as(scores), self._k)
        self._scores[queries], self._indices[queries] = _best(
            torch.cat([self._scores[queries], best], dim=1),
            torch.cat([self._indices[queries], indices], dim=1),
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


def _float32_is_float32(device: torch.device) -> bool:
    """Whether products of float32 are that: on a GPU, or where it was allowed, they may be less."""
    if device.type != "cpu":
        return False
    if hasattr(torch.backends.mkldnn, "matmul"):  # since torch 2.9
        return torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")
    return torch.get_float32_matmul_precision() == "highest"


def _check_dims(rows: Units, columns: Units) -> None:
    if rows.dims != columns.dims:
        raise DataError(
            f"features of {rows.dims} and of {columns.dims} dims cannot be compared",
            "Give features of the same encoder.",
        )
