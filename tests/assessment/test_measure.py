"""A measure is one row: it is measured, kept, ranked beside and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assessment.test_tables import correlation, with_correlations
from lateen.assessment import assess, assessment_tables, findings
from lateen.assessment.measure import (
    MEASURES,
    Measure,
    PairMeasure,
    Scatter,
    TextMeasure,
    VisionMeasure,
)
from lateen.errors import DataError
from lateen.features import TextColumn

DISTANCE = PairMeasure(
    key="distance",
    name="neighbour distance",
    definition="one less the share of {k} neighbours in common {pairs}",
    heading="neighbour\ndistance",
    scatter=Scatter(9, "How far the spaces are apart, a point for each pair."),
    higher_is_better=False,
    calibrated=False,
    function=lambda pair: 1 - (pair.neighbours[0] == pair.neighbours[1]).float().mean().item(),
)
MAJORITY = VisionMeasure(
    key="majority",
    name="majority accuracy",
    definition="accuracy of the most frequent class on {classes}",
    heading="majority",
    function=lambda judged, learned, settings: {
        "top1": 100 * judged.labels.bincount().max().item() / len(judged)
    },
    accuracies=lambda value: {None: value["top1"]},
)
LENGTH = TextMeasure(
    key="length",
    name="name length",
    definition="letters in the name",
    heading="letters",
    function=lambda candidate, _: float(len(candidate.name)),
)


def add(monkeypatch: pytest.MonkeyPatch, measure: Measure) -> None:
    monkeypatch.setitem(MEASURES, measure.key, measure)


@pytest.fixture
def forbid_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(
        "lateen.assessment.probing.train", lambda *_, **__: pytest.fail("trained again")
    )


def test_a_measure_that_is_added_in_one_place_is_in_everything(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for measure in (DISTANCE, MAJORITY, LENGTH):
        add(monkeypatch, measure)
    monkeypatch.setattr("lateen.assessment.correlations.FEWEST", 2)
    results = assess(plan, tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    assert all(0 <= row["distance"] <= 1 for row in rows)
    assert [row["majority"] for row in rows] == pytest.approx([100 / 6] * 9)
    heads = (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()[0].split(",")
    assert {"distance", "majority"} < set(heads)
    leaderboard, _, correlations = assessment_tables(results)
    headings = {column.name for column in leaderboard.columns}
    assert {"neighbour\ndistance", "majority"} < headings
    assert "kNN, linear probe and majority: accuracy" in leaderboard.note
    shown = {row[0] for row in correlations.cells()}
    assert {"neighbour distance", "majority accuracy", "name length"} < shown
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("neighbour distance", "3 neighbours in common on the 15 test pairs; lower is "
                  "better", "How far the spaces are apart", "majority (%)", "letters",
                  "most frequent class on 60 labelled images of 6 classes"):  # fmt: skip
        assert words in page
    assert (tmp_path / "out" / "scatter-distance.png").is_file()


def test_a_measure_added_later_is_taken_and_nothing_is_trained_again(
    plan: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forbid_training: Callable[[], None],
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    before = assess(small, tmp_path / "out")["rows"]
    forbid_training()
    with monkeypatch.context() as later:
        for measure in (DISTANCE, MAJORITY):
            add(later, measure)
        row = assess(small, tmp_path / "out")["rows"][0]
        assert row["distance"] is not None
        assert row["majority"] is not None
    assert assess(small, tmp_path / "out")["rows"] == before


def test_what_was_measured_is_not_measured_again(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    before = assess(small, tmp_path / "out")["rows"]
    monkeypatch.setattr(
        "lateen.assessment.measurement._take_each", lambda _: pytest.fail("measured again")
    )
    assert assess(small, tmp_path / "out")["rows"] == before


def test_a_measure_that_cannot_be_taken_leaves_its_reason(
    plan: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise DataError("the moon is full", "Wait.")

    for measure in (DISTANCE, MAJORITY):
        add(monkeypatch, type(measure)(**{**vars(measure), "function": refuse}))
    small = {**plan, "vision": plan["vision"][1:], "text": plan["text"][1:]}
    row = assess(small, tmp_path / "out")["rows"][0]
    assert row["distance"] is row["majority"] is None
    assert row["notes"] == dict.fromkeys(("majority", "distance"), "the moon is full")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "No neighbour distance for 1 of 1 pair: the moon is full." in page


@pytest.mark.parametrize(("r", "inversely"), [(-0.9, False), (0.9, True)])
def test_less_of_a_distance_predicts_more_alignment(
    r: float, inversely: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(monkeypatch, DISTANCE)
    found = with_correlations(correlation("distance", r, min(r, 0.8 * r), max(r, 0.8 * r)))
    assert ("predicts probing (inversely)" in findings(found)[1]) == inversely


def test_every_row_is_under_its_own_key() -> None:
    assert [measure.key for measure in MEASURES.values()] == list(MEASURES)
    orders = [measure.scatter.order for measure in MEASURES.values() if measure.scatter]
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ([[1, 0], [0, 1], [-1, 0]], 100.0),  # each like its own first caption
        ([[0, 1], [1, 0], [-1, 0]], 100 / 3),  # the third alone
        ([[1, 0], [1, 0], [1, 0]], 100 / 6),  # all the same: only the first finds, from its side
    ],
)
def test_captions_of_one_image_find_each_other(second: list[list[float]], found: float) -> None:
    """Three images with two captions and one, first, with a single one that does not count."""
    first = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
    rows = [[9.0, 9.0], *(row for pair in zip(first, second, strict=True) for row in pair)]
    column = TextColumn(
        torch.tensor(rows),
        np.array([0, 1, 3, 5, 7]),
        np.arange(7),  # type: ignore[arg-type]
    )
    measure = MEASURES["caption_retrieval"]
    assert isinstance(measure, TextMeasure)
    assert measure.function(None, column) == pytest.approx(found)  # type: ignore[arg-type]
    assert measure.function(None, column.first(1)) is None  # type: ignore[arg-type]
