"""Correlations that come with an interval, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np

from lateen.errors import DataError
from lateen.metrics.resampling import Interval, check_level, draws, percentile_interval

Array = np.ndarray[Any, Any]
Units = Sequence[Collection[Hashable]]  # of every point those that it shares with others
_LEAST = 4  # points, or units: with 3 an interval has no degree of freedom left
_CONSTANT = 1e-12  # of the largest value: a smaller range is rounding
_MOSTLY_CONSTANT = "in most draws one side is the same at every point"


@dataclass(frozen=True)
class Correlation:
    """Two correlations with their intervals; all are ``None`` where there is a reason for it.

    Attributes:
        n: points.
        pearson: Pearson's r.
        pearson_interval: low and high.
        spearman: Spearman's rank correlation.
        spearman_interval: low and high.
        reason: why there is no correlation.
    """

    n: int
    pearson: float | None = None
    pearson_interval: Interval | None = None
    spearman: float | None = None
    spearman_interval: Interval | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class CorrelationGap:
    """By how much one Pearson correlation is above another.

    Attributes:
        n: points.
        difference: ``r(x1, y) − r(x2, y)``.
        interval: low and high.
        reason: why there is no difference; the others are then ``None``.
    """

    n: int
    difference: float | None = None
    interval: Interval | None = None
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def correlate(x: Sequence[float], y: Sequence[float], *, level: float = 0.95) -> Correlation:
    """Correlation of independent points.

    Pearson's interval is Fisher's, ``tanh(artanh r ± q / √(n − 3))``. Spearman's has the standard
    error √((1 + r²/2) / (n − 3)) in its place (Bonett & Wright 2000); where all ranks agree, which
    would leave it without width, r is taken halfway to that of one exchange of neighbours.

    Args:
        x: ``[n]``.
        y: ``[n]``.
        level: of confidence.

    Raises:
        DataError: different numbers of values, NaN or infinity.
        UsageError: a level that is not between 0 and 1.
    """
    check_level(level)
    u, v = _values(x, y)
    reason = _no_correlation(u, v)
    if reason:
        return Correlation(len(u), reason=reason)
    pearson, spearman = _points(u, v)
    return Correlation(
        len(u),
        pearson, _fisher(pearson, 1.0, len(u), level),
        spearman, _of_ranks(spearman, len(u), level),
    )  # fmt: skip


def correlate_grid(
    x: Sequence[float],
    y: Sequence[float],
    rows: Sequence[Hashable],
    columns: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Correlation of points that share units, as pairs share encoders: they are not independent.

    The correlations are those of :func:`correlate`. Their percentile intervals come from drawing
    row units and column units with replacement, a point counting as often as its row times as often
    as its column was drawn (the pigeonhole bootstrap, Owen 2007). A side with one unit does not
    vary and is not drawn. Draws in which x or y is constant are left out.

    Args:
        x: ``[n]``.
        y: ``[n]``.
        rows: the row unit of every point ``[n]``, a vision encoder for instance.
        columns: the column unit of every point ``[n]``.
        level: of confidence.
        resamples: draws.
        seed: of the draws.

    Raises:
        DataError: different numbers of values, NaN or infinity.
        UsageError: a level that is not between 0 and 1.
    """
    sides = [[(unit,) for unit in side] for side in (rows, columns)]
    return correlate_units(x, y, *sides, level=level, resamples=resamples, seed=seed)


