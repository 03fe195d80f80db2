"""The training loop of the alignment heads (SAIL, METHODS §1.2–1.4), and what it leaves on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lateen.device import resolve_device
from lateen.encoders.text import TextEncoder
from lateen.errors import TrainingError
from lateen.features import Pairs
from lateen.files import folder_lock
from lateen.metrics.retrieval import Retrieval, retrieval
from lateen.progress import bar, log
from lateen.training.batches import BatchPlan, Loader, Part, Stream, seeded
from lateen.training.canonical import add_canonical, canonical_share
from lateen.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads, complete
from lateen.training.inputs import check_features
from lateen.training.lit import TextTower
from lateen.training.log import MetricsLog
from lateen.training.optim import learning_rate
from lateen.training.ranks import ALONE, Ranks
from lateen.training.step import TrainState, passes, training_step

_CHUNK = 8192
CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
_ROWS = 200  # lines of metrics.jsonl over a whole run, validations aside


def new_heads(
    pairs: Pairs, head: HeadSection, settings: TrainSection, text: TextEncoder | None = None
) -> AlignmentHeads:
    """Heads for the features of ``pairs``, with the weights that ``settings.seed`` gives.

    Args:
        pairs: give the dims.
        head: shape of the heads.
        settings: seed, scale and bias.
        text: a text encoder to train with its head, where the texts of ``pairs`` are token ids.
    """
    text_dim = text.info.dim if text else pairs.texts[0].store.dim
    with seeded(settings.seed, Stream.WEIGHTS):
        heads = AlignmentHeads(
            head, pairs.image.dim, text_dim,
            init_scale=settings.init_scale, init_bias=settings.init_bias,
        )  # fmt: skip
    if text is not None:
        heads.text = TextTower(text, heads.text)
    return heads


@torch.no_grad()
def validate(heads: AlignmentHeads, pairs: Pairs) -> Retrieval:
    """Retrieval of ``pairs``' images and the captions of their first column.

    Without dropout and in float32 whatever the training's precision, as every later evaluation.
    """
    device = heads.logit_scale.device
    features, owner = pairs.all_texts(0)
    training = heads.training
    heads.eval()
    image = [
        heads.embed_image(pairs.image_features(slice(i, i + _CHUNK)).to(device))
        for i in range(0, len(pairs), _CHUNK)
    ]
    text = [
        heads.embed_text(features[i : i + _CHUNK].to(device))
        for i in range(0, len(features), _CHUNK)
    ]
    heads.train(training)
    return retrieval(torch.cat(image), torch.cat(text), owner)


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
    text: TextEncoder | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train alignment heads on the features of ``pairs``.

    Where ``settings.cca`` is above 0, closed-form canonical directions are put beside the trained
    ones at the end, and the heads are that many dims longer (:mod:`lateen.training.canonical`).

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
        text: a text encoder to train with its head (LiT); then the texts of ``pairs`` and
            ``validation`` are its token ids, as :class:`~lateen.encoders.TokenEncoder` gives them,
            and the text head of the result is a
            :class:`~lateen.training.lit.TextTower`. The encoder given is left as it is.
        ranks: the processes that train together; each is called with the same arguments.

    Raises:
        TrainingError: features that nothing can be learned from, a loss or gradient that is not
            finite, an ``out`` that holds a training with other settings or data, or processes that
            were not given the same.
        BusyError: another process trains into ``out``.
    """
    head = complete(head, pairs.image.dim, text.info.dim if text else pairs.texts[0].store.dim)
    identity = _identity(pairs, validation, head, settings, text)
    _check_same(ranks, "settings or data", identity)
    dims = [pairs.image.dim] + ([] if text else [pairs.texts[0].store.dim])
    share = canonical_share(settings, head, *dims)
    with folder_lock(out) if ranks.leads else contextlib.nullcontext():
        if settings.epochs == 0:
            _check_data(pairs, validation)
            heads = new_heads(pairs, head, settings, text).eval()
            result = TrainResult(heads, 0, 0, None, out / METRICS)
        else:
            result = _go_on(pairs, validation, head, settings, out, text, ranks, identity)
    if share == 0:
        return result
    heads = add_canonical(result.heads, pairs, share, alone=settings.epochs == 0)
    best = validate(heads, validation) if validation is not None else None
    return replace(result, heads=heads, best_metrics=best)


