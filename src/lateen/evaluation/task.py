"""What an evaluation task is, the registry that finds them all, and the function that runs one.

A task is a module of :mod:`lateen.evaluation.tasks` that defines ``TASK``. Its name is that of the
file, with dashes; its summary is the first line of the module's docstring; its options are the
keyword arguments of the function that runs it. Nothing else has to know of it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lateen.errors import UsageError, choices
from lateen.evaluation import tasks
from lateen.exports import Registry
from lateen.files import make_folder, write_json
from lateen.progress import log

if TYPE_CHECKING:
    from lateen.evaluation.intervals import Arrays, Statistics
    from lateen.model import AlignedModel
    from lateen.report.tables import TableData

Result = Mapping[str, Any]
Run = Callable[..., dict[str, Any]]
FeaturesOf = Literal["encoder", "embedding", "both"]  # what a probe is given

_NO_CONDITION = ("cache", "out")  # options that no number depends on
_TRAINED_SHARE = 0.01  # of the images
# Results of what is no AlignedModel: their name, and the module that says how they are read.
_OTHER_KINDS = {"mllm": "lateen.evaluation.questions"}


WITH_BANK = "with_bank."
"""What the key paths of numbers begin with that were had with a query bank."""


def recorded_chance(result: Result, key_path: str) -> float | None:
    """What guessing would score, as the result has it: one number, or one for each of its own."""
    chance = result.get("chance")
    path = key_path.removeprefix(WITH_BANK)
    return number(chance, path) if isinstance(chance, Mapping) else chance


def with_bank(headline: Mapping[str, str]) -> dict[str, str]:
    """A headline's numbers, and after them the same with a query bank.

    Args:
        headline: label → key path.
    """
    beside = {f"{label}, bank": WITH_BANK + path for label, path in headline.items()}
    return {**headline, **beside}


class ResultKind:
    """What it takes to show results of one kind, and to hold them against each other.

    A :class:`Task` is one, and says what each of these is.
    """

    headline: Mapping[str, str]
    tables: Callable[[Result], Iterable[TableData]]
    overview: tuple[str, ...]
    chance: Callable[[Result, str], float | None]
    statistics: Callable[[Arrays], Statistics] | None
    order: int

    def main_numbers(self, result: Result) -> Iterator[tuple[str, float, float | None]]:
        """The numbers of a result that stand first, each with its label and what guessing scores.

        Where the result names a metric of ``headline`` as its set's own, that is the one.
        """
        own = tuple(k for k, path in self.headline.items() if path == result.get("metric"))
        for label in own or self.overview or self.headline:
            value = number(result, self.headline[label])
            if value is not None:
                yield label, value, self.chance(result, self.headline[label])


@dataclass(frozen=True)
class Task(ResultKind):
    """One evaluation.

    Attributes:
        run: a model and options to JSON-ready metrics, with ``conditions``. Its keyword arguments
            are the task's options; those without a default are needed. All have the name of a
            command-line option: ``images`` is ``--images``.
        headline: what to show first and to compare: label → dotted key path in the result.
        tables: a result as tables for people.
        overview: the labels of ``headline`` that an overview has room for; all if not given.
        chance: what guessing would score, from a result and a key path of ``headline``; by default
            what the result's own ``chance`` says.
        statistics: what its numbers are made of: the arrays that a result keeps of its images to a
            statistic for each key path; see :func:`lateen.evaluation.intervals.resampled`. Without,
            its numbers have no interval, and no comparison can say which is better.
        order: where it stands among the others in comparisons, the lowest first.
    """

    run: Run
    headline: Mapping[str, str]
    tables: Callable[[Result], Iterable[TableData]]
    overview: tuple[str, ...] = ()
    chance: Callable[[Result, str], float | None] = recorded_chance
    statistics: Callable[[Arrays], Statistics] | None = None
    order: int = 100

    @property
    def name(self) -> str:
        """Its name on the command line and in results: that of its file, with dashes."""
        return self.run.__module__.rpartition(".")[2].replace("_", "-")

    @property
    def summary(self) -> str:
        """One line of help: the first of its module's docstring."""
        return task_summaries()[self.name]

    @property
    def options(self) -> dict[str, bool]:
        """The options that it takes, and whether each is needed."""
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        return {p.name: p.default is inspect.Parameter.empty for p in parameters}

    def measure(self, model: AlignedModel, options: Mapping[str, Any]) -> dict[str, Any]:
        """Call :attr:`run` with options that are its own, and say in the log what was trained on.

        Args:
            model: an aligned model.
            options: keyword arguments of :attr:`run`.

        Returns:
            What :attr:`run` gives, with ``task`` and the ``options`` that were given; ``templates``
            and ``seed`` are ``None`` where the task has none, ``trained_on`` where it is not known
            whether the model was trained on the images.

        Raises:
            UsageError: an option that it does not take, or one that it needs and was not given.
            ModelError: the model's record of its training images is damaged.
        """
        for name in options:
            if name not in self.options:
                known = [_dashed(option) for option in self.options]
                raise UsageError(
                    f"{self.name} takes no --{_dashed(name)}", choices(_dashed(name), known)
                )
        for name, needed in self.options.items():
            if needed and options.get(name) is None:
                raise UsageError(
                    f"{self.name} needs --{_dashed(name)}",
                    f"See `lateen evaluate {self.name} --help`.",
                )
        given = {
            name: _plain(value)
            for name, value in options.items()
            if name not in _NO_CONDITION and value is not None
        }
        _ = model.trained_on  # what cannot be read fails before anything is encoded
        absent = dict.fromkeys(("templates", "seed", "trained_on"))
        result = {"task": self.name, **absent, **self.run(model, **options), "options": given}
        if sentences := training_note(result):
            log.warning("%s: %s", self.name, sentences)
        return result


