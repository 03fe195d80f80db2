"""A question about images, a set of them, and the same questions under other images."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import Literal, TypeVar

from lateen.data.fingerprint import combine
from lateen.data.samples import ImageSource, Skip, content_hashes
from lateen.errors import DataError, UsageError
from lateen.files import content_key
from lateen.metrics.boxes import Box
from lateen.mllm.benchmarks.files import Draft

AnswerKind = Literal["human", "short", "count", "yes-no", "letter", "box", "caption", "text"]
"""What an answer is, and so what it is compared with:

``human``: several people's answers (VQA accuracy); ``short``: a word or phrase (exact match);
``count``: a number; ``yes-no``; ``letter``: of a choice; ``box``: where something is;
``caption``: a sentence, with people's captions (CIDEr-D); ``text``: anything, which has to be
judged by people or another model.
"""

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
"""Endings of prompts, as LLaVA-1.5's ``docs/Evaluation.md`` and paper (arXiv:2310.03744) have
them."""

COUNTS_WITH_LOST = "another question that it counts with cannot be asked"
"""Why a question is left out that could be asked."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        id: unique within its set.
        images: what is asked about, in order.
        image_ids: what the images are called in the set: questions about the same image share it.
        text: as published, without choices and without an ending.
        kind: of its answer.
        answers: those that are right: people's answers, a word, ``yes`` or ``no``, a letter; empty
            where they are not published.
        choices: texts to choose from, A first.
        box: the right box, in fractions of the image's sides.
        groups: what it is counted under: a category, a relation; by kind of group.
        rotation_of: what it shares with the same question under rotated choices; empty if it has
            none.
        pair: what it shares with the question that must be right too; empty if there is none.
        published: names and values of the set's own that an upload must repeat; of a box also
            ``width`` and ``height`` of the image in pixels.
    """

    id: str
    images: tuple[ImageSource, ...]
    image_ids: tuple[str, ...]
    text: str
    kind: AnswerKind
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    box: Box | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    rotation_of: str = ""
    pair: str = ""
    published: Mapping[str, object] = field(default_factory=dict)

    @property
    def has_answer(self) -> bool:
        """Whether it is known what is right."""
        return bool(self.answers) or self.box is not None

    @property
    def example_answer(self) -> str:
        """What an example, or whoever learns, is shown: of several people's answers the most
        frequent, of captions the first; empty where none is published."""
        if self.box is not None:
            return f"[{', '.join(f'{side:.2f}' for side in self.box)}]"
        if not self.answers:
            return ""
        if self.kind == "caption":
            return self.answers[0]
        [(answer, _)] = Counter(self.answers).most_common(1)
        return answer.capitalize() if self.kind == "yes-no" else answer

    def prompt(self, ending: str = "") -> str:
        """The question, a line for each choice with its letter, and an ending."""
        lettered = (
            f"{letter}. {choice}"
            for letter, choice in zip(ascii_uppercase, self.choices, strict=False)
        )
        return "\n".join(filter(None, [self.text, *lettered, ending]))


_Asked = TypeVar("_Asked", Question, Draft)
_Name = TypeVar("_Name", str, tuple[str, ...])


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a benchmark.

    Attributes:
        name: of the benchmark.
        split: of it; empty where it has none.
        ending: of every prompt.
        questions: those that can be asked, all of one kind.
        skips: of those that cannot.
    """

    name: str
    split: str
    ending: str
    questions: tuple[Question, ...]
    skips: tuple[Skip, ...] = ()

    @property
    def kind(self) -> AnswerKind:
        """Of the answers."""
        return self.questions[0].kind

    @property
    def can_be_scored(self) -> bool:
        """Whether answers can be scored here: it is known what is right, and not for a judge."""
        return self.has_answers and self.kind != "text"

    @property
    def has_answers(self) -> bool:
        """Whether it is published what is right, so that answers can be scored here."""
        return self.questions[0].has_answer

    def prompts(self) -> list[str]:
        """What to ask, a text for each question."""
        return [question.prompt(self.ending) for question in self.questions]

    @property
    def fingerprint(self) -> str:
        """64 hex digits that change whenever a question, an answer or an image's bytes do."""
        images = {image.name: image for each in self.questions for image in each.images}
        asked = [
            [q.id, q.image_ids, q.prompt(self.ending), q.answers, q.box] for q in self.questions
        ]
        return combine([content_key(asked), *content_hashes(images.values())])


