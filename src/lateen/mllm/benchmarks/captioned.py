"""Questions made of a captioned dataset: its captions themselves, and POPE of what they name.

POPE (arXiv:2305.10355) asks of the objects that COCO's annotators marked. Captions name fewer
things than there are: *no* is asked only where no caption names the thing or its kin, and still has
noise, most for what people rarely mention (grass, sand, fences).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lateen.data.samples import Dataset, Sample, Skip, no_captions
from lateen.errors import DataError, UsageError
from lateen.mllm.benchmarks.nouns import NOUNS, Noun
from lateen.mllm.benchmarks.questions import CAPTION, SHORT, Question, QuestionSet

POPE_OF_CAPTIONS = "pope-of-captions"
CAPTIONS_OF = "captions-of"
_WORD = re.compile(r"[a-z][a-z-]*")


class _Evidence(NamedTuple):
    """The ids of images that have a thing, and of those that do not, as far as captions tell."""

    present: list[str]
    absent: list[str]


def captions_from(dataset: Dataset) -> QuestionSet:
    """A caption is asked for of every image that has some; those are the right answers.

    Args:
        dataset: images with captions; all caption columns count together.

    Raises:
        DataError: there is no image with a caption.
    """
    asked: list[Question] = []
    left_out: list[Skip] = []
    for each in dataset:
        if isinstance(each, Skip):
            left_out += [each] if each.sample else []
            continue
        texts = tuple(text for texts in each.captions.values() for text in texts)
        if each.image is not None and texts:
            asked.append(Question(each.id, (each.image,), (each.id,), CAPTION, "caption", texts))
        else:
            lacks = "caption" if each.image is not None else "image"
            left_out.append(Skip(each.id, f"it has no {lacks}", dataset.name))
    if not asked:
        raise DataError(no_captions(dataset), "Give a dataset with images and captions.")
    return QuestionSet(CAPTIONS_OF, "", "", tuple(asked), tuple(left_out))


def pope_from_captions(
    dataset: Dataset, *, nouns: int | Mapping[str, Noun] = 30, named_by: int = 2,
    per_noun: int | None = 50, seed: int = 0,
) -> QuestionSet:  # fmt: skip
    """Questions of POPE's form, as many *yes* as *no* for each thing.

    So what is answered without the image, from the word alone, is right in exactly half of them.
    *Yes* is right where enough captions name the thing, *no* where none names it or its kin; other
    images are not asked about.

    Args:
        dataset: images with captions; all caption columns count together.
        nouns: how many things: those of :data:`~lateen.mllm.benchmarks.nouns.NOUNS` that give the
            most questions; or a table like it, all of which is used.
        named_by: of an image's captions, so many must name the thing for a *yes*; all of them where
            there are fewer.
        per_noun: at most so many *yes*, and as many *no*, for each thing; ``None`` for no limit.
        seed: of the choice of images.

    Returns:
        The questions, one thing after another, with the group ``thing``. The same dataset and seed
        give the same questions, whatever the order of the samples.

    Raises:
        DataError: the dataset has no captions, or of no thing are there images with and without it.
        UsageError: a number is below 1.
    """
    counts = {"nouns": nouns, "named_by": named_by, "per_noun": per_noun}
    for name, value in counts.items():
        if isinstance(value, int) and value < 1:
            raise UsageError(f"{name} is {value}, below 1", "Give a number from 1 on.")
    samples = {each.id: each for each in dataset if isinstance(each, Sample) and each.image}
    words = {name: _words(sample) for name, sample in samples.items()}
    if not any(words.values()):
        raise DataError(no_captions(dataset), "Give a dataset with captions.")
    table = NOUNS if isinstance(nouns, int) else nouns
    evidence = {name: _evidence(noun, words, named_by) for name, noun in table.items()}
    sizes = {name: _size(each, per_noun) for name, each in evidence.items()}
    chosen = [name for name, size in sorted(sizes.items(), key=lambda s: (-s[1], s[0])) if size]
    chosen = sorted(chosen[:nouns] if isinstance(nouns, int) else chosen)
    questions = [
        question
        for name in chosen
        for question in _questions(name, table[name], evidence[name], sizes[name], samples, seed)
    ]
    if not questions:
        raise DataError(
            f"the captions of {dataset.name} name none of {len(table)} things in some images and "
            "not in others",
            "Give a table of nouns of what its captions are about.",
        )
    return QuestionSet(POPE_OF_CAPTIONS, "", SHORT, tuple(questions))


def _words(sample: Sample) -> list[set[str]]:
    """The words of each caption."""
    return [
        set(_WORD.findall(text.lower())) for texts in sample.captions.values() for text in texts
    ]


def _evidence(noun: Noun, words: Mapping[str, Sequence[set[str]]], named_by: int) -> _Evidence:
    named, open_words = set(noun.named), {*noun.named, *noun.kin}
    present, absent = [], []
    for name in sorted(words):
        captions = words[name]
        count = sum(bool(named & caption) for caption in captions)
        if captions and count >= min(named_by, len(captions)):
            present.append(name)
        elif captions and not any(open_words & caption for caption in captions):
            absent.append(name)
    return _Evidence(present, absent)


def _size(evidence: _Evidence, most: int | None) -> int:
    size = min(len(evidence.present), len(evidence.absent))
    return size if most is None else min(size, most)


def _questions(
    name: str, noun: Noun, evidence: _Evidence, size: int, samples: Mapping[str, Sample], seed: int
) -> list[Question]:
    """As many of either answer, by turns."""
    generator = random.Random(f"{seed} {name}")
    text = f"Is there {noun.article} {name} in the image?".replace("  ", " ")
    present = generator.sample(evidence.present, size)
    absent = generator.sample(evidence.absent, size)
    asked = []
    for pair in zip(present, absent, strict=True):
        for sample, answer in zip(pair, ("yes", "no"), strict=True):
            image = samples[sample].image
            asked.append(
                Question(
                    f"{name}-{sample}", (image,) if image else (), (sample,), text, "yes-no",
                    (answer,), groups={"thing": name},
                )
            )  # fmt: skip
    return asked
