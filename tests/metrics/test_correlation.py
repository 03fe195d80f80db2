from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from lateen.errors import DataError, UsageError
from lateen.metrics import (
    Correlation,
    correlate,
    correlate_grid,
    correlate_units,
    correlation,
    correlation_gap,
)
from lateen.metrics.correlation import _weighted_pearson, _weighted_ranks

X = [1.0, 2, 3, 4, 5]
Y = [2.0, 1, 4, 3, 5]


def _grid(
    rows: int, columns: int, noise: float = 0.3, seed: int = 0
) -> tuple[list[float], list[float], list[str], list[str]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 1)) + rng.normal(size=(1, columns))
    y = x + noise * rng.normal(size=x.shape)
    names = [(f"row {i}", f"column {j}") for i in range(rows) for j in range(columns)]
    return x.ravel().tolist(), y.ravel().tolist(), [n[0] for n in names], [n[1] for n in names]


def test_five_points_worked_by_hand() -> None:
    """r = Σ dx dy / 10 = 8 / 10, and ranks are the values.

    artanh 0.8 = 1.0986; ± 1.96 / √2 makes −0.2873 and 2.4845, whose tanh are −0.2796 and 0.9862.
    Spearman's half width is 1.96 √(1.32 / 2) = 1.5923.
    """
    found = correlate(X, Y)
    assert (found.n, found.reason) == (5, None)
    assert found.pearson == pytest.approx(0.8)
    assert found.spearman == pytest.approx(0.8)
    assert found.pearson_interval == pytest.approx((-0.2796, 0.9862), abs=1e-4)
    expected = np.tanh(1.09861 - 1.59230), np.tanh(1.09861 + 1.59230)
    assert found.spearman_interval == pytest.approx(expected, abs=1e-4)


def test_pearson_s_interval_is_scipy_s() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    found = correlate(x.tolist(), y.tolist(), level=0.9)
    expected = stats.pearsonr(x, y).confidence_interval(0.9)
    assert found.pearson_interval == pytest.approx(tuple(expected))
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_perfect_line_has_an_interval_of_no_width() -> None:
    found = correlate(X, [-2 * v + 1 for v in X])
    assert found.pearson == pytest.approx(-1)
    assert found.pearson_interval == pytest.approx((-1, -1))


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "0 of the 4 points that an interval needs"),
        (X[:3], Y[:3], "3 of the 4 points that an interval needs"),
        (X, [0.1] * 5, "one side is the same at every point"),
        ([0.0] * 5, Y, "one side is the same at every point"),
        ([1e9, 1e9 * (1 + 1e-14), 1e9, 1e9, 1e9], Y, "one side is the same at every point"),
    ],
)
def test_there_is_no_number_without_an_interval(
    x: list[float], y: list[float], reason: str
) -> None:
    nothing = Correlation(len(x), reason=reason)
    assert correlate(x, y) == nothing
    assert correlate_grid(x, y, range(len(x)), range(len(x))) == nothing
    gap = correlation_gap(x, X[: len(x)], y)
    assert (gap.difference, gap.interval, gap.reason) == (None, None, reason)


def test_results_can_be_written_as_json() -> None:
    assert json.loads(json.dumps(correlate(X, Y).as_dict()))["n"] == 5
    assert json.loads(json.dumps(correlation_gap(X, Y, Y).as_dict()))["reason"] is None


def test_weighted_correlations_equal_those_of_repeated_points() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 12).astype(float), rng.normal(size=12)
    weights = rng.integers(0, 4, (20, 12)).astype(float)
    pearson = _weighted_pearson(weights, x, y)
    ranks = _weighted_ranks(weights, x), _weighted_ranks(weights, y)
    spearman = _weighted_pearson(weights, *ranks)
    for row, w in enumerate(weights.astype(int)):
        u, v = np.repeat(x, w), np.repeat(y, w)
        assert pearson[row] == pytest.approx(stats.pearsonr(u, v).statistic)
        assert spearman[row] == pytest.approx(stats.spearmanr(u, v).statistic)
        np.testing.assert_allclose(np.repeat(ranks[0][row], w), stats.rankdata(u))


