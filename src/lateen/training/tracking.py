"""A training's numbers for an experiment tracker, as they go into ``metrics.jsonl``.

A tracker only looks on: which one there is changes no weight, no key and no folder's name, and one
that fails on the way is left behind with a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import yaml

from lateen.errors import MissingExtraError, TrainingError, reason
from lateen.progress import log
from lateen.training.config import TrackerName

_PROJECT = "lateen"


@dataclass(frozen=True)
class Tracked:
    """As what a tracker knows a training.

    Attributes:
        name: of the run.
        config: JSON values, the recipe.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)


class _Sink(Protocol):
    """One tracker's own client."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    """Event files in ``tensorboard/`` of the training's folder, the recipe among the texts."""

    def __init__(self, told: Tracked, out: Path, start: int) -> None:
        module = importlib.import_module("torch.utils.tensorboard")
        # What a killed process wrote after its last checkpoint is not shown twice.
        self._writer = module.SummaryWriter(
            str(out / "tensorboard"), purge_step=start + 1 if start else None
        )
        text = yaml.safe_dump(dict(told.config), sort_keys=False, allow_unicode=True)
        self._writer.add_text("recipe", f"```\n{text}```")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases; its files are in ``wandb/`` of the training's folder. Its own
    variables hold: ``WANDB_MODE=offline``, ``WANDB_PROJECT``, ``WANDB_ENTITY``."""

    def __init__(self, told: Tracked, out: Path, start: int) -> None:
        del start
        self._run = importlib.import_module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT), name=told.name,
            id=_same_run(out), resume="allow", dir=str(out), config=dict(told.config),
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    """A run of Trackio, where that keeps its own (``TRACKIO_DIR``)."""

    def __init__(self, told: Tracked, out: Path, start: int) -> None:
        del start
        self._module = importlib.import_module("trackio")
        self._run = self._module.init(
            project=_PROJECT, name=f"{told.name}-{_same_run(out)[:6]}", config=dict(told.config),
            resume="allow", embed=False,
        )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._module.finish()


_SINKS: dict[TrackerName, Callable[[Tracked, Path, int], _Sink]] = {
    "tensorboard": _TensorBoard, "wandb": _Wandb, "trackio": _Trackio,
}  # fmt: skip


def check_tracker(name: TrackerName | None) -> None:
    """See that a tracker is installed, which is a package of that name.

    Raises:
        MissingExtraError: it is not.
    """
    if name is not None and importlib.util.find_spec(name) is None:
        raise MissingExtraError(name, None, f"train.track: {name}")


class Tracker:
    """Hands rows of ``metrics.jsonl`` on, until its block ends.

    Args:
        name: of the tracker; ``None`` for none.
        told: as what it knows the training.
        out: the training's folder.
        start: the step that training goes on from.

    Raises:
        MissingExtraError: it is not installed.
        TrainingError: it cannot be started.
    """

    def __init__(self, name: TrackerName | None, told: Tracked, out: Path, start: int) -> None:
        check_tracker(name)
        self._sink: _Sink | None = None
        if name is None:
            return
        try:
            with _said_aside():
                self._sink = _SINKS[name](told, out, start)
        except Exception as error:
            raise TrainingError(
                f"{name} cannot be started ({reason(error)})",
                "Leave train.track out, or set it up; wandb needs a login or WANDB_MODE=offline.",
            ) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Hand on the numbers of a row, ``validation``'s by names such as
        ``validation/text_to_image/R@1``."""
        numbers = dict(_numbers({k: value for k, value in row.items() if k != "step"}))
        self._try(lambda sink: sink.log(numbers, int(row["step"])))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._try(lambda sink: sink.close())

    def _try(self, act: Callable[[_Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            with _said_aside():
                act(self._sink)
        except Exception as error:  # noqa: BLE001 - whatever it is, the training goes on
            self._sink = None
            log.warning(
                "train.track: the tracker failed and is left out from here on (%s)", reason(error)
            )


def _said_aside() -> contextlib.AbstractContextManager[Any]:
    """A block in which what a tracker prints goes where notes go, not among results."""
    return contextlib.redirect_stdout(sys.stderr)


def _numbers(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every number inside, under its names with slashes between them."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{name}", float(value)


def _same_run(out: Path) -> str:
    """What is the same again when a training goes on in its folder."""
    return hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
