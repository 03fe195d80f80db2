"""A set of questions asked one by one; answers are on disk as they come.

One at a time, as the scripts that benchmarks are published with do: in a batch each answer depends,
by its padding and in the last digits, on what else is asked with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import ascii_uppercase
from time import perf_counter
from typing import Any, Literal, Protocol

from PIL.Image import Image

from lateen.data import decode_image
from lateen.data.fingerprint import hash64
from lateen.errors import DataError, ImageError, ModelError
from lateen.files import content_key
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.benchmarks.questions import AnswerKind, Question, QuestionSet
from lateen.mllm.choosing import Tokens, choose, first_tokens
from lateen.mllm.conversations import Message
from lateen.mllm.line_file import LineFile, read_lines
from lateen.progress import bar, log

AnsweredBy = Literal["generation", "first token", "likelihood"]
Under = Literal["own", "another"]
CHOSEN: tuple[AnswerKind, ...] = ("yes-no", "letter")
"""Kinds of answers that can be chosen by their first token."""
AnswerKey = tuple[str, ...]
_KEY = ("question", "image", "key")  # what a line of the file has of an AnswerKey
_WHAT = "answers"
_REMEDY = "They are of another evaluation: choose another --out, or remove the file."
_YES_NO = {"yes": ("Yes", "yes"), "no": ("No", "no")}


@dataclass(frozen=True)
class Given:
    """An answer to a question.

    Attributes:
        answer: a text.
        cut: whether the limit ended it, and not the model.
        seconds: that it took.
        yes: how sure the model is of yes, where it chose between yes and no.
        share: how likely its own answer begins with one of those that it chose among.
        fault: why it could not be asked; empty if it was.
    """

    answer: str
    cut: bool
    seconds: float
    yes: float | None = None
    share: float | None = None
    fault: str = ""


Asked = str | Sequence[Message]
"""A prompt, or a conversation that ends with it."""
Ask = Callable[[Question, Asked, Sequence[Image]], Given]


class Examples(Protocol):
    """What stands before questions; see :class:`lateen.mllm.shots.Shots`."""

    def key(self, question: Question) -> list[Any]:
        """What changes whenever they do."""

    def conversation(self, question: Question, prompt: str) -> list[Message]:
        """Them and the question as turns."""

    def pictures(self, question: Question) -> list[Image]:
        """Their images."""


def asker(mllm: MultimodalModel, by: AnsweredBy, kind: AnswerKind, max_tokens: int) -> Ask:
    """What asks one question: its prompt and pictures to an answer.

    Args:
        mllm: that is asked.
        by: how its answers are found.
        kind: of the answers.
        max_tokens: of a generated answer at most.

    Raises:
        UsageError: answers cannot be told by their first tokens.
    """
    if by == "first token":
        letters = {letter: (letter,) for letter in ascii_uppercase}
        tokens = first_tokens(mllm, _YES_NO if kind == "yes-no" else letters)
        return lambda question, prompt, images: _chosen(mllm, question, prompt, images, tokens)

    def generated(question: Question, prompt: Asked, images: Sequence[Image]) -> Given:
        del question
        answer = mllm.answer(prompt, list(images), max_tokens=max_tokens)
        return Given(answer.text, answer.cut, answer.seconds)

    return generated


def _chosen(
    mllm: MultimodalModel, question: Question, prompt: Asked, images: Sequence[Image],
    tokens: Tokens,
) -> Given:  # fmt: skip
    begin = perf_counter()
    if question.kind == "letter":
        tokens = {letter: tokens[letter] for letter in ascii_uppercase[: len(question.choices)]}
    choice = choose(mllm, prompt, images, tokens)
    return Given(
        choice.text, False, perf_counter() - begin, choice.chances.get("yes"), choice.share
    )


class AnswerFile:
    """Answers on disk, a line for each; a run that was killed goes on behind the last whole one.

    Args:
        path: of the file; ``None`` keeps nothing.
        identity: what the answers depend on beside the question: the model, how it is asked.

    Attributes:
        stored: answers that were there, by question, image (``own`` or ``another``) and a hash of
            what was asked.

    Raises:
        DataError: the file has answers of something else, or is none.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._lines: LineFile | None = None
        self.stored: dict[AnswerKey, Given] = {}
        if path is not None:
            self._lines = LineFile(path, identity, _WHAT, _REMEDY)
            self.stored = _read(path, self._lines.rows)

    def add(self, key: AnswerKey, given: Given) -> None:
        """Append an answer.

        Args:
            key: as in :attr:`stored`.
            given: the answer.

        Raises:
            LateenError: the disk is full.
        """
        if self._lines is None:
            return
        known = {name: v for name, v in asdict(given).items() if v is not None}
        if not given.fault:
            del known["fault"]
        self._lines.add(dict(zip(_KEY, key, strict=True)) | known)

    def close(self) -> None:
        """Let go of the file."""
        if self._lines is not None:
            self._lines.close()


