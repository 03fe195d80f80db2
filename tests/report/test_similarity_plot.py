import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lateen.errors import UsageError
from lateen.report.plots import svg
from lateen.report.similarity_plot import similarity_plot


def labels(document: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(document).iter() if node.tag.endswith("text")]


def test_each_model_has_a_panel_with_its_name_median_and_quartiles():
    figure = similarity_plot({"ours": [0.2, 0.4, 0.6, 0.8, 1.0], "CLIP": [0.9, 0.95, 1.0]})
    shown = labels(svg(figure))
    assert "ours" in shown
    assert "median 0.60, quartiles 0.40 to 0.80, 5 pairs" in shown
    assert "median 0.95, quartiles 0.93 to 0.97, 3 pairs" in shown
    assert "image–image cosine within a pair" in shown
    assert len(figure.axes) == 2


def test_bars_are_percent_of_pairs_and_none_is_lost():
    values = [-0.31, 0.0, 0.5, 0.99, 1.0, 1.0 + 1e-6]
    axes = similarity_plot({"ours": values}).axes[0]
    assert sum(bar.get_height() for bar in axes.patches[:36]) == pytest.approx(100)
    assert axes.get_xlim() == pytest.approx((-0.35, 1))


def test_all_models_share_the_axis_so_that_shapes_can_be_compared():
    spread = np.random.default_rng(0).uniform(0.1, 0.9, 135)
    one, two = similarity_plot({"a": spread.tolist(), "b": [0.99] * 135}).axes
    assert one.get_xlim() == two.get_xlim()
    assert one.get_ylim() == two.get_ylim()
    assert svg(similarity_plot({"b": [1.0] * 3}))  # all at the end of the axis


def test_long_names_and_numbers_stand_clear_of_each_other_and_inside():
    name = "its encoder, mobilenet-v2 + vit-tiny (pooler, cls+mean) and still longer than that is"
    figure = similarity_plot({"a": [-0.9, -0.5], name: [0.1, 0.2]})
    for axes in figure.axes:
        title, numbers = axes._left_title.get_window_extent(), axes.texts[0].get_window_extent()
        assert not title.overlaps(numbers)
        assert 0 <= title.x0 < title.x1 <= figure.bbox.x1
    assert figure.axes[0].texts[0].get_text().startswith("median −0.70")


def test_nothing_to_plot_stops():
    for cosines in ({}, {"a": []}):
        with pytest.raises(UsageError, match="nothing to plot"):
            similarity_plot(cosines)
