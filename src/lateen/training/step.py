"""One step of training: loss, gradients, update.

A batch that is divided into micro-batches gets the gradients of the whole one (gradient caching,
Gao et al. 2021): every part is embedded without a graph; the loss of all embeddings gives the
gradient with respect to each; then every part is embedded again and its gradient taken through the
head.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from lateen.config import Precision
from lateen.device import resolve_precision
from lateen.errors import TrainingError
from lateen.metrics.retrieval import Retrieval, mean_recall
from lateen.training.batches import Batch, Place
from lateen.training.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    restore_optimizer,
)
from lateen.training.config import TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.losses import infonce_loss, sigmoid_loss
from lateen.training.optim import build_optimizer
from lateen.training.ranks import ALONE, Ranks

Embed = Callable[[Tensor, Place], Tensor]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Matrix products in bfloat16 where ``precision`` says so; parameters stay float32."""
    low = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=low)


def contrastive_loss(
    image: Tensor, texts: Sequence[Tensor], heads: AlignmentHeads, settings: TrainSection,
    ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """The loss of a batch of embeddings, a scalar.

    Args:
        image: ``[n, dim]``, this process's rows.
        texts: as many, for each text of an image.
        heads: whose scale and bias enter.
        settings: which loss.
        ranks: the processes that share the batch.
    """
    if settings.loss == "infonce":
        return infonce_loss(
            image, texts, heads.scale, positives=settings.positives, chunk_size=settings.chunk,
            ranks=ranks,
        )  # fmt: skip
    return sigmoid_loss(
        image, texts, heads.scale, heads.logit_bias, normalization=settings.normalization,
        positives=settings.positives, chunk_size=settings.chunk, ranks=ranks,
    )  # fmt: skip


def passes(parts: int, heads: AlignmentHeads) -> int:
    """How often a step reads its parts: twice if a head has to go over them again."""
    return 2 if any(_replays(head, parts) for head in (heads.vision, heads.text)) else 1


def _replays(head: nn.Module, parts: int) -> bool:
    return parts > 1 and not head.whole_batch and any(True for _ in head.parameters())


def training_step(
    state: TrainState,
    batches: Iterator[Batch],
    parts: int,
    lr: float,
    settings: TrainSection,
    ranks: Ranks = ALONE,
) -> Mapping[str, float]:
    """Update the heads once and count the step.

    Args:
        state: heads and optimiser.
        batches: gives the parts of this process's share of the batch, :func:`passes` times over.
        parts: how many there are.
        lr: learning rate of this step.
        settings: of the loss and the update.
        ranks: the processes that share the batch.

    Returns:
        ``loss``; ``lr``; ``logit_scale`` (t itself) and ``logit_bias`` that the loss was computed
        with; ``grad_norm`` before clipping.

    Raises:
        TrainingError: the loss or a gradient is NaN or infinite; the heads are left as they were.
    """
    heads, optimizer = state.heads, state.optimizer
    optimizer.zero_grad(set_to_none=True)
    loss = add_gradients(heads, batches, parts, settings, ranks)
    parameters = list(heads.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        ranks.sum_(gradient)
    norm = torch.nn.utils.get_total_norm(gradients)
    row = {
        "loss": loss.item(), "lr": lr, "logit_scale": heads.scale.item(),
        "logit_bias": heads.logit_bias.item(), "grad_norm": norm.item(),
    }  # fmt: skip
    if not torch.isfinite(loss + norm):
        raise TrainingError(
            f"step {state.step + 1} has loss {row['loss']:.4g} and gradient norm "
            f"{row['grad_norm']:.4g} at learning rate {lr:.3g}",
            "Lower train.lr or raise train.warmup, and choose another --out: the last checkpoint "
            "before it is kept.",
        )
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["pace"]
    optimizer.step()
    heads.clamp_scale()
    state.step += 1
    return row


def add_gradients(
    heads: AlignmentHeads, batches: Iterator[Batch], parts: int, settings: TrainSection,
    ranks: Ranks = ALONE,
) -> Tensor:  # fmt: skip
    """Add the gradients of the batch's loss to the heads' ``grad`` and return the loss.

    Among several processes each adds its part of a sum; the arguments are those of
    :func:`training_step`.
    """
    image, text = _sides(heads, parts, settings)
    for batch in islice(batches, parts):
        image.add([batch.image], batch.place)
        text.add(batch.texts, batch.place.texts(len(batch.texts)))
    embeddings = [*image.embeddings(), *text.embeddings()]
    with autocast(settings.precision, heads.logit_scale.device):
        loss = contrastive_loss(embeddings[0], embeddings[1:], heads, settings, ranks)
    learned = [heads.logit_scale, heads.logit_bias]
    gradients = torch.autograd.grad(loss, [*learned, *embeddings], allow_unused=True)
    for parameter, gradient in zip(learned, gradients, strict=False):
        parameter.grad = gradient
    image.backward(gradients[2:3])
    text.backward(gradients[3:])
    begin = 0
    for batch in islice(batches, parts * (passes(parts, heads) - 1)):
        rows = slice(begin, begin + batch.place.rows)
        image.replay([batch.image], batch.place)
        text.replay(batch.texts, batch.place.texts(len(batch.texts)))
        image.backward([gradient[rows] for gradient in gradients[2:3]])
        text.backward([gradient[rows] for gradient in gradients[3:]])
        begin = rows.stop
    return loss.detach()


def _sides(heads: AlignmentHeads, parts: int, settings: TrainSection) -> tuple[_Side, _Side]:
    def low(embed: Embed) -> Embed:
        def embed_low(features: Tensor, place: Place) -> Tensor:
            with autocast(settings.precision, features.device):
                return embed(features, place)

        return embed_low

    return (
        _Side(heads.vision, low(heads.embed_image), parts),
        _Side(heads.text, low(heads.embed_text), parts),
    )


class _Side:
    """One head and its embeddings of a batch that comes in parts.

    A batch in one part, and one that the head needs whole, is embedded once and keeps its graph.
    """

    def __init__(self, head: nn.Module, embed: Embed, parts: int) -> None:
        self._embed = embed
        self._whole = parts == 1 or bool(head.whole_batch)
        self._replays = _replays(head, parts)
        self._inputs: list[list[Tensor]] = []
        self._places: list[Place] = []
        self._pieces: list[Sequence[Tensor]] = []
        self._graph: Tensor | None = None

    def add(self, columns: list[Tensor], place: Place) -> None:
        """The features ``[n, features]`` of every column of one part."""
        if self._whole:
            self._inputs.append(columns)
            self._places.append(place)
            return
        with torch.no_grad():
            self._pieces.append(self._embed(torch.cat(columns), place).chunk(len(columns)))

    def embeddings(self) -> list[Tensor]:
        """Embeddings ``[B, dim]`` of every column, whose gradients can be asked for."""
        if self._whole:
            columns = [torch.cat(column) for column in zip(*self._inputs, strict=True)]
            place = replace(self._places[0], rows=sum(place.rows for place in self._places))
            self._graph = self._embed(torch.cat(columns), place)
            self._pieces = [self._graph.detach().chunk(len(columns))]
        joined = [torch.cat(column).requires_grad_() for column in zip(*self._pieces, strict=True)]
        self._inputs, self._pieces = [], []
        return joined

    def replay(self, columns: list[Tensor], place: Place) -> None:
        """Embed a part again, this time to take gradients."""
        if self._replays:
            self._graph = self._embed(torch.cat(columns), place)

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients ``[n, dim]`` of every column through what was embedded last."""
        if self._graph is not None and self._graph.requires_grad:
            self._graph.backward(torch.cat(list(gradients)))  # type: ignore[no-untyped-call]
        self._graph = None


class TrainState:
    """A training run between two steps.

    Args:
        heads: freshly made, on the device they train on.
        settings: of the optimiser.

    Attributes:
        heads: in training.
        optimizer: over their parameters.
        step: steps done.
        best_step: the step of the best heads; 0 before the first validation.
        best_metrics: validation retrieval of the best heads.
    """

    def __init__(self, heads: AlignmentHeads, settings: TrainSection) -> None:
        self.heads = heads
        self.optimizer = build_optimizer(heads, settings)
        self.step = 0
        self.best_step = 0
        self.best_metrics: Mapping[str, Any] | None = None
        self._best: dict[str, Tensor] = {}

    def keep_if_best(self, metrics: Retrieval) -> None:
        """Keep a copy of the heads if their mean recall is higher than any before.

        The mean over R@1, R@5 and R@10: R@10 alone saturates on a few hundred images.
        """
        if self.best_metrics is None or mean_recall(metrics) > mean_recall(self.best_metrics):
            self.best_step, self.best_metrics = self.step, metrics
            self._best = {name: p.clone() for name, p in self.heads.state_dict().items()}

    def checkpoint(self, identity: Mapping[str, Any], *, finished: bool) -> Checkpoint:
        """What :meth:`restore` needs; of a finished run only the best heads, else the last."""
        if finished:
            return Checkpoint(
                identity, self.step, True, self.best_step or self.step, self.best_metrics,
                heads=self._best or self.heads.state_dict(),
            )  # fmt: skip
        return Checkpoint(
            identity, self.step, False, self.best_step, self.best_metrics, self.heads.state_dict(),
            self._best, optimizer_tensors(self.optimizer),
        )  # fmt: skip

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where an unfinished checkpoint was taken."""
        device = next(self.heads.parameters()).device
        self.heads.load_state_dict(checkpoint.heads)
        restore_optimizer(self.optimizer, checkpoint.optimizer)
        self.step = checkpoint.step
        self.best_step, self.best_metrics = checkpoint.best_step, checkpoint.best_metrics
        self._best = {name: tensor.to(device) for name, tensor in checkpoint.best.items()}
