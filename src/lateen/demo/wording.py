"""What is said about the demo's pictures: full descriptions, and short captions with faults."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lateen.demo.scene import SEEN, Scene, Thing

# Training names no turquoise heart and no purple ring, and no caption says "moon".
SENTENCES = (
    "a big yellow star",
    "a small pink shape at night",
    "a red star to the left of a yellow ring",
    "a turquoise heart",
    "a purple ring",
    "a yellow moon",
)
SHAPE_PROMPTS = ("a {}", "a big {}", "a small {}", "a picture of a {}")
COLOUR_PROMPTS = ("a {} shape", "a big {} shape", "a small {} shape", "something {}")
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
_PLACE_WORDS = {
    "sand": "on sand",
    "mint": "on mint",
    "lilac": "on lilac",
    "sky": "in the sky",
    "mist": "in the mist",
    "night": "at night",
}
_RELATION_WORDS = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}
_OPENINGS = ("", "", "a picture of ", "a drawing of ", "there is ", "an image with ")
_JOINTS = (" and ", " with ", " next to ", ", ")


# How often a short caption goes wrong, in the ways in which captions from the web do.
_FORGET_THING = 0.2
_FORGET_COLOUR = 0.1
_FORGET_SHAPE = 0.06
_WRONG_COLOUR = 0.04
_TYPO = 0.08


def detailed_caption(scene: Scene) -> str:
    """Every thing of ``scene`` with its size, colour and shape, where it is, and the background."""
    things = scene.things
    listed = [f"a {t.size} {t.colour} {t.shape}" for t in things]
    head = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    sentences = [f"{head[0].upper()}{head[1:]} {_PLACE_WORDS[scene.background]}."]
    for thing, other in itertools.pairwise(things):
        relation = _RELATION_WORDS[thing.relation(other)]
        sentences.append(
            f"The {thing.colour} {thing.shape} is {relation} the {other.colour} {other.shape}."
        )
    return " ".join(sentences)


def short_captions(scene: Scene, count: int) -> list[str]:
    """``count`` short captions of ``scene``: some leave things out, misspell or err."""
    rng = np.random.default_rng((*scene.seed, 2))
    return [_short_caption(scene, rng) for _ in range(count)]


def _short_caption(scene: Scene, rng: np.random.Generator) -> str:
    order = rng.permutation(len(scene.things))
    kept = [scene.things[i] for i in order if rng.random() >= _FORGET_THING]
    things = kept or [scene.things[order[0]]]
    names = [_name(t, rng) for t in things]
    joint = _pick(rng, _JOINTS)
    if len(things) == 2 and rng.random() < 0.5:
        joint = f" {_RELATION_WORDS[things[0].relation(things[1])]} "
    caption = _pick(rng, _OPENINGS) + joint.join(names)
    if rng.random() < 0.15:
        caption += f" {_PLACE_WORDS[scene.background]}"
    return _misspell(caption, rng) if rng.random() < _TYPO else caption


def _name(thing: Thing, rng: np.random.Generator) -> str:
    size = f"{_pick(rng, _SIZE_WORDS[thing.size])} " if rng.random() < 0.4 else ""
    fault = rng.random()
    if fault < _FORGET_COLOUR:
        return f"a {size}{thing.shape}"
    if fault < _FORGET_COLOUR + _FORGET_SHAPE:
        return f"{_article(size or thing.colour)} {size}{thing.colour} shape"
    colour = thing.colour
    if fault > 1 - _WRONG_COLOUR:
        # Never a combination that is held out: no training caption may name one.
        colour = _pick(rng, sorted(c for shape, c in SEEN if shape == thing.shape))
    return f"{_article(size or colour)} {size}{colour} {thing.shape}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _misspell(text: str, rng: np.random.Generator) -> str:
    """``text`` with two neighbouring letters of one word swapped."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 3]
    at = long[rng.integers(len(long))]
    word = words[at]
    i = int(rng.integers(1, len(word) - 2))
    words[at] = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return " ".join(words)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
