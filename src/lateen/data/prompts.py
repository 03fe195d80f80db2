"""Prompts for zero-shot classification: class names put into sentences (METHODS §1.6).

Averaging a class's embedding over several sentences is due to CLIP (arXiv:2103.00020, §3.1.4). The
sentences here are lateen's own, and CLIP's published lists are other ones: numbers of papers that
use those are to be compared with :func:`~lateen.data.published.published_templates`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lateen.data.text import read_list
from lateen.errors import UsageError

TEMPLATES = (
    "a photo of a {}.",
    "a picture that shows a {}.",
    "a {} seen up close.",
    "a {} seen from far away.",
    "a snapshot with a {} in it.",
    "a good photo of the {}.",
    "a poorly lit photo of a {}.",
    "one {} and nothing else.",
)
"""Sentences with ``{}`` in the place of the class name."""


DOMAIN_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "sketch": (
        "a sketch of a {}.", "a pencil drawing of a {}.", "a black and white drawing of a {}.",
        "a few lines that show a {}.",
    ),
    "small": ("a tiny photo of a {}.", "a coarse, blurry photo of a {}.", "a photo of a {}."),
    "food": ("a photo of {}, a dish.", "a plate of {}.", "{}, something to eat."),
    "scene": ("a photo of a {}.", "a view of a {}.", "a place: {}.", "this place is a {}."),
    "car": ("a photo of a {}, a car.", "a {} on the street.", "the car model {}."),
    "aircraft": ("a photo of a {}, an aircraft.", "a {} in flight.", "the aircraft model {}."),
    "texture": (
        "a {} texture.", "a photo of a {} surface.", "a {} pattern.", "something {} seen up close.",
    ),
    "pet": ("a photo of a {}, a pet.", "a picture of someone's {}.", "a {} at home."),
    "flower": ("a photo of a {}, a flower.", "a {} in bloom.", "a flower called {}."),
    "face": ("a photo of a face that looks {}.", "someone who is {}.", "a {} face."),
    "histology": ("a microscope image of {}.", "a stained section of {}.", "histology: {}."),
    "satellite": (
        "a satellite photo of {}.", "an aerial photo of {}.", "{} seen from above.",
        "a satellite photo of a {}.",
    ),
    "house number": (
        "a photo of the number {}.", "the digit {} on a house.", "a house number with a {}.",
    ),
    "traffic sign": (
        "a photo of the traffic sign: {}.", "a traffic sign that means {}.", "a road sign: {}.",
    ),
    "count": ("a picture of {} objects.", "there are {} objects.", "{} shapes on a grey floor."),
    "distance": ("the nearest object is {}.", "a picture with an object {}."),
}  # fmt: skip
"""Sentences for pictures of one kind; for all others there are :data:`TEMPLATES`."""
# A class's number or WordNet id before its name, as CUB-200, Caltech-256 and Stanford Dogs have it.
_NUMBERED = re.compile(r"(?P<number>[0-9]+|n[0-9]{8})[.\-_ ]+(?P<name>[^\W\d_].*)")
_NAMED_PLACE = re.compile(r"\{\w+\}")
_ARTICLE = re.compile(r"\b([Aa]) \{\}")


# By sound, not by letter: a unicorn, a European flag, a one-way street; an hourglass.
_CONSONANT_SOUNDS = ("uni", "use", "uten", "ukulele", "eu", "ewe", "one", "once")
_VOWEL_SOUNDS = ("a", "e", "i", "o", "u", "hour", "honest", "honor", "honour", "heir")


def class_name(folder: str) -> str:
    """A class folder's name as words: underscores become spaces.

    >>> class_name("garbage_truck")
    'garbage truck'
    """
    return " ".join(folder.replace("_", " ").split())


def without_numbers(labels: Sequence[str]) -> list[str]:
    """Labels without the number or WordNet id before each, if all have one and none is lost by it.

    >>> without_numbers(["001.Black_footed_Albatross", "002.Laysan_Albatross"])
    ['Black_footed_Albatross', 'Laysan_Albatross']
    >>> without_numbers(["2-door", "4-door"])
    ['2-door', '4-door']
    """
    found = [_NUMBERED.fullmatch(label) for label in labels]
    numbers = {match["number"] for match in found if match is not None}
    names = [match["name"] for match in found if match is not None]
    return names if len(numbers) == len(set(names)) == len(labels) else list(labels)


def class_prompts(
    name: str, templates: Sequence[str] = TEMPLATES, *, verbatim: bool = False
) -> list[str]:
    """One prompt per template for the class ``name``, written as a class folder is.

    >>> class_prompts("English_springer", ["a photo of a {}."])
    ['a photo of an English springer.']

    Args:
        name: of the class.
        templates: sentences with ``{}``.
        verbatim: leave ``a`` and the name as they are; published numbers are of such prompts.

    Raises:
        UsageError: a template has no ``{}``.
    """
    check_templates(templates)
    if verbatim:
        return [template.replace("{}", name) for template in templates]
    words = class_name(name)
    return [_article(template, words).replace("{}", words) for template in templates]


def check_templates(templates: Sequence[str], what: str = "class name") -> None:
    """Refuse a template without a place for the class name, or for ``what`` else goes there.

    Raises:
        UsageError: a template has no ``{}``.
    """
    for template in templates:
        if "{}" not in template:
            raise UsageError(
                f"the template {template!r} has no place for the {what}", "Put {} where it goes."
            )


def read_templates(path: Path) -> tuple[str, ...]:
    """The templates in a text file, one a line, or in the forms of other tools: JSON, Python.

    A name in braces is the place of the class, as in CLIP_benchmark's ``a photo of a {c}.``

    Raises:
        DataError: the file cannot be read, or is JSON without one list.
        UsageError: it has no line, or one without a place for the name.
    """
    return as_prompts(read_list(path), path)


def as_prompts(lines: Iterable[str], path: Path) -> tuple[str, ...]:
    """Templates of the lines of a file, without those that are empty.

    Raises:
        UsageError: there is none, or one without a place for the name.
    """
    templates = tuple(_NAMED_PLACE.sub("{}", line.strip()) for line in lines if line.strip())
    if not templates:
        raise UsageError(f"{path} has no template", "Write one a line, with {} for the name.")
    check_templates(templates)
    return templates


def _article(template: str, words: str) -> str:
    start = words.lower()
    if start.startswith(_VOWEL_SOUNDS) and not start.startswith(_CONSONANT_SOUNDS):
        return _ARTICLE.sub(r"\1n {}", template)
    return template
