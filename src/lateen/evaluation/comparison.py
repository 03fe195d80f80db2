"""Results of several models side by side, as far as they can be compared."""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lateen.errors import UsageError
from lateen.evaluation.published import AVERAGES, PUBLISHED, Average, Published
from lateen.evaluation.results import (
    MADE_BY,
    Key,
    by_model,
    folder_labels,
    read_all,
)
from lateen.evaluation.tables import subject
from lateen.evaluation.task import TASKS, Result, number
from lateen.report.tables import Cell, Column, TableData

_LOWER_IS_BETTER = ("median_rank",)
_SETTINGS = ("temperature", "ignore", "background", "attention", "residual", "holdout", "seed")


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
        best: which models are best; none where they cannot be compared, or all are equal.
        differs: what is not the same for all: ``data``, ``prompts``, an option.
        published: what papers report for it, of other models.
    """

    task: str
    set: str
    metric: str
    values: tuple[float | None, ...]
    best: tuple[int, ...] = ()
    differs: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

    def as_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """JSON-ready, values by model."""
        return {
            "task": self.task,
            "set": self.set,
            "metric": self.metric,
            "values": dict(zip(labels, self.values, strict=True)),
            "best": [labels[index] for index in self.best],
            "differs": list(self.differs),
            "published": [each._asdict() for each in self.published],
        }


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` gives.

    Attributes:
        labels: of the models, all different.
        rows: by task and set, tasks in their :attr:`~lateen.evaluation.Task.order`.
    """

    labels: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "models": list(self.labels),
            "rows": [row.as_dict(self.labels) for row in self.rows],
        }

    def table(self, *, published: bool = False) -> TableData:
        """A row for each number, a column for each model; the best of a row has a star.

        Args:
            published: also what papers report, if they report any of these.
        """
        noted = any(row.differs for row in self.rows)
        published = published and any(row.published for row in self.rows)
        columns = [Column("task", whole=True), Column("set"), Column("metric", whole=True)]
        columns += [Column(label, 1) for label in self.labels]
        columns += [Column("published (other\ndata and model)")] if published else []
        columns += [Column("not the same")] if noted else []
        rows: list[list[Cell]] = []
        before = ("", "")
        for row in self.rows:
            now = (row.task, row.set)
            head = ["" if now == before else row.task, "" if now == before else row.set]
            cells: list[Cell] = [*head, row.metric.replace("_", " "), *_starred(row)]
            cells += [", ".join(f"{p.value:g} {p.source}" for p in row.published)] * published
            cells += [", ".join(row.differs)] * noted
            rows.append(cells)
            before = now
        note = "Percent; ranks are ranks."
        note += f" {_BEST} is the best of its row." if any(row.best for row in self.rows) else ""
        if noted:
            note += (
                " Where data, prompts or options are not the same, the numbers cannot be compared."
            )
        return TableData("", columns, rows, note)

    def text(self, kind: str, published: bool = False) -> str:
        """As ``json``, ``csv`` (numbers not rounded), or otherwise Markdown.

        Args:
            kind: which.
            published: also what papers report; JSON has it always.
        """
        if kind == "json":
            return json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n"
        return self._csv(published) if kind == "csv" else self.table(published=published).markdown()

    def _csv(self, published: bool) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        more = ["published"] if published else []
        writer.writerow(["task", "set", "metric", *self.labels, *more, "differs"])
        for row in self.rows:
            found = ["; ".join(f"{p.value:g} {p.source}" for p in row.published)] * published
            writer.writerow(
                [row.task, row.set, row.metric, *row.values, *found, "; ".join(row.differs)]
            )
        return file.getvalue()


def compare(places: Iterable[str | Path], labels: Sequence[str] | None = None) -> Comparison:
    """Hold results against each other.

    Results of one model in one folder are one column, labelled as the folder is.

    Args:
        places: result files, or folders of them; folders of runs and of suites are such.
        labels: of the columns, instead.

    Raises:
        DataError: a place has no result.
        UsageError: as many labels as there are columns are needed, all different.
    """
    found = read_all(map(Path, places))
    if not found:
        raise UsageError("there is nothing to compare", MADE_BY)
    columns = by_model(found)
    names = folder_labels(columns) if labels is None else list(labels)
    if len(names) != len(columns) or len(set(names)) < len(names):
        raise UsageError(
            f"{len(names)} labels ({', '.join(names)}) for {len(columns)} models: "
            f"{', '.join(folder_labels(columns))}",
            "Give a label of its own for each.",
        )
    results = [{each.key: each.result for each in column} for column in columns]
    return Comparison(tuple(names), tuple(_rows(results)))


