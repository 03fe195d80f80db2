"""Results of several models side by side, as far as they can be compared."""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lateen.errors import UsageError
from lateen.evaluation.intervals import (
    LEVEL,
    Redrawn,
    interval,
    paired_difference,
    redrawn,
    units_key,
)
from lateen.evaluation.published import AVERAGES, PUBLISHED, Average, Published, shortfall, shown
from lateen.evaluation.questions import untrained_projector
from lateen.evaluation.results import (
    MADE_BY,
    Key,
    SavedResult,
    averaged_over_seeds,
    by_model,
    folder_labels,
    read_all,
)
from lateen.evaluation.tables import subject
from lateen.evaluation.task import (
    RESULT_KINDS,
    TASKS,
    WITH_BANK,
    Result,
    is_in_bank,
    number,
    was_trained_on,
)
from lateen.metrics.resampling import Interval, percentile_interval
from lateen.report.tables import Cell, Column, TableData, interval_cell, rounded

_LOWER_IS_BETTER = ("median_rank",)
_NONE_IS_BETTER = (  # key paths
    "yes_ratio", "control.accuracy", "control.cider", "control.pairwise",
)  # fmt: skip
_SETTINGS = (
    "temperature", "ignore", "background", "attention", "residual", "holdout", "seed",
    "answered_by", "max_tokens", "shots_from", "shots_drawn",
    "tokenized_by",
)  # fmt: skip


# Results have these in whole patches of the model's own.
_SIZES = ("short_side", "window", "stride")
_COUNTS = ("images", "examples", "pairs")
_BEST = "★"


