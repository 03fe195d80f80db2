import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

from lateen.errors import UsageError
from lateen.report import LayerScore, Page, Point, heat_map, layer_profile, scatter_plot
from lateen.report.plots import svg

NOTE = "Pearson r = 0.90 [0.50, 0.98], n = 3"


def labels(document: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(document).iter() if node.tag.endswith("text")]


def cloud(count: int) -> list[Point]:
    return [Point(f"encoder {i}", (37 * i) % 101, (53 * i) % 97) for i in range(count)]


def scatter(points: list[Point], **more):
    return scatter_plot(points, "kNN (%)", "mean R@10 (%)", NOTE, **more)


def test_a_scatter_names_axes_points_and_the_correlation_as_text():
    shown = labels(svg(scatter([Point("a", 1, 3), Point("b", 2, 5), Point("c", 3, 7)])))
    for label in ("a", "b", "c", "kNN (%)", "mean R@10 (%)", NOTE):
        assert label in shown


def test_the_line_is_that_of_least_squares():
    line, *_ = scatter([Point("a", 0, 0), Point("b", 1, 2), Point("c", 2, 1)]).axes[0].lines
    assert list(line.get_xdata()) == [0, 2]
    assert list(line.get_ydata()) == pytest.approx([0.5, 1.5])  # worked by hand: 0.5 + 0.5 x


def test_no_line_without_a_correlation_and_none_through_points_above_each_other():
    points = [Point("a", 0, 0), Point("b", 1, 2)]
    assert {line.get_linestyle() for line in scatter(points, line=False).axes[0].lines} == {"None"}
    above = scatter([Point("a", 1, 0), Point("b", 1, 2)]).axes[0].lines
    assert {line.get_linestyle() for line in above} == {"None"}


@pytest.mark.parametrize("count", [5, 25, 60])
def test_labels_cover_neither_each_other_nor_points_and_stay_inside(count):
    axes = scatter(cloud(count)).axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    marks = axes.transData.transform([(p.x, p.y) for p in cloud(count)])
    assert len(boxes) == min(count, 6)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.contains(x, y) for box in boxes for x, y in marks)
    frame = axes.get_window_extent()
    assert all(frame.containsx(x) for box in boxes for x in (box.x0 + 1, box.x1 - 1))
    assert all(frame.containsy(y) for box in boxes for y in (box.y0 + 1, box.y1 - 1))


def test_points_that_all_lie_in_one_place_leave_labels_out():
    axes = scatter([Point(f"the encoder {i}", 1.0, 1.0) for i in range(40)]).axes[0]
    assert 0 < len(axes.texts) < 40


def test_the_highest_point_is_named_and_those_farthest_from_the_line():
    points = [Point(f"p{i}", i, i) for i in range(20)]
    points[7] = points[7]._replace(y=0.0)
    points[12] = points[12]._replace(y=18.5)
    named = {text.get_text() for text in scatter(points).axes[0].texts}
    assert {"p19", "p7", "p12"} <= named
    assert len(named) == 6


def test_groups_have_a_colour_and_mark_each_and_beyond_ten_the_smaller_share_one():
    few = [p._replace(group=f"encoder {i % 10}") for i, p in enumerate(cloud(20))]
    figure = scatter(few)
    names = [t.get_text() for t in figure.legends[0].texts]
    assert names == [f"encoder {i}" for i in range(10)]
    drawn = [line for line in figure.axes[0].lines if line.get_label() in names]
    looks = {(line.get_color(), line.get_marker(), line.get_mfc()) for line in drawn}
    assert len(looks) == 10
    many = [p._replace(group=f"encoder {i % 12}") for i, p in enumerate(cloud(30))]
    names = [t.get_text() for t in scatter(many).legends[0].texts]
    assert len(names) == 10
    assert "3 others" in names
    assert scatter(cloud(12)).legends == []


def test_points_have_their_intervals_as_bars():
    points = [Point("a", 1, 3, interval=(2, 5)), Point("b", 2, 5), Point("c", 3, 7)]
    [bars] = scatter(points).axes[0].collections
    assert [segment.tolist() for segment in bars.get_segments()] == [[[1, 2], [1, 5]]]


def test_points_aside_are_drawn_and_named_but_not_fitted():
    fitted = [Point("a", 0, 0, "encoder"), Point("b", 1, 1, "encoder")]
    aside = Point("c", 9, 0, "baseline", fitted=False)
    figure = scatter([aside, *fitted])
    line, encoders, other, *_ = figure.axes[0].lines
    assert list(line.get_xdata()) == [0, 1]
    assert list(line.get_ydata()) == [0, 1]
    assert list(encoders.get_xdata()) == [0, 1]
    assert list(other.get_xdata()) == [9]
    assert [text.get_text() for text in figure.legends[0].texts] == ["encoder", "baseline"]


