"""Few-shot in context: questions with their answers that stand before a question.

As OpenFlamingo's evaluation (arXiv:2308.01390) has it, examples are drawn by lot for each question,
from the split to train on; not by how like they are to it (RICES). They are earlier turns of the
conversation. With no shots a question is asked alone, where OpenFlamingo shows two examples without
their images.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from lateen.data import decode_image
from lateen.data.samples import FileImage, ImageSource
from lateen.errors import DataError, ImageError, ModelError, UsageError
from lateen.mllm.answering import image_hash
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.benchmarks.benchmark import BENCHMARKS, open_benchmark
from lateen.mllm.benchmarks.questions import Question, QuestionSet
from lateen.mllm.conversations import Message, parts_of, text_of
from lateen.mllm.templates import IMAGE


@dataclass(frozen=True)
class Shots:
    """Examples for every question of a set.

    Attributes:
        count: before each question.
        pool: what they are drawn from, with answers.
        seed: of the lot.
    """

    count: int
    pool: QuestionSet
    seed: int = 0
    _drawn: dict[str, tuple[Question, ...]] = field(default_factory=dict, repr=False)
    _hashes: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{self.count} examples are none", "Give 1 or more.")
        if not self.pool.can_be_scored:
            raise UsageError(
                f"the questions of {self.called} have no answers to show",
                "Take examples from a split whose answers are published.",
            )

    @property
    def called(self) -> str:
        """What they are drawn from, in words."""
        return " ".join(filter(None, (self.pool.name, self.pool.split)))

    def facts(self, questions: QuestionSet) -> dict[str, Any]:
        """What a result says of them.

        Args:
            questions: that they stand before.
        """
        drawn = {each.id: each for q in questions.questions for each in self.before(q)}
        some = replace(self.pool, questions=tuple(drawn[name] for name in sorted(drawn)))
        return {
            "shots": self.count, "shots_from": self.called,
            "shots_drawn": {"seed": self.seed, "data": some.fingerprint},
        }  # fmt: skip

    def before(self, question: Question) -> tuple[Question, ...]:
        """The examples of a question, none about its image; drawn once, by its id and the seed.

        Raises:
            DataError: there are not as many.
        """
        if question.id not in self._drawn:
            self._drawn[question.id] = tuple(self._draw(question))
        return self._drawn[question.id]

    def _draw(self, question: Question) -> list[Question]:
        examples = self.pool.questions
        lot = random.Random(f"{self.seed} {question.id}")
        taken: list[Question] = []
        for each in (examples[at] for at in _lots(lot, len(examples))):
            if not _share_image(each, question):
                taken.append(each)
            if len(taken) == self.count:
                return taken
        raise DataError(
            f"{self.called} has {len(taken)} questions about other images than that of question "
            f"{question.id}, and {self.count} are wanted",
            f"Take --shots {len(taken)} or examples from a larger set.",
        )

    def key(self, question: Question) -> list[Any]:
        """What changes whenever the examples of a question do: words and the images' bytes.

        Args:
            question: of the set.
        """
        images = [image for each in self.before(question) for image in each.images]
        for image in images:
            if image.name not in self._hashes:
                self._hashes[image.name] = image_hash(image)
        return [self.conversation(question, ""), *(self._hashes[each.name] for each in images)]

    def conversation(self, question: Question, prompt: str) -> list[Message]:
        """The examples and the question as turns, with a place for each image.

        Args:
            question: of the set.
            prompt: what is asked.
        """
        return _turns(self.before(question), prompt, len(question.images), self.pool.ending)

    def pictures(self, question: Question) -> list[Image]:
        """The images of its examples.

        Raises:
            ImageError: one cannot be read.
        """
        try:
            return [decode_image(i) for each in self.before(question) for i in each.images]
        except ImageError as error:
            raise ImageError(f"an example before it: {error.message}") from error


def open_shots(
    name: str, count: int, root: str | Path | None, *, source: str | None = None,
    split: str | None = None, images: str | Path | None = None, seed: int = 0,
) -> Shots:  # fmt: skip
    """Examples of a benchmark, from its split to train on or from where is said.

    Args:
        name: of the benchmark.
        count: before each question.
        root: where its files are.
        source: another split of it; or a folder with its files, of a set made of captions a
            dataset. Its split to train on if not given.
        split: that is asked.
        images: folder of its images; of a set made of captions also of those of ``source``.
        seed: of the lot.

    Raises:
        UsageError: it has no split to train on.
        DataError: the files are not there.
    """
    benchmark = BENCHMARKS[name]
    asked = split or next(iter(benchmark.splits), "")
    train = benchmark.train_split(asked)
    if root is not None and Path(root).is_file():
        root = Path(root).parent  # of the file with the questions, not with those to train on
    if source in benchmark.splits:
        pool = open_benchmark(name, root, images=images, split=source)
    elif source is not None:
        # Datasets of captions most often share a folder of images; benchmarks have their own.
        beside = images if benchmark.of_dataset is not None else None
        pool = open_benchmark(name, source, images=beside, split=train)
    elif train is None:
        raise UsageError(
            f"{name} has no split to take examples from",
            "Say with --shots-from: a split, or a folder or dataset of its form.",
        )
    else:
        pool = open_benchmark(name, root, images=images, split=train)
    return Shots(count, pool, seed)


def check_context(
    mllm: MultimodalModel, questions: QuestionSet, shots: Shots, max_tokens: int
) -> None:
    """See that the longest question with its examples and its answer is within the context.

    Args:
        mllm: that is asked.
        questions: all of them.
        shots: their examples.
        max_tokens: of an answer.

    Raises:
        ModelError: it is not; how many examples would fit.
    """
    context = mllm.context
    if context is None:
        return
    per_image = _tokens_of_an_image(mllm, questions.questions[0])

    def length(question: Question, count: int) -> int:
        prompt = question.prompt(questions.ending)
        turns = _turns(
            shots.before(question)[:count], prompt, len(question.images), shots.pool.ending
        )
        text = text_of(mllm.processor, turns, prompt=True)
        ids = mllm.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return len(ids) + text.count(IMAGE) * (per_image - 1) + max_tokens

    longest = max(questions.questions, key=lambda each: length(each, shots.count))
    needed = length(longest, shots.count)
    if needed <= context:
        return
    fit = max((n for n in range(shots.count) if _all_fit(length, questions, n, context)), default=0)
    raise ModelError(
        f"question {longest.id} of {questions.name} with {shots.count} examples and its answer is "
        f"{needed:,} tokens long, and the language model takes {context:,}",
        f"Take --shots {fit}, which fits, or build with a smaller --grid."
        if fit else "Not even one example fits: build with a smaller --grid.",
    )  # fmt: skip


def _all_fit(
    length: Callable[[Question, int], int], questions: QuestionSet, count: int, context: int
) -> bool:
    return all(length(each, count) <= context for each in questions.questions)


def _tokens_of_an_image(mllm: MultimodalModel, question: Question) -> int:
    """Counted where the processor writes them, so that it holds for any model."""
    picture = next((decode_image(image) for image in question.images), None)
    if picture is None:
        return 1
    ids = mllm.inputs("Which?", [picture])["input_ids"]
    return int((ids == mllm.model.config.image_token_index).sum())


def _turns(examples: Sequence[Question], prompt: str, images: int, ending: str) -> list[Message]:
    turns: list[Message] = []
    shown = images + sum(len(each.images) for each in examples)
    for each in examples:
        turns.append({"role": "user", "content": IMAGE * len(each.images) + each.prompt(ending)})
        turns.append({"role": "assistant", "content": each.example_answer})
    turns.append({"role": "user", "content": IMAGE * images + prompt})
    return parts_of(turns, shown)


def _share_image(one: Question, other: Question) -> bool:
    """Whether two questions are about the same image, by its name or its bytes."""
    if set(one.image_ids) & set(other.image_ids):
        return True
    return any(_same(first, second) for first in one.images for second in other.images)


def _same(first: ImageSource, second: ImageSource) -> bool:
    sizes = [each.path.stat().st_size for each in (first, second)
             if isinstance(each, FileImage) and each.path.is_file()]  # fmt: skip
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        return False  # most often, and nothing is read
    return image_hash(first) == image_hash(second)


def _lots(lot: random.Random, size: int) -> Iterator[int]:
    """Numbers below ``size``, each once; a few of a large split cost no more than a few."""
    seen: set[int] = set()
    while len(seen) < size:
        at = lot.randrange(size)
        if at not in seen:
            seen.add(at)
            yield at
