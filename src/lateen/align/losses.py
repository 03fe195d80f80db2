"""Contrastive losses that never hold a B × B matrix (METHODS §1.3).

Both compute the loss and its gradients together, a few rows of the logit matrix at a time, and keep
only what has the size of the inputs. Under autocast the matrix products run in its dtype; sums,
exponentials and gradients stay in the dtype of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Normalization = Literal["batch", "batch_squared"]
Positives = Literal["sum", "mean"]


def sigmoid_loss(
    image: Tensor,
    texts: Tensor | Sequence[Tensor],
    logit_scale: Tensor,
    logit_bias: Tensor,
    *,
    normalization: Normalization = "batch_squared",
    positives: Positives = "sum",
    chunk_size: int = 1024,
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

    Returns:
        The loss, a scalar. It can be differentiated once.
    """
    size = len(image)
    count = size if normalization == "batch" else size * size

    def one(text: Tensor) -> Tensor:
        total: Tensor = _Sigmoid.apply(image, text, logit_scale, logit_bias, chunk_size)  # type: ignore[no-untyped-call]
        return total / count

    return _over_texts(one, texts, positives)


def infonce_loss(
    image: Tensor,
    texts: Tensor | Sequence[Tensor],
    logit_scale: Tensor,
    *,
    positives: Positives = "sum",
    chunk_size: int = 1024,
) -> Tensor:
    """Symmetric softmax loss (CLIP): mean of image→text and text→image cross-entropy.

    Args:
        image: ``[B, d]``, L2-normalised.
        texts: ``[B, d]``, L2-normalised, row i describing image i; or several of them.
        logit_scale: t itself, not its log; a scalar.
        positives: ``sum`` or ``mean`` over texts.
        chunk_size: rows of the logit matrix held at a time; memory is O(chunk_size × B).

    Returns:
        The loss, a scalar. It can be differentiated once.
    """

    def one(text: Tensor) -> Tensor:
        loss: Tensor = _InfoNCE.apply(image, text, logit_scale, chunk_size)  # type: ignore[no-untyped-call]
        return loss

    return _over_texts(one, texts, positives)


def _over_texts(
    loss: Callable[[Tensor], Tensor], texts: Tensor | Sequence[Tensor], positives: Positives
) -> Tensor:
    blocks = [texts] if isinstance(texts, Tensor) else list(texts)
    total = torch.stack([loss(text) for text in blocks]).sum()
    return total / len(blocks) if positives == "mean" else total


class _Gradients:
    """The similarities of chunks of rows, and the gradients of a loss with respect to them.

    The gradient of ``t x_i·y_j`` with respect to t is summed over the matrix as
    ``Σ_i x_i · (∂L/∂z Y)_i``, so that it costs no pass over a chunk.
    """

    def __init__(self, image: Tensor, text: Tensor, scale: Tensor) -> None:
        device = image.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else image.dtype
        self._image, self._x, self._y = image, image.to(low), text.to(low)
        self._scale = scale
        self.image = torch.empty_like(image)
        self.text = torch.zeros_like(text)
        self.scale = torch.zeros_like(scale)

    def logits(self, rows: slice) -> Tensor:
        """``t x_i·y_j`` ``[chunk, B]``."""
        return (self._x[rows] @ self._y.T).to(self._image.dtype).mul_(self._scale)

    def add(self, rows: slice, wrt_logits: Tensor) -> None:
        """Add the part of a chunk whose gradient with respect to the logits is ``[chunk, B]``."""
        low = wrt_logits.to(self._y.dtype)
        wrt_rows = (low @ self._y).to(self._image.dtype)
        self.scale += (self._image[rows] * wrt_rows).sum()
        self.image[rows] = wrt_rows.mul_(self._scale)
        self.text += low.T @ self._x[rows]

    def finish(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients with respect to image, text and t."""
        return self.image, self.text.mul_(self._scale), self.scale


class _Sigmoid(torch.autograd.Function):
    """``Σ_ij softplus(z_ij) − Σ_i z_ii`` and its gradients: three matrix products in all."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, chunk_size: int
    ) -> Tensor:
        gradients = _Gradients(image, text, scale)
        loss, wrt_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for rows in _chunks(len(image), chunk_size):
            z = gradients.logits(rows).add_(bias)
            positive = z.diagonal(rows.start)
            loss += F.softplus(z).sum() - positive.sum()
            wrt_z = z.sigmoid_()
            positive -= 1
            wrt_bias += wrt_z.sum()
            gradients.add(rows, wrt_z)
        ctx.save_for_backward(*gradients.finish(), wrt_bias)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grad for saved in ctx.saved_tensors), None)


class _InfoNCE(torch.autograd.Function):
    """Symmetric cross-entropy and its gradients: one pass for the normalisers, one for the rest."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, text: Tensor, scale: Tensor, chunk_size: int) -> Tensor:
        size = len(image)
        gradients = _Gradients(image, text, scale)
        loss = torch.zeros_like(scale)
        row_lse = image.new_empty(size)
        column_lse = image.new_full((size,), -torch.inf)
        for rows in _chunks(size, chunk_size):
            z = gradients.logits(rows)
            row_lse[rows] = z.logsumexp(1)
            column_lse = torch.logaddexp(column_lse, z.logsumexp(0))
            loss -= z.diagonal(rows.start).sum() / size
        loss += (row_lse + column_lse).mean() / 2
        for rows in _chunks(size, chunk_size):
            z = gradients.logits(rows)
            wrt_z = (z - row_lse[rows, None]).exp_() + (z - column_lse).exp_()
            wrt_z.diagonal(rows.start).sub_(2)
            gradients.add(rows, wrt_z.div_(2 * size))
        ctx.save_for_backward(*gradients.finish())
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grad for saved in ctx.saved_tensors), None)


def _chunks(size: int, chunk_size: int) -> list[slice]:
    return [slice(i, min(i + chunk_size, size)) for i in range(0, size, chunk_size)]
