"""What a ladder of tunings shows is what its tunings say."""

from __future__ import annotations

import csv
import io

import pytest
from ladder_toys import failed, ladder, run
from page_reader import Reader
from tune_toys import untold

from lateen.tuning.ladder_report import (
    failures,
    ladder_figure,
    ladder_tables,
    write_ladder_report,
)

GAUSSIAN = "tune.kernel=gaussian+tune.learn_kernel=false"


def rows(found, table=0):
    """The cells of a table; a variant's row, and the one below it."""
    cells = ladder_tables(found)[table].cells()
    return {
        row[0]: (row[1:], below[1:])
        for row, below in zip(cells, [*cells[1:], [""] * 9], strict=True)
    }


def test_each_number_is_a_difference_with_its_interval():
    found = ladder({
        "kernel": [run(knn_encoder=4.2, retrieval=-0.4, left=0.43)],
        "projection": [run(step=1, knn_encoder=9.0, retrieval=-8.0)],
    })  # fmt: skip
    table, took = ladder_tables(found)
    assert [column.name for column in table.columns] == [
        "variant", "10-NN,\nencoder", "10-NN,\nembedding", "zero-shot top-1", "retrieval",
        "MMVP-VLM pairs",
    ]  # fmt: skip
    shown = rows(found)
    assert shown["start"] == (["40.0"] * 5, ["37.0–43.0"] * 5)
    assert shown["n"][0] == ["800"] * 5
    assert shown["chance"][0] == ["10.0"] * 5
    kernel, interval = shown["kernel"]
    assert kernel == ["+4.2 ★", "0.0", "0.0", "−0.4", "0.0"]
    assert interval[0] == "+2.9 to +5.5"
    assert interval[3] == "−1.7 to +0.9"
    assert shown["projection"][0][3] == "−8.0 ★"
    assert table.reference == [1, 2, 3, 5, 7]
    assert "Of 10 differences, about one in twenty" in table.note
    assert took.cells() == [
        ["kernel", "6,091", "43", "0.920", "80 of 94", "8.5"],
        ["projection", "6,091", "40", "0.999", "–", "8.5"],
    ]


def test_of_several_seeds_the_mean_with_its_spread_and_the_ends_of_all_intervals():
    found = ladder({
        "kernel": [run(0, knn_encoder=2, knn_embedding=1.5, retrieval=-3),
                   run(1, knn_encoder=4, knn_embedding=0.5, retrieval=3, step=94),
                   run(2, knn_encoder=3, knn_embedding=1.0, retrieval=0, left=0.1)],
        "projection": [run(step=1, knn_encoder=9)],
    }, (0, 1, 2))  # fmt: skip
    kernel, interval = rows(found)["kernel"]
    assert kernel[0] == "+3.0 ± 1.0 ★"
    assert interval[0] == "+0.7 to +5.3"
    assert kernel[1] == "+1.0 ± 0.5"  # one seed's is told from 0, and two are not
    assert kernel[3] == "0.0 ± 3.0"  # both told, on different sides
    assert rows(found)["projection"][0][0] == "+9.0 ★"
    assert ladder_tables(found)[1].cells()[0] == [
        "kernel", "6,091", "30 ± 17", "0.915 ± 0.008", "80–94 of 94", "8.5",
    ]  # fmt: skip


def test_what_failed_or_is_not_there_yet_is_said():
    found = ladder({"kernel": [run(0), failed(1)], "feature": [failed(0), failed(1)], "50%": []},
                   (0, 1))  # fmt: skip
    assert "kernel (1 of 2 seeds)" in rows(found)
    assert rows(found)["feature"][0] == ["–"] * 5
    took = {row[0]: row[4] for row in ladder_tables(found)[1].cells()}
    assert took == {"kernel (1 of 2 seeds)": "80 of 94", "feature": "failed", "50%": "not yet"}
    assert list(failures(found)) == ["kernel, seed 1", "feature, seed 0", "feature, seed 1"]


def test_a_measure_that_cannot_be_compared_has_no_star():
    odd = run(knn_encoder=5.0)
    odd["after"]["knn_encoder"] = untold("knn_encoder")
    del odd["after"]["mmvp"]
    kernel, interval = rows(ladder({"kernel": [odd]}))["kernel"]
    assert kernel[0] == "+1.0"
    assert interval[0] == ""
    assert kernel[4] == "–"


