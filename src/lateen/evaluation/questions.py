"""Results of questions about images: what their numbers are made of, and their tables.

What :func:`lateen.mllm.benchmarks.score` writes. The unit that is drawn anew is the image with all
of its questions, since questions about one image are not independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lateen.evaluation.intervals import Arrays, Statistics, interval
from lateen.evaluation.tables import left_out, subject_and_split
from lateen.evaluation.task import Result, ResultKind, number, recorded_chance
from lateen.metrics.resampling import Array, Interval, Statistic, Tally, binomial_limits
from lateen.report.tables import Cell, Column, TableData, interval_cell

PARTS = 3000
"""A right answer in the array ``points``: VQA accuracy of ten people's answers is a whole number of
thirtieths, and of other numbers of people near one of these parts."""

HEADLINE = {
    "accuracy": "accuracy",
    "CIDEr": "cider",
    "own likelier": "own_likelier",
    "pairs in order": "pairwise",
    "circular": "circular",
    "pairs": "pairs",
    "F1": "f1",
    "yes ratio": "yes_ratio",
    "ROC area": "auroc",
    "another's image": "control.accuracy",
    "CIDEr, another's image": "control.cider",
    "pairs, another's image": "control.pairwise",
    "own above another's": "gain",
}
"""Label → key path, as :attr:`lateen.evaluation.Task.headline` has them."""

TOGETHER = {"rotation": "circular", "pair": "pairs"}
"""What says which questions count together → the metric for which all of them must be right."""

FINE_PARTS = 100_000
"""1 in the arrays ``cider`` and ``loss``."""

_GROUP = "groups."


@dataclass(frozen=True, eq=False)
class Share(Tally):
    """A ratio of sums over questions, in percent, of which a draw may have nothing.

    Of such a draw it is what it is of all; 0 where all have nothing, as the precision of a model
    that never says yes.
    """

    @cached_property
    def whole(self) -> float:
        """Of all questions."""
        hits, tries = (float(each.sum()) for each in self._columns)
        return self.scale * hits / tries if tries else 0.0

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``."""
        hits, tries = (
            counts @ np.bincount(self.unit, each, counts.shape[1]) for each in self._columns
        )
        shares = np.divide(hits, tries, out=np.zeros_like(hits), where=tries > 0)
        score: Array = np.where(tries > 0, self.scale * shares, self.whole)
        return score

    def by_unit(self, units: int) -> Array:
        """Each unit's hits, and its tries far behind the point ``[units]``."""
        hits, tries = (np.bincount(self.unit, each, units) for each in self._columns)
        return hits + tries / 1e9

    def limits(self, units: int, level: float) -> Interval | None:
        """The exact binomial limits of nothing or all of the units that have tries."""
        del units
        hits, tries = self._columns
        counted = len(np.unique(self.unit[tries > 0]))
        if not counted or 0 < hits.sum() < tries.sum():
            return None
        low, high = binomial_limits(counted, level)
        return self.scale * (low if hits.sum() else 0), self.scale * (1 if hits.sum() else high)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean of a number of each question, or of its difference from another.

    Attributes:
        unit: ``[rows]`` which unit each question is of.
        values: ``[rows]`` in parts.
        parts: what is 1.
        scale: what a mean of 1 is called.
    """

    unit: Array
    values: Array
    parts: int = PARTS
    scale: float = 100.0

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``."""
        units = counts.shape[1]
        rows = counts @ np.bincount(self.unit, minlength=units)
        score: Array = self.scale / self.parts * (counts @ self.by_unit(units)) / rows
        return score

    def by_unit(self, units: int) -> Array:
        """Each unit's sum ``[units]``."""
        return np.bincount(self.unit, self.values, units)


@dataclass(frozen=True, eq=False)
class RocArea:
    """The area under the ROC curve in percent: how often a yes is above a no; ties count half.

    Attributes:
        unit: ``[rows]`` which unit each question is of.
        rank: ``[rows]`` of the score for yes, from 0; equal scores have equal ranks.
        is_yes: ``[rows]`` whether yes is right.
    """

    unit: Array
    rank: Array
    is_yes: Array

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``; of one without a yes or without a no it is 50."""
        ranks = int(self.rank.max(initial=0)) + 1
        area = np.full(len(counts), 50.0)
        for at, drawn in enumerate(counts):
            weight = drawn[self.unit]
            yes = np.bincount(self.rank, weight * self.is_yes, ranks)
            no = np.bincount(self.rank, weight * (1 - self.is_yes), ranks)
            if pairs := yes.sum() * no.sum():
                area[at] = 100 * (yes * (no.cumsum() - no / 2)).sum() / pairs
        return area

    def by_unit(self, units: int) -> Array:
        """The sum of each unit's ranks ``[units]``."""
        return np.bincount(self.unit, self.rank + 1, units)


