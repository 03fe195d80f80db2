from __future__ import annotations

import pytest

from lateen.metrics.boxes import as_fractions, iou, parse_box

HALF = (0.0, 0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    "answer",
    [
        "[0.1, 0.2, 0.5, 0.6]",
        "It is at [0.1, 0.2, 0.5, 0.6].",
        "0.1 0.2 0.5 0.6",
        "(0.1,0.2),(0.5,0.6)",
        "<box>(0.1, .2), (.5, 0.6)</box>",
        "[0.5, 0.6, 0.1, 0.2]",  # opposite corners in the other order
        "[0.1, 0.2, 0.5, 0.6] or [0, 0, 1, 1]",
    ],
)
def test_a_box_in_an_answer(answer: str) -> None:
    assert parse_box(answer) == (0.1, 0.2, 0.5, 0.6)


@pytest.mark.parametrize("answer", ["", "on the left", "[0.1, 0.2, 0.5]", "2 of 3 at 4, 5 and 6"])
def test_an_answer_without_a_box(answer: str) -> None:
    assert parse_box(answer) is None


def test_overlap_worked_by_hand() -> None:
    assert iou(HALF, HALF) == 1
    assert iou(HALF, (0.5, 0.0, 1.0, 1.0)) == 0  # side by side
    assert iou(HALF, (0.0, 0.0, 1.0, 1.0)) == 0.5
    assert iou(HALF, (0.25, 0.0, 0.75, 1.0)) == pytest.approx(1 / 3)
    assert iou((0.2, 0.2, 0.2, 0.2), (0.2, 0.2, 0.2, 0.2)) == 0  # no area


def test_pixels_become_fractions_and_fractions_stay() -> None:
    assert as_fractions((10, 20, 50, 40), 100, 40) == (0.1, 0.5, 0.5, 1.0)
    assert as_fractions((0.1, 0.5, 0.5, 1.0), 100, 40) == (0.1, 0.5, 0.5, 1.0)
