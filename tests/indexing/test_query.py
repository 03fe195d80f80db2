"""Queries as people write them, and filters."""

from pathlib import Path

import pytest

from lateen.errors import DataError, UsageError
from lateen.indexing import Filters, Query, Term


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("a dog", [(1, "a dog")]),
        ("2:golden retriever", [(2, "golden retriever")]),
        ("dog + cat - fruit", [(1, "dog"), (1, "cat"), (-1, "fruit")]),
        ("dog − 0.5:big cat", [(1, "dog"), (-0.5, "big cat")]),
        ('"a dog - on a beach" - "2:30 pm"', [(1, "a dog - on a beach"), (-1, "2:30 pm")]),
        ("well-known man, 50+50", [(1, "well-known man, 50+50")]),
        ("- fruit + dog", [(-1, "fruit"), (1, "dog")]),
        ("2.5:red  +  blue", [(2.5, "red"), (1, "blue")]),
    ],
)
def test_a_query_is_read_as_it_is_written(text: str, terms: list[tuple[float, str]]) -> None:
    assert [(t.weight, t.text) for t in Query.parse(text).terms] == terms


def test_what_was_understood_can_be_read_again() -> None:
    for text in ("a dog", "2:a dog + cat - fruit", '"a - b" - c'):
        query = Query.parse(text)
        assert Query.parse(str(query).replace(" × ", ":")).terms == query.terms
    assert str(Query.parse("2:a dog - id:x/1.jpg")) == '2 × "a dog" − the photograph x/1.jpg'


def test_pictures_are_read_only_where_files_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pool.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    [dog, pool] = Query.parse("dog + pool.jpg", files=True).terms
    assert dog.text == "dog" and pool.image == Path("pool.jpg") and pool.text is None
    assert Query.parse(str(tmp_path / "pool.jpg"), files=True).images == [tmp_path / "pool.jpg"]
    assert Query.parse("dog + pool.jpg").texts == ["dog", "pool.jpg"]
    assert Query.parse('"pool.jpg"', files=True).texts == ["pool.jpg"]
    assert Query.parse("a sign that says photo.jpg", files=True).images == []
    with pytest.raises(DataError, match=r"there is no image gone\.jpg"):
        Query.parse("dog + gone.jpg", files=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "a part of the query is empty"), ("  ", "a part of the query is empty"),
     ("dog +  + cat", "a part of the query is empty"), ("- dog", "only what is not wanted"),
     ('""', "a part of the query is empty"), ("0:dog", "only what is not wanted"),
     (" + ".join(["dog"] * 33), "33 parts"), (f"{'9' * 400}:dog", "weighs too much")],
)  # fmt: skip
def test_a_query_that_asks_for_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Query.parse(text)


def test_plain_sentences_stand_as_they_are() -> None:
    assert Query.of("2:dog - cat").terms == (Term(1.0, text="2:dog - cat"),)
    with pytest.raises(UsageError, match="the query is empty"):
        Query.of("  ")
    with pytest.raises(DataError, match="there is no image"):
        Query.of(Path("gone.jpg"))


@pytest.mark.parametrize(
    ("filters", "sql"),
    [
        (Filters(), None),
        (Filters(since="2024"), "taken >= timestamp '2024-01-01 00:00:00'"),
        (Filters(until="2024"), "taken < timestamp '2025-01-01 00:00:00'"),
        (Filters(until="2024-02"), "taken < timestamp '2024-03-01 00:00:00'"),
        (Filters(until="2024-12-31"), "taken < timestamp '2025-01-01 00:00:00'"),
        (Filters(folder="/It's/"), "(folder = 'It''s' OR starts_with(folder, 'It''s/'))"),
        (Filters(folder="."), "true"),
        (Filters(where="a > 1 OR b", folder="x"),
         "(folder = 'x' OR starts_with(folder, 'x/')) AND (a > 1 OR b)"),
    ],
)  # fmt: skip
def test_filters_are_conditions(filters: Filters, sql: str | None) -> None:
    assert filters.sql() == sql


@pytest.mark.parametrize("text", ["yesterday", "2024-13", "2024-02-30", "24", "", "9999-12-31x"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no date"):
        Filters(since=text).sql()
    with pytest.raises(UsageError, match="no date"):
        Filters(until=text).sql()
