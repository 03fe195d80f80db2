"""What an evaluation task is: a function of a model and its own options, and its numbers' names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.errors import UsageError, choices

Run = Callable[..., dict[str, Any]]


_UNTOLD = ("cache", "out")  # options that no number depends on


@dataclass(frozen=True)
class Task:
    """One evaluation.

    Its options are the keyword arguments of :attr:`run`; those without a default are needed. All
    have the name of a command-line option: ``images`` is ``--images``.

    Attributes:
        name: on the command line and in results.
        run: a model and options to JSON-ready metrics, with ``conditions``.
        headline: what to show first and to compare: label → dotted place in the result.
        summary: one line of help.
    """

    name: str
    run: Run
    headline: Mapping[str, str]
    summary: str

    @property
    def options(self) -> dict[str, bool]:
        """The options that it takes, and whether each is needed."""
        parameters = list(inspect.signature(self.run).parameters.values())[1:]
        return {p.name: p.default is inspect.Parameter.empty for p in parameters}

    def __call__(self, model: Any, **options: Any) -> dict[str, Any]:
        """Run it.

        Returns:
            What :attr:`run` gives, with ``task`` and the ``options`` that were given; ``templates``
            and ``seed`` are ``None`` where the task has none.

        Raises:
            UsageError: an option that it does not take, or one that it needs and was not given.
        """
        for name in options:
            if name not in self.options:
                raise UsageError(
                    f"{self.name} takes no --{_dashed(name)}",
                    choices(_dashed(name), [_dashed(known) for known in self.options]),
                )
        for name, needed in self.options.items():
            if needed and options.get(name) is None:
                raise UsageError(
                    f"{self.name} needs --{_dashed(name)}",
                    f"See the options of --task {self.name} in `lateen evaluate --help`.",
                )
        given = {
            name: _plain(value)
            for name, value in options.items()
            if name not in _UNTOLD and value is not None
        }
        found = self.run(model, **options)
        return {"task": self.name, "templates": None, "seed": None, **found, "options": given}


def _plain(value: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, str | int | float):
        return value
    return str(value) if isinstance(value, Path) else type(value).__name__


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def number(result: Mapping[str, Any], place: str) -> float | None:
    """The number at a dotted place of a result, such as ``text_to_image.R@1``; ``None`` if there
    is none."""
    value: Any = result
    for part in place.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return float(value) if isinstance(value, int | float) else None
