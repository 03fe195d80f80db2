import re
from pathlib import Path
from typing import Any

import pytest
from page_reader import Reader
from PIL import Image

from assessment.made_up import candidate, grid, results
from lateen.assessment.page import assessment_figures, write_assessment_page

EVIL = '<b>"bold"</b><script>alert(1)</script> & ' + "x" * 40
SCATTERS = {f"scatter-{m}.png" for m in ("knn", "linear-probe", "mutual-knn", "cka")}


def page(found: dict[str, Any], folder: Path) -> Reader:
    return Reader(write_assessment_page(found, folder).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the page of ``grid()`` is."""
    out = tmp_path_factory.mktemp("page") / "out"
    write_assessment_page(grid(), out)
    return out


@pytest.fixture
def document(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_has_every_part_and_its_plots_are_beside_it(folder, document):
    read = Reader(document)
    for heading in ("Findings", "The best pairs", "Every pair", "What predicts alignment",
                    "Layers", "Encoders",
                    "What each number is", "Conditions", "Remarks"):  # fmt: skip
        assert f"\n{heading}\n" in read.text
    assert {path.name for path in folder.iterdir()} == {
        *SCATTERS, "heat-map.png", "layers.png", "report.html",
    }  # fmt: skip
    assert read.tags.count("svg") == 6
    with Image.open(folder / "heat-map.png") as image:
        assert image.width > 800


def test_the_page_shows_all_rows_and_what_they_were_measured_with(document):
    found = grid()
    read = Reader(document)
    assert all(f"\n{row['rank']}\n" in read.text for row in found["rows"])
    for said in ("6,000 images", "1,000 images and 5,000 captions", "10 nearest neighbours",
                 "800 labelled images of 10 classes", "Guessing scores 1.0 %", "torch 2.13.0",
                 "name linear, dim 2048", "epochs 50, lr 0.001", "ab12ab12ab12ab12"):  # fmt: skip
        assert said in read.text


def test_the_headlines_carry_intervals(document):
    found = grid()
    text = Reader(document).text
    best = found["rows"][0]["probe"]
    assert f"{best['R@10']:.1f} %\nhighest mean R@10" in text
    assert "{:.1f} to {:.1f}".format(*best["interval"]) in text
    assert re.search(r"\nr of .* with probing, over pairs\n\[.*\], n = 54\n", text)


def test_without_labels_there_is_no_plot_of_them_and_the_page_says_why(tmp_path):
    text = page(grid(labelled=False), tmp_path).text
    assert not list(tmp_path.glob("scatter-knn.png"))
    assert not list(tmp_path.glob("scatter-linear-probe.png"))
    assert "No kNN accuracy for 60 of 60 pairs: there are no labelled images." in text
    assert "Not measured: that needs labelled images." in text
    assert "weighted vote" not in text


def test_one_row_has_a_page_without_plots(tmp_path):
    read = page(results([candidate("a")], [candidate("b")]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert "is the only pair" in read.text
    assert "tied with the best" not in read.text


def test_one_text_encoder_has_scatters_but_no_grid():
    found = results([candidate(name) for name in "abcde"], [candidate("t")])
    figures = assessment_figures(found)
    assert set(figures) == SCATTERS
    assert {t.get_text() for t in figures["scatter-cka.png"].axes[0].texts} <= set("abcde")


def test_one_vision_encoder_and_layers_of_a_text_encoder_have_a_profile():
    layers = [1, 2, 3, 4, None]
    found = results([candidate("v")], [candidate("t", layer) for layer in layers])
    figures = assessment_figures(found)
    assert set(figures) == {"scatter-mutual-knn.png", "scatter-cka.png", "layers.png"}
    axes = figures["layers.png"].axes[0]
    assert axes.get_title(loc="left") == "text layers, with v"
    probes = {row["text_layer"]: row["probe"]["R@10"] for row in found["rows"]}
    assert list(axes.lines[0].get_ydata()) == [probes[layer] for layer in layers]


def test_layers_are_shown_with_the_best_encoder_of_the_other_side():
    found = results(
        [candidate("v", 1), candidate("v", 2), candidate("w")], [candidate("s"), candidate("t")]
    )
    best = max(found["text"], key=lambda one: one["mean_probe"])["label"]
    axes = assessment_figures(found)["layers.png"].axes[0]
    assert axes.get_title(loc="left") == f"vision layers, with {best}"
    assert [t.get_text() for t in axes.get_legend().texts] == ["v, pooler"]


def test_few_points_are_drawn_without_a_line_and_the_title_says_why():
    found = results([candidate(name) for name in "abc"], [candidate("t")])
    axes = assessment_figures(found)["scatter-knn.png"].axes[0]
    assert axes.get_title(loc="left") == "no correlation: 3 points are fewer than 4"
    assert {line.get_linestyle() for line in axes.lines} == {"None"}


def test_the_title_of_a_scatter_is_the_correlation_with_interval_and_n():
    title = assessment_figures(grid())["scatter-knn.png"].axes[0].get_title(loc="left")
    assert re.fullmatch(r"Pearson r = \S+ \[\S+, \S+\], n = 9 \(95 % interval\)", title)


def test_missing_metrics_are_points_left_out_and_remarks():
    found = grid()
    for row in found["rows"][:2]:
        row |= {"cka": None, "notes": {"cka": "constant features"}}
    axes = assessment_figures(found)["scatter-cka.png"].axes[0]
    drawn = [line for line in axes.lines if line.get_marker() != "None"]
    assert sum(len(line.get_xdata()) for line in drawn) == 58


def test_remarks_name_what_is_missing_left_out_and_duplicated(tmp_path):
    found = grid()
    for row in found["rows"][:2]:
        row |= {"svcca": None, "notes": {"svcca": "too few rows for 300 directions"}}
    text = page(found, tmp_path).text
    assert "No SVCCA for 2 of 60 pairs: too few rows for 300 directions." in text
    assert "2 samples" in text
    assert "Of those judged, 0 images and 3 texts have the same features as another one" in text


def test_knn_is_shown_at_the_depth_that_ranks():
    found = grid()
    for one in found["vision"]:
        one["knn"] = {"20": one["knn"]["20"], "5": 50.0}
    axes = assessment_figures(found)["scatter-knn.png"].axes[0]
    assert axes.get_xlabel() == "kNN accuracy (%), k = 20"


def test_baselines_are_drawn_but_no_line_or_correlation_counts_them():
    found = grid()
    figures = assessment_figures(found)
    for name, kept, aside in (("knn", 9, 1), ("cka", 54, 6)):
        axes = figures[f"scatter-{name}.png"].axes[0]
        assert f"n = {kept} " in axes.get_title(loc="left")
        drawn = {line.get_label(): line for line in axes.lines if line.get_marker() != "None"}
        assert len(drawn.pop("baseline, not counted").get_xdata()) == aside
        assert sum(len(line.get_xdata()) for line in drawn.values()) == kept
        fitted = [x for line in drawn.values() for x in line.get_xdata()]
        assert list(axes.lines[0].get_xdata()) == [min(fitted), max(fitted)]


def test_baseline_texts_count_for_no_point_of_a_vision_encoder():
    vision = [candidate(name) for name in "abcde"]
    found = results(vision, [candidate("t"), candidate("random", baseline=True)])
    axes = assessment_figures(found)["scatter-knn.png"].axes[0]
    with_t = sorted(r["probe"]["R@10"] for r in found["rows"] if r["text"] == "t")
    points = [y for line in axes.lines if line.get_marker() != "None" for y in line.get_ydata()]
    assert sorted(points) == pytest.approx(with_t)


def test_with_one_encoder_on_a_side_pairs_have_the_correlation_of_the_other_side():
    found = results([candidate(name) for name in "abcde"], [candidate("t")])
    assert {c["over"] for c in found["correlations"]} == {"vision"}
    title = assessment_figures(found)["scatter-cka.png"].axes[0].get_title(loc="left")
    assert re.match(r"Pearson r = .*, n = 5", title)


@pytest.mark.parametrize("labelled", [True, False])
def test_hostile_names_are_text_everywhere(tmp_path, labelled):
    vision = [candidate(EVIL), candidate("$x_1$ [red]"), candidate("b\udce9", 3)]
    found = results(vision, [candidate(EVIL), candidate("狗 🐶")], labelled=labelled)
    read = page(found, tmp_path)
    assert "script" not in read.tags
    assert "b" not in read.tags[read.tags.index("table") :]
    assert EVIL in read.text


def test_the_page_needs_no_network(document):
    assert not re.findall(r"https?://", document)
    assert set(re.findall(r'(?:src|href)="(.)', document)) <= {"#"}


def test_the_same_results_give_the_same_page_but_for_its_date(tmp_path, monkeypatch):
    monkeypatch.setattr("lateen.assessment.page.made_with", lambda: {"written": "now"})
    small = results([candidate(name) for name in "abcd"], [candidate("t")])
    pages = [write_assessment_page(small, tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]
