from __future__ import annotations

from pathlib import Path

import pytest

from lateen.data.prompts import (
    DOMAIN_TEMPLATES,
    TEMPLATES,
    class_name,
    class_prompts,
    read_templates,
    without_numbers,
)
from lateen.errors import DataError, UsageError


def test_folder_names_become_words() -> None:
    assert class_name("garbage_truck") == "garbage truck"
    assert class_name(" English  springer_") == "English springer"


def test_every_template_gives_one_prompt_with_the_name() -> None:
    prompts = class_prompts("gas_pump")
    assert len(prompts) == len(TEMPLATES) == len(set(prompts))
    assert all("gas pump" in prompt and "{}" not in prompt for prompt in prompts)
    assert prompts[0] == "a photo of a gas pump."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tench", "a tench"),
        ("English_springer", "an English springer"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("unicycle", "a unicycle"),
        ("European_robin", "a European robin"),
        ("one-way_street", "a one-way street"),
        ("house", "a house"),
        ("{}", "a {}"),
        ("", "a "),
    ],
)
def test_the_article_fits_the_sound(name: str, expected: str) -> None:
    assert class_prompts(name, ["a photo of a {}.", "A {}", "the {}", "data {}"]) == [
        f"a photo of {expected}.",
        expected.capitalize()[0] + expected[1:],
        f"the {class_name(name)}",
        f"data {class_name(name)}",
    ]


def test_a_template_without_a_place_for_the_name_is_an_error() -> None:
    with pytest.raises(UsageError, match="no place for the class name"):
        class_prompts("tench", ["a photo of something"])


def test_prompts_taken_as_written_are_left_alone() -> None:
    templates = ["a photo of a {}."]
    assert class_prompts("apple_pie", templates, verbatim=True) == ["a photo of a apple_pie."]
    assert class_prompts("apple_pie", templates) == ["a photo of an apple pie."]


def test_templates_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {}.\n\n  {c} shapes.\n")
    assert read_templates(file) == ("a photo of a {}.", "{} shapes.")
    file.write_text("\n")
    with pytest.raises(UsageError, match="has no template"):
        read_templates(file)
    file.write_text("a photo\n")
    with pytest.raises(UsageError, match="no place for the class name"):
        read_templates(file)
    with pytest.raises(DataError, match="cannot read"):
        read_templates(tmp_path / "absent.txt")


@pytest.mark.parametrize("kind", DOMAIN_TEMPLATES)
def test_prompts_of_every_kind_of_picture_have_a_place_for_the_name(kind: str) -> None:
    prompts = class_prompts("thing", DOMAIN_TEMPLATES[kind])
    assert len(set(prompts)) == len(DOMAIN_TEMPLATES[kind])
    assert all("thing" in prompt for prompt in prompts)


@pytest.mark.parametrize("place", ["{c}", "{class}", "{name}", "{0}", "{}"])
def test_a_name_in_braces_is_the_place_of_the_class(place: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(f'["a photo of a {place}."]')
    assert read_templates(tmp_path / "t.json") == ("a photo of a {}.",)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese_spaniel"]),
        (["1_cat", "2_dog"], ["cat", "dog"]),
        (["737-800", "747-400"], ["737-800", "747-400"]),
        (["001.cat", "dog"], ["001.cat", "dog"]),
        (["1.cat", "1.dog"], ["1.cat", "1.dog"]),
    ],
)
def test_numbers_before_all_names_are_no_part_of_them(labels: list[str], names: list[str]) -> None:
    assert without_numbers(labels) == names
