from __future__ import annotations

import pytest

from lateen.data.samples import is_unicode, sample_id


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a.jpg", "a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("a\\b.jpg", "a/b.jpg"),
        (".\\a\\.\\b c.JPG", "a/b c.JPG"),
        ("a/../b.jpg", "b.jpg"),
        ("/data/a.jpg", "/data/a.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_ids_are_posix_and_composed(written: str, expected: str) -> None:
    assert sample_id(written) == expected
    assert sample_id(expected) == expected


def test_half_characters_are_no_unicode() -> None:
    assert is_unicode("é 😀")
    assert not is_unicode("\ud83d")
