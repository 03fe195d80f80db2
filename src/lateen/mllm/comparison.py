"""Two models asked the same questions: their numbers in pairs, and their answers side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.errors import DataError, UsageError
from lateen.evaluation.comparison import differences
from lateen.evaluation.paired import PairedNumber, paired_numbers
from lateen.evaluation.questions import untrained_projector
from lateen.evaluation.results import SavedResult, folder_labels, read_all
from lateen.evaluation.task import Result
from lateen.files import make_folder, write_json
from lateen.mllm.answering import Given, read_answers
from lateen.mllm.benchmarks.questions import Question, QuestionSet, some_of, without
from lateen.mllm.benchmarks.scoring import points_of
from lateen.mllm.evaluation import file_stem

_TASK = "mllm"


@dataclass(frozen=True)
class Answered:
    """A model's answers to a set.

    Attributes:
        label: what the model is called.
        result: of the evaluation.
        answers: by the id of the question.
        worth: of each answer, from 0 to 1, likewise.
    """

    label: str
    result: Result
    answers: Mapping[str, Given]
    worth: Mapping[str, float]


@dataclass(frozen=True)
class SideBySide:
    """Two models' answers to the same questions.

    Attributes:
        questions: that both answered.
        first: one model's answers.
        second: the other's.
        numbers: of both, and the second's above the first's.
    """

    questions: QuestionSet
    first: Answered
    second: Answered
    numbers: list[PairedNumber]

    @property
    def labels(self) -> tuple[str, str]:
        """What the models are called."""
        return self.first.label, self.second.label

    @property
    def warnings(self) -> list[str]:
        """Why the numbers say less than they seem to, in sentences."""
        sides = (self.first, self.second)
        blind = [side.label for side in sides if untrained_projector(side.result)]
        untrained = (
            [f"the projector is untrained ({' and '.join(blind)}), so that the answers have "
             "nothing to do with the images"] if blind else []
        )  # fmt: skip
        differ = differences([side.result for side in sides])
        ways = [f"not the same for both: {', '.join(differ)}; no difference can be told from "
                "chance"] if differ else []  # fmt: skip
        return untrained + ways

    def sorted_by_winner(self) -> dict[str, list[Question]]:
        """The questions by who is right: the second alone, the first alone, neither, both."""
        halves = any(0 < each < 1 for side in (self.first, self.second)
                     for each in side.worth.values())  # fmt: skip
        alone = "{} is more right" if halves else "Only {} is right"
        names = [alone.format(self.second.label), alone.format(self.first.label)]
        kinds: dict[str, list[Question]] = {
            name: [] for name in (*names, "Both are wrong", "Both are partly right",
                                  "Both are right")
        }  # fmt: skip
        for question in self.questions.questions:
            one, two = self.first.worth[question.id], self.second.worth[question.id]
            if one != two:
                kinds[names[one > two]].append(question)
            else:
                middle = "partly right" if 0 < one < 1 else "right" if one else "wrong"
                kinds[f"Both are {middle}"].append(question)
        return {name: some for name, some in kinds.items() if some or name in names}

    @property
    def same(self) -> int:
        """To how many questions both say the same words."""
        pairs = ((self.first.answers[q.id], self.second.answers[q.id])
                 for q in self.questions.questions)  # fmt: skip
        return sum(one.answer == two.answer for one, two in pairs)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: the numbers, and how many questions each kind has."""
        return {
            "task": "mllm-compared",
            "set": self.questions.name,
            "split": self.questions.split or None,
            "models": list(self.labels),
            "questions": len(self.questions.questions),
            "n": self.first.result["n"],
            "numbers": [each.as_dict() for each in self.numbers],
            "right": {name: len(some) for name, some in self.sorted_by_winner().items()},
            "same_answers": self.same,
            "warnings": self.warnings,
            "conditions": {
                "data": self.first.result["conditions"]["data"],
                "model": [s.result["conditions"]["model"] for s in (self.first, self.second)],
            },
        }


def shared_results(
    first: str | Path, second: str | Path, name: str | None = None, split: str | None = None
) -> tuple[SavedResult, SavedResult]:
    """The results on the one set that two evaluations share.

    Args:
        first: a result file, or a folder of results.
        second: likewise.
        name: of the set, where they share several.
        split: of it, likewise.

    Raises:
        DataError: a place has no result of questions, or they share none.
        UsageError: they share several.
    """
    sides = [_results(Path(place), name, split) for place in (first, second)]
    shared = [key for key in sides[0] if key in sides[1]]
    if not shared:
        on = [", ".join(key[1] for key in side) or "nothing" for side in sides]
        raise DataError(
            f"{first} ({on[0]}) and {second} ({on[1]}) have no set of questions in common",
            "Evaluate both models on the same benchmark and split.",
        )
    if len(shared) > 1:
        raise UsageError(
            f"both have {len(shared)} sets: {'; '.join(key[1] for key in shared)}",
            "Choose one with --benchmark, and --split.",
        )
    return sides[0][shared[0]], sides[1][shared[0]]