def test_a_draw_with_a_constant_side_has_no_correlation() -> None:
    weights = np.array([[3.0, 2, 0, 0], [1, 1, 1, 1]])
    found = _weighted_pearson(weights, np.array([0.1, 0.1, 5, 7]), np.arange(4.0))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_a_grid_has_the_same_correlation_and_a_wider_interval() -> None:
    x, y, rows, columns = _grid(8, 8, noise=1.0)
    grid, plain = correlate_grid(x, y, rows, columns), correlate(x, y)
    assert grid.n == 64
    assert (grid.pearson, grid.spearman) == (plain.pearson, plain.spearman)
    for ours, theirs in (
        (grid.pearson_interval, plain.pearson_interval),
        (grid.spearman_interval, plain.spearman_interval),
    ):
        assert ours is not None
        assert theirs is not None
        assert ours[1] - ours[0] > theirs[1] - theirs[0]
    assert grid == correlate_grid(x, y, rows, columns)
    assert grid != correlate_grid(x, y, rows, columns, seed=1)


def test_a_grid_does_not_depend_on_the_order_of_its_points() -> None:
    x, y, rows, columns = _grid(5, 6)
    order = [0, *np.random.default_rng(0).permutation(np.arange(1, 30)).tolist()]
    moved = correlate_grid(*([side[i] for i in order] for side in (x, y, rows, columns)))
    plain = correlate_grid(x, y, rows, columns)
    assert moved.pearson == pytest.approx(plain.pearson)
    # Units are numbered as they come, so that the draws differ, but not what they are drawn from.
    assert moved.pearson_interval == pytest.approx(plain.pearson_interval, abs=0.05)


def test_a_side_with_one_unit_is_not_drawn() -> None:
    x, y, rows, columns = _grid(10, 1)
    found = correlate_grid(x, y, rows, columns)
    assert found.reason is None
    assert found.pearson_interval is not None
    assert found.pearson_interval[0] < found.pearson_interval[1]
    turned = correlate_grid(x, y, columns, rows)
    assert turned.pearson_interval == pytest.approx(found.pearson_interval, abs=0.1)


def test_draws_without_any_point_are_left_out() -> None:
    """Only the diagonal of the grid is filled, and rows and columns are drawn apart."""
    x = np.random.default_rng(0).normal(size=8)
    found = correlate_grid(x.tolist(), (x**3).tolist(), range(8), range(8))
    assert found.reason is None
    assert found.spearman_interval == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((3, 8), "3 units"), ((8, 2), "2 units"), ((2, 3), "2 units"), ((3, 1), "3 of the 4 points")],
)
def test_few_units_make_no_correlation(shape: tuple[int, int], reason: str) -> None:
    found = correlate_grid(*_grid(*shape))
    assert found.pearson is found.pearson_interval is found.spearman is None
    assert reason in (found.reason or "")


def test_points_of_one_cell_make_no_correlation() -> None:
    found = correlate_grid(X, Y, ["a"] * 5, ["b"] * 5)
    assert found == Correlation(5, reason="all points share all their units")


def _layers(
    networks: int, layers: int, seed: int = 0
) -> tuple[list[float], list[float], list[Any]]:
    """Two values of every layer, which are mostly those of its network."""
    rng = np.random.default_rng(seed)
    x, y = np.repeat(rng.normal(size=(2, networks)), layers, axis=1)
    x, y = (side + 0.1 * rng.normal(size=networks * layers) for side in (x, y))
    units = [(f"network {network}",) for network in range(networks) for _ in range(layers)]
    return x.tolist(), y.tolist(), units


def test_layers_of_one_network_are_drawn_together() -> None:
    """Eight networks say no more with twenty layers each than with one."""
    x, y, units = _layers(8, 20)
    together = correlate_units(x, y, units)
    assert together.pearson_interval is not None
    low, high = together.pearson_interval
    apart = correlate(x, y).pearson_interval
    assert apart is not None
    assert high - low > 3 * (apart[1] - apart[0])
    one = [side[::20] for side in (x, y, units)]
    alone = correlate_units(*one).pearson_interval
    assert alone is not None
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.3)


