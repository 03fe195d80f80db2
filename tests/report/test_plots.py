import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from PIL import Image

from lateen.errors import UsageError
from lateen.report.plots import (
    bar_chart,
    ladder_figures,
    ladder_plot,
    save_figures,
    save_plot,
    svg,
    training_curve,
)


def metrics(steps: int = 20, first: float = 10.0, last: float = 1.0) -> list[dict]:
    rows: list[dict] = []
    for step in range(1, steps + 1):
        loss = first + (last - first) * step / steps
        rows.append({"step": step, "epoch": step / 4, "loss": loss, "lr": 1e-3, "logit_scale": 20})
        if step % 5 == 0:
            recall = {"R@1": 1.0, "R@5": 2.0, "R@10": 50.0 + step, "median_rank": 9}
            both = {"text_to_image": recall, "image_to_text": {**recall, "R@10": 60.0 + step}}
            rows.append({"step": step, "validation": both})
    return rows


def labels(document: str) -> list[str]:
    return [node.text or "" for node in ET.fromstring(document).iter() if node.tag.endswith("text")]


def test_the_curve_names_axes_units_and_directions_as_text():
    shown = labels(svg(training_curve(metrics())))
    for label in ("optimiser step", "loss, log scale", "R@10 (%)", "text → image", "image → text"):
        assert label in shown


def test_the_curves_are_the_rows():
    loss, recall = training_curve(metrics()).axes
    assert loss.lines[0].get_xdata()[[0, -1]].tolist() == [1, 20]
    assert loss.lines[0].get_ydata()[-1] == pytest.approx(1.0)
    assert recall.lines[0].get_xdata().tolist() == [5, 10, 15, 20]
    assert recall.lines[0].get_ydata().tolist() == [55, 60, 65, 70]
    assert recall.lines[1].get_ydata().tolist() == [65, 70, 75, 80]


def test_loss_is_linear_where_it_falls_little_or_is_not_positive():
    assert training_curve(metrics(first=2.0)).axes[0].get_ylabel() == "loss"
    assert training_curve(metrics(last=-1.0)).axes[0].get_ylabel() == "loss"


def test_a_panel_without_rows_is_left_out():
    rows = metrics()
    only_loss = training_curve([row for row in rows if "loss" in row])
    only_validation = training_curve([row for row in rows if "loss" not in row])
    assert [axes.get_title(loc="left") for axes in only_loss.axes] == ["training"]
    assert [axes.get_title(loc="left") for axes in only_validation.axes] == ["validation"]


def test_no_rows_are_refused():
    with pytest.raises(UsageError, match="nothing to plot"):
        training_curve([{"step": 1, "lr": 1e-3}])
    with pytest.raises(UsageError, match="nothing to plot"):
        bar_chart({})


def test_a_long_run_is_thinned_to_means_of_neighbours():
    rows = [{"step": step, "loss": float(step % 2)} for step in range(100_000)]
    line = training_curve(rows).axes[0].lines[0]
    assert len(line.get_xdata()) == 400
    assert line.get_ydata().tolist() == pytest.approx([0.5] * 400)


def test_a_diverged_run_and_a_run_of_one_step_are_drawn():
    svg(training_curve([{"step": s, "loss": float("nan")} for s in range(3)]))
    svg(training_curve([{"step": 1, "loss": 2.0}]))


def test_bars_are_sorted_and_carry_class_value_unit_and_chance():
    figure = bar_chart({"gas pump": 76.25, "church": 97.5}, chance=50.0)
    shown = labels(svg(figure))
    assert [label for label in shown if label in ("church", "gas pump")] == ["church", "gas pump"]
    for label in ("97.5", "76.2", "top-1 accuracy (%)", "chance 50.0"):
        assert label in shown
    assert [bar.get_width() for bar in figure.axes[0].patches] == [97.5, 76.25]


def test_many_classes_show_both_ends_and_how_many_lie_between():
    shown = labels(svg(bar_chart({f"class {n}": float(n) for n in range(100)}, limit=4)))
    for label in ("class 99", "class 98", "… 96 more …", "class 1", "class 0"):
        assert label in shown
    assert "class 97" not in shown