@dataclass(frozen=True, eq=False)
class PairsInOrder:
    """How often a yes is above a no of the same thing, in percent; ties count half.

    Attributes:
        areas: of each thing, in ranks that are comparable within it.
    """

    areas: Sequence[RocArea]

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``; of one without a pair it is 50."""
        scores, pairs = np.zeros(len(counts)), np.zeros(len(counts))
        for each in self.areas:
            weights = [counts @ np.bincount(each.unit, yes, counts.shape[1])
                       for yes in (each.is_yes, 1 - each.is_yes)]  # fmt: skip
            product = weights[0] * weights[1]
            scores += each.drawn(counts) * product
            pairs += product
        score: Array = np.divide(scores, pairs, out=np.full(len(counts), 50.0), where=pairs > 0)
        return score

    def by_unit(self, units: int) -> Array:
        """The sum of each unit's ranks ``[units]``."""
        total: Array = np.sum([each.by_unit(units) for each in self.areas], axis=0)
        return total


@dataclass(frozen=True, eq=False)
class Above:
    """How much one number is above another in the same draws.

    Attributes:
        first: the one.
        second: the other.
    """

    first: Statistic
    second: Statistic

    def drawn(self, counts: Array) -> Array:
        """The difference in every draw ``[m]``."""
        return self.first.drawn(counts) - self.second.drawn(counts)

    def by_unit(self, units: int) -> Array:
        """The difference of what each unit contributes ``[units]``."""
        return self.first.by_unit(units) - self.second.by_unit(units)


def question_statistics(arrays: Arrays) -> Statistics:
    """What every number of a result is made of.

    Args:
        arrays: by name, a row per question. ``unit``: the image. ``points``: in :data:`PARTS`.
            ``said_yes`` and ``is_yes``: of yes/no questions. ``rotation``: which question's
            choices are rotated; ``pair``: which two count together. ``rank``: of the score for
            yes. ``groups.<kind>.<name>``: 1 for questions of the group. ``other_points`` and
            ``other_said_yes``: under another's image. Of captions ``cider``, and of likelihoods
            ``loss``, in :data:`FINE_PARTS`, with ``other_cider`` and ``other_loss``; of pairs
            ``likelihood``, a rank, and ``thing``.
    """
    columns = {name: np.asarray(values).astype(np.int64) for name, values in arrays.items()}
    if "cider" in columns:
        return _captions(columns)
    if "loss" in columns:
        return _losses(columns)
    if "likelihood" in columns:
        return _pairs(columns)
    found = {**_numbers("", columns), **_of_groups(columns)}
    if "rank" in columns:
        found["auroc"] = RocArea(columns["unit"], columns["rank"], columns["is_yes"])
    if "other_points" in columns:
        own = ("points", "said_yes")
        other = {k.removeprefix("other_"): each for k, each in columns.items() if k not in own}
        found |= _numbers("control.", other)
        found["gain"] = Mean(columns["unit"], columns["points"] - other["points"])
    return found


def _captions(columns: Mapping[str, Array]) -> Statistics:
    """CIDEr-D, whose document frequencies are of the set as it is, whatever is drawn."""
    unit, own = columns["unit"], columns["cider"]
    found: Statistics = {"cider": Mean(unit, own, FINE_PARTS)}
    if "other_cider" in columns:
        found["control.cider"] = Mean(unit, columns["other_cider"], FINE_PARTS)
        found["gain"] = Mean(unit, own - columns["other_cider"], FINE_PARTS)
    return found


def _losses(columns: Mapping[str, Array]) -> Statistics:
    """The loss of captions, in nats, and how often it is lower under the own image."""
    unit, own = columns["unit"], columns["loss"]
    found: Statistics = {"loss": Mean(unit, own, FINE_PARTS, 1.0)}
    if "other_loss" in columns:
        other = columns["other_loss"]
        found["control.loss"] = Mean(unit, other, FINE_PARTS, 1.0)
        lower = 2 * (own < other).astype(np.int64) + (own == other)
        found["own_likelier"] = Share(unit, lower, np.full(len(own), 2))
    return found


def _pairs(columns: Mapping[str, Array]) -> Statistics:
    def in_order(ranks: Array) -> PairsInOrder:
        members = [columns["thing"] == thing for thing in np.unique(columns["thing"])]
        return PairsInOrder([
            RocArea(columns["unit"][each], ranks[each], columns["is_yes"][each])
            for each in members
        ])  # fmt: skip

    found: Statistics = {"pairwise": in_order(columns["likelihood"])}
    if "other_likelihood" in columns:
        found["control.pairwise"] = in_order(columns["other_likelihood"])
        found["gain"] = Above(found["pairwise"], found["control.pairwise"])
    return found


def _numbers(prefix: str, columns: Mapping[str, Array]) -> Statistics:
    unit, points = columns["unit"], columns["points"]
    found: Statistics = {"accuracy": Share(unit, points, np.full(len(points), PARTS))}
    for name, metric in TOGETHER.items():
        if name in columns:
            found[metric] = _all_right(unit, points, columns[name])
    if "said_yes" in columns:
        found |= _yes_no(unit, columns["said_yes"], columns["is_yes"])
    return {f"{prefix}{name}": each for name, each in found.items()}