def test_the_plot_has_a_point_for_each_and_a_line_for_one_number():
    found = ladder({
        "kernel": [run(knn_embedding=3.0, retrieval=-1.0)],
        "feature": [run(knn_embedding=1.0, retrieval=-2.0)],
        "tune.weight=10": [run(knn_embedding=6.0, retrieval=-4.0)],
        "tune.weight=3": [run(knn_embedding=4.0, retrieval=-2.0)],
        "50%": [run(knn_embedding=2.0, retrieval=0.0)],
        GAUSSIAN: [failed()],
    })  # fmt: skip
    figure = ladder_figure(found)
    lines = figure.axes[0].lines
    points = {line.get_label(): line.get_xydata().tolist() for line in lines}
    assert points["weight=10"] == [[6.0, -4.0]]
    assert points["start"] == [[0.0, 0.0]]
    assert "kernel=gaussian" not in str(points)
    # By rising weight; the two shares of the images are no line.
    assert [[3.0, -1.0], [4.0, -2.0], [6.0, -4.0]] in [line.get_xydata().tolist() for line in lines]
    assert sum(len(line.get_xdata()) == 3 for line in lines) == 1
    bars = [path.vertices.tolist() for each in figure.axes[0].collections for path in
            each.get_paths()]  # fmt: skip
    assert any(bar == [[pytest.approx(4.7), -4.0], [pytest.approx(7.3), -4.0]] for bar in bars)
    assert any(bar == [[6.0, pytest.approx(-5.3)], [6.0, pytest.approx(-2.7)]] for bar in bars)


def test_without_captions_there_is_no_plot():
    bare = run()
    for side in ("before", "after"):
        del bare[side]["retrieval"]
    assert ladder_figure(ladder({"kernel": [bare]})) is None


def test_the_page_and_the_csv(tmp_path):
    evil = {**failed(), "error": "<script>alert(1)</script> in /home/me/secret/photos/a.jpg"}
    stopped = {**run(1, knn_encoder=4.2), "stopped": {"step": 90, "why": ["x"]}}
    found = ladder({"kernel": [run(0, knn_encoder=4.2), stopped], "feature": [evil]}, (0, 1))
    write_ladder_report(found, tmp_path)
    read = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "script" not in read.tags
    assert "/home/me" not in read.text
    for words in ("tiny-clip tuned to mobilenet-v2 in 2 ways", "1 of 3 tunings failed",
                  "no linear probe: eval.linear_probe is false", "verdict of seed 1",
                  "kernel, seed 1", "tune.method feature"):  # fmt: skip
        assert words in read.text, words
    assert read.tags.count("svg") == 1
    written = (tmp_path / "ladder.csv").read_text(encoding="utf-8")
    table = list(csv.DictReader(io.StringIO(written)))
    assert [row["variant"] for row in table] == ["kernel", "kernel", "feature"]
    first, second, third = table
    assert [first[f"knn_encoder {part}"] for part in
            ("start", "after", "difference", "low", "high", "told")] == [
        "40.0000", "44.2000", "4.2000", "2.9000", "5.5000", "yes"]  # fmt: skip
    assert (first["kernel start"], first["kernel end"]) == ("0.006", "0.0024")
    assert (second["seed"], second["stopped at"], second["kept step"]) == ("1", "90", "80")
    assert third["error"].startswith("<script>")
    assert third["knn_encoder after"] == ""


def test_a_model_of_a_run_is_called_as_the_run(tmp_path):
    found = {**ladder({"kernel": [run()]}), "model": "runs/flickr/model"}
    write_ladder_report(found, tmp_path)
    title = "<title>flickr tuned to mobilenet-v2</title>"
    assert title in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_measured_and_everything_failed_have_a_page_too(tmp_path):
    bare = {**run(), "before": {}, "after": {}, "drift": {}}
    for at, found in enumerate((ladder({"kernel": [bare]}), ladder({"kernel": [failed()]}))):
        (tmp_path / str(at)).mkdir()
        write_ladder_report(found, tmp_path / str(at))
        [only] = ladder_tables(found)
        assert only.title == "What it took"
