"""What a training run leaves behind while it goes on: metrics, validations, checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lateen.align.checkpoint import save_checkpoint
from lateen.align.metrics import MetricsLog
from lateen.align.state import TrainState
from lateen.align.validation import validate
from lateen.progress import bar
from lateen.recipe import TrainSection
from lateen.store import Pairs

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
_ROWS = 200  # lines of metrics.jsonl over a whole run, validations aside


class Journal(contextlib.ExitStack):
    """Writes what is due after each step, until its block ends. One process of a run keeps it.

    Args:
        out: folder for the checkpoint and ``metrics.jsonl``.
        identity: what the checkpoint belongs to.
        start: the step that training goes on from.
        total: steps of the whole training.
        validation: features to validate on, if any.
        settings: how often.
    """

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        start: int,
        total: int,
        validation: Pairs | None,
        settings: TrainSection,
    ) -> None:
        super().__init__()
        self._checkpoint = out / CHECKPOINT
        self._identity, self._total = identity, total
        self._validation, self._settings = validation, settings
        self._metrics = self.enter_context(MetricsLog(out / METRICS, start))
        self._progress = self.enter_context(bar(total, "training", "step", initial=start))

    def record(self, state: TrainState, epoch: int, row: Mapping[str, float]) -> None:
        """Write what is due after the step that ``state`` has just done.

        Args:
            state: after the step.
            epoch: that the step belonged to, from 1.
            row: what the step returned.
        """
        done, total = state.step, self._total
        if _due(done, total, _ROWS):
            self._metrics.write({"step": done, "epoch": epoch, **row})
            self._progress.set_postfix_str(f"loss {row['loss']:.4g}", refresh=False)
        if self._validation is not None and _due(done, total, self._settings.validations):
            recall = validate(state.heads, self._validation)
            self._metrics.write({"step": done, "validation": recall})
            state.keep_if_best(recall)
        if _due(done, total, self._settings.checkpoints):
            self._metrics.sync()  # a checkpoint must never know more than the log beside it
            checkpoint = state.checkpoint(self._identity, finished=done == total)
            save_checkpoint(self._checkpoint, checkpoint)
        self._progress.update()


def _due(done: int, total: int, times: int) -> bool:
    """Whether the step just done is one of ``times`` evenly spaced ones, the last among them."""
    return done * times // total > (done - 1) * times // total
