"""Conditions in SQL: what is let through to the index."""

from __future__ import annotations

import pytest

from lateen.errors import UsageError
from lateen.serving.conditions import checked_condition

COLUMNS = ("id", "width", "rating", "taken", "captions", "folder", "latitude", "camera make")


@pytest.mark.parametrize(
    "text",
    [
        "width > 2000 AND rating >= 4",
        "width*2 >= 300.5 or NOT (rating IN (1, 2, -1))",
        "folder = 'it''s; -- here' and folder <> 'x'",
        "lower(folder) LIKE '%italy%'",
        "taken BETWEEN timestamp '2020-01-01' AND date '2021-01-01'",
        "array_has(captions, 'a dog') AND rating IS NOT NULL",
        "\"camera make\" = 'Leica' AND `width` != 3",
        "((width))=(3)",
        "starts_with(folder, 'a')",
    ],
)
def test_comparisons_are_let_through_as_they_are(text: str) -> None:
    assert checked_condition(text, COLUMNS) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repeat('a', 1000000000) = 'b'", "function 'repeat'"),
        ("width > 1; DROP TABLE photos", "';"),
        ("width > 1 -- and", "cannot be read"),
        ("width > 1 /* */", "/"),
        ("1=1) OR (1=1", "brackets"),
        ("(width > 1", "brackets"),
        ("secret = 1", "'secret'"),
        ('"Secret" = 1', "'Secret'"),
        ("width = (SELECT 1)", "SELECT"),
        ("folder = 'open", "cannot be read"),
        ("latitude > 1", "where photographs were taken"),
        ("`Latitude` > 1", "where photographs were taken"),
        ("regexp_like(folder, '(a+)+$')", "function"),
        ("width > 1e400x", "cannot be read"),
        ("width \x00", "cannot be read"),
        ("width ~ 'a'", "cannot be read"),
        ("current_date > taken", "no column"),
    ],
)
def test_whatever_else_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        checked_condition(text, COLUMNS)
    assert words in str(refused.value)


def test_places_are_asked_for_where_they_are_told() -> None:
    assert checked_condition("latitude > 1", COLUMNS, place=True)
