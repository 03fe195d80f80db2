import math

import pytest

from lateen.errors import UsageError
from lateen.report.plots import svg
from lateen.report.step_plots import StepLine, step_plot


def line(label="loss", values=(4.0, 2.0, 1.0), band=()):
    return StepLine(label, [(10 * at, value) for at, value in enumerate(values)], band)


def test_lines_bands_level_and_marks_are_drawn():
    band = [(3.0, 5.0), (1.0, 3.0), (0.5, 2.0)]
    figure = step_plot(
        [line(band=band), line("other", (1.0, 1.0, 1.0))], "Title", "points", marks={"kept": 20},
        level=0,
    )  # fmt: skip
    axes = figure.axes[0]
    drawn = {each.get_label(): each for each in axes.lines}
    assert drawn["loss"].get_xdata().tolist() == [0, 10, 20]
    assert drawn["loss"].get_ydata().tolist() == [4, 2, 1]
    assert list(drawn["kept"].get_xdata()) == [20, 20]
    assert len(axes.collections) == 1
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (corners.min(), corners.max()) == (0.5, 5.0)
    document = svg(figure)
    for words in ("Title", "points", "step", "other", "kept"):
        assert f">{words}<" in document


def test_marks_are_named_after_the_lines():
    figure = step_plot([line(), line("other")], "", "", marks={"kept": 5, "stopped": 9})
    [legend] = figure.legends
    assert [text.get_text() for text in legend.texts] == ["loss", "other", "kept", "stopped"]


def test_on_a_logarithmic_axis_only_positive_values_have_a_place():
    figure = step_plot([line(values=(0.0, 1e-3, 1e1))], "", "", log=True)
    axes = figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.lines[0].get_xdata().tolist() == [10, 20]
    assert "mathdefault" not in svg(figure)


def test_what_is_not_finite_is_left_out_with_its_band():
    band = [(3.0, 5.0), (1.0, 3.0), (0.5, 2.0)]
    axes = step_plot([line(values=(4.0, math.nan, 1.0), band=band)], "", "").axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0, 20]


@pytest.mark.parametrize("lines", [[], [line(values=(math.nan,))], [line()] * 6])
def test_nothing_to_plot_or_too_much_is_an_error(lines):
    with pytest.raises(UsageError, match="plot"):
        step_plot(lines, "", "")