def _go_on(
    pairs: Pairs, validation: Pairs | None, head: HeadSection, settings: TrainSection, out: Path,
    text: TextEncoder | None, ranks: Ranks, identity: Mapping[str, Any],
) -> TrainResult:  # fmt: skip
    """Train from the last checkpoint, or from the start, to the end."""
    saved = load_checkpoint(out / CHECKPOINT, identity)
    _check_same(ranks, "checkpoints", saved.step if saved else 0)
    if saved is not None and saved.finished:
        log.info("%s is already trained", out)
        return _result(saved, new_heads(pairs, head, settings, text), out, skipped=True)
    _check_data(pairs, validation)
    plan = BatchPlan(
        pairs, batch=settings.batch, epochs=settings.epochs, seed=settings.seed,
        captions_per_image=settings.captions_per_image, block=settings.block,
        micro_batch=settings.micro_batch, ranks=ranks,
    )  # fmt: skip
    _check_shares(plan, len(pairs), ranks)
    device = resolve_device()
    state = TrainState(new_heads(pairs, head, settings, text).to(device), settings)
    if settings.compile is True or (settings.compile == "auto" and device.type == "cuda"):
        state.heads.compile_networks()
    if saved is not None:
        state.restore(saved)
        log.info("going on at step %d of %d", state.step, plan.steps)
    start = state.step
    _run(state, plan, Loader(pairs), identity, validation, settings, out, ranks)
    ranks.wait()  # for the checkpoint, whose heads all processes return
    saved = load_checkpoint(out / CHECKPOINT, identity)
    assert saved is not None
    return _result(saved, state.heads, out, resumed_from=start)


def _run(
    state: TrainState, plan: BatchPlan, loader: Loader, identity: Mapping[str, Any],
    validation: Pairs | None, settings: TrainSection, out: Path, ranks: Ranks,
) -> None:  # fmt: skip
    """The loop itself, from ``state.step`` to the end."""
    heads, start = state.heads, state.step
    device = heads.logit_scale.device
    with contextlib.ExitStack() as stack:
        journal = None
        if ranks.leads:
            journal = stack.enter_context(
                Journal(out, identity, start, plan.steps, validation, settings)
            )
        stream = stack.enter_context(contextlib.closing(loader.stream(_reads(plan, heads, start))))
        batches = (batch.to(device) for batch in stream)
        for step in range(start, plan.steps):
            lr = learning_rate(step, plan.steps, settings)
            row = training_step(state, batches, plan.count(step), lr, settings, ranks)
            if journal is not None:
                journal.record(state, plan.epoch(step) + 1, row)


def _reads(plan: BatchPlan, heads: AlignmentHeads, start: int) -> Iterator[Part]:
    """The parts that the steps from ``start`` on read, in their order."""
    for step in range(start, plan.steps):
        parts = plan.parts(step)
        for _ in range(passes(len(parts), heads)):
            yield from parts


def _check_same(ranks: Ranks, what: str, value: Any) -> None:
    values = ranks.agree(value)
    odd = [rank for rank, other in enumerate(values) if other != values[0]]
    if odd:
        raise TrainingError(
            f"process {odd[0]} of {ranks.size} has other {what} than process 0",
            "Give every process the same stores, recipe and --out, on a disk that all share.",
        )


def _check_shares(plan: BatchPlan, images: int, ranks: Ranks) -> None:
    smallest = images // plan.steps_per_epoch
    if smallest < ranks.size:
        raise TrainingError(
            f"batches of {smallest} images cannot be shared by {ranks.size} processes",
            "Raise train.batch, train on more images, or start fewer processes.",
        )


def _identity(
    pairs: Pairs, validation: Pairs | None, head: HeadSection, settings: TrainSection,
    text: TextEncoder | None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that decides the result, as JSON values."""
    data = {"pairs": pairs.key, "validation": validation.key if validation else None}
    return {
        "head": head.model_dump(mode="json"),
        "train": settings.model_dump(mode="json"),
        "data": {**data, "text encoder": text.info.key} if text else data,
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
