"""One step of training: loss, gradients, update.

A batch that is divided into micro-batches gets the gradients of the whole one (gradient caching,
Gao et al. 2021): every part is embedded without a graph; the loss of all embeddings gives the
gradient with respect to each; then every part is embedded again and its gradient taken through the
head.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lateen.config import Precision
from lateen.device import resolve_precision
from lateen.errors import TrainingError, is_out_of_memory
from lateen.training.batches import Batch, BatchRows
from lateen.training.checkpoint import (
    Checkpoint,
    optimizer_tensors,
    restore_optimizer,
)
from lateen.training.config import LoopSection
from lateen.training.optim import build_optimizer
from lateen.training.ranks import ALONE, Ranks
from lateen.training.trainable import Trainable


class StepTooLargeError(TrainingError):
    """The gradients of a step do not fit into memory."""


Embed = Callable[[Tensor, BatchRows], Tensor]


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Matrix products in bfloat16 where ``precision`` says so; parameters stay float32."""
    low = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=low)


class StepParts:
    """The parts of one step's batch, as often as the step goes over them.

    Args:
        rows: of the parts, in their order.
        batches: the stream that all steps read from; those of this step come next, once for each
            pass over them.
        pieces: into how many each part is divided where it does not fit into memory.
    """

    def __init__(
        self, rows: Sequence[BatchRows], batches: Iterator[Batch], pieces: int = 1
    ) -> None:
        self._rows, self._batches, self._pieces = rows, batches, pieces
        self._only: Batch | None = None

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> StepParts:
        """Parts that are there already."""
        return cls([batch.rows for batch in batches], itertools.cycle(batches))

    def __len__(self) -> int:
        return sum(len(_cuts(rows.count, self._pieces)) for rows in self._rows)

    def first_pass(self) -> Iterator[Batch]:
        """All parts, to be embedded."""
        for batch in self._read("first"):
            if len(self._rows) == 1 and self._pieces > 1:
                self._only = batch  # which the stream has once, also if it is divided
            yield from _divided(batch, self._pieces)

    def second_pass(self) -> Iterator[Batch]:
        """All parts again, in the same order, to be embedded with a graph."""
        for batch in self._read("second") if self._only is None else [self._only]:
            yield from _divided(batch, self._pieces)

    def _read(self, which: str) -> Iterator[Batch]:
        for rows in self._rows:
            batch = next(self._batches)
            if batch.rows != rows:
                raise RuntimeError(
                    f"the {which} pass of step {rows.step} was to read rows {rows.first} to "
                    f"{rows.first + rows.count} and got {batch.rows}"
                )
            yield batch


