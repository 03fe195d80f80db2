import copy
import csv
import io
import re
from typing import Any

import pytest
from rich.console import Console

from assessment.made_up import candidate, grid, results
from lateen.assessment.tables import (
    assessment_tables,
    correlations_table,
    encoder_tables,
    findings,
    leaderboard_csv,
    leaderboard_table,
)


def on_terminal(table: Any, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(table.rich())
    return stream.getvalue()


def correlation(x: str, r: float | None, low: float = 0, high: float = 0, **more: Any) -> Any:
    interval = None if r is None else [low, high]
    entry = {"x": x, "y": "probe", "over": "vision", "n": 9, "pearson": r, "reason": None,
             "pearson_interval": interval, "spearman": r,
             "spearman_interval": interval}  # fmt: skip
    return {**entry, **more}


def with_correlations(*correlations: Any) -> dict[str, Any]:
    return {**grid(), "correlations": list(correlations)}


def with_gap(difference: float | None, interval: Any, reason: str | None = None) -> str:
    gap = {"better": "knn", "than": "linear_probe", "over": "vision", "n": 10,
           "difference": difference, "interval": interval, "reason": reason}  # fmt: skip
    return findings({**grid(), "gaps": [gap]})[-1]


def tie(found: dict[str, Any], *ranks: int) -> dict[str, Any]:
    for row in found["rows"]:
        row["ties_with_best"] = row["rank"] in ranks
    return found


def test_the_leaderboard_has_every_row_in_order_with_its_numbers():
    found = grid()
    table = leaderboard_table(found)
    assert [column.name.replace("\n", " ") for column in table.columns if column.name] == [
        "rank", "vision", "text", "R@10", "interval", "R@1", "R@5", "CKA", "unbiased CKA",
        "mutual kNN", "CKNNA", "SVCCA", "cycle kNN", "kNN", "linear probe",
    ]  # fmt: skip
    assert len(table.rows) == 60
    first, row = leaderboard_table(found, width=100).cells()[0], found["rows"][0]
    low, high = row["probe"]["interval"]
    assert first[0] == "1"
    assert first[-7:] == [
        f"{row['probe']['R@10']:.1f}", f"{low:.1f}–{high:.1f}", f"{row['probe']['R@1']:.1f}",
        f"{row['cka']:.2f}", f"{row['mutual_knn']:.2f}", f"{row['knn']:.1f}",
        f"{row['linear_probe']:.1f}",
    ]  # fmt: skip
    assert "1,000 images and 5,000 captions" in table.note
    assert "95 %" in table.note


def test_the_best_and_those_tied_with_it_are_marked_and_the_note_says_how():
    table = leaderboard_table(tie(grid(), 2, 4))
    assert [row[1] for row in table.cells()[:5]] == ["●", "○", "", "○", ""]
    assert "○ tied with it: the paired 95 % interval of the difference includes 0" in table.note
    assert "○" not in leaderboard_table(tie(grid())).note


def test_columns_that_say_nothing_are_left_out():
    found = results([candidate("a"), candidate("b")], [candidate("t")], labelled=False)
    for row in found["rows"]:
        row |= dict.fromkeys(("mutual_knn", "cknna", "svcca", "cycle_knn", "cka_unbiased"))
    names = [column.name for column in leaderboard_table(tie(found), width=100).columns]
    assert names == ["rank", "vision", "text", "R@10", "interval", "R@1", "CKA"]


def test_candidates_are_called_by_their_labels_which_tell_layers_apart():
    vision = [candidate("a", 3), candidate("a"), {**candidate("b"), "pooling": "mean"}]
    found = results(vision, [candidate("t")])
    shown = {row[1] for row in leaderboard_table(found).cells()}
    assert shown == {row["vision_label"] for row in found["rows"]}
    assert len(shown) == 3


def test_the_terminal_shows_only_so_many_rows_and_says_where_the_others_are():
    table = leaderboard_table(grid(), limit=8)
    assert len(table.rows) == 8
    assert table.note.startswith("… 52 more in leaderboard.csv.")
    assert "more in" not in leaderboard_table(grid(), limit=60).note


def test_no_number_is_broken_at_the_width_of_a_pipe():
    found = tie(grid(), 2)
    shown = on_terminal(leaderboard_table(found, limit=8, width=100))
    for row in found["rows"][:8]:
        low, high = row["probe"]["interval"]
        assert f"{row['probe']['R@10']:.1f}   {low:.1f}–{high:.1f}" in shown


def test_a_baseline_is_called_one():
    cells = leaderboard_table(grid()).cells()
    assert sum("pixels (baseline)" in row for row in cells) == 6
    assert "pixels (baseline)" in encoder_tables(grid())[0].cells()[-1]


def test_missing_metrics_are_dashes():
    found = grid()
    found["rows"][0]["cka"] = None
    assert leaderboard_table(found, width=100).cells()[0][-4] == "–"


def test_correlations_have_interval_and_n_or_a_reason():
    table = correlations_table(
        with_correlations(
            correlation("knn", 0.914, 0.5, 0.9871),
            correlation("cka", -0.4, -0.9, 0.125, over="pairs", n=1200),
            correlation("linear_probe", None, n=3, reason="3 are too few"),
        )
    )
    assert [column.name for column in table.columns][-1] == "no correlation because"
    assert table.cells() == [
        ["kNN accuracy", "vision encoders", "9", "0.91 [0.50, 0.99]", "0.91 [0.50, 0.99]", ""],
        ["CKA", "pairs", "1,200", "−0.40 [−0.90, 0.12]", "−0.40 [−0.90, 0.12]", ""],
        ["linear-probe accuracy", "vision encoders", "3", "–", "–", "3 are too few"],
    ]


def test_a_correlation_without_its_interval_is_never_shown():
    bare = correlation("knn", 0.914, pearson_interval=None, spearman_interval=None)
    found = with_correlations(bare)
    assert "0.91" not in on_terminal(correlations_table(found))
    assert not any("0.91" in sentence for sentence in findings(found))


def test_a_strong_correlation_is_not_rounded_to_one():
    table = correlations_table(with_correlations(correlation("knn", 0.9972, 0.98, 0.9991)))
    assert table.cells()[0][3] == "0.997 [0.98, 0.999]"


def test_the_csv_has_every_row_and_number_as_it_is():
    found = tie(grid(), 2)
    found["rows"][3]["svcca"] = None
    found["rows"][3]["notes"] = {"svcca": "too few,\nrows"}
    rows = list(csv.DictReader(io.StringIO(leaderboard_csv(found))))
    assert len(rows) == 60
    for read, row in zip(rows, found["rows"], strict=True):
        for value, exact in (
            (read["probe.R@10"], row["probe"]["R@10"]),
            (read["probe.interval.low"], row["probe"]["interval"][0]),
            (read["probe.image_to_text.R@5"], row["probe"]["image_to_text"]["R@5"]),
            (read["cka_unbiased"], row["cka_unbiased"]),
        ):
            assert float(value) == pytest.approx(exact, rel=1e-5)
            assert len(value.strip("-0.").replace(".", "")) <= 6
        assert read["vision_label"] == row["vision_label"]
    assert [row["ties_with_best"] for row in rows[:3]] == ["False", "True", "False"]
    assert rows[3]["svcca"] == ""
    assert rows[3]["notes.svcca"] == "too few, rows"
    assert rows[0]["notes.svcca"] == ""


def test_the_csv_has_no_float_noise():
    found = results([candidate("a")], [candidate("t")])
    found["rows"][0]["knn"] = 0.1 * 413.0
    assert repr(found["rows"][0]["knn"]) == "41.300000000000004"
    assert next(csv.DictReader(io.StringIO(leaderboard_csv(found))))["knn"] == "41.3"


def test_with_few_encoders_correlations_are_a_sentence_in_place_of_rows():
    found = results([candidate(name) for name in "abcdef"], [candidate("s"), candidate("t")])
    few = [correlation("cka", None, over=over, n=2, reason="few") for over in ("text", "pairs")]
    found["correlations"] = [correlation("knn", 0.9, 0.5, 0.98), *few]
    assert [row[1] for row in correlations_table(found).cells()] == ["vision encoders"]
    said = findings(found)
    assert (
        "What predicts probing is not said over pairs and text encoders: a correlation needs 5 "
        "encoders, and there are 6 vision and 2 text encoders."
    ) in said
    assert not any("no metric can be said" in sentence for sentence in said)
    small = results([candidate("a"), candidate("b")], [candidate("t")])
    small["correlations"] = [correlation("knn", None, n=2, reason="few")]
    assert len(assessment_tables(small)) == 1
    assert not any("paper" in sentence for sentence in findings(small))


def test_several_seeds_are_shown_as_mean_and_deviation():
    found = results([candidate("a")], [candidate("t")])
    found["conditions"]["probe"]["seeds"] = [0, 1]
    found["rows"][0]["probe"] |= {"R@10": 50.04, "sd": {"R@1": 0.1, "R@5": 0.5, "R@10": 1.26}}
    table = leaderboard_table(found)
    assert "50.0 ± 1.3" in table.cells()[0]
    assert "over 2 training seeds" in table.note
    wide = max(map(len, on_terminal(leaderboard_table(found, width=100), 200).splitlines()[:4]))
    assert wide <= 100
    assert r"50.0 $\pm$ 1.3" in table.latex()


def test_the_csv_keeps_hostile_names_in_their_cells():
    name = 'a,"b"\nc\udce9'
    found = results([candidate(name)], [candidate("t")])
    text = leaderboard_csv(found)
    text.encode()
    assert next(csv.DictReader(io.StringIO(text)))["vision"] == 'a,"b" c�'


@pytest.mark.parametrize(
    ("ties", "ending"),
    [
        ((), "It is clearly ahead of the 59 other pairs."),
        ((2,), "Of the 59 other pairs, 1 is statistically tied with it."),
        ((2, 5), "Of the 59 other pairs, 2 are statistically tied with it."),
    ],
)
def test_the_first_finding_is_the_best_pair_and_its_ties(ties, ending):
    found = tie(grid(), *ties)
    best = found["rows"][0]
    first = findings(found)[0]
    assert first.startswith(
        f"{best['vision_label']} with {best['text_label']} aligns best: mean R@10"
    )
    assert "95 % interval" in first
    assert first.endswith(ending)


def test_one_pair_and_two_pairs_are_worded_as_such():
    one = results([candidate("a")], [candidate("b")])
    assert findings(one)[0].startswith("a with b is the only pair: mean R@10")
    two = results([candidate("a"), candidate("c")], [candidate("b")])
    assert findings(tie(copy.deepcopy(two)))[0].endswith("It is clearly ahead of the other pair.")
    assert findings(tie(two, 2))[0].endswith("The other pair is statistically tied with it.")


def test_the_best_predictor_is_the_strongest_and_clear_where_intervals_are_apart():
    found = with_correlations(
        correlation("linear_probe", 0.4, 0.2, 0.6), correlation("knn", 0.9, 0.8, 0.95)
    )
    assert findings(found)[1] == (
        "Over vision encoders, kNN accuracy predicts probing best: r = 0.90 [0.80, 0.95], n = 9."
    )


def test_the_order_of_predictors_is_unclear_where_intervals_overlap_strongly():
    found = with_correlations(
        correlation("cka", 0.85, 0.6, 0.95), correlation("knn", 0.9, 0.8, 0.95)
    )
    assert findings(found)[1].endswith(
        "That order is unclear: its interval overlaps strongly with "
        "CKA (r = 0.85 [0.60, 0.95], n = 9)."
    )


def test_a_negative_correlation_predicts_inversely_and_is_compared_by_its_strength():
    found = with_correlations(
        correlation("cka", -0.9, -0.95, -0.8), correlation("knn", 0.85, 0.6, 0.93)
    )
    said = findings(found)[1]
    assert "CKA predicts probing best (inversely): r = −0.90 [−0.95, −0.80], n = 9" in said
    assert "kNN accuracy (r = 0.85" in said


def test_an_interval_that_includes_zero_predicts_nothing_clearly():
    said = findings(with_correlations(correlation("knn", 0.5, -0.2, 0.9)))[1]
    assert "nothing clearly predicts probing" in said
    assert "its interval includes 0" in said


def test_without_any_correlation_the_reason_is_said():
    found = with_correlations(correlation("knn", None, n=3, reason="3 points are too few"))
    assert findings(found)[1] == (
        "Over vision encoders, no metric can be said to predict probing: 3 points are too few."
    )


@pytest.mark.parametrize(
    ("difference", "interval", "answer"),
    [
        (0.14, [0.03, 0.3], "Yes: the difference of r is +0.14 [0.03, 0.30], n = 10."),
        (-0.1, [-0.3, -0.01], "No: the difference of r is −0.10 [−0.30, −0.01], n = 10."),
        (0.14, [-0.03, 0.3], "That cannot be told from 10 points: the difference of r is +0.14"),
        (0.0, [0.0, 0.0], "That cannot be told from 10 points"),
    ],
)
def test_the_claim_of_the_paper_is_answered_by_the_interval_of_the_gap(
    difference, interval, answer
):
    said = with_gap(difference, interval)
    assert "0.991 against 0.847" in said
    assert f"? {answer}" in said


def test_a_gap_that_could_not_be_taken_gives_its_reason_and_none_its_own():
    assert "cannot be told from 10 points: all the same." in with_gap(None, None, "all the same")
    assert findings(grid(labelled=False))[-1].endswith("Not measured: that needs labelled images.")
    lacking = {**grid(), "gaps": []}
    assert findings(lacking)[-1].endswith("Not measured: no vision encoder has both accuracies.")


def test_no_finding_has_a_measured_correlation_without_interval_and_n():
    shapes = [grid(), grid(labelled=False), results([candidate("a")], [candidate("b")])]
    for sentence in (s for found in shapes for s in findings(found)):
        measured = sentence.replace("r = 0.991 against 0.847 there, without intervals", "")
        for rest in re.split(r"r = ", measured)[1:]:
            assert re.match(r"−?\d\.\d+ \[−?\d\.\d+, −?\d\.\d+\], n = \d+", rest)


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "<b>", "\x1b[31mred", "x" * 60])
def test_hostile_names_are_shown_as_text(text):
    found = results([candidate(text), candidate("a")], [candidate(text)])
    for table in [*assessment_tables(found), *encoder_tables(found)]:
        assert "\x1b" not in on_terminal(table)
        assert "<b>" not in table.html()
        assert table.markdown()


def test_in_a_narrow_terminal_the_names_have_the_room_of_the_cheap_metrics():
    wide, narrow = (leaderboard_table(grid(), width=width) for width in (100, 80))
    assert {"CKA", "kNN"} < {column.name for column in wide.columns}
    heads = [column.name for column in narrow.columns]
    assert heads == ["rank", "vision", "text", "R@10", "interval", "R@1"]
    assert "All metrics are in leaderboard.csv." in narrow.note
    assert "All metrics" not in leaderboard_table(grid(), width=150).note
    assert "Metrics beside probing" not in wide.note
    first = narrow.cells()[0]
    assert all(name in on_terminal(narrow, 80) for name in first[1:3])
