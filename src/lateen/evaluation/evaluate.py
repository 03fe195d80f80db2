"""The public function of evaluation: a model, a task, its data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lateen.errors import UsageError, choices
from lateen.evaluation.features import model_facts
from lateen.evaluation.tasks import TASKS
from lateen.files import make_folder, write_json
from lateen.model import AlignedModel, open_model


def evaluate(
    model: AlignedModel | str | Path, task: str, *, place: str | Path | None = None, **options: Any
) -> dict[str, Any]:
    """Evaluate a model; features are cached by content, so that a second run costs little.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        task: a name in :data:`lateen.evaluation.TASKS`.
        place: where the model is, for people, if it is given as an AlignedModel.
        options: of the task, such as ``images`` and ``captions``; ``cache`` is the folder to keep
            features in, lateen's own if not given; ``out`` that of the whole result as
            ``<task>.json``, and of the task's pictures.

    Returns:
        JSON-ready: ``task``, ``model`` (what it is, and where), the metrics in percent, counts,
        prompts, seed, ``options``, and ``conditions``: content keys of the model and of the data,
        and versions of libraries.

    Raises:
        UsageError: an unknown task, an option that it does not take, or one that it needs.
        DataError: nothing to evaluate on.
    """
    if task not in TASKS:
        raise UsageError(f"unknown task {task!r}", choices(str(task), TASKS))
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    out = options.pop("out", None)
    if out is not None:
        make_folder(out)
        if "out" in TASKS[task].options:
            options["out"] = Path(out)
    found = TASKS[task](ready, **options)
    if place is None and not isinstance(model, AlignedModel):
        place = model
    result = {"task": task, "model": model_facts(ready, place), **found}
    if out is not None:
        write_json(Path(out) / f"{task}.json", result)
    return result