TASKS: Registry[Task] = Registry(tasks, "TASK")
"""All tasks by name."""


class _ResultKinds(Mapping[str, ResultKind]):
    """All kinds by the ``task`` of their results, each loaded when it is asked for."""

    def __iter__(self) -> Iterator[str]:
        return iter([*TASKS, *_OTHER_KINDS])

    def __len__(self) -> int:
        return len(TASKS) + len(_OTHER_KINDS)

    def __contains__(self, name: object) -> bool:
        return name in TASKS or name in _OTHER_KINDS

    def __getitem__(self, name: str) -> ResultKind:
        if name not in _OTHER_KINDS:
            return TASKS[name]
        kind: ResultKind = importlib.import_module(_OTHER_KINDS[name]).KIND
        return kind


RESULT_KINDS: Mapping[str, ResultKind] = _ResultKinds()
"""Kinds of results: those of :data:`TASKS`, and those that another command writes."""


def task_summaries() -> dict[str, str]:
    """Every task's name and summary, read from the files: nothing is imported."""
    return TASKS.summaries()


def evaluate(
    model: AlignedModel | str | Path, task: str, *, place: str | Path | None = None,
    out: str | Path | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a model; features are cached by content, so that a second run costs little.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        task: a name in :data:`lateen.evaluation.TASKS`.
        place: where the model is, for people, if it is given as an AlignedModel.
        out: folder of the whole result as ``<task>.json``, of a page as ``<task>.html``, and of the
            task's pictures; nothing is written if not given.
        options: keyword arguments of the function that runs the task, such as ``images`` and
            ``captions`` of :func:`~lateen.evaluation.tasks.retrieval.evaluate_retrieval`; ``cache``
            is the folder to keep features in, lateen's own if not given.

    Returns:
        JSON-ready: ``task``, ``model`` (what it is, and where), the metrics in percent, counts,
        prompts, seed, ``options``, and ``conditions``: content keys of the model and of the data,
        and versions of libraries; ``trained_on``: how many of the images the model was trained on
        (:func:`~lateen.evaluation.features.find_trained_on`).

    Raises:
        UsageError: an unknown task, an option that it does not take, or one that it needs.
        DataError: nothing to evaluate on.
    """
    return evaluate_with(model, task, options, place=place, out=out)


def evaluate_with(
    model: AlignedModel | str | Path, task: str, options: Mapping[str, Any], *,
    place: str | Path | None = None, out: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a model; arguments, result and errors are those of :func:`evaluate`."""
    from lateen.evaluation.features import model_facts
    from lateen.model import AlignedModel, open_model

    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}", choices(str(task), TASKS))
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    if out is not None:
        make_folder(out)
        if "out" in TASKS[task].options:
            options = {**options, "out": Path(out)}
    measured = TASKS[task].measure(ready, options)
    if place is None and not isinstance(model, AlignedModel):
        place = model
    result = {"task": task, "model": model_facts(ready, place), **measured}
    if out is not None:
        from lateen.evaluation.page import write_task_page

        write_json(Path(out) / f"{task}.json", result)
        write_task_page(result, Path(out))
    return result