def other_images(questions: QuestionSet, seed: int = 0) -> QuestionSet:
    """The same questions, each about another question's images: what language alone answers.

    Images that belong together stay together. Each goes to one other, so that all are used as
    often as before as far as their numbers of questions are the same.

    Args:
        questions: a set about more than one image.
        seed: of the order.

    Raises:
        DataError: all questions are about the same images.
    """
    images = {question.image_ids: question.images for question in questions.questions}
    if len(images) < 2:
        raise DataError(
            f"all questions of {questions.name} are about the same image",
            "A control with other images needs at least two.",
        )
    after = another_of(images, seed)
    swapped = [replace(each, images=images[after[each.image_ids]]) for each in questions.questions]
    return replace(questions, questions=tuple(swapped))


def another_of(names: Iterable[_Name], seed: int = 0) -> dict[_Name, _Name]:
    """For each name another, each of them once.

    Args:
        names: two different ones at least.
        seed: of the order.
    """
    order: list[_Name] = sorted(set(names))
    random.Random(seed).shuffle(order)
    return dict(zip(order, order[1:] + order[:1], strict=True))


def some_of(questions: QuestionSet, most: int, seed: int = 0) -> QuestionSet:
    """Some of the questions, drawn by lot and in their order; more are these and others.

    Questions that count together (rotations, pairs) stay together, so that there may be a few less.

    Args:
        questions: a set.
        most: how many at most; at least what counts together with the first one drawn.
        seed: of the lot.

    Raises:
        UsageError: less than one is wanted.
    """
    if most < 1:
        raise UsageError(f"{most} questions are none", "Ask 1 or more.")
    together: dict[tuple[str, str], list[str]] = {}
    for each in questions.questions:
        together.setdefault(counts_with(each), []).append(each.id)
    order = list(together)
    random.Random(seed).shuffle(order)
    chosen = set(together[order[0]])
    for key in order[1:]:
        if len(chosen) + len(together[key]) > most:
            break
        chosen.update(together[key])
    return replace(questions, questions=tuple(q for q in questions.questions if q.id in chosen))


def without(questions: QuestionSet, faults: Mapping[str, str]) -> QuestionSet:
    """The questions but those that could not be asked, and those that count with one of them.

    Args:
        questions: a set.
        faults: why a question could not be asked, by its id.

    Raises:
        DataError: none is left.
    """
    lost = {counts_with(each) for each in questions.questions if each.id in faults}
    gone = [each for each in questions.questions if counts_with(each) in lost]
    left = tuple(each for each in questions.questions if counts_with(each) not in lost)
    if not left:
        raise DataError(
            f"not one question of {questions.name} could be asked (the first: "
            f"{next(iter(faults.values()))})",
            "Look at its images.",
        )
    skips = [
        Skip(each.id, faults.get(each.id) or COUNTS_WITH_LOST, questions.name) for each in gone
    ]
    return replace(questions, questions=left, skips=(*questions.skips, *skips))


def counts_with(question: Question | Draft) -> tuple[str, str]:
    """What is the same for questions that are right only together."""
    if question.pair:
        return "pair", question.pair
    return ("rotation", question.rotation_of) if question.rotation_of else ("", question.id)


def rotations(question: _Asked) -> list[_Asked]:
    """A question of letters under every rotation of its choices, itself first.

    Named as MMBench does: ``1000007`` is question 7 with its choices rotated once to the left; an
    id that is no number gets ``+1``.
    """
    choices = question.choices
    rotated = [question]
    for by in range(1, len(choices)):
        number = question.id.isdecimal()
        rotated.append(
            replace(
                question,
                id=str(int(question.id) + by * ROTATION) if number else f"{question.id}+{by}",
                choices=choices[by:] + choices[:by],
                answers=tuple(_rotated(letter, by, len(choices)) for letter in question.answers),
            )
        )
    return [replace(each, rotation_of=question.id) for each in rotated]


def _rotated(letter: str, by: int, count: int) -> str:
    return ascii_uppercase[(ascii_uppercase.index(letter) - by) % count]


ROTATION = 10**6
"""What MMBench adds to a question's index for each rotation of its choices."""


def units(questions: Sequence[Question]) -> tuple[list[str], list[int]]:
    """The images that questions are about, and for each question which, from 0.

    Questions about the same image are not independent: intervals draw images, with all of their
    questions. Two images that are a pair are one.
    """
    return numbered([q.pair or "\n".join(q.image_ids) or q.id for q in questions])


def numbered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different names, and for each of all which it is, from 0."""
    numbers: dict[str, int] = {}
    of_name = [numbers.setdefault(name, len(numbers)) for name in names]
    return list(numbers), of_name
