"""Contrastive losses that never hold a B × B matrix (METHODS §1.3).

Both compute the loss and its gradients together, a few rows of the logit matrix at a time, and keep
only what has the size of the inputs. Under autocast the matrix products run in its dtype; sums,
exponentials and gradients stay in the dtype of the inputs.

Among several processes each has some rows of the batch. It gathers the texts of all and computes
the rows of its own images; every process returns the loss of the whole batch, and its gradients
with respect to its own rows. Those with respect to t and b are its part of a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lateen.device import autocast_dtype, matmul
from lateen.errors import UsageError
from lateen.training.ranks import ALONE, Ranks

Normalization = Literal["batch", "batch_squared"]
Positives = Literal["sum", "mean"]
CHUNK = 1024  # fewer rows at a time make the products slower
_IN_CACHE = 2**19  # logits


def sigmoid_loss(
    image: Tensor,
    texts: Tensor | Sequence[Tensor],
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    normalization: Normalization = "batch_squared",
    positives: Positives = "sum",
    chunk_size: int = CHUNK,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP; SAIL eq. 1 and its multi-positive form).

    ``L(I, T) = (1/N) Σ_ij softplus(−s_ij z_ij)``, ``z_ij = t x_i·y_j + b``, ``s_ij`` +1 where
    i = j and −1 elsewhere, computed as ``(Σ_ij softplus(z_ij) − Σ_i z_ii) / N``.

    Args:
        image: ``[B, d]``, L2-normalised.
        texts: ``[B, d]``, L2-normalised, row i describing image i; or several of them, each a
            positive of its own that is contrasted with its own batch only.
        logit_scale: t itself, not its log; a scalar.
        logit_bias: b, a scalar.
        normalization: N = B (``batch``, SigLIP) or B² (``batch_squared``, SAIL).
        positives: ``sum`` over texts (the paper) or ``mean`` (the released code).
        chunk_size: rows of the logit matrix held at a time; memory is O(chunk_size × B).
        ranks: the processes that share the batch; B is the number of rows of all of them.

    Returns:
        The loss, a scalar. It can be differentiated once.

    Raises:
        UsageError: texts and image differ in shape, or there is no text.
    """
    columns = _columns(image, texts)
    divisors = {"batch": lambda b: b, "batch_squared": lambda b: b * b}
    loss: Tensor = _Sigmoid.apply(  # type: ignore[no-untyped-call]
        image, logit_scale, logit_bias, divisors[normalization], _weight(columns, positives),
        chunk_size, ranks, *columns,
    )  # fmt: skip
    return loss


def infonce_loss(
    image: Tensor,
    texts: Tensor | Sequence[Tensor],
    logit_scale: Tensor,
    *,
    positives: Positives = "sum",
    chunk_size: int = CHUNK,
    ranks: Ranks = ALONE,
) -> Tensor:
    """Symmetric softmax loss (CLIP): mean of image→text and text→image cross-entropy.

    Args:
        image: ``[B, d]``, L2-normalised.
        texts: ``[B, d]``, L2-normalised, row i describing image i; or several of them.
        logit_scale: t itself, not its log; a scalar.
        positives: ``sum`` or ``mean`` over texts.
        chunk_size: rows of the logit matrix held at a time; memory is O(chunk_size × B).
        ranks: the processes that share the batch.

    Returns:
        The loss, a scalar. It can be differentiated once.

    Raises:
        UsageError: texts and image differ in shape, or there is no text.
    """
    columns = _columns(image, texts)
    loss: Tensor = _InfoNCE.apply(  # type: ignore[no-untyped-call]
        image, logit_scale, _weight(columns, positives), chunk_size, ranks, *columns
    )
    return loss


def _columns(image: Tensor, texts: Tensor | Sequence[Tensor]) -> list[Tensor]:
    columns = [texts] if isinstance(texts, Tensor) else list(texts)
    shapes = [list(text.shape) for text in columns]
    if not columns or any(shape != list(image.shape) for shape in shapes):
        raise UsageError(
            f"texts of shapes {shapes} do not fit image embeddings of shape {list(image.shape)}",
            "Give one or more texts, each with a row for every image.",
        )
    return columns


def _weight(columns: Sequence[Tensor], positives: Positives) -> float:
    return 1 / len(columns) if positives == "mean" else 1.0