def test_units_that_each_point_has_alone_are_rows_of_a_grid() -> None:
    x, y, rows, columns = _grid(5, 6)
    sides = [[(unit,) for unit in side] for side in (rows, columns)]
    assert correlate_units(x, y, *sides) == correlate_grid(x, y, rows, columns)


def test_a_point_of_two_units_is_there_as_often_as_both_are() -> None:
    """With the fused points alone, no draw without one of their two parts has any."""
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    units = [("a",), ("b",), ("c",), ("d",), ("a", "b")]
    weights = correlation._weights([correlation._members(units, 5)], 500, 0)
    assert (weights[:, 4] == weights[:, 0] * weights[:, 1]).all()
    assert correlate_units(x, x, units).pearson_interval == pytest.approx((1, 1))


def test_few_networks_have_no_interval_however_many_layers() -> None:
    assert correlate_units(*_layers(3, 50)).reason == (
        "points of 3 units are too few for an interval, which needs 4"
    )
    assert correlate_units(*_layers(1, 50)).reason == "all points share all their units"
    x, y, units = _layers(3, 5)
    gap = correlation_gap(x, y, x, units=units)
    assert gap.difference is None
    assert "3 units" in (gap.reason or "")
    with pytest.raises(DataError, match="units of 14 points do not fit 15 values"):
        correlate_units(x, y, units[1:])


def test_a_side_that_is_constant_but_for_one_unit_makes_no_correlation() -> None:
    """Of the draws of four rows and of four columns, most leave the odd cell out."""
    _, y, rows, columns = _grid(4, 4)
    found = correlate_grid([1.0] + [0.0] * 15, y, rows, columns)
    assert found == Correlation(16, reason="in most draws one side is the same at every point")


def test_a_gap_is_that_of_the_two_correlations() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=40)
    good, bad = y + 0.1 * rng.normal(size=40), y + 2 * rng.normal(size=40)
    gap = correlation_gap(good.tolist(), bad.tolist(), y.tolist())
    expected = stats.pearsonr(good, y).statistic - stats.pearsonr(bad, y).statistic
    assert gap.n == 40
    assert gap.difference == pytest.approx(expected)
    assert gap.interval is not None
    assert 0 < gap.interval[0] < expected < gap.interval[1]
    turned = correlation_gap(bad.tolist(), good.tolist(), y.tolist())
    assert turned.interval == pytest.approx((-gap.interval[1], -gap.interval[0]))
    same = correlation_gap(good.tolist(), (3 * good + 1).tolist(), y.tolist())
    assert same.interval == pytest.approx((0, 0), abs=1e-9)


def test_faults_are_refused() -> None:
    with pytest.raises(DataError, match="sides of 5 and 4 values"):
        correlate(X, Y[:4])
    with pytest.raises(DataError, match="NaN or infinite"):
        correlate(X, [*Y[:4], float("nan")])
    with pytest.raises(DataError, match="units of 4 points do not fit 5 values"):
        correlate_grid(X, Y, "abcd", "abcde")
    with pytest.raises(DataError, match="sides of 5 and 5 and 4"):
        correlation_gap(X, Y, X[:4])
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(UsageError, match="no level of confidence"):
            correlate(X, Y, level=level)


def test_ranks_that_all_agree_leave_an_interval_all_the_same():
    found = correlate([1, 2, 3, 4, 5, 6, 7], [1, 4, 9, 16, 25, 36, 49])
    assert found.spearman == pytest.approx(1)
    low, high = found.spearman_interval
    # r = 1 - 6 / (7 * 48) = 0.98214 has artanh 2.3539; √((1 + r²/2) / 4) * 1.96 = 1.1930
    assert (low, high) == (pytest.approx(math.tanh(2.3539 - 1.1930), abs=1e-3), 1)
    low, high = correlate([1, 2, 3, 4, 5], [5, 4, 2, 1.5, 1]).spearman_interval
    assert low == pytest.approx(-1)
    assert -1 < high < 0
