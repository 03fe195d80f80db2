"""The layers of alignment heads whose plain forms would take most of a step's time or memory.

Each computes what the plain form does; their gradients are compared in the tests.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lateen.device import autocast_dtype, matmul
from lateen.training.batches import BatchRows

GATE_LIMIT = 1000.0
_IN_CACHE = 2**19  # values of a chunk that elementwise work passes over several times
_ROWS = 1024  # of a weight matrix whose gradient is computed at a time


def frozen_linear(normed: Tensor, norm: nn.LayerNorm, layer: nn.Linear) -> Tensor:
    """A linear layer on ``normed · norm.weight + norm.bias``, whose input needs no gradient.

    With u = normed, γ, β the norm's weight and bias, and g the gradient with respect to the output
    of ``W (γ ⊙ u + β) + c``, everything follows from ``G = gᵀ u`` and ``s = Σ g``:
    ``∂W = G ⊙ γ + s βᵀ``, ``∂c = s``, ``∂γ = Σ_h W_h ⊙ G_h``, ``∂β = Wᵀ s``. The product ``g W``,
    a third of the work of the plain form, is never needed: features are frozen.

    Args:
        normed: ``[n, in]``, normalised features without a gradient.
        norm: gives γ and β.
        layer: from ``in`` values.

    Returns:
        ``[n, out]``, in autocast's dtype where it is on.
    """
    output: Tensor = _FrozenLinear.apply(  # type: ignore[no-untyped-call]
        normed, norm.weight, norm.bias, layer.weight, layer.bias
    )
    return output


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, normed: Tensor, gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        low = autocast_dtype(normed)
        scaled = torch.addcmul(shift, normed, gain).to(low)
        ctx.save_for_backward(normed.to(low), gain, shift, weight)
        return matmul(scaled, weight.to(low).T).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normed, gain, shift, weight = ctx.saved_tensors
        total = _column_sum(grad)
        wrt_gain, wrt_weight = torch.zeros_like(gain), torch.empty_like(weight)
        for start in range(0, len(weight), _ROWS):  # the passes over G stay in cache
            rows = slice(start, start + _ROWS)
            product = matmul(grad[:, rows].T, normed).to(weight.dtype)
            wrt_gain += (weight[rows] * product).sum(0)
            torch.mul(product, gain, out=wrt_weight[rows])
            wrt_weight[rows].addcmul_(total[rows, None], shift)
        return None, wrt_gain, total @ weight, wrt_weight, total


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(x)`` for ``[n, in]``, with the products of :func:`~lateen.device.matmul`."""
    product: Tensor = _Linear.apply(x, layer.weight, layer.bias)  # type: ignore[no-untyped-call]
    return product


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        low = autocast_dtype(x)
        ctx.save_for_backward(x, weight)
        ctx.low = low
        return matmul(x.to(low), weight.to(low).T).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        low = ctx.low
        wrt_x = matmul(grad, weight.to(low)).to(x.dtype) if ctx.needs_input_grad[0] else None
        wrt_weight = matmul(grad.T, x.to(low)).to(weight.dtype)
        return wrt_x, wrt_weight, _column_sum(grad)


def gate(a: Tensor, b: Tensor) -> Tensor:
    """``ReLU6(a) ⊙ clamp(b, ±1000)``, ``[n, hidden]``, SAIL's gate.

    Its clamp of ``a`` is left out, because ReLU6 (0 to 6) gives the same value and gradient
    without it.
    """
    gated: Tensor = _Gate.apply(a, b)  # type: ignore[no-untyped-call]
    return gated


class _Gate(torch.autograd.Function):
    """Keeps ``a`` and ``b`` alone, and passes over a few rows at a time."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        gated = torch.empty_like(a)
        for a_rows, b_rows, out in _row_chunks(a, b, gated):
            torch.mul(F.relu6(a_rows), b_rows.clamp(-GATE_LIMIT, GATE_LIMIT), out=out)
        return gated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        wrt_a, wrt_b = torch.empty_like(a), torch.empty_like(b)
        for g, a_rows, b_rows, out_a, out_b in _row_chunks(grad, a, b, wrt_a, wrt_b):
            torch.mul(g, b_rows.clamp(-GATE_LIMIT, GATE_LIMIT), out=out_a)
            out_a.mul_((a_rows > 0) & (a_rows < 6))
            torch.mul(g, F.relu6(a_rows), out=out_b)
            out_b.mul_(b_rows.abs() <= GATE_LIMIT)
        return wrt_a, wrt_b


def _row_chunks(*tensors: Tensor) -> Any:
    rows = max(1, _IN_CACHE // tensors[0].shape[1])
    if tensors[0].device.type != "cpu":
        rows = max(1, len(tensors[0]))
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _column_sum(grad: Tensor) -> Tensor:
    return grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32))


class Dropout(nn.Module):
    """Dropout that is a function of the seed, the step and a row's position in the batch.

    So micro-batches and processes that share a batch drop what one process would in one piece, and
    a second forward pass drops what the first did. Called without rows, it draws from torch's
    own generator.

    Args:
        share: of the values set to 0 in training, rounded to 1/256; the others are scaled up.
        layer: tells the dropouts of one head apart.
    """

    def __init__(self, share: float, layer: int = 0) -> None:
        super().__init__()
        self._dropped = min(round(256 * share), 255)
        self._layer = layer

    def forward(self, h: Tensor, rows: BatchRows | None = None) -> Tensor:
        """``[n, d]`` to ``[n, d]``; does nothing in evaluation mode."""
        if not self.training or self._dropped == 0:
            return h
        noise = (
            torch.randint(256, h.shape, dtype=torch.uint8, device=h.device)
            if rows is None
            else rows.noise(self._layer, h.shape[1], h.device)
        )
        return h * (noise >= self._dropped) * (256 / (256 - self._dropped))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the rows of all processes that share the batch."""

    def forward(self, h: Tensor, rows: BatchRows | None = None) -> Tensor:
        """``[n, d]`` to ``[n, d]``, in the dtype of its parameters."""
        h = h.to(self.weight.dtype)
        if not self.training or rows is None or rows.ranks.size == 1:
            return super().forward(h)
        counts = h.new_full((1,), len(h))
        sums = rows.ranks.sum(torch.cat([h.sum(0), counts]))
        mean = sums[:-1] / sums[-1]
        # Centred before squaring: E[h²] − E[h]² would lose the small variances.
        variance = rows.ranks.sum((h - mean).square().sum(0)) / sums[-1]
        self._remember(mean.detach(), variance.detach(), float(sums[-1]))
        normed = (h - mean) * (variance + self.eps).rsqrt()
        return normed * self.weight + self.bias

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        momentum = self.momentum or 0.0
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
