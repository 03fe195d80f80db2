import math

import pytest

from lateen.errors import UsageError
from lateen.report.plots import svg
from lateen.report.trade_plot import Trade, trade_plot


def drawn(trades, lines=()):
    return trade_plot(trades, "title", "gained", "lost", lines).axes[0]


def test_points_are_where_they_were_measured_and_told_apart():
    axes = drawn([Trade("one", 1, -2), Trade("two", 3, -4)])
    points = {line.get_label(): line for line in axes.lines}
    assert points["one"].get_xydata().tolist() == [[1, -2]]
    assert points["two"].get_xydata().tolist() == [[3, -4]]
    assert points["one"].get_marker() != points["two"].get_marker()
    assert points["one"].get_color() != points["two"].get_color()
    assert not axes.collections  # no interval, no bar


def test_a_line_joins_its_points_in_the_given_order_without_those_that_have_no_place():
    trades = [Trade("a", 1, 1), Trade("b", math.nan, 1), Trade("c", 3, 0), Trade("d", 2, 2)]
    axes = drawn(trades, [[3, 1, 2]])
    assert [[2, 2], [3, 0]] in [line.get_xydata().tolist() for line in axes.lines]
    assert "b" not in [line.get_label() for line in axes.lines]


def test_the_start_is_in_view():
    axes = drawn([Trade("far", 50, -40)])
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < 0 < 50 < right
    assert low < -40 < 0 < high


def test_many_ways_and_names_from_outside_are_drawn():
    trades = [Trade(f"<b>{i}</b> $x_{i}$", i, -i, (i - 1, i + 1), (-i - 1, -i + 1))
              for i in range(25)]  # fmt: skip
    assert "&lt;b&gt;24" in svg(trade_plot(trades, "title", "gained", "lost"))


def test_twenty_ways_are_told_apart():
    axes = drawn([Trade(f"way {i}", i + 1, i) for i in range(20)])
    marks = {(line.get_color(), line.get_marker(), line.get_markerfacecolor())
             for line in axes.lines if line.get_label().startswith("way")}  # fmt: skip
    assert len(marks) == 20


def test_nothing_to_plot_is_an_error():
    with pytest.raises(UsageError, match="nothing to plot"):
        drawn([Trade("a", math.nan, 1)])
