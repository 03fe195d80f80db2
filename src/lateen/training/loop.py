"""The training loop and what it leaves on disk: of alignment heads, and of whatever else embeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from lateen.device import empty_cache, resolve_device
from lateen.errors import TrainingError
from lateen.features import Pairs
from lateen.files import folder_lock
from lateen.progress import bar, log
from lateen.training.batches import BatchPart, BatchSource, Stream, seeded
from lateen.training.calibration import Calibration
from lateen.training.canonical import add_canonical, canonical_share, ridges_of
from lateen.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from lateen.training.config import HeadSection, LoopSection, TrainSection
from lateen.training.heads import FROZEN, AlignmentHeads, FrozenEncoders, complete
from lateen.training.inputs import check_several, check_trainable
from lateen.training.log import MetricsLog
from lateen.training.optim import learning_rate
from lateen.training.ranks import ALONE, Ranks
from lateen.training.step import (
    Division,
    StepParts,
    StepTooLargeError,
    TrainState,
    passes,
    training_step,
)
from lateen.training.tracking import Tracked, Tracker, check_tracker
from lateen.training.trainable import Trainable
from lateen.training.validation import RetrievalValidation, Validation, calibrate, validate

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
M = TypeVar("M", bound=Trainable)
_ROWS = 200  # lines of metrics.jsonl over a whole run, validations aside


def new_heads(
    pairs: Pairs, head: HeadSection, settings: TrainSection, trained: FrozenEncoders = FROZEN
) -> AlignmentHeads:
    """Heads for the features of ``pairs``, with the weights that ``settings.seed`` gives.

    Args:
        pairs: give the dims.
        head: shape of the heads.
        settings: seed, scale and bias.
        trained: what is trained beside the heads.
    """
    with seeded(settings.seed, Stream.WEIGHTS):
        heads = AlignmentHeads(
            head, *trained.dims(pairs), init_scale=settings.init_scale, init_bias=settings.init_bias
        )
    return trained.complete(heads)


class Journal(contextlib.ExitStack):
    """Writes what is due after each step, until its block ends. One process of a run keeps it.

    Args:
        out: folder for the checkpoint and ``metrics.jsonl``.
        identity: what the checkpoint belongs to.
        start: the step that training goes on from.
        total: steps of the whole training.
        settings: how often, and who looks on.
        validation: of the heads as they are, if there is one.
        tracked: as what a tracker knows it.
    """

    def __init__(
        self, out: Path, identity: Mapping[str, Any], start: int, total: int,
        settings: LoopSection, validation: Validation | None, tracked: Tracked,
    ) -> None:  # fmt: skip
        super().__init__()
        self._checkpoint = out / CHECKPOINT
        self._identity, self._total = identity, total
        self._settings, self._validation = settings, validation
        # First what may not start, so that no file stays open.
        self._tracker = self.enter_context(Tracker(settings.tracker, tracked, out, start))
        self._metrics = self.enter_context(MetricsLog(out / METRICS, start))
        self._progress = self.enter_context(bar(total, "training", "step", initial=start))

    def record(self, state: TrainState, epoch: int, row: Mapping[str, float]) -> bool:
        """Write what is due after the step that ``state`` has just done.

        Args:
            state: after the step.
            epoch: that the step belonged to, from 1.
            row: what the step returned.

        Returns:
            Whether the validation says that it is enough.
        """
        done, total, enough = state.step, self._total, False
        if _due(done, total, _ROWS):
            self._write({"step": done, "epoch": epoch, **row})
            self._progress.set_postfix_str(f"loss {row['loss']:.4g}", refresh=False)
        if self._validation is not None and _due(done, total, self._settings.validations):
            metrics = self._validation.measure(state.heads, done)
            self._write({"step": done, "validation": metrics})
            if self._validation.better(metrics, state.best_metrics):
                state.keep(metrics)
            enough = self._validation.enough(metrics)
        if enough or _due(done, total, self._settings.checkpoints):
            self._metrics.sync()  # a checkpoint must never know more than the log beside it
            checkpoint = state.checkpoint(self._identity, finished=enough or done == total)
            save_checkpoint(self._checkpoint, checkpoint)
        self._progress.update()
        return enough

    def _write(self, row: Mapping[str, Any]) -> None:
        self._metrics.write(row)
        self._tracker.write(row)


def _due(done: int, total: int, times: int) -> bool:
    """Whether the step just done is one of ``times`` evenly spaced ones, the last among them."""
    return done * times // total > (done - 1) * times // total


@dataclass(frozen=True)
class TrainResult(Generic[M]):
    """What training gives back.

    Attributes:
        heads: the best ones, in evaluation mode, on the CPU.
        steps: how many steps were done: all, or until the validation said that it is enough.
        best_step: the step the heads are from; the last one if there was no validation.
        best_metrics: what the validation measured of them, if there was one.
        metrics: path of ``metrics.jsonl``.
        resumed_from: the step at which an interrupted run was taken up; 0 for a new one.
        skipped: whether the training was found finished, so that nothing was done.
        refits: whether t and b may be fitted again, see :class:`Checkpoint`.
        calibration: what they were fitted to, where they were.
    """

    heads: M
    steps: int
    best_step: int
    best_metrics: Mapping[str, Any] | None
    metrics: Path
    resumed_from: int = 0
    skipped: bool = False
    refits: bool = True
    calibration: Calibration | None = None


def train(
    pairs: Pairs,
    *,
    validation: Pairs | None = None,
    head: HeadSection,
    settings: TrainSection,
    out: Path,
    trained: FrozenEncoders = FROZEN,
    ranks: Ranks = ALONE,
    tracked: Tracked | None = None,
) -> TrainResult[AlignmentHeads]:
    """Train alignment heads on the features of ``pairs``.

    Where ``settings.cca`` is above 0, closed-form canonical directions are put beside the trained
    ones at the end, and the heads are that many dims longer (:mod:`lateen.training.canonical`).
    Scale and bias are then fitted again to ``validation`` (:mod:`lateen.training.calibration`).

    An interrupted run goes on at its last checkpoint and ends with the same bytes as an
    uninterrupted one; a finished one is given back as it is. Both are recognised by content: the
    settings and the keys of the data.

    Args:
        pairs: features to train on.
        validation: features whose retrieval (first caption column, mean of R@1/5/10 both ways)
            picks the best heads; without it the last ones are given back.
        head: shape of the heads.
        settings: loss, optimiser, schedule.
        out: folder for the checkpoint and ``metrics.jsonl``; the same one in all processes.
        trained: what is trained, and on what: heads on pairs' features, beside them a text encoder
            (:class:`~lateen.training.lit.TrainedText`), or also on what is unpaired
            (:class:`~lateen.training.unpaired.Unpaired`).
        ranks: the processes that train together; each is called with the same arguments.
        tracked: as what ``settings.track`` knows it; by the folder's name and what decides the
            result, if not given.

    Raises:
        MissingExtraError: the tracker is not installed.
        TrainingError: features that nothing can be learned from, a loss or gradient that is not
            finite, an ``out`` that holds a training with other settings or data, or processes that
            were not given the same.
        BusyError: another process trains into ``out``.
    """
    head = complete(head, *trained.dims(pairs))
    identity = _identity(pairs, validation, head, settings, trained)
    share = canonical_share(settings, head, *trained.frozen_dims(pairs))

    def new_source() -> BatchSource[Any]:
        _check_data(pairs, validation)
        return trained.source(pairs, settings, ranks)

    with folder_lock(out) if ranks.leads else contextlib.nullcontext():
        if settings.epochs == 0:
            _check_same(ranks, "settings or data", identity)
            _check_data(pairs, validation)
            heads = new_heads(pairs, head, settings, trained).eval()
            result = TrainResult(heads, 0, 0, None, out / METRICS)
        else:
            result = fit(
                lambda: new_heads(pairs, head, settings, trained), new_source, settings, out,
                identity=identity, ranks=ranks, tracked=tracked,
                validation=None if validation is None else RetrievalValidation(validation),
            )  # fmt: skip
            result = replace(result, heads=trained.trained(result.heads))
    if share == 0:
        return result
    heads = add_canonical(
        result.heads, pairs, share, alone=settings.epochs == 0,
        ridges=ridges_of(settings, len(pairs)),
    )  # fmt: skip
    if validation is None:
        return replace(result, heads=heads, best_metrics=None)
    calibration = None
    if result.refits:
        calibration = calibrate(heads, validation, min(settings.batch, len(pairs)))
    metrics = validate(heads, validation)
    return replace(result, heads=heads, best_metrics=metrics, calibration=calibration)


def is_begun(
    pairs: Pairs, validation: Pairs | None, *, head: HeadSection, settings: TrainSection, out: Path
) -> bool:
    """Whether ``out`` has a checkpoint of just this training of heads; see :func:`train`."""
    if not (out / CHECKPOINT).is_file():
        return False
    head = complete(head, *FROZEN.dims(pairs))
    try:
        identity = _identity(pairs, validation, head, settings, FROZEN)
        return load_checkpoint(out / CHECKPOINT, identity) is not None
    except TrainingError:
        return False


def fit(
    new_module: Callable[[], M],
    new_source: Callable[[], BatchSource[Any]],
    settings: LoopSection,
    out: Path,
    *,
    identity: Mapping[str, Any],
    validation: Validation | None = None,
    start: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
    tracked: Tracked | None = None,
) -> TrainResult[M]:
    """Train whatever embeds what a source yields, from the last checkpoint or from the start.

    Args:
        new_module: makes what is trained, with its first weights.
        new_source: makes what it is trained on; not called where the training is finished.
        settings: loss, optimiser, schedule.
        out: folder for the checkpoint and ``metrics.jsonl``.
        identity: everything that decides the result, as JSON values.
        validation: what is measured, picks the weights that are given back, and may end training.
        start: what was measured of the first weights, where they are among those to pick from.
        ranks: the processes that train together.
        tracked: as what a tracker knows it; by its folder and ``identity`` if not given.

    Raises:
        MissingExtraError: the tracker is not installed.
        TrainingError: a loss or gradient that is not finite, an ``out`` of another training, or
            processes that were not given the same.
    """
    _check_same(ranks, "settings or data", identity)
    saved = load_checkpoint(out / CHECKPOINT, identity)
    _check_same(ranks, "checkpoints", saved.step if saved else 0)
    if saved is not None and saved.finished:
        log.info("%s is already trained", out)
        return _result(saved, new_module(), out, skipped=True)
    check_tracker(settings.tracker)
    source = new_source()
    module = new_module()
    state = new_state(module, settings)
    if saved is not None:
        state.restore(saved)
        log.info("going on at step %d of %d", state.step, source.steps)
    elif start is not None:
        state.keep(start)
    first = state.step
    with contextlib.ExitStack() as stack:
        journal = None
        if ranks.leads:
            journal = stack.enter_context(
                Journal(
                    out, identity, first, source.steps, settings, validation,
                    tracked or Tracked(out.name, identity),
                )
            )  # fmt: skip
        steps = stack.enter_context(contextlib.closing(run_steps(state, source, settings, ranks)))
        for row in steps:
            enough = False
            if journal is not None:
                enough = journal.record(state, source.epoch(state.step - 1) + 1, row)
            measured = validation is not None and _due(
                state.step, source.steps, settings.validations
            )
            if measured and any(ranks.agree(enough)):
                break
    ranks.wait()  # for the checkpoint, whose heads all processes return
    saved = load_checkpoint(out / CHECKPOINT, identity)
    assert saved is not None
    return _result(saved, module, out, resumed_from=first)


def new_state(module: Trainable, settings: LoopSection) -> TrainState:
    """What is trained, on its device, its networks compiled where that is asked for."""
    device = resolve_device()
    state = TrainState(module.to(device), settings)
    if settings.compiles is True or (settings.compiles == "auto" and device.type == "cuda"):
        state.heads.compile_networks()
    return state


def run_steps(
    state: TrainState, source: BatchSource[Any], settings: LoopSection, ranks: Ranks = ALONE
) -> Generator[Mapping[str, float]]:
    """The loop itself: do every step from ``state.step`` on, and give what each returned.

    A step that does not fit into memory is done again with half as much of it at a time, and so are
    those after it. Close it to stop reading ahead.

    Raises:
        TrainingError: a step that does not fit, and nothing to halve; of several processes none
            halves.
    """
    division = Division(1, settings.loss_rows)
    while state.step < source.steps:
        try:
            yield from _steps(state, source, settings, ranks, division)
        except StepTooLargeError:
            if ranks.size > 1:
                raise
            rows = source.rows(state.step)
            division = division.halved(rows)
        else:
            return
        # Here, where the error no longer holds the tensors that did not fit.
        empty_cache()
        at_a_time = -(-max(part.count for part in rows) // division.pieces)
        of_loss = f" and {division.chunk} rows of logits" if settings.loss_rows > 1 else ""
        log.warning(
            "out of memory in step %d: going on with %d images%s at a time (%s)", state.step + 1,
            at_a_time, of_loss, settings.dividing,
        )  # fmt: skip


def _steps(
    state: TrainState, source: BatchSource[Any], settings: LoopSection, ranks: Ranks,
    division: Division,
) -> Generator[Mapping[str, float]]:  # fmt: skip
    """:func:`run_steps` with steps divided in one way."""
    heads, start = state.heads, state.step
    device = next(heads.parameters()).device
    divided = settings.with_loss_rows(division.chunk)

    def order() -> Iterator[BatchPart]:
        for step in range(start, source.steps):
            parts = source.parts(step)
            for _ in range(passes(len(parts), heads)):
                yield from parts

    with contextlib.closing(source.stream(order())) as stream:
        batches = (batch.to(device) for batch in stream)
        for step in range(start, source.steps):
            lr = learning_rate(step, source.steps, settings)
            parts = StepParts(source.rows(step), batches, division.pieces)
            yield training_step(state, parts, lr, divided, ranks)


def _check_same(ranks: Ranks, what: str, value: Any) -> None:
    values = ranks.agree(value)
    odd = [rank for rank, other in enumerate(values) if other != values[0]]
    if odd:
        raise TrainingError(
            f"process {odd[0]} of {ranks.size} has other {what} than process 0",
            "Give every process the same stores, recipe and --out, on a disk that all share.",
        )


def _identity(
    pairs: Pairs, validation: Pairs | None, head: HeadSection, settings: TrainSection,
    trained: FrozenEncoders,
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides the result, as JSON values."""
    data = {"pairs": pairs.key, "validation": validation.key if validation else None}
    return {
        "head": head.model_dump(mode="json"),
        "train": settings.deciding(),
        "data": {**data, **trained.key},
    }


def _check_data(pairs: Pairs, validation: Pairs | None) -> None:
    check_several(pairs)
    check_trainable(pairs)
    if validation is None:
        return
    check_trainable(validation, varied=False)
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
    saved: Checkpoint, heads: M, out: Path, *, resumed_from: int = 0, skipped: bool = False
) -> TrainResult[M]:  # fmt: skip
    heads.load_state_dict(saved.heads)
    return TrainResult(
        heads.cpu().eval().requires_grad_(False), saved.step, saved.best_step, saved.best_metrics,
        out / METRICS, resumed_from, skipped, saved.refits,
    )  # fmt: skip