def number(result: Result, key_path: str) -> float | None:
    """The number at a dotted key path of a result, such as ``text_to_image.R@1``; ``None`` if there
    is none."""
    value: Any = result
    for key in key_path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return float(value) if isinstance(value, int | float) else None


def training_note(result: Result) -> str:
    """What the model saw in training of the images that a result is of, in sentences; empty for
    nothing, and where it is not known."""
    trained_on = result.get("trained_on")
    if not isinstance(trained_on, Mapping):
        return ""
    of = f"of these {trained_on['of']:,} images"
    sentences = []
    mistakes = trained_on.get("by_mistake", 0)
    about = f"; about {mistakes:.2g} of them by mistake" if mistakes else ""
    if trained_on["by"] == "numbers":
        sentences.append(
            f"{trained_on['images']:,} {of} have the id of one trained on, but ids that any images "
            f"may have{about}."
        )
    elif trained_on["images"]:
        sentences.append(
            f"{trained_on['images']:,} {of} were trained on (same {trained_on['by']}{about})."
        )
    if count := trained_on.get("same_ids"):
        sentences.append(
            f"{count:,} {of} have the id of one trained on, with other bytes: saved again, most "
            "likely."
        )
    if count := trained_on.get("chosen_on"):
        sentences.append(f"{count:,} {of} chose the model's best step.")
    return " ".join(sentences)


def was_trained_on(result: Result) -> str | None:
    """Why a result must not be held to be better than another: the model was trained on its images.

    From 1 % of the images on, as fewer can move no number by more than that; beyond what a large
    record counts by mistake. Images with the id of one trained on count, whatever their bytes, but
    not where any images may have such ids.

    Returns:
        A few words, such as ``475 of 500 images trained on``; ``None`` where it was not, or where
        it is not known.
    """
    from lateen.report.chance import most_by_chance

    trained_on = result.get("trained_on")
    if not isinstance(trained_on, Mapping):
        return None
    count = trained_on.get("same_ids", 0) + (
        0 if trained_on["by"] == "numbers" else trained_on["images"]
    )
    most = most_by_chance(trained_on.get("by_mistake", 0))
    if count <= most or count < _TRAINED_SHARE * trained_on["of"]:
        return None
    return f"{count:,} of {trained_on['of']:,} images trained on"


def is_in_bank(result: Result) -> str | None:
    """Why its numbers with a query bank must not be held to be better than another's: images that
    are judged, or their captions, are in the bank.

    Returns:
        A few words; ``None`` where they are not, or where there is no bank.
    """
    bank = result.get("with_bank", {}).get("bank", {})
    return f"{bank['seen']:,} judged images in the query bank" if bank.get("seen") else None


def _dashed(option: str) -> str:
    return option.replace("_", "-")


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, Path) else type(value).__name__