def correlate_units(
    x: Sequence[float],
    y: Sequence[float],
    *sides: Units,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Correlation of points that share units of which a point may have several on a side.

    Layers of a network share it, and a fused encoder has the networks of all its parts. As in
    :func:`correlate_grid`, units are drawn with replacement, and a point counts as often as the
    product of how often each of its units was drawn. With four layers each of 5 to 25 networks,
    simulated 95 % intervals held the truth in 84 to 93 % of 400 cases, and those of
    :func:`correlate`, which take layers for independent, in 59 to 90 %.

    Args:
        x: ``[n]``.
        y: ``[n]``.
        sides: of each, the units of every point ``[n]``, such as networks.
        level: of confidence.
        resamples: draws.
        seed: of the draws.

    Raises:
        DataError: different numbers of values, NaN or infinity.
        UsageError: a level that is not between 0 and 1.
    """
    check_level(level)
    u, v = _values(x, y)
    members = [_members(side, len(u)) for side in sides]
    reason = _no_correlation(u, v) or _too_few_units([m.shape[1] for m in members])
    if reason:
        return Correlation(len(u), reason=reason)
    weights = _weights(members, resamples, seed)
    pearson = _interval(_weighted_pearson(weights, u, v), level, resamples)
    ranks = _weighted_ranks(weights, u), _weighted_ranks(weights, v)
    spearman = _interval(_weighted_pearson(weights, *ranks), level, resamples)
    if pearson is None or spearman is None:
        return Correlation(len(u), reason=_MOSTLY_CONSTANT)
    points = _points(u, v)
    return Correlation(len(u), points[0], pearson, points[1], spearman)


def correlation_gap(
    x1: Sequence[float],
    x2: Sequence[float],
    y: Sequence[float],
    *,
    units: Units | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> CorrelationGap:
    """By how much x1 tracks y better than x2 does: the difference of two Pearson correlations.

    The percentile interval is from drawing points with replacement, for both at once, or the units
    that they share, as :func:`correlate_units` does. Draws in which a side is constant are left
    out.

    Args:
        x1: ``[n]``.
        x2: ``[n]``.
        y: ``[n]``.
        units: of every point ``[n]``, where points share some.
        level: of confidence.
        resamples: draws.
        seed: of the draws.

    Raises:
        DataError: different numbers of values, NaN or infinity.
        UsageError: a level that is not between 0 and 1.
    """
    check_level(level)
    first, second, third = _values(x1, x2, y)
    members = _members(units or [(point,) for point in range(len(third))], len(third))
    reason = _no_correlation(first, second, third) or _too_few_units([members.shape[1]])
    if reason:
        return CorrelationGap(len(third), reason=reason)
    weights = _weights([members], resamples, seed)
    gaps = _weighted_pearson(weights, first, third) - _weighted_pearson(weights, second, third)
    interval = _interval(gaps, level, resamples)
    if interval is None:
        return CorrelationGap(len(third), reason=_MOSTLY_CONSTANT)
    difference = _points(first, third)[0] - _points(second, third)[0]
    return CorrelationGap(len(third), difference, interval)


def _values(*sides: Sequence[float]) -> list[Array]:
    values = [np.asarray(side, np.float64) for side in sides]
    if len({v.shape for v in values}) > 1 or values[0].ndim != 1:
        raise DataError(
            f"sides of {' and '.join(str(v.size) for v in values)} values cannot be correlated",
            "Give one number per point on every side.",
        )
    if not all(np.isfinite(v).all() for v in values):
        raise DataError("a value to correlate is NaN or infinite", "Leave such points out.")
    return values


def _members(side: Units, points: int) -> Array:
    """Which units each point has: ``[points, units]``, 1 or 0."""
    if len(side) != points:
        raise DataError(
            f"units of {len(side)} points do not fit {points} values",
            "Name the row and the column of every point.",
        )
    numbers = {unit: index for index, unit in enumerate(dict.fromkeys(chain(*side)))}
    members = np.zeros((points, len(numbers)))
    for point, own in enumerate(side):
        members[point, [numbers[unit] for unit in own]] = 1
    return members


def _weights(sides: Sequence[Array], resamples: int, seed: int) -> Array:
    """How often each draw has each point ``[draws, n]``; draws that have none are left out."""
    weights = np.ones((resamples, len(sides[0])))
    for number, members in enumerate(sides):
        if members.shape[1] > 1:
            counts = np.concatenate(list(draws(members.shape[1], resamples, seed + number)))
            for unit, has in zip(counts.T, members.T, strict=True):
                weights *= np.where(has, unit[:, None], 1)
    return weights[weights.any(axis=1)]


def _no_correlation(*sides: Array) -> str | None:
    """Why there is none."""
    points = len(sides[0])
    if points < _LEAST:
        return f"{points} of the {_LEAST} points that an interval needs"
    if any(np.ptp(side) <= _CONSTANT * np.abs(side).max() for side in sides):
        return "one side is the same at every point"
    return None


def _too_few_units(sizes: Sequence[int]) -> str | None:
    several = [size for size in sizes if size > 1]
    if not several:
        return "all points share all their units"
    if min(several) < _LEAST:
        return f"points of {min(several)} units are too few for an interval, which needs {_LEAST}"
    return None


def _points(x: Array, y: Array) -> tuple[float, float]:
    """Pearson's and Spearman's correlation."""
    from scipy import stats  # takes a while to import, and few need it

    return float(stats.pearsonr(x, y).statistic), float(stats.spearmanr(x, y).statistic)


def _fisher(r: float, variance: float, n: int, level: float) -> Interval:
    """Interval of a correlation whose artanh has the given variance × (n − 3)."""
    from scipy import stats

    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance / (n - 3))
    with np.errstate(divide="ignore"):  # of r = 1 it is infinite, and the interval a point
        z = np.arctanh(np.clip(r, -1, 1))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _of_ranks(r: float, n: int, level: float) -> Interval:
    """Interval of Spearman's correlation."""
    halfway = 1 - 6 / (
        n * (n * n - 1)
    )  # one exchange of neighbours makes r = 1 − 12 / (n (n² − 1))
    near = min(max(r, -halfway), halfway)
    low, high = _fisher(near, 1 + near**2 / 2, n, level)
    return (min(low, r), max(high, r))


def _weighted_pearson(weights: Array, x: Array, y: Array) -> Array:
    """Pearson's r for every draw.

    Args:
        weights: ``[draws, n]``, no row of zeros.
        x: ``[n]``, or per draw ``[draws, n]``.
        y: as ``x``.

    Returns:
        ``[draws]``; NaN where x or y is constant.
    """
    total = weights.sum(1, keepdims=True)
    sides = []
    for side in (x, y):
        centred = side - (weights * side).sum(1, keepdims=True) / total
        norm = np.sqrt((weights * centred**2).sum(1))
        constant = norm <= _CONSTANT * np.sqrt(total[:, 0]) * np.abs(side).max()
        sides.append(centred / np.where(constant, np.nan, norm)[:, None])
    correlations: Array = (weights * sides[0] * sides[1]).sum(1).clip(-1, 1)
    return correlations


def _weighted_ranks(weights: Array, x: Array) -> Array:
    """Mean rank of every point where point i counts ``weights[:, i]`` times: ``[draws, n]``."""
    _, group = np.unique(x, return_inverse=True)
    counts = np.zeros((len(weights), group.max() + 1))
    np.add.at(counts.T, group, weights.T)
    ranks: Array = (counts.cumsum(1) - counts / 2 + 0.5)[:, group]
    return ranks


def _interval(values: Array, level: float, resamples: int) -> Interval | None:
    """Percentile interval of the draws that have a value; none where that is not even half."""
    kept = values[np.isfinite(values)]
    return percentile_interval(kept, level) if 2 * len(kept) >= resamples else None