def answer_all(
    ask: Ask, questions: QuestionSet, file: AnswerFile, under: Under,
    examples: Examples | None = None,
) -> dict[str, Given]:  # fmt: skip
    """Ask every question that has no answer yet.

    Args:
        ask: as :func:`asker` gives it.
        questions: with their images; those of the control have another's.
        file: of the answers before, and to come.
        under: whether the images are their own.
        examples: that stand before each, with images of their own.

    Returns:
        By the id of the question. One whose image cannot be read has a fault.
    """
    answers: dict[str, Given] = {}
    prompts = questions.prompts()
    what = "answers" if under == "own" else "answers under another's image"
    keys = _keys(questions, under, examples)
    before = sum(key in file.stored for key in keys)
    if before:
        log.info("%d of %d %s were there before", before, len(keys), what)
    with bar(len(keys), what, "question", initial=before) as progress:
        for question, prompt, key in zip(questions.questions, prompts, keys, strict=True):
            given = file.stored.get(key)
            if given is None:
                given = _ask(ask, question, prompt, examples)
                file.add(key, given)
                progress.update()
            answers[question.id] = given
    return answers


def read_answers(
    path: Path, questions: QuestionSet, under: Under = "own", examples: Examples | None = None
) -> dict[str, Given]:
    """The answers that a file has to the very questions of a set: same words, same images.

    Args:
        path: of what :class:`AnswerFile` wrote.
        questions: with their images.
        under: whether the images are their own.
        examples: that stood before each question, if any did.

    Returns:
        By the id of the question; those that the file has no answer to are absent.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise DataError(
            f"there is no {path}", "It comes with the result of `lateen mllm evaluate --out`."
        )
    stored = _read(path, read_lines(path, _WHAT)[1:])
    return {key[0]: stored[key] for key in _keys(questions, under, examples) if key in stored}


def _read(path: Path, rows: Sequence[Mapping[str, Any]]) -> dict[AnswerKey, Given]:
    read: dict[AnswerKey, Given] = {}
    for row in rows:
        try:
            key = tuple(str(row[name]) for name in _KEY)
            fields = {name: row[name] for name in Given.__dataclass_fields__ if name in row}
            read[key] = Given(**fields)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{path} has a line that is no answer ({error})", "Remove the file."
            ) from error
    return read


def _keys(questions: QuestionSet, under: Under, examples: Examples | None) -> list[AnswerKey]:
    return [
        (question.id, under, _asked_hash(question, prompt, examples))
        for question, prompt in zip(questions.questions, questions.prompts(), strict=True)
    ]


def _ask(ask: Ask, question: Question, prompt: str, examples: Examples | None) -> Given:
    asked: Asked = prompt if examples is None else examples.conversation(question, prompt)
    try:
        pictures = [] if examples is None else examples.pictures(question)
        pictures += [decode_image(source) for source in question.images]
    except ImageError as error:
        return Given("", False, 0.0, fault=error.message)
    try:
        return ask(question, asked, pictures)
    except ModelError as error:
        raise ModelError(f"question {question.id}: {error.message}", error.remedy) from error


def _asked_hash(question: Question, prompt: str, examples: Examples | None) -> str:
    """A hash of what is asked: the words, and the images' bytes, with what stands before."""
    asked: list[Any] = [prompt, *map(image_hash, question.images)]
    if examples is not None:
        asked.append(examples.key(question))
    return content_key(asked)[:16]


def image_hash(source: Any) -> str:
    """A hash of an image's bytes; a word where they cannot be read."""
    try:
        return str(hash64(source.read()))
    except OSError:
        return "unreadable"
