"""What the answers to a benchmark's questions score, as a result like those of other tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lateen.errors import DataError
from lateen.evaluation.intervals import resampled
from lateen.evaluation.questions import FINE_PARTS, PARTS, TOGETHER, question_statistics
from lateen.metrics.answers import (
    Normalise,
    chosen_letter,
    count_in,
    exact_match,
    normalise_vqa,
    says_neither,
    says_yes,
    vqa_accuracy,
)
from lateen.metrics.boxes import Box, as_fractions, iou, parse_box
from lateen.mllm.benchmarks.benchmark import BENCHMARKS
from lateen.mllm.benchmarks.cider import cider
from lateen.mllm.benchmarks.questions import AnswerKind, Question, QuestionSet, numbered, units

_MOST_LISTED = 20
_CONSTANTS = 5  # of the most frequent right answers that are tried as the one answer to all
_IOU = 0.5

MEASURES: Mapping[AnswerKind, str] = {
    "human": "VQA accuracy", "short": "exact match", "count": "exact number",
    "yes-no": "accuracy", "letter": "accuracy of letters", "box": f"IoU of at least {_IOU}",
    "caption": "CIDEr-D",
}  # fmt: skip
"""What an answer of each kind is measured by, in words."""


def score(
    questions: QuestionSet, answers: Mapping[str, str], *,
    other: Mapping[str, str] | None = None, confidences: Mapping[str, float] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score the answers to a set of questions.

    Args:
        questions: with their right answers.
        answers: by the id of the question, one for each.
        other: likewise, given under another's image (:func:`other_images`): the control, from which
            it can be told how much language alone answers.
        confidences: of yes/no questions, how sure the model is of yes, by id: for the area under
            the ROC curve.
        conditions: what else the numbers depend on: the model's key, versions.

    Returns:
        JSON-ready: ``set``, ``split``, ``kind``; in percent ``accuracy`` and, where they are
        defined, ``circular``, ``pairs``, ``precision``, ``recall``, ``f1``, ``yes_ratio`` and
        ``auroc``; the same under ``control``, and ``gain`` above it; ``groups`` by kind and name;
        ``chance``; ``prior``, the answer that scores most if it is given to every question; how
        many answers could not be read (``unread``); ``n`` images with ``intervals`` and
        ``per_query`` (:func:`lateen.evaluation.intervals.resampled`). Of captions it is ``cider``
        in place of ``accuracy``, with ``tokenized_by``: how words were found.

    Raises:
        UsageError: captions, and what scores them is not installed.
        DataError: the right answers are not published, a question was not answered, or the answers
            are such that only people can judge.
    """
    asked = questions.questions
    _check(questions, {"answers": answers, "other": other, "confidences": confidences})
    images, unit = units(asked)
    arrays: dict[str, Any] = {"unit": unit}
    facts = set_facts(questions)
    if questions.kind == "caption":
        arrays["cider"], facts["tokenized_by"] = _ciders(questions, answers)
        if other is not None:
            arrays["other_cider"], _ = _ciders(questions, other)
    else:
        arrays["points"] = _parts(questions, answers)
        if other is not None:
            arrays["other_points"] = _parts(questions, other)
        arrays |= _yes_no(questions, answers, other, confidences)
        arrays |= _memberships(asked) | _together(asked)
    result = {
        **facts,
        "metric": _main_metric(arrays),
        "prior": _prior(asked, _normaliser(questions.name)),
        "unread": sum(_is_unread(each, answers[each.id]) for each in asked),
        "groups": _group_sizes(arrays),
        "conditions": {"data": questions.fingerprint, **(conditions or {})},
    }
    return measured(result, arrays, images)


def measured(
    result: Mapping[str, Any], arrays: Mapping[str, Any], images: Sequence[str]
) -> dict[str, Any]:
    """A result with every number that its arrays make, and their intervals.

    Args:
        result: without numbers.
        arrays: as :func:`~lateen.evaluation.questions.question_statistics` takes them.
        images: ids of the units.
    """
    numbers = dict(result)
    whole = np.ones((1, len(images)))
    for path, statistic in question_statistics(arrays).items():
        _put(numbers, path, float(statistic.drawn(whole)[0]))
    return {**numbers, **resampled(question_statistics, arrays, images)}