def test_class_names_of_any_kind_are_text_and_never_markup():
    names = ["<script>alert(1)</script>", "$x_1$ & co", "降落伞 🐶", "भाषा", "x" * 60, "a\nb\x07"]
    shown = labels(svg(bar_chart(dict.fromkeys(names, 50.0))))
    for label in (*names[:4], "x" * 21 + "…" + "x" * 10, "a b�"):
        assert label in shown


def test_the_same_rows_give_the_same_bytes():
    assert svg(training_curve(metrics())) == svg(training_curve(metrics()))
    figure = bar_chart({"a": 1.0})
    assert svg(figure) == svg(figure)


def test_svg_loads_nothing():
    references = re.findall(r'(?:href|src)="([^"]*)"', svg(training_curve(metrics())))
    assert references
    assert all(reference.startswith("#") for reference in references)


def test_plots_leave_the_settings_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    svg(training_curve(metrics()))
    assert dict(matplotlib.rcParams) == before


def test_saving_follows_the_suffix(tmp_path):
    figure = training_curve(metrics())
    save_plot(figure, tmp_path / "curve.svg")
    save_plot(figure, tmp_path / "curve.png")
    assert (tmp_path / "curve.svg").read_text(encoding="utf-8") == svg(figure)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1840, 620)
    with pytest.raises(UsageError, match=r"curve\.gif"):
        save_plot(figure, tmp_path / "curve.gif")
    assert {path.name for path in tmp_path.iterdir()} == {"curve.svg", "curve.png"}


def test_figures_of_a_paper_are_svg_and_pdf_and_the_same_again(tmp_path):
    figures = {"curve": training_curve(metrics()), "v1.0": bar_chart({"a": 1.0})}
    written = save_figures(figures, tmp_path / "figures")
    assert [path.name for path in written] == ["curve.svg", "curve.pdf", "v1.0.svg", "v1.0.pdf"]
    assert written[0].read_text(encoding="utf-8") == svg(figures["curve"])
    assert written[1].read_bytes().startswith(b"%PDF-")
    assert b"/Type3" not in written[1].read_bytes()
    first = [path.read_bytes() for path in written]
    save_figures(figures, tmp_path / "figures")
    assert [path.read_bytes() for path in written] == first


LADDER = {
    "linear": {"text_to_image": [10.0, 14.0], "image_to_text": [20.0, 20.0]},
    "GLU × 8": {"text_to_image": [30.0, 31.0], "image_to_text": [40.0, 42.0]},
}


def test_a_ladder_shows_every_seed_and_the_mean_of_each_rung():
    figure = ladder_plot(LADDER, {"linear": {"text_to_image": 11.1}, "GLU × 8": {}})
    measured, published = figure.axes
    shown = [line.get_xdata().tolist() for line in measured.lines if line.get_marker() == "o"]
    assert shown == [[10, 14], [12], [20, 20], [20], [30, 31], [30.5], [40, 42], [41]]
    assert [line.get_xdata().tolist() for line in published.lines] == [[11.1]]
    assert measured.yaxis_inverted()
    written = labels(svg(figure))
    for label in ("linear", "GLU × 8", "R@1 (%)", "measured here", "published, on other data"):
        assert label in written
    assert written.count("text → image") == 1


def test_the_panels_of_a_ladder_alone_name_rungs_and_directions_each():
    figures = ladder_figures(LADDER, {"linear": {}, "GLU × 8": {"image_to_text": 40.0}})
    assert [len(figure.axes) for figure in figures] == [1, 1]
    for figure, title in zip(figures, ("measured here", "published, on other data"), strict=True):
        assert figure.axes[0].get_title(loc="left") == title
        assert {"linear", "GLU × 8", "image → text"} <= set(labels(svg(figure)))


def test_a_ladder_of_one_seed_without_published_numbers_has_one_panel():
    one = {name: {way: seeds[:1] for way, seeds in ways.items()} for name, ways in LADDER.items()}
    assert len(ladder_plot(one, {"linear": {}}).axes) == 1
    with pytest.raises(UsageError, match="nothing to plot"):
        ladder_plot({})