class _Block:
    """This process's rows of one image × text logit matrix, and the gradients of the loss.

    Gradients are gathered for ``x_i·y_j`` times ``factor``; the one with respect to t is summed
    over the matrix as ``Σ_i x_i · (∂L/∂z Y)_i``, so that it costs no pass over a chunk.
    """

    def __init__(
        self, image: Tensor, text: Tensor, scale: Tensor, chunk: int, ranks: Ranks
    ) -> None:
        low = autocast_dtype(image)
        self._counts = ranks.counts(len(image), image.device)
        self._ranks, self._image, self._x = ranks, image, image.to(low)
        self._y = self.gather(text.to(low))
        self._scale = scale
        self._first = sum(self._counts[: ranks.rank])
        self._wrt_text = torch.zeros_like(self._y, dtype=image.dtype)
        self.batch = len(self._y)
        self.chunks = [
            slice(i, min(i + chunk, len(image))) for i in range(0, len(image), chunk)
        ]  # fmt: skip
        self.wrt_scale = torch.zeros_like(scale)

    def logits(self, rows: slice) -> Tensor:
        """``t x_i·y_j`` ``[chunk, B]``."""
        return matmul(self._x[rows], self._y.T).to(self._image.dtype).mul_(self._scale)

    def cached(self, rows: Tensor) -> Sequence[Tensor]:
        """A chunk, or a value for each of its rows, in views of so many rows that passes over their
        logits stay in a processor's cache."""
        return torch.split(rows, max(1, _IN_CACHE // self.batch))

    def positives(self, rows: slice, matrix: Tensor) -> Tensor:
        """The entries of matching pairs in a chunk ``[chunk, B]``, a view ``[chunk]``."""
        return matrix.diagonal(self._first + rows.start)[: len(matrix)]

    def add(self, rows: slice, wrt_logits: Tensor, factor: float, wrt_image: Tensor) -> None:
        """Add a chunk's part of the gradients, given that with respect to its logits.

        Args:
            rows: of the image.
            wrt_logits: ``[chunk, B]``.
            factor: times which the gradients are taken.
            wrt_image: ``[B, d]``, added to.
        """
        low = wrt_logits.to(self._y.dtype)
        wrt_rows = matmul(low, self._y).to(self._image.dtype)
        self.wrt_scale += (self._image[rows] * wrt_rows).sum() * factor
        wrt_image[rows] += wrt_rows.mul_(self._scale * factor)
        self._wrt_text += matmul(low.T, self._x[rows])

    def wrt_text(self, factor: float) -> Tensor:
        """Gradient ``[rows, d]`` with respect to this process's own texts."""
        return self.own(self._ranks.sum_(self._wrt_text.mul_(self._scale * factor)))

    def own(self, rows: Tensor) -> Tensor:
        """This process's part of ``rows`` ``[B, …]``."""
        return rows[self._first : self._first + self._counts[self._ranks.rank]]

    def gather(self, own: Tensor) -> Tensor:
        """The rows ``[B, …]`` of all processes, of which ``own`` are this one's."""
        return self._ranks.gather(own, self._counts)


class _Sigmoid(torch.autograd.Function):
    """``Σ_ij softplus(z_ij) − Σ_i z_ii`` and its gradients: three matrix products in all."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, scale: Tensor, bias: Tensor, divisor: Callable[[int], int],
        weight: float, chunk: int, ranks: Ranks, *texts: Tensor,
    ) -> Tensor:  # fmt: skip
        loss = torch.zeros_like(scale)
        wrt_image, wrt_texts = torch.zeros_like(image), []
        wrt_scale, wrt_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for text in texts:
            block = _Block(image, text, scale, chunk, ranks)
            factor = weight / divisor(block.batch)
            for rows in block.chunks:
                z = block.logits(rows).add_(bias)
                positive = block.positives(rows, z)
                loss -= positive.sum() * factor
                for part in block.cached(z):
                    loss += F.softplus(part).sum() * factor
                    wrt_bias += part.sigmoid_().sum() * factor
                positive -= 1
                wrt_bias -= len(positive) * factor
                block.add(rows, z, factor, wrt_image)
            wrt_texts.append(block.wrt_text(factor))
            wrt_scale += block.wrt_scale
        ctx.save_for_backward(wrt_image, wrt_scale, wrt_bias, *wrt_texts)
        return ranks.sum_(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, scale, bias, *texts = _times(grad, ctx.saved_tensors)
        return (image, scale, bias, None, None, None, None, *texts)


class _InfoNCE(torch.autograd.Function):
    """Symmetric cross-entropy and its gradients: one pass for the normalisers, one for the rest."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, scale: Tensor, weight: float, chunk: int, ranks: Ranks,
        *texts: Tensor,
    ) -> Tensor:  # fmt: skip
        loss = torch.zeros_like(scale)
        wrt_image, wrt_texts = torch.zeros_like(image), []
        wrt_scale = torch.zeros_like(scale)
        for text in texts:
            block = _Block(image, text, scale, chunk, ranks)
            factor = weight / (2 * block.batch)
            positive, row_lse = image.new_empty(2, len(image)).unbind()
            column_lse = image.new_full((block.batch,), -torch.inf)
            # Of the negatives alone: a small loss is what they add, and beside the positive it
            # would be lost to rounding.
            for rows in block.chunks:
                z = block.logits(rows)
                diagonal = block.positives(rows, z)
                positive[rows] = diagonal
                diagonal.fill_(-torch.inf)
                for part, row in zip(block.cached(z), block.cached(row_lse[rows]), strict=True):
                    torch.logsumexp(part, 1, out=row)
                    column_lse = torch.logaddexp(column_lse, part.logsumexp(0))
            if ranks.size > 1:
                column_lse = ranks.gather(column_lse[None], [1] * ranks.size).logsumexp(0)
            for lse in (row_lse, block.own(column_lse)):
                loss += F.softplus(lse - positive).sum() * factor
            # Of all, for the gradients.
            row_lse = torch.logaddexp(row_lse, positive)
            column_lse = torch.logaddexp(column_lse, block.gather(positive))
            for rows in block.chunks:
                z = block.logits(rows)
                for part, row in zip(block.cached(z), block.cached(row_lse[rows]), strict=True):
                    by_row = (part - row[:, None]).exp_()
                    part.sub_(column_lse).exp_().add_(by_row)
                block.positives(rows, z).sub_(2)
                block.add(rows, z, factor, wrt_image)
            wrt_texts.append(block.wrt_text(factor))
            wrt_scale += block.wrt_scale
        ctx.save_for_backward(wrt_image, wrt_scale, *wrt_texts)
        return ranks.sum_(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, scale, *texts = _times(grad, ctx.saved_tensors)
        return (image, scale, None, None, None, *texts)


def _times(grad: Tensor, saved: Sequence[Tensor]) -> Sequence[Tensor]:
    # At the paper's batch these are 400 MB, which a product with 1 would hold twice.
    return saved if bool(grad == 1) else [tensor * grad for tensor in saved]