def set_facts(questions: QuestionSet) -> dict[str, Any]:
    """What a result says of a set before it is answered.

    Args:
        questions: the set.
    """
    return {
        "task": "mllm",
        "set": questions.name,
        "split": questions.split or None,
        "kind": questions.kind,
        "measure": MEASURES[questions.kind],
        "questions": len(questions.questions),
        "ending": questions.ending,
        "chance": _chance(questions),
        "skipped": len(questions.skips),
        "left_out_examples": [skip.as_dict() for skip in questions.skips[:_MOST_LISTED]],
        "templates": None,
        "seed": None,
        "options": {},
    }


def _main_metric(arrays: Mapping[str, Any]) -> str:
    if "cider" in arrays:
        return "cider"
    return next((metric for name, metric in TOGETHER.items() if name in arrays), "accuracy")


def _check(questions: QuestionSet, given: Mapping[str, Mapping[str, Any] | None]) -> None:
    if questions.kind == "text":
        raise DataError(
            f"answers to {questions.name} have to be judged by people or another model",
            "Write them with write_upload and give the file to a judge.",
        )
    if not questions.has_answers:
        split = f", split {questions.split}," if questions.split else ""
        benchmark = BENCHMARKS.get(questions.name)
        raise DataError(
            f"the right answers of {questions.name}{split} are not published",
            "Write the answers with write_upload and send the file to its server."
            if benchmark is not None and benchmark.upload is not None
            else "Take a split whose answers are.",
        )
    for name, values in given.items():
        missing = (
            [] if values is None else [q.id for q in questions.questions if q.id not in values]
        )
        if missing:
            raise DataError(
                f"{name} has nothing for {len(missing)} of the {len(questions.questions)} "
                f"questions of {questions.name} (the first: {missing[0]})",
                "Ask them all; an empty answer is one too.",
            )
    if given["confidences"] is not None and questions.kind != "yes-no":
        raise DataError(
            f"{questions.name} has no yes/no questions, so no confidences of yes",
            "Leave the confidences out.",
        )


def _normaliser(name: str) -> Normalise:
    return BENCHMARKS[name].normalise if name in BENCHMARKS else normalise_vqa


def points(question: Question, answer: str, normalise: Normalise = normalise_vqa) -> float:
    """What an answer is worth, from 0 to 1.

    Args:
        question: with its right answers.
        answer: of the model.
        normalise: what is done to words before they are compared.
    """
    right = question.answers
    compare: Mapping[str, Callable[[], float]] = {
        "human": lambda: vqa_accuracy(answer, right, normalise),
        "short": lambda: exact_match(answer, right, normalise),
        "count": lambda: float(count_in(answer) == int(right[0])),
        "yes-no": lambda: float(says_yes(answer) == (right[0] == "yes")),
        "letter": lambda: float(chosen_letter(answer, question.choices) == right[0]),
        "box": lambda: float(_overlap(question, answer) >= _IOU),
    }
    return compare[question.kind]()


def points_of(questions: QuestionSet, answers: Mapping[str, str]) -> list[float]:
    """What each answer of a set is worth, from 0 to 1, in the order of its questions.

    A caption is worth its CIDEr-D, from 0 to 10.

    Args:
        questions: with their right answers.
        answers: by the id of the question.
    """
    if questions.kind == "caption":
        return [each / FINE_PARTS for each in _ciders(questions, answers)[0]]
    normalise = _normaliser(questions.name)
    return [points(each, answers[each.id], normalise) for each in questions.questions]


def _ciders(questions: QuestionSet, answers: Mapping[str, str]) -> tuple[list[int], str]:
    """CIDEr-D of every answer in parts, and how words were found."""
    found = cider({each.id: each.answers for each in questions.questions}, answers)
    parts = [round(FINE_PARTS * found.values[each.id]) for each in questions.questions]
    return parts, found.tokenized_by


def _overlap(question: Question, answer: str) -> float:
    """IoU of the answer's box with the right one; 0 where it has none."""
    found = _box(question, answer)
    return 0.0 if found is None or question.box is None else iou(found, question.box)


def _box(question: Question, answer: str) -> Box | None:
    found = parse_box(answer)
    width, height = (question.published.get(side) for side in ("width", "height"))
    if found is None or not isinstance(width, int) or not isinstance(height, int):
        return found
    return as_fractions(found, width, height)


