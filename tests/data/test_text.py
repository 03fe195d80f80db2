from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lateen.data.text import list_in_text, read_list
from lateen.errors import DataError


def test_marks_and_line_ends_of_other_systems_are_no_part_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeffa.jpg\r\nb c.jpg\rd\u2028e.jpg\r\n\r\n".encode())
    assert read_list(file) == ["a.jpg", "b c.jpg", "d\u2028e.jpg"]


PASTED = """templates = [
    'a photo of a {}.',
    "it's a {}.",
]
"""
FUNCTIONS = "lambda c: f'a photo of a {c}.',\nlambda c: f\"it's a {c}.\","


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(["a photo of a {}.", "it's a {}."]),
        json.dumps({"cars": ["a photo of a {}.", "it's a {}."]}),
        json.dumps({"1": "it's a {}.", "0": "a photo of a {}."}),
        json.dumps({"it's a {}.": 1, "a photo of a {}.": 0}),
        PASTED,
        FUNCTIONS,
        "a photo of a {}.\nit's a {}.\n",
    ],
)
def test_a_list_is_read_in_the_forms_of_other_tools(content: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    assert read_list(tmp_path / "list.txt") == ["a photo of a {}.", "it's a {}."]


def test_numbered_pairs_of_imagenet_are_name_and_id(tmp_path: Path) -> None:
    content = {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}
    (tmp_path / "index.json").write_text(json.dumps(content))
    assert read_list(tmp_path / "index.json") == ["tench\tn01440764", "goldfish\tn01443537"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"a": ["x"], "b": ["y"]}', "not one list of texts"),
        ("[1, 2]", "not one list of texts"),
        ("[]", "not one list of texts"),
        ("'a cat',\na dog\n", "'a dog' without"),
    ],
)
def test_what_is_no_list_is_an_error(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=fault):
        read_list(tmp_path / "list.txt")


def test_damaged_json_is_an_error_and_a_name_in_brackets_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('["a",')
    with pytest.raises(DataError, match="not valid JSON"):
        read_list(tmp_path / "list.json")
    (tmp_path / "names.txt").write_text("[unknown]\ndog\n\ncat\n")
    assert read_list(tmp_path / "names.txt") == ["[unknown]", "dog", "", "cat"]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ('["a dog", "b"]', ["a dog", "b"]),
        ("['a dog', \"it's\"]", ["a dog", "it's"]),
        ("['a dog'\n 'b']", ["a dog", "b"]),
        ("array(['a dog', 'b'], dtype=object)", ["a dog", "b"]),
        ("['a dog', None]", ["a dog", None]),
        ('["a dog", 3]', ["a dog", 3]),
        ("[laughs] a dog [barks]", None),
        ("a dog", None),
        ("", None),
    ],
)
def test_lists_in_cells(text: str, entries: list[Any] | None) -> None:
    assert list_in_text(text) == entries


def test_a_list_in_a_cell_that_cannot_be_read_is_no_caption() -> None:
    with pytest.raises(ValueError, match="he"):
        list_in_text("['a dog' he 'b']")
