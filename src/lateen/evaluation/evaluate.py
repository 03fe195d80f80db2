"""The public function of evaluation: a model, a task, its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lateen.errors import UsageError, choices
from lateen.evaluation.tasks import TASKS
from lateen.model import AlignedModel, open_model


def evaluate(model: AlignedModel | str | Path, task: str, **options: Any) -> dict[str, Any]:
    """Evaluate a model; features are cached by content, so that a second run costs little.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        task: a name in :data:`lateen.evaluation.TASKS`.
        options: of the task, such as ``images`` and ``captions``; ``cache`` is the folder to keep
            features in, lateen's own if not given.

    Returns:
        JSON-ready: ``task``, the metrics in percent, counts, and ``conditions``.

    Raises:
        UsageError: an unknown task, an option that it does not take, or one that it needs.
        DataError: nothing to evaluate on.
    """
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}", choices(str(task), TASKS))
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    return TASKS[task](ready, **options)