def _parts(questions: QuestionSet, answers: Mapping[str, str]) -> list[int]:
    return [round(PARTS * each) for each in points_of(questions, answers)]


def _is_unread(question: Question, answer: str) -> bool:
    """Whether what was asked for could not be found in the answer."""
    found: Mapping[str, Callable[[], bool]] = {
        "count": lambda: count_in(answer) is not None,
        "yes-no": lambda: not says_neither(answer),
        "letter": lambda: chosen_letter(answer, question.choices) is not None,
        "box": lambda: parse_box(answer) is not None,
    }
    return not found.get(question.kind, lambda: bool(answer.strip()))()


def _yes_no(
    questions: QuestionSet, answers: Mapping[str, str], other: Mapping[str, str] | None,
    confidences: Mapping[str, float] | None,
) -> dict[str, list[int]]:  # fmt: skip
    if questions.kind != "yes-no":
        return {}
    asked = questions.questions
    arrays = {
        "is_yes": [int(each.answers[0] == "yes") for each in asked],
        "said_yes": [int(says_yes(answers[each.id])) for each in asked],
    }
    if other is not None:
        arrays["other_said_yes"] = [int(says_yes(other[each.id])) for each in asked]
    if confidences is not None:
        values = np.array([confidences[each.id] for each in asked], float)
        if not np.isfinite(values).all():
            raise DataError("a confidence is no number", "Compute the confidences again.")
        arrays["rank"] = np.unique(values, return_inverse=True)[1].tolist()
    return arrays


def _memberships(asked: Sequence[Question]) -> dict[str, list[int]]:
    """Which questions each group has. A key path has dots, so that names have none."""
    members: dict[str, list[int]] = {}
    for at, question in enumerate(asked):
        for kind, name in question.groups.items():
            path = f"groups.{kind.replace('.', ' ')}.{name.replace('.', ' ')}"
            members.setdefault(path, [0] * len(asked))[at] = 1
    return members


def _together(asked: Sequence[Question]) -> dict[str, list[int]]:
    """Which questions count together, numbered."""
    return {
        name: numbered([key or each.id for key, each in zip(keys, asked, strict=True)])[1]
        for name, keys in _shared(asked).items()
        if any(keys)
    }


def _shared(asked: Sequence[Question]) -> dict[str, list[str]]:
    """What each question shares with those that it counts with, as :data:`TOGETHER` names it."""
    return {
        "rotation": [each.rotation_of for each in asked],
        "pair": [each.pair for each in asked],
    }


def _group_sizes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for path, members in arrays.items():
        if path.startswith("groups."):
            _put({"groups": sizes}, f"{path}.questions", sum(members))
    return sizes


def _put(result: dict[str, Any], path: str, value: float) -> None:
    *parents, last = path.split(".")
    for name in parents:
        result = result.setdefault(name, {})
    result[last] = value


def _chance(questions: QuestionSet) -> dict[str, float]:
    """What answers drawn by lot would score, where that is known."""
    asked = questions.questions
    if questions.kind == "yes-no":
        return {"accuracy": 50.0}
    if questions.kind != "letter":
        return {}
    chance = {"accuracy": 100 * float(np.mean([1 / len(each.choices) for each in asked]))}
    for name, keys in _shared(asked).items():
        together: dict[str, float] = {}
        for key, each in zip(keys, asked, strict=True):
            together[key] = together.get(key, 1.0) / len(each.choices)
        together.pop("", None)
        if together:
            chance[TOGETHER[name]] = 100 * float(np.mean(list(together.values())))
    return chance


def _prior(asked: Sequence[Question], normalise: Normalise) -> dict[str, Any] | None:
    """The one answer that scores most if it is given to all, of those that are right most often."""
    if asked[0].kind in ("box", "caption"):
        return None
    spelt = str if asked[0].kind == "letter" else normalise
    right = Counter(spelt(answer) for each in asked for answer in each.answers)
    right.pop("", None)
    worth = {
        answer: float(np.mean([points(each, answer, normalise) for each in asked]))
        for answer, _ in right.most_common(_CONSTANTS)
    }
    if not worth:
        return None
    best = max(worth, key=lambda answer: worth[answer])
    return {"answer": best, "accuracy": 100 * worth[best]}
