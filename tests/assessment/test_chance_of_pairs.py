"""Similarities of spaces are told from chance: measured, kept, shown."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from page_reader import Reader

from assessment.made_up import PAIRWISE, candidate, grid, results
from lateen.assessment import assess
from lateen.assessment.chance import best_of_networks, calibrated_keys, networks_table
from lateen.assessment.correlations import probing_correlations
from lateen.assessment.measure import MEASURES, PairMeasure, measures
from lateen.assessment.page import write_assessment_page
from lateen.assessment.recipe import MeasureSection
from lateen.assessment.spaces import Space, SpacePair
from lateen.assessment.tables import (
    assessment_tables,
    few_encoders,
    findings,
    leaderboard_csv,
    leaderboard_table,
)
from lateen.errors import RecipeError
from lateen.metrics import row_permutations


def calibrated(found: dict[str, Any], chance: int = 2) -> dict[str, Any]:
    """The results with similarities calibrated, of which by CKA the last few are chance."""
    found["conditions"]["measure"] |= {"alpha": 0.05, "permutations": 200}
    for row in found["rows"]:
        one = {"score": 0.25, "p": 1 / 201, "threshold": 0.1}
        none = {"score": 0.0, "p": 0.4, "threshold": 0.9}
        last = row["rank"] > len(found["rows"]) - chance
        row["calibrated"] = {key: none if last and key == "cka" else one for key in PAIRWISE}
    best = {key: {**one, "value": 0.5, "vision_label": "a", "text_label": "b"} for key in PAIRWISE}
    found["networks"] = [{"vision": "a", "text": "b", "pairs": 12, "best": best}]
    return found


def test_every_measure_of_a_permuted_pair_is_that_of_permuted_features() -> None:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(60, 3, generator=generator)
    x, y = (
        shared @ torch.randn(3, d, generator=generator) + torch.randn(60, d, generator=generator)
        for d in (7, 9)
    )
    settings = MeasureSection(k=4, svcca_dim=3)
    pair = SpacePair(Space.of(x, settings), Space.of(y, settings))
    for order in row_permutations(60, 19):
        plain = SpacePair(pair.image, Space.of(y[order], settings))
        for measure in measures(PairMeasure):
            indexed = measure.function(pair.permuted(order))
            assert indexed == pytest.approx(measure.function(plain), abs=1e-6)


def test_an_assessment_says_of_every_pair_what_chance_gives(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    found = assess(plan, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert rows == found["rows"]
    for row in rows:
        assert set(row["calibrated"]) == set(calibrated_keys()) == set(PAIRWISE)
        for key, one in row["calibrated"].items():
            assert 0 <= one["score"] <= 1
            assert 1 / 201 <= one["p"] <= 1
            assert (one["score"] > 0) == (row[key] > one["threshold"])
    colours = next(r for r in rows if "colour" in r["vision"] and "word" in r["text"])
    assert colours["calibrated"]["cka"]["p"] == 1 / 201
    # Two views of the ViT and two layers of the BERT are one network each.
    assert [(one["vision"], one["text"], one["pairs"]) for one in found["networks"]] == [
        ("vit", "bert", 4), ("vit", "toys:word_encoder", 2),
        ("toys:colour_encoder", "bert", 2), ("toys:colour_encoder", "toys:word_encoder", 1),
    ]  # fmt: skip
    alone = found["networks"][3]["best"]["cka"]
    assert {key: alone[key] for key in ("score", "p", "threshold")} == colours["calibrated"]["cka"]
    for one in found["networks"][:3]:
        for key, best in one["best"].items():
            row = next(r for r in rows if (r["vision_label"], r["text_label"])
                       == (best["vision_label"], best["text_label"]))  # fmt: skip
            assert best["value"] == row[key]
            assert best["threshold"] >= row["calibrated"][key]["threshold"]
            assert best["p"] >= row["calibrated"][key]["p"]
    head = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()[0]
    assert "calibrated.cka.score,calibrated.cka.p,calibrated.cka.threshold" in head
    assert {one["label"]: len(one["networks"]) for one in found["vision"]} == {
        "vit · cls": 1, "vit · cls+mean": 1, "toys:colour_encoder": 1,
    }  # fmt: skip


def test_what_is_measured_is_found_whatever_is_asked_of_chance(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}

    def measured(**settings: Any) -> dict[str, Any]:
        return assess({**small, "measure": {**plan["measure"], **settings}}, tmp_path / "out")

    none = measured(permutations=0)
    assert none["rows"][0]["calibrated"] == {}
    assert none["networks"][0]["best"] == {}
    assert not list((tmp_path / "out" / "results").glob("permuted-*"))
    of_pair = list((tmp_path / "out" / "results").glob("compare-*"))
    some = measured(permutations=39)
    assert list((tmp_path / "out" / "results").glob("compare-*")) == of_pair
    assert {key: some["rows"][0][key] for key in PAIRWISE} == {
        key: none["rows"][0][key] for key in PAIRWISE
    }
    monkeypatch.setattr(
        "lateen.assessment.measurement._take_each", lambda _: pytest.fail("measured again")
    )
    strict = measured(permutations=39, alpha=0.5)
    assert strict["rows"][0]["calibrated"]["cka"]["p"] == some["rows"][0]["calibrated"]["cka"]["p"]
    assert (
        strict["rows"][0]["calibrated"]["cka"]["threshold"]
        < some["rows"][0]["calibrated"]["cka"]["threshold"]
    )


def test_too_few_rows_to_permute_are_said_and_the_rest_goes_on(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    few = {**small, "data": {**plan["data"], "holdout": 0.085}}
    found = assess(few, tmp_path / "out")
    assert found["conditions"]["images"] == 5
    row = found["rows"][0]
    assert row["cka"] is not None
    assert row["calibrated"] == {}
    why = "5 rows have no more than 120 orders, too few for 200 permutations"
    assert row["notes"]["calibrated.cka"] == why
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"CKA of 1 pair is not held against chance: {why}." in page


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"permutations": -1}, "'measure.permutations' cannot be -1"),
        (
            {"permutations": 18},
            "18 permutations are too few for alpha 0.05: give at least 19, or 0",
        ),
        ({"alpha": 0.001}, "200 permutations are too few for alpha 0.001: give at least 999"),
        ({"alpha": 0}, "'measure.alpha' cannot be 0"),
        ({"alpha": 1}, "'measure.alpha' cannot be 1"),
    ],
)
def test_settings_that_cannot_tell_chance_are_refused(
    settings: dict[str, Any], message: str, plan: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as error:
        assess({**plan, "measure": {**plan["measure"], **settings}}, tmp_path / "out")
    assert message in str(error.value)


def test_the_best_of_many_layers_is_held_against_the_best_of_each_permutation() -> None:
    """Of two layers one is high in each permutation: alone the best is rare, as a maximum not."""

    class View:
        def __init__(self, name: str) -> None:
            self.name, self.networks = name, (name,)

    rows = {
        (v, 0): {"vision_label": f"layer {v}", "text_label": "words",
                 **dict.fromkeys(PAIRWISE, 0.5 - 0.1 * v)}
        for v in (0, 1)
    }  # fmt: skip
    nulls = {
        (0, 0): dict.fromkeys(PAIRWISE, [0.1] * 19),
        (1, 0): dict.fromkeys(PAIRWISE, [0.6] * 19),
    }
    views: Any = [View("deep"), View("deep")], [View("words")]
    [entry] = best_of_networks(*views, rows, nulls, MeasureSection())
    assert entry["pairs"] == 2
    assert entry["best"]["cka"] == {
        "vision_label": "layer 0", "text_label": "words", "value": 0.5,
        "score": 0.0, "p": 1.0, "threshold": 0.6,
    }  # fmt: skip


def test_tables_show_the_calibrated_score_beside_the_raw_one_and_mark_chance() -> None:
    found = calibrated(grid())
    table = leaderboard_table(found)
    at = [column.name for column in table.columns].index("CKA")
    cells = [row[at] for row in table.cells()]
    assert [cell.endswith(" (0.25)") for cell in cells] == [True] * 58 + [False] * 2
    assert all(cell.endswith("° (0.00)") for cell in cells[58:])
    assert "in brackets calibrated, 0 = no more than chance and 1 = the same" in table.note
    assert "° no more alike than chance, p > 0.05 over 200 permutations of the rows" in table.note
    narrow = leaderboard_table(found, width=120)
    at = [column.name for column in narrow.columns].index("CKA")
    assert ["°" in row[at] for row in narrow.cells()] == [False] * 58 + [True] * 2
    assert "brackets" not in narrow.note
    assert "°" not in leaderboard_table(found, width=80).note
    networks = networks_table(found)
    assert networks.cells()[0][:4] == ["a", "b", "12", "0.50 (0.25, p 0.005)"]
    assert [column.name for column in networks_table(found, 100).columns][3:] == [
        "CKA", "mutual\nkNN",
    ]  # fmt: skip
    assert len(assessment_tables(found)) == 3
    assert "0.25,0.00497512,0.1" in leaderboard_csv(found)


def test_what_is_chance_is_said_in_a_sentence() -> None:
    assert (
        "Some of 60 pairs are no more alike than chance, p > 0.05 over 200 permutations of the "
        "rows: CKA of 2."
    ) in findings(calibrated(grid()))
    assert "By every measure all 60 pairs are more alike than chance would make them." in findings(
        calibrated(grid(), chance=0)
    )


def test_the_page_has_the_best_layers_of_two_networks(tmp_path: Path) -> None:
    read = Reader(write_assessment_page(calibrated(grid()), tmp_path).read_text(encoding="utf-8"))
    assert "Most similar layers of two networks" in read.text
    assert "0.50 (0.25, p 0.005)" in read.text


def test_results_of_before_are_shown_without(tmp_path: Path) -> None:
    found = grid()
    assert len(assessment_tables(found)) == 2
    assert not [sentence for sentence in findings(found) if "chance" in sentence]
    assert "°" not in write_assessment_page(found, tmp_path).read_text(encoding="utf-8")


def _layers_of(networks: int, layers: int) -> dict[str, Any]:
    vision = [
        candidate(f"net {n}", layer, networks=[f"weights {n}"])
        for n in range(networks) for layer in range(layers)
    ]  # fmt: skip
    return results(vision, [candidate("words", networks=["w"])])


def _over_vision(found: dict[str, Any]) -> dict[str, Any]:
    sides = found["vision"], found["text"]
    entries = probing_correlations(found["rows"], *sides, MeasureSection())
    return next(one for one in entries if (one["x"], one["over"]) == ("mutual_knn", "vision"))


def test_intervals_of_correlations_resample_networks_not_layers() -> None:
    found = _layers_of(6, 8)
    one = _over_vision(found)
    assert one["n"] == 48
    wide = one["pearson_interval"][1] - one["pearson_interval"][0]
    for encoder in found["vision"]:
        encoder["networks"] = [encoder["label"]]
    assert one["pearson"] == _over_vision(found)["pearson"]
    narrow = _over_vision(found)["pearson_interval"]
    assert one["pearson_interval"] != narrow
    assert wide > 0


def test_many_layers_of_few_networks_have_no_correlation() -> None:
    found = _layers_of(2, 9)
    one = _over_vision(found)
    assert one["pearson"] is one["pearson_interval"] is None
    assert one["reason"] == "2 vision networks of the 5 that a correlation needs"
    found["correlations"] = [one]
    assert few_encoders(found) == (
        "What predicts probing is not said over vision encoders: a correlation needs 5 networks, "
        "for layers and poolings of one are not independent, and there are 2 of vision and 1 of "
        "text."
    )


def test_a_fused_encoder_is_of_the_networks_of_its_parts() -> None:
    found = _layers_of(5, 1)
    found["vision"][4]["networks"] = ["weights 0", "weights 1"]
    assert _over_vision(found)["reason"] == "4 vision networks of the 5 that a correlation needs"


def test_measures_that_are_no_similarity_are_not_calibrated() -> None:
    assert calibrated_keys() == [key for key in MEASURES if key in PAIRWISE]
