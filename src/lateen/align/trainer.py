"""The training loop of the alignment heads (SAIL, METHODS §1.2–1.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.align.batches import BatchPlan
from lateen.align.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from lateen.align.heads import AlignmentHeads
from lateen.align.inputs import check_features
from lateen.align.metrics import MetricsLog
from lateen.align.optim import learning_rate
from lateen.align.seeding import Stream, seeded
from lateen.align.state import TrainState, new_heads
from lateen.align.step import training_step
from lateen.align.validation import validate
from lateen.encoders.runtime import resolve_device
from lateen.errors import TrainingError
from lateen.files import folder_lock
from lateen.progress import bar, log
from lateen.recipe import HeadSection, TrainSection
from lateen.store import Pairs

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
_ROWS = 200  # lines of metrics.jsonl over a whole run, validations aside


@dataclass(frozen=True)
class TrainResult:
    """What training gives back.

    Attributes:
        heads: the best ones, in evaluation mode, on the CPU.
        steps: how many steps the whole training has.
        best_step: the step the heads are from; the last one if there was no validation.
        best_metrics: their validation retrieval, if there was one.
        metrics: path of ``metrics.jsonl``.
        resumed_from: the step at which an interrupted run was taken up; 0 for a new one.
        skipped: whether the training was found finished, so that nothing was done.
    """

    heads: AlignmentHeads
    steps: int
    best_step: int
    best_metrics: Mapping[str, Any] | None
    metrics: Path
    resumed_from: int = 0
    skipped: bool = False


def train(
    pairs: Pairs,
    *,
    validation: Pairs | None = None,
    head: HeadSection,
    settings: TrainSection,
    out: Path,
) -> TrainResult:
    """Train alignment heads on the features of ``pairs``.

    An interrupted run goes on at its last checkpoint and ends with the same bytes as an
    uninterrupted one; a finished one is given back as it is. Both are recognised by content: the
    settings and the keys of the data.

    Args:
        pairs: features to train on.
        validation: features whose retrieval (first caption column, mean of R@1/5/10 both ways)
            picks the best heads; without it the last ones are given back.
        head: shape of the heads.
        settings: loss, optimiser, schedule.
        out: folder for the checkpoint and ``metrics.jsonl``.

    Raises:
        TrainingError: features that nothing can be learned from, a loss or gradient that is not
            finite, or an ``out`` that holds a training with other settings or data.
        BusyError: another process trains into ``out``.
    """
    identity = _identity(pairs, validation, head, settings)
    with folder_lock(out):
        saved = load_checkpoint(out / CHECKPOINT, identity)
        if saved is not None and saved.finished:
            log.info("%s is already trained", out)
            return _result(saved, new_heads(pairs, head, settings), out, skipped=True)
        _check_data(pairs, validation)
        plan = BatchPlan(pairs, batch=settings.batch, epochs=settings.epochs, seed=settings.seed,
                         captions_per_image=settings.captions_per_image)  # fmt: skip
        state = TrainState(new_heads(pairs, head, settings).to(resolve_device()), settings)
        if saved is not None:
            state.restore(saved)
            log.info("going on at step %d of %d", state.step, plan.steps)
        return _run(state, plan, identity, validation, settings, out)


def _run(
    state: TrainState,
    plan: BatchPlan,
    identity: Mapping[str, Any],
    validation: Pairs | None,
    settings: TrainSection,
    out: Path,
) -> TrainResult:
    """The loop itself, from ``state.step`` to the end."""
    start, total = state.step, plan.steps
    device = state.heads.logit_scale.device
    metrics = MetricsLog(out / METRICS, start)
    progress = bar(total, "training", "step", initial=start)
    with metrics, progress:
        for step in range(start, total):
            batch = plan.batch(step).to(device)
            lr = learning_rate(step, total, settings)
            with seeded(settings.seed, Stream.DROPOUT, step, device=device):
                row = training_step(state, batch, lr, settings)
            done = state.step
            if _due(done, total, _ROWS):
                metrics.write({"step": done, "epoch": plan.epoch(step) + 1, **row})
                progress.set_postfix_str(f"loss {row['loss']:.4g}", refresh=False)
            if validation is not None and _due(done, total, settings.validations):
                recall = validate(state.heads, validation)
                metrics.write({"step": done, "validation": recall})
                state.keep_if_best(recall)
            if _due(done, total, settings.checkpoints):
                metrics.sync()  # a checkpoint must never know more than the log beside it
                saved = state.checkpoint(identity, finished=done == total)
                save_checkpoint(out / CHECKPOINT, saved)
            progress.update()
    return _result(saved, state.heads, out, resumed_from=start)


def _due(done: int, total: int, times: int) -> bool:
    """Whether the step just done is one of ``times`` evenly spaced ones, the last among them."""
    return done * times // total > (done - 1) * times // total


def _identity(
    pairs: Pairs, validation: Pairs | None, head: HeadSection, settings: TrainSection
) -> dict[str, Any]:
    """Everything that decides the result, as JSON values."""
    return {
        "head": head.model_dump(mode="json"),
        "train": settings.model_dump(mode="json"),
        "data": {"pairs": pairs.key, "validation": validation.key if validation else None},
    }


def _check_data(pairs: Pairs, validation: Pairs | None) -> None:
    if len(pairs) < 2:
        raise TrainingError(
            f"{len(pairs)} image is not enough to contrast captions with",
            "Train on at least two images, and in earnest on thousands.",
        )
    check_features(pairs)
    if validation is None:
        return
    check_features(validation, varied=False)
    here, there = (
        (p.image.dim, p.texts[0].store.dim) for p in (pairs, validation)
    )  # fmt: skip
    if here != there:
        raise TrainingError(
            f"validation features have dims {there[0]} (image) and {there[1]} (text) where "
            f"training has {here[0]} and {here[1]}",
            "Encode both splits with the same encoders.",
        )


def _result(
    saved: Checkpoint, heads: AlignmentHeads, out: Path, *, resumed_from: int = 0,
    skipped: bool = False,
) -> TrainResult:  # fmt: skip
    heads.load_state_dict(saved.heads)
    return TrainResult(
        heads.cpu().eval().requires_grad_(False), saved.step, saved.best_step, saved.best_metrics,
        out / METRICS, resumed_from, skipped,
    )  # fmt: skip