def _results(
    place: Path, name: str | None, split: str | None
) -> dict[tuple[str, str], SavedResult]:
    """The results of questions below a place."""
    found = [
        each for each in read_all([place])
        if each.key[0] == _TASK and name in (None, each.result.get("set"))
        and (split is None or each.result.get("split") in (None, split))
    ]  # fmt: skip
    several = [key[1] for key, count in Counter(each.key for each in found).items() if count > 1]
    if several:
        raise UsageError(
            f"{place} has several results of {several[0]}", "Name the folder of one evaluation."
        )
    return {each.key: each for each in found}


def compare_answers(
    first: str | Path, second: str | Path, questions: QuestionSet, *,
    out: str | Path | None = None, labels: Sequence[str] | None = None,
) -> SideBySide:  # fmt: skip
    """Hold the finished evaluations of two models against each other, question by question.

    No model is run. That both were asked the same is certain: each answer is stored with a hash of
    the words and the images' bytes, and each result with one of all of them.

    Args:
        first: what :func:`lateen.mllm.evaluate_questions` wrote: its result file or the folder.
        second: of another model.
        questions: the set that they were asked, whole.
        out: folder for the numbers, ``<set>-<split>-compared.json``, and a page with both models'
            answers, ``.html``.
        labels: what the two are called; as their folders are if not given.

    Raises:
        DataError: they were asked other questions than these, or answers are not there.
        UsageError: labels that are not two different ones.
    """
    saved = shared_results(first, second, questions.name, questions.split or None)
    names = folder_labels([[each] for each in saved]) if labels is None else list(labels)
    if len(set(names)) != 2 or len(names) != 2:
        raise UsageError(
            f"the labels {', '.join(names)} are not two different ones", "Give one for each model."
        )
    asked = [_asked(each, questions) for each in saved]
    numbers = paired_numbers(saved[0].result, saved[1].result)
    one, two = (
        _answered(label, each, its)
        for label, each, its in zip(names, saved, asked, strict=True)
    )  # fmt: skip
    found = SideBySide(asked[0], one, two, numbers)
    if out is not None:
        from lateen.mllm.comparison_page import write_comparison_page

        stem = compared_stem(questions)
        write_json(make_folder(out) / f"{stem}.json", found.as_dict())
        write_comparison_page(found, Path(out) / f"{stem}.html")
    return found


def compared_stem(questions: QuestionSet) -> str:
    """What the files of a comparison are called: ``pope-adversarial-compared``.

    Args:
        questions: the set.
    """
    return f"{file_stem(questions.name, questions.split)}-compared"


def _answers_file(saved: SavedResult) -> Path:
    return saved.path.with_name(f"{saved.path.stem}-answers.jsonl")


def _asked(saved: SavedResult, questions: QuestionSet) -> QuestionSet:
    """The questions that a result is of.

    Raises:
        DataError: they are no longer these, or an answer is not there.
    """
    result, asked = saved.result, questions
    if "of_questions" in result:  # so many were drawn by lot, those among them that had a fault
        asked = some_of(
            questions, max(1, result["questions"] + result["skipped"] - len(questions.skips))
        )
    answers = read_answers(_answers_file(saved), asked)
    faults = {name: each.fault for name, each in answers.items() if each.fault}
    asked = without(asked, faults) if faults else asked
    missing = [each.id for each in asked.questions if each.id not in answers]
    if missing or asked.fingerprint != result["conditions"].get("data"):
        which = f" (such as {missing[0]})" if missing else ""
        raise DataError(
            f"the questions here are not those of {saved.path}{which}",
            "Give the same --data, --images and --split as then.",
        )
    return asked


def _answered(label: str, saved: SavedResult, asked: QuestionSet) -> Answered:
    answers = read_answers(_answers_file(saved), asked)
    texts = {name: each.answer for name, each in answers.items()}
    ids = (each.id for each in asked.questions)
    worth = dict(zip(ids, points_of(asked, texts), strict=True))
    return Answered(label, saved.result, answers, worth)
