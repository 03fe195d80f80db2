from __future__ import annotations

import pytest

from lateen.data.prompts import TEMPLATES, class_name, class_prompts
from lateen.errors import UsageError


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