def test_a_heat_map_has_the_best_rows_and_columns_first_and_bold_for_the_best():
    values = {
        ("u", "s"): 1.0,
        ("u", "t"): 30.0,
        ("v", "s"): 20.0,
        ("v", "t"): 45.25,
        ("w", "s"): 5.0,
    }
    figure = heat_map(values, label="R@10 (%)")
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["v", "u", "w"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["t", "s"]
    assert [t.get_text() for t in axes.texts] == ["45.2", "20.0", "30.0", "1.0", "–", "5.0"]
    assert [t.get_text() for t in axes.texts if t.get_weight() == "bold"] == ["45.2"]
    assert axes.yaxis_inverted()
    assert "R@10 (%)" in labels(svg(figure))


def test_a_large_heat_map_has_a_colour_bar_in_place_of_numbers():
    values = {(f"row {i}", f"column {j}"): float(i + j) for i in range(41) for j in range(3)}
    figure = heat_map(values, label="R@10 (%)")
    assert len(figure.axes) == 2
    assert not figure.axes[0].texts
    few = {pair: value for pair, value in values.items() if pair[0] != "row 40"}
    assert len(heat_map(few, label="R@10 (%)").axes) == 1


def test_equal_values_and_a_single_value_are_drawn():
    svg(heat_map({("a", "x"): 3.0, ("b", "x"): 3.0}, label="R@10 (%)"))
    svg(heat_map({("a", "x"): 0.0}, label="R@10 (%)"))


def test_a_layer_profile_shows_values_intervals_and_the_output_last():
    scores = [LayerScore(None, 30, 28, 33), LayerScore(3, 10, 9, 12), LayerScore(6, 20, 18, 21)]
    axes = layer_profile({"vision layers": {"dino, cls": scores}}, ylabel="R@10 (%)").axes[0]
    line = axes.lines[0]
    assert list(line.get_xdata()) == [3, 6, 9]  # the output as far on as the layers are apart
    assert list(line.get_ydata()) == [10, 20, 30]
    bars = [sorted(y for _, y in path) for path in axes.collections[0].get_segments()]
    assert bars == [[9, 12], [18, 21], [28, 33]]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["3", "6", "output"]


def test_of_many_lines_the_best_are_shown_and_the_title_says_so():
    lines = {f"encoder {i}": [LayerScore(1, i, i, i), LayerScore(2, i, i, i)] for i in range(15)}
    axes = layer_profile({"vision layers": lines}, ylabel="R@10 (%)").axes[0]
    assert axes.get_title(loc="left") == "vision layers (best 12 of 15)"
    shown = [t.get_text() for t in axes.get_legend().texts]
    assert shown == [f"encoder {i}" for i in range(14, 2, -1)]


def test_deep_encoders_have_ticks_that_can_be_read():
    scores = [LayerScore(layer, layer, layer, layer) for layer in range(49)]
    axes = layer_profile({"deep": {"a": scores}}, ylabel="R@10 (%)").axes[0]
    ticks = [t.get_text() for t in axes.get_xticklabels()]
    assert len(ticks) <= 13
    assert ticks[-1] == "48"


def test_nothing_is_refused():
    with pytest.raises(UsageError, match="nothing to plot"):
        scatter([])
    with pytest.raises(UsageError, match="nothing to plot"):
        heat_map({("a", "b"): None}, label="R@10 (%)")
    with pytest.raises(UsageError, match="nothing to plot"):
        layer_profile({"vision layers": {}}, ylabel="R@10 (%)")


@pytest.mark.parametrize("name", ["<b>bold</b> & \"'", "$x_1$", "狗 🐶", "\x1b[31m", "x" * 60])
def test_hostile_labels_are_text_and_no_longer_than_there_is_room(name):
    scores = [LayerScore(1, 1, 0, 2), LayerScore(2, 2, 1, 3)]
    figures = [
        scatter([Point(name, 1, 1, name), Point("b", 2, 2, "b")]),
        heat_map({(name, name): 1.0, ("b", name): 2.0}, label="R@10 (%)"),
        layer_profile({name: {name: scores}}, ylabel="R@10 (%)"),
    ]
    for figure in figures:
        shown = labels(svg(figure))
        assert any(text[:4] == name[:4].replace("\x1b", "�") for text in shown)
        assert not any(len(text) > 56 for text in shown)


def test_all_plots_take_the_colours_of_the_page():
    scores = [LayerScore(1, 1, 0, 2), LayerScore(2, 2, 1, 3)]
    grouped = [p._replace(group=f"text {i % 6}") for i, p in enumerate(cloud(12))]
    for figure in (
        scatter(grouped),
        heat_map({("a", "x"): 1.0, ("b", "x"): 2.0}, label="R@10 (%)"),
        layer_profile({"layers": {"a": scores}}, ylabel="R@10 (%)"),
    ):
        document = Page("p").figure(figure).html()
        drawn = document[document.index("<svg") : document.index("</svg>")]
        assert not re.findall(r"<[^>]*#[0-9a-f]{6}[^>]*>", drawn.replace("<svg", "", 1))


def test_the_same_points_give_the_same_plot():
    assert svg(scatter(cloud(30))) == svg(scatter(cloud(30)))