def _all_right(unit: Array, points: Array, rotation: Array) -> Share:
    """The share of questions that are right under every rotation, or of pairs of which both are."""
    _, first, of_row = np.unique(rotation, return_index=True, return_inverse=True)
    right = np.ones(len(first), np.int64)
    np.minimum.at(right, of_row, (points == PARTS).astype(np.int64))
    return Share(unit[first], right)


def _yes_no(unit: Array, said: Array, truth: Array) -> Statistics:
    """Precision, recall and F1 of yes, and how often it is said."""
    both = said * truth
    return {
        "precision": Share(unit, both, said),
        "recall": Share(unit, both, truth),
        "f1": Share(unit, 2 * both, said + truth),
        "yes_ratio": Share(unit, said),
    }


def _of_groups(columns: Mapping[str, Array]) -> Statistics:
    """Of each group's questions alone."""
    found: Statistics = {}
    counted = [name for name in ("unit", "points", "said_yes", "is_yes") if name in columns]
    for group in (name for name in columns if name.startswith(_GROUP)):
        member = columns[group].astype(bool)
        numbers = _numbers(f"{group}.", {name: columns[name][member] for name in counted})
        shown = (f"{group}.accuracy", f"{group}.f1")
        found |= {path: each for path, each in numbers.items() if path in shown}
    return found


def question_tables(result: Result) -> Iterator[TableData]:
    """The numbers beside those under another's image, and those of every group."""
    names = (
        "accuracy", "cider", "own_likelier", "pairwise", "circular", "pairs", "precision", "recall",
        "f1", "yes_ratio", "auroc",
    )  # fmt: skip
    rows: list[list[Cell]] = []
    for name in names:
        if (value := number(result, name)) is not None:
            limits = interval_cell(interval(result, name))
            chance = recorded_chance(result, name)
            other = number(result, f"control.{name}")
            rows.append([name.replace("_", " "), value, limits, other, chance])
    columns = [Column(""), Column("%", 1), Column("95 %"), Column("another's image", 1),
               Column("chance", 1)]  # fmt: skip
    yield TableData(subject_and_split(result), columns, rows, _note(result))
    if "loss" in result:
        yield TableData(
            "loss of captions, in nats for each token",
            [Column("under"), Column("mean", 3), Column("95 %")],
            [
                [under, value, interval_cell(interval(result, path), 3)]
                for under, path in (("own image", "loss"), ("another's image", "control.loss"))
                if (value := number(result, path)) is not None
            ],
        )  # fmt: skip
    for kind, groups in result.get("groups", {}).items():
        yield TableData(
            kind, [Column(kind), Column("accuracy", 1), Column("questions", 0)],
            [[name, each["accuracy"], each["questions"]] for name, each in groups.items()],
        )  # fmt: skip


class _QuestionResults(ResultKind):
    """Answers of a multimodal language model, which ``lateen mllm evaluate`` measures."""

    headline = HEADLINE
    tables = staticmethod(question_tables)
    overview = ()
    chance = staticmethod(recorded_chance)
    statistics = staticmethod(question_statistics)
    order = 200


KIND = _QuestionResults()


def _note(result: Mapping[str, Any]) -> str:
    prior = result.get("prior")
    always = f" Always {prior['answer']!r}: {prior['accuracy']:.1f} %." if prior else ""
    unread = result.get("unread", 0)
    silent = f" {unread:,} answers could not be read and count as wrong." if unread else ""
    of = f" of {result['of_questions']:,}" if "of_questions" in result else ""
    asked = f"{result['questions']:,}{of} questions about {result['n']:,} images."
    seen = "".join(f" {sentence}" for sentence in answering_notes(result))
    return f"{asked}{always}{silent}{seen}{left_out(result)}"


def untrained_projector(result: Result) -> str | None:
    """Why a result says nothing of what its model sees; ``None`` where it may.

    Args:
        result: of any task.
    """
    model = result.get("model")
    untrained = isinstance(model, Mapping) and model.get("projector") == "untrained"
    return "projector untrained" if untrained else None


def answering_notes(result: Mapping[str, Any]) -> list[str]:
    """How the answers were found, and what to know of them, in sentences; none if nothing is said.

    Args:
        result: of questions.
    """
    notes = []
    if result.get("answered_by") == "likelihood":
        notes.append("Nothing is answered: how likely captions are is compared.")
    elif result.get("answered_by") == "first token":
        notes.append(
            "The answer is the one whose first token is likeliest; "
            f"{100 * result['first_token_share']:.3g} % of the probability is on those there are."
        )
    elif result.get("answered_by"):
        notes.append(f"Answers are generated, of at most {result['max_tokens']} tokens.")
    if result.get("shots"):
        notes.append(
            f"Examples before each question: {result['shots']}, drawn by lot for each of "
            f"{result['shots_from']}; under another's image they are the same."
        )
    if result.get("tokenized_by"):
        notes.append(f"Words for CIDEr-D are found by {result['tokenized_by']}.")
    for key, under in (("cut", ""), ("cut_under_another", " under another's image")):
        if count := result.get(key):
            notes.append(f"{count:,} answers{under} are cut by that limit.")
    return notes + [f"Beware: {warning}." for warning in result.get("warnings", ())]