def _rows(models: Sequence[Mapping[Key, Result]]) -> Iterable[ComparisonRow]:
    order = sorted(TASKS, key=lambda name: (TASKS[name].order, name))
    keys = dict.fromkeys(key for model in models for key in model)
    means = [row for average in AVERAGES if (row := _mean_row(average, models))]
    for task in order:
        for key in (key for key in keys if key[0] == task):
            results = [model.get(key) for model in models]
            differs = _differences([each for each in results if each is not None])
            for metric, place in TASKS[task].headline.items():
                values = [None if each is None else number(each, place) for each in results]
                if any(value is not None for value in values):
                    low = place.rpartition(".")[2] in _LOWER_IS_BETTER
                    names = (subject(each) for each in results if each is not None)
                    known = (name for name in names if (task, name, metric) in PUBLISHED)
                    name = next(known, key[1])
                    yield _row(task, key[1], metric, values, differs, name=name, low=low)
        yield from means if task == "classification" else []


def _row(
    task: str, subject_: str, metric: str, values: Sequence[float | None],
    differs: Sequence[str], *, name: str, low: bool = False,
) -> ComparisonRow:  # fmt: skip
    known = [value for value in values if value is not None]
    best: tuple[int, ...] = ()
    if len(set(known)) > 1 and not differs:
        top = min(known) if low else max(known)
        best = tuple(index for index, value in enumerate(values) if value == top)
    published = PUBLISHED.get((task, name, metric), ())
    return ComparisonRow(task, subject_, metric, tuple(values), best, tuple(differs), published)


def _mean_row(average: Average, models: Sequence[Mapping[Key, Result]]) -> ComparisonRow | None:
    """The mean over a paper's sets, for models with one result of each; ``None`` if none has."""
    values: list[float | None] = []
    used: dict[str, list[Result]] = {name: [] for name in average.sets}
    for model in models:
        mine = {name: _of_set(name, model) for name in average.sets}
        whole = all(len(results) == 1 for results in mine.values())
        values.append(fmean(r[average.metric] for [r] in mine.values()) if whole else None)
        for name in average.sets if whole else ():
            used[name] += mine[name]
    if not any(value is not None for value in values):
        return None
    differs = dict.fromkeys(what for results in used.values() for what in _differences(results))
    return _row(
        "classification", average.name, "accuracy", values, list(differs), name=average.name
    )


def _of_set(name: str, model: Mapping[Key, Result]) -> list[Result]:
    """The results that were taken with a set's own names and metric, whatever their split."""
    # A folder that only has its name may be anything, and was measured as any folder is.
    return [r for (task, _), r in model.items() if (task, r.get("set")) == ("classification", name)]


def _differences(results: Sequence[Result]) -> list[str]:
    """What is not the same in results of one task and set, so that they cannot be compared."""
    told = {
        "data": {str(each["conditions"].get("data")) for each in results},
        "prompts": {
            str((each.get("templates"), each.get("templates_verbatim", False))) for each in results
        },
        "images used": {str([each.get(count) for count in _COUNTS]) for each in results},
    }
    if len(told["data"]) > 1:
        del told["images used"]
    told |= {name: {str(each.get(name)) for each in results} for name in _SETTINGS}
    for name in _SIZES:
        told[name.replace("_", " ")] = {str(_size(each, name)) for each in results}
    return [name for name, values in told.items() if len(values) > 1]


def _size(result: Result, name: str) -> Any:
    """The size that was asked for, or else the task's own."""
    own = inspect.signature(TASKS[result["task"]].run).parameters.get(name)
    return result.get("options", {}).get(name, own.default if own is not None else None)


def _starred(row: ComparisonRow) -> list[Cell]:
    return [
        f"{_BEST} {value:,.1f}" if index in row.best and value is not None else value
        for index, value in enumerate(row.values)
    ]