@dataclass(frozen=True)
class ComparisonRow:
    """One number of every model.

    Attributes:
        task: name of the task.
        set: what was evaluated on.
        metric: which number.
        values: a model each, in percent (a median rank is a rank); ``None`` where there is none.
        best: which models are best: the first, and those that cannot be told from it, where another
            can; none where the models cannot be compared, or no difference is beyond chance.
        differs: what is not the same for all: ``data``, ``prompts``, an option.
        intervals: of the values, at 95 %, over images drawn anew; of several seeds over these too.
        n: of how many images or examples; ``None`` where that is not known or not the same.
        seen: which models were trained on images of this set, in words.
        blind: of which models the numbers say nothing of what they see, in words.
        short: how much less than its set this is, in words, such as ``10 of 1,000 classes``.
        published: what papers report for it, of other models.
    """

    task: str
    set: str
    metric: str
    values: tuple[float | None, ...]
    best: tuple[int, ...] = ()
    differs: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    intervals: tuple[Interval | None, ...] = ()
    n: int | None = None
    seen: Mapping[int, str] = field(default_factory=dict)
    short: str = ""
    blind: Mapping[int, str] = field(default_factory=dict)

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """JSON-ready, values by model."""
        return {
            "task": self.task,
            "set": self.set,
            "metric": self.metric,
            "values": dict(zip(labels, self.values, strict=True)),
            "best": [labels[index] for index in self.best],
            "differs": list(self.differs),
            "intervals": dict(zip(labels, self.intervals, strict=True)),
            "n": self.n,
            "short": self.short,
            "trained_on": {labels[index]: words for index, words in self.seen.items()},
            "blind": {labels[index]: words for index, words in self.blind.items()},
            "published": [each._asdict() for each in self.published],
        }


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` gives.

    Attributes:
        labels: of the models, all different.
        seeds: how many runs that differ in their seed alone each column is the mean of.
        rows: by task and set, tasks in their :attr:`~lateen.evaluation.Task.order`.
    """

    labels: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]
    seeds: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "models": list(self.labels),
            "seeds": dict(zip(self.labels, self.seeds, strict=True)),
            "rows": [row.as_dict(self.labels) for row in self.rows],
        }

    def table(self, *, published: bool = False) -> TableData:
        """A row for each number, a column for each model; what is best beyond chance has a star.

        Args:
            published: also what papers report, if they report any of these: the sources that report
                the most (:func:`lateen.evaluation.published.shown`).
        """
        published = published and any(row.published for row in self.rows)
        papers = shown([(row.task, row.published) for row in self.rows])
        beware = [self._beware(row) for row in self.rows]
        counted = any(row.n for row in self.rows)
        columns = [Column("task", whole=True), Column("set"), Column("metric", whole=True)]
        columns += [Column(label, 1) for label in self._headings()]
        columns += [Column("n", 0)] * counted
        columns += [Column("published (other\ndata and model)")] if published else []
        columns += [Column("beware")] * any(beware)
        rows: list[list[Cell]] = []
        before = ("", "")
        for row, words, reported in zip(self.rows, beware, papers.cells, strict=True):
            now = (row.task, f"{row.set} ({row.short})" if row.short else row.set)
            head = ["", ""] if now == before else [*now]
            cells: list[Cell] = [*head, row.metric.replace("_", " "), *_starred(row)]
            cells += [row.n] * counted
            cells += [reported] * published
            cells += [words] * any(beware)
            rows.append(cells)
            before = now
        note = f"{self._note()} {papers.note}" if published and papers.note else self._note()
        return TableData("", columns, rows, note)

    def _headings(self) -> list[str]:
        return [
            label if seeds == 1 else f"{label} (mean of {seeds} seeds)"
            for label, seeds in zip(self.labels, self.seeds, strict=True)
        ]

    def _beware(self, row: ComparisonRow) -> str:
        """Why a row's numbers say less than they seem to."""
        differs = [f"not the same: {', '.join(row.differs)}"] if row.differs else []
        return "; ".join([*differs, *self._by_label(row.seen)])

    def _by_label(self, remarks: Mapping[int, str]) -> list[str]:
        return [f"{self.labels[index]}: {words}" for index, words in remarks.items()]

    def _note(self) -> str:
        note = "Percent; ranks are ranks."
        if any(any(row.intervals) for row in self.rows):
            note += " In brackets the 95 % interval, over images drawn anew."
        if any(row.best for row in self.rows):
            note += (
                f" {_BEST} is what is best beyond chance, image by image, with what cannot be told "
                "from it."
            )
        elif len(self.labels) > 1:
            note += " No difference is beyond chance where images were kept to tell it by."
        if any(row.differs for row in self.rows):
            note += (
                " Where data, prompts or options are not the same, the numbers cannot be compared."
            )
        blind = {index: words for row in self.rows for index, words in row.blind.items()}
        if blind:
            note += f" Not of what the model sees: {', '.join(self._by_label(blind))}."
        return note

    def text(self, kind: str, published: bool = False) -> str:
        """As ``json``, ``csv`` (six significant digits), ``latex``, or otherwise Markdown.

        Args:
            kind: which.
            published: also what papers report; JSON has it always.
        """
        if kind == "latex":
            return self.table(published=published).latex()
        if kind == "json":
            return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
        return self._csv(published) if kind == "csv" else self.table(published=published).markdown()

    def _csv(self, published: bool) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        more = ["published"] if published else []
        ends = [f"{label} {end}" for label in self.labels for end in ("low", "high")]
        writer.writerow(
            ["task", "set", "metric", *self.labels, *ends, "n", *more, "differs", "trained on",
             "short"]
        )  # fmt: skip
        for row in self.rows:
            papers = ["; ".join(f"{p.value:g} {p.source}" for p in row.published)] * published
            limits = [end for each in row.intervals for end in each or (None, None)]
            numbers = [None if v is None else rounded(v) for v in (*row.values, *limits)]
            trained_on = "; ".join(self._by_label(row.seen))
            writer.writerow(
                [row.task, row.set, row.metric, *numbers, row.n,
                 *papers, "; ".join(row.differs), trained_on, row.short]
            )  # fmt: skip
        return file.getvalue()


def compare(
    places: Iterable[str | Path], labels: Sequence[str] | None = None, *, each_seed: bool = False
) -> Comparison:
    """Hold results against each other.

    Results of one model in one folder are one column, labelled as the folder is. Models whose
    training differs in its seed alone are one column, the mean. What is best is told by the paired
    bootstrap: both models see the same draws of images.

    Args:
        places: result files, or folders of them; folders of runs and of suites are such.
        labels: of the columns, instead.
        each_seed: a column for each seed instead of their mean.

    Raises:
        DataError: a place has no result.
        UsageError: as many labels as there are columns are needed, all different.
    """
    results = read_all(map(Path, places))
    if not results:
        raise UsageError("there is nothing to compare", MADE_BY)
    models = by_model(results)
    columns = [[model] for model in models] if each_seed else averaged_over_seeds(models)
    together = [[each for model in column for each in model] for column in columns]
    names = folder_labels(together) if labels is None else list(labels)
    if len(names) != len(columns) or len(set(names)) < len(names):
        raise UsageError(
            f"{len(names)} labels ({', '.join(names)}) for {len(columns)} models: "
            f"{', '.join(folder_labels(together))}",
            "Give a label of its own for each.",
        )
    rows = tuple(_rows([_Model(column) for column in columns]))
    return Comparison(tuple(names), rows, tuple(map(len, columns)))


class _Model:
    """A column: the results of a model, or of several that differ in their seed alone."""

    def __init__(self, seeds: Sequence[Sequence[SavedResult]]) -> None:
        self._seeds = [{each.key: each.result for each in seed} for seed in seeds]
        self._draws: dict[Key, list[dict[str, Redrawn] | None]] = {}

    def __iter__(self) -> Iterator[Key]:
        return iter(dict.fromkeys(key for seed in self._seeds for key in seed))

    def results(self, key: Key) -> list[Result]:
        """One for each seed that has it."""
        return [seed[key] for seed in self._seeds if key in seed]

    def value(self, key: Key, path: str) -> float | None:
        """The mean over the seeds."""
        values = [number(each, path) for each in self.results(key)]
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    def draws(self, key: Key, path: str) -> Redrawn | None:
        """The number in every draw of images, and of seeds; ``None`` where that was not kept."""
        if key not in self._draws:
            statistics = RESULT_KINDS[key[0]].statistics
            results = self.results(key)
            self._draws[key] = [
                redrawn(each, statistics) if statistics else None for each in results
            ]
        by_seed = [None if each is None else each.get(path) for each in self._draws[key]]
        known = [each for each in by_seed if each is not None]
        if not known or len(known) < len(by_seed) or len({len(each.by_unit) for each in known}) > 1:
            return None
        if len(known) == 1:
            return known[0]
        scores, by_unit = (np.stack(arrays) for arrays in zip(*known, strict=True))
        generator = np.random.default_rng(len(known))
        weights = generator.multinomial(len(known), [1 / len(known)] * len(known), scores.shape[1])
        return Redrawn((weights.T * scores).sum(axis=0) / len(known), by_unit.mean(axis=0))

    def interval(self, key: Key, path: str) -> Interval | None:
        """Of the value."""
        results = self.results(key)
        if len(results) == 1:
            return interval(results[0], path)
        draws = self.draws(key, path)
        return None if draws is None else percentile_interval(draws.scores, LEVEL)


def _rows(models: Sequence[_Model]) -> Iterable[ComparisonRow]:
    order = sorted(RESULT_KINDS, key=lambda name: (RESULT_KINDS[name].order, name))
    keys = dict.fromkeys(key for model in models for key in model)
    means = [row for average in AVERAGES if (row := _mean_row(average, models))]
    for task in order:
        for key in (key for key in keys if key[0] == task):
            for metric, path in RESULT_KINDS[task].headline.items():
                if any(model.value(key, path) is not None for model in models):
                    yield _row(models, key, metric, path)
        yield from means if task == "classification" else []


def _row(models: Sequence[_Model], key: Key, metric: str, path: str) -> ComparisonRow:
    """One number of every model."""
    results = [result for model in models for result in model.results(key)]
    values = [model.value(key, path) for model in models]
    differs = differences(results)
    trained_on = _remarks(was_trained_on, models, key)
    if path.startswith(WITH_BANK):
        trained_on |= _remarks(is_in_bank, models, key)
    blind = _remarks(untrained_projector, models, key)
    unfit = {*trained_on, *blind}
    draws = [
        None if value is None or index in unfit else model.draws(key, path)
        for index, (model, value) in enumerate(zip(models, values, strict=True))
    ]
    low = path.rpartition(".")[2] in _LOWER_IS_BETTER
    short = next(filter(None, map(shortfall, results)), "")
    published = _published(key, metric, results) if not short else ()
    sizes = {result.get("n") for result in results}
    return ComparisonRow(
        key[0], key[1], metric, tuple(values),
        () if differs or path in _NONE_IS_BETTER else _best(values, draws, low),
        tuple(differs), published,
        tuple(model.interval(key, path) for model in models),
        sizes.pop() if len(sizes) == 1 else None, trained_on, short, blind,
    )  # fmt: skip


def _remarks(
    of: Callable[[Result], str | None], models: Sequence[_Model], key: Key
) -> dict[int, str]:
    """What there is to say of models' results, by the model's column."""
    words = (next(filter(None, map(of, model.results(key))), None) for model in models)
    return {index: each for index, each in enumerate(words) if each}


def _published(key: Key, metric: str, results: Sequence[Result]) -> tuple[Published, ...]:
    """What papers report, under whichever name a result has the set."""
    names = [(key[0], name, metric) for name in (*map(subject, results), key[1])]
    return next((PUBLISHED[name] for name in names if name in PUBLISHED), ())


def _best(
    values: Sequence[float | None], draws: Sequence[Redrawn | None], low: bool = False
) -> tuple[int, ...]:
    """The best value and those that cannot be told from it, where another can.

    Each of the others is told from the best by the interval of their difference, at a level that
    holds for all of them together (Bonferroni), where there are images enough on which they differ.

    Args:
        values: a model each.
        draws: of the value, of the same images for all; a model without takes no part.
        low: whether the lowest is best.
    """
    sign = -1 if low else 1
    comparable = [
        (sign * value, drawn, index)
        for index, (value, drawn) in enumerate(zip(values, draws, strict=True))
        if value is not None and drawn is not None
    ]
    if len(comparable) < 2:
        return ()
    _, best, _ = max(comparable, key=lambda each: each[0])
    level = 1 - (1 - LEVEL) / (len(comparable) - 1)
    against = {index: paired_difference(best, drawn, level) for _, drawn, index in comparable}
    worse = [
        index
        for index, difference in against.items()
        if difference.significant and sign * sum(difference.interval) > 0
    ]
    return tuple(index for *_, index in comparable if index not in worse) if worse else ()


def _mean_row(average: Average, models: Sequence[_Model]) -> ComparisonRow | None:
    """The mean over a paper's sets, for models with one result of each; ``None`` if none has."""
    values: list[float | None] = []
    draws: list[Redrawn | None] = []
    used: dict[str, list[Result]] = {name: [] for name in average.sets}
    for model in models:
        keys = {name: _of_set(name, model) for name in average.sets}
        whole = all(len(of_set) == 1 for of_set in keys.values())
        there = [key for of_set in keys.values() for key in of_set]
        every = [model.draws(key, _path_of(average.metric, model.results(key)[0])) for key in there]
        known = [each for each in every if each is not None]
        alike = len(known) == len(every) and len({len(each.scores) for each in known}) == 1
        draws.append(_mean(known) if whole and alike else None)
        parts = [model.value(key, average.metric) for key in there]
        values.append(fmean(part for part in parts if part is not None) if whole else None)
        for name, of_set in keys.items() if whole else ():
            used[name] += [result for key in of_set for result in model.results(key)]
    if not any(value is not None for value in values):
        return None
    differs = dict.fromkeys(what for results in used.values() for what in differences(results))
    every_result = [result for results in used.values() for result in results]
    short = any(map(shortfall, every_result)) or any(map(was_trained_on, every_result))
    return ComparisonRow(
        "classification", average.name, "accuracy", tuple(values),
        () if differs or short else _best(values, draws), tuple(differs),
        () if short else PUBLISHED.get(("classification", average.name, "accuracy"), ()),
        tuple(None if each is None else percentile_interval(each.scores, LEVEL) for each in draws),
    )  # fmt: skip


def _mean(parts: Sequence[Redrawn]) -> Redrawn:
    """The mean of numbers on different sets, whose images are drawn apart."""
    scores, by_unit = zip(*parts, strict=True)
    return Redrawn(np.stack(scores).mean(axis=0), np.concatenate(by_unit))


def _path_of(metric: str, result: Result) -> str:
    """The key path of a metric; ``score`` is the set's own, whichever that is."""
    return str(result.get("metric")) if metric == "score" else metric


def _of_set(name: str, model: _Model) -> list[Key]:
    """The results that were taken with a set's own names and metric, whatever their split."""
    # A folder that only has its name may be anything, and was measured as any folder is.
    return [
        key for key in model
        if key[0] == "classification" and model.results(key)[0].get("set") == name
    ]  # fmt: skip


def differences(results: Sequence[Result]) -> list[str]:
    """What is not the same in results of one task and set, so that they cannot be compared.

    Args:
        results: of one task and set.

    Returns:
        In words: ``data``, ``images judged``, an option; none where nothing differs.
    """
    values_of = {
        "data": {str(each["conditions"].get("data")) for each in results},
        "prompts": {
            str((each.get("templates"), each.get("templates_verbatim", False))) for each in results
        },
        "images used": {str([each.get(count) for count in _COUNTS]) for each in results},
        "images judged": set(filter(None, map(units_key, results))),
    }
    if len(values_of["data"]) > 1:
        del values_of["images used"], values_of["images judged"]
    elif len(values_of["images used"]) > 1:
        del values_of["images judged"]
    values_of |= {name: {str(each.get(name)) for each in results} for name in _SETTINGS}
    for name in _SIZES:
        values_of[name.replace("_", " ")] = {str(_size(each, name)) for each in results}
    return [name for name, values in values_of.items() if len(values) > 1]


def _size(result: Result, name: str) -> Any:
    """The size that was asked for, or else the task's own."""
    task = TASKS.get(result["task"])
    own = inspect.signature(task.run).parameters.get(name) if task is not None else None
    return result.get("options", {}).get(name, own.default if own is not None else None)


def _starred(row: ComparisonRow) -> list[Cell]:
    cells: list[Cell] = []
    for index, (value, limits) in enumerate(zip(row.values, row.intervals, strict=True)):
        star = f"{_BEST} " if index in row.best else ""
        brackets = f" ({interval_cell(limits)})" if limits else ""
        cells.append(f"{star}{value:,.1f}{brackets}" if value is not None else None)
    return cells