def _cuts(count: int, pieces: int) -> range:
    """Where the pieces of so many rows begin."""
    return range(0, count, max(1, -(-count // pieces)))


def _divided(batch: Batch, pieces: int) -> Iterator[Batch]:
    """A part in pieces, the last of which may be smaller."""
    if pieces == 1:
        yield batch
        return
    rows, cuts = batch.rows, _cuts(batch.rows.count, pieces)
    for first in cuts:
        piece = slice(first, min(first + cuts.step, rows.count))
        yield Batch(
            batch.image[piece], [text[piece] for text in batch.texts],
            replace(rows, first=rows.first + first, count=piece.stop - first),
        )  # fmt: skip


@dataclass(frozen=True)
class Division:
    """How a step is divided to fit into memory. It is the same step, but for rounding.

    Attributes:
        pieces: into how many each part is divided that is embedded.
        chunk: rows of the logit matrix held at a time.
    """

    pieces: int
    chunk: int

    def halved(self, rows: Sequence[BatchRows]) -> Division:
        """With half as much at a time.

        Args:
            rows: of the parts of the step that did not fit.

        Raises:
            TrainingError: there is nothing left to halve.
        """
        largest = max((part.count for part in rows), default=1)
        whole = sum(part.count for part in rows)
        if self.pieces >= largest and self.chunk <= 1:
            raise TrainingError(
                f"a step of {whole} images does not fit into memory, whatever it is divided into",
                "Lower train.batch (tune.batch), take smaller heads or networks, or choose another "
                "device.",
            )
        return Division(min(2 * self.pieces, largest), max(1, min(self.chunk, whole) // 2))


def passes(parts: int, heads: Trainable) -> int:
    """How often a step goes over its parts: twice if a head has to embed them again."""
    return 2 if any(_embeds_again(head, parts) for head in (heads.vision, heads.text)) else 1


def _embeds_again(head: nn.Module, parts: int) -> bool:
    return parts > 1 and not head.whole_batch and any(True for _ in head.parameters())


def training_step(
    state: TrainState, parts: StepParts, lr: float, settings: LoopSection, ranks: Ranks = ALONE
) -> Mapping[str, float]:
    """Update the heads once and count the step.

    Args:
        state: heads and optimiser.
        parts: this process's share of the batch.
        lr: learning rate of this step.
        settings: of the loss and the update.
        ranks: the processes that share the batch.

    Returns:
        ``loss``; ``lr``; the module's own figures, of heads ``logit_scale`` (t itself) and
        ``logit_bias`` that the loss was computed with; ``grad_norm`` before clipping.

    Raises:
        TrainingError: the loss or a gradient is NaN or infinite; the heads are left as they were.
        StepTooLargeError: its gradients do not fit into memory; the heads are left as they were.
    """
    heads, optimizer = state.heads, state.optimizer
    optimizer.zero_grad(set_to_none=True)
    buffers = {name: buffer.clone() for name, buffer in heads.named_buffers()}

    # The loss of the whole batch, and its gradients, those of all processes added up.
    try:
        loss = add_gradients(heads, parts, settings, ranks)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        optimizer.zero_grad(set_to_none=True)
        for name, buffer in heads.named_buffers():  # running statistics of what was embedded
            buffer.copy_(buffers[name])
        raise StepTooLargeError(
            "there is not enough memory for a step",
            f"Lower {settings.dividing}, by which no result changes, or {settings.section}.batch.",
        ) from error
    parameters = list(heads.parameters())
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        ranks.sum_(gradient)
    norm = torch.nn.utils.get_total_norm(gradients)

    # What is written of the step; nothing is updated by numbers that are not finite.
    row = {
        "loss": loss.item(), "lr": lr, **heads.figures(), "grad_norm": norm.item(),
    }  # fmt: skip
    if not torch.isfinite(loss + norm):
        raise TrainingError(
            f"step {state.step + 1} has loss {row['loss']:.4g} and gradient norm "
            f"{row['grad_norm']:.4g} at learning rate {lr:.3g}",
            f"Lower {settings.section}.lr or raise {settings.section}.warmup, and choose another "
            "--out: the last checkpoint before it is kept.",
        )

    # The update, every group of parameters at its own pace.
    if settings.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["pace"]
    optimizer.step()
    heads.after_step()
    state.step += 1
    return row


def add_gradients(
    heads: Trainable, parts: StepParts, settings: LoopSection, ranks: Ranks = ALONE
) -> Tensor:
    """Add the gradients of the batch's loss to the heads' ``grad`` and return the loss.

    Among several processes each adds its part of a sum; the arguments are those of
    :func:`training_step`.
    """

    def low(embed: Embed) -> Embed:
        def embed_low(inputs: Tensor, rows: BatchRows) -> Tensor:
            with autocast(settings.precision, inputs.device):
                return embed(inputs, rows)

        return embed_low

    image = GradientCache(heads.vision, low(heads.embed_image), len(parts))
    text = GradientCache(heads.text, low(heads.embed_text), len(parts))

    # First pass: the embeddings of the whole batch.
    for batch in parts.first_pass():
        image.add([batch.image], batch.rows)
        text.add(batch.texts, batch.rows.texts(len(batch.texts)))
    embeddings = [*image.embeddings(), *text.embeddings()]

    # The loss, and its gradient with respect to t, b and every embedding.
    with autocast(settings.precision, embeddings[0].device):
        loss = heads.loss(embeddings[0], embeddings[1:], settings, ranks)
    learned = [parameter for parameter in heads.of_the_loss() if parameter.requires_grad]
    all_gradients = torch.autograd.grad(loss, [*learned, *embeddings], allow_unused=True)
    for parameter, gradient in zip(learned, all_gradients, strict=False):
        parameter.grad = gradient
    gradients = all_gradients[len(learned) :]

    # Through the heads whose graph was kept.
    image.backward(gradients[:1])
    text.backward(gradients[1:])

    # Second pass: through the others, part by part.
    if passes(len(parts), heads) > 1:
        begin = 0
        for batch in parts.second_pass():
            part = slice(begin, begin + batch.rows.count)
            image.embed_again([batch.image], batch.rows)
            text.embed_again(batch.texts, batch.rows.texts(len(batch.texts)))
            image.backward([gradient[part] for gradient in gradients[:1]])
            text.backward([gradient[part] for gradient in gradients[1:] if gradient is not None])
            begin = part.stop
    return loss.detach()


class GradientCache:
    """One head and its embeddings of a batch that comes in parts (Gao et al. 2021).

    A batch in one part, and one that the head needs whole, is embedded once and keeps its graph;
    the parts of any other are embedded without one, and once more for their gradients.

    Args:
        head: of one side.
        embed: inputs and their rows to embeddings ``[n, dim]``, through that head.
        parts: how many the batch comes in.
    """

    def __init__(self, head: nn.Module, embed: Embed, parts: int) -> None:
        self._embed = embed
        self._whole = parts == 1 or bool(head.whole_batch)
        self._again = _embeds_again(head, parts)
        self._inputs: list[list[Tensor]] = []
        self._rows: list[BatchRows] = []
        self._pieces: list[Sequence[Tensor]] = []
        self._graph: Tensor | None = None

    def add(self, columns: list[Tensor], rows: BatchRows) -> None:
        """The inputs ``[n, …]`` of every column of one part."""
        if self._whole:
            self._inputs.append(columns)
            self._rows.append(rows)
            return
        with torch.no_grad():
            self._pieces.append(self._embed(torch.cat(columns), rows).chunk(len(columns)))

    def embeddings(self) -> list[Tensor]:
        """Embeddings ``[B, dim]`` of every column, whose gradients can be asked for."""
        if self._whole:
            columns = [torch.cat(column) for column in zip(*self._inputs, strict=True)]
            rows = replace(self._rows[0], count=sum(rows.count for rows in self._rows))
            self._graph = self._embed(torch.cat(columns), rows)
            self._pieces = [self._graph.detach().chunk(len(columns))]
        joined = [torch.cat(column).requires_grad_() for column in zip(*self._pieces, strict=True)]
        self._inputs, self._pieces = [], []
        return joined

    def embed_again(self, columns: list[Tensor], rows: BatchRows) -> None:
        """Embed a part once more, with a graph, if the head has to."""
        if self._again:
            self._graph = self._embed(torch.cat(columns), rows)

    def backward(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients ``[n, dim]`` of every column through what was embedded last."""
        if self._graph is not None and self._graph.requires_grad:
            self._graph.backward(torch.cat(list(gradients)))  # type: ignore[no-untyped-call]
        self._graph = None


class TrainState:
    """A training run between two steps.

    Args:
        heads: freshly made, on the device they train on; or whatever else is trained.
        settings: of the optimiser.

    Attributes:
        heads: in training.
        optimizer: over their parameters.
        step: steps done.
        best_step: the step of the best heads; 0 before the first validation.
        best_metrics: what was measured of the best heads.
    """

    def __init__(self, heads: Trainable, settings: LoopSection) -> None:
        self.heads = heads
        self.optimizer = build_optimizer(heads, settings)
        self.step = 0
        self.best_step = 0
        self.best_metrics: Mapping[str, Any] | None = None
        self._best: dict[str, Tensor] = {}

    def keep(self, metrics: Mapping[str, Any]) -> None:
        """Keep a copy of the heads as they are now, as the best, with what was measured."""
        self.best_step, self.best_metrics = self.step, metrics
        self._best = {name: p.clone() for name, p in self.heads.state_dict().items()}

    def checkpoint(self, identity: Mapping[str, Any], *, finished: bool) -> Checkpoint:
        """What :meth:`restore` needs; of a finished run only the best heads, else the last."""
        if finished:
            return Checkpoint(
                identity, self.step, True, self.best_step if self._best else self.step,
                self.best_metrics, heads=self._best or self.heads.state_dict(),
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
