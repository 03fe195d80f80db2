"""Two results in pairs: which numbers, what their difference is, and when there is none."""

from __future__ import annotations

from typing import Any

import pytest

from lateen.errors import DataError
from lateen.evaluation.intervals import paired_difference, redrawn, resampled
from lateen.evaluation.paired import PairedNumber, paired_numbers, paired_table
from lateen.evaluation.questions import PARTS, question_statistics


def result(right: list[int], **changes: Any) -> dict[str, Any]:
    """A result of questions, one about each image."""
    arrays = {"unit": list(range(len(right))), "points": [PARTS * each for each in right]}
    return {
        "task": "mllm", "set": "gqa", "accuracy": 100 * sum(right) / len(right),
        "conditions": {"data": "d"}, **changes,
        **resampled(question_statistics, arrays, map(str, range(len(right)))),
    }  # fmt: skip


def test_a_number_that_both_have_is_in_a_pair():
    first, second = result([0] * 10 + [1] * 30), result([1] * 40, f1=50.0)
    [found] = paired_numbers(first, second)
    one, two = (redrawn(each, question_statistics) for each in (first, second))
    assert one is not None
    assert two is not None
    assert found.metric == "accuracy"
    assert (found.values, found.difference, found.apart) == ((75, 100), 25, True)
    assert found.interval == paired_difference(two["accuracy"], one["accuracy"]).interval
    table = paired_table([found], ("old", "new"), "Of 40.")
    [row] = table.rows
    low, high = found.interval
    assert row[3] == f"+25.0 (+{low:.1f} to +{high:.1f})"
    assert row[4] == "yes"
    assert table.note == "Of 40. The difference is new above old, in points, image by image."


def test_a_number_that_is_a_difference_itself_has_its_sign():
    number = PairedNumber("own above another's", (-2.5, 3.0), ((-7.7, 0.0), (1.0, 5.0)), 5.5,
                          (2.0, 9.0), True)  # fmt: skip
    row = paired_table([number], ("a", "b")).rows[0]
    assert row[1:4] == ["−2.5 (−7.7 to 0.0)", "3.0 (1.0–5.0)", "+5.5 (+2.0 to +9.0)"]


def test_other_data_is_refused_and_other_ways_to_answer_have_no_interval():
    first = result([0, 1] * 10)
    with pytest.raises(DataError, match="not of the same data"):
        paired_numbers(first, result([0, 1] * 10, conditions={"data": "e"}))
    with pytest.raises(DataError, match="one result is of mllm, the other of retrieval"):
        paired_numbers(first, result([0, 1] * 10, task="retrieval"))
    [found] = paired_numbers(first, result([1, 1] * 10, answered_by="generation"))
    assert (found.difference, found.interval, found.apart) == (50, None, False)
    assert paired_table([found], ("a", "b")).rows[0][3:] == ["+50.0", "–"]
