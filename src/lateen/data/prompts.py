"""Prompts for zero-shot classification: class names put into sentences (METHODS §1.6).

Averaging a class's embedding over several sentences is due to CLIP (arXiv:2103.00020, §3.1.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def class_prompts(name: str, templates: Sequence[str] = TEMPLATES) -> list[str]:
    """One prompt per template for the class ``name``, written as a class folder is.

    >>> class_prompts("English_springer", ["a photo of a {}."])
    ['a photo of an English springer.']

    Raises:
        UsageError: a template has no ``{}``.
    """
    words = class_name(name)
    return [_article(template, words).replace("{}", words) for template in templates]


def _article(template: str, words: str) -> str:
    if "{}" not in template:
        raise UsageError(
            f"the template {template!r} has no place for the class name", "Put {} where it goes."
        )
    start = words.lower()
    if start.startswith(_VOWEL_SOUNDS) and not start.startswith(_CONSONANT_SOUNDS):
        return _ARTICLE.sub(r"\1n {}", template)
    return template
