"""The networks inside alignment heads (METHODS §1.2).

All are called with the normalised features of a head and its norm, whose weight and bias belong in
front of the first layer; a block further up a stack is called without a norm. Their parameters are
named as in SAIL's checkpoints (METHODS §1.8).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lateen.align.layers import GATE_LIMIT, BatchNorm, Dropout, frozen_linear, gate, linear
from lateen.align.place import Place

_SHARELOCK_HIDDEN = 4096
_SHARELOCK_LAYERS = 3
_SHARELOCK_DROPOUT = 0.2


class Linear(nn.Linear):
    """``W h``."""

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: Place | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        return _first(h, norm, self)[0]


class GLU(nn.Module):
    """Gated linear unit ``g(ReLU6(f1 h) ⊙ clamp(f2 h, ±1000))``, SAIL's non-linear head.

    Args:
        in_dim: length of ``h``.
        hidden: length of the gated product.
        out_dim: length of the result.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.f1 = nn.Linear(in_dim, hidden)
        self.f2 = nn.Linear(in_dim, hidden)
        self.g = nn.Linear(hidden, out_dim)

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: Place | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        a, b = _first(h, norm, self.f1, self.f2)
        if not self.training:
            return self.g(F.relu6(a) * b.clamp(-GATE_LIMIT, GATE_LIMIT))  # type: ignore[no-any-return]
        return linear(gate(a, b), self.g)


class MLP(nn.Module):
    """``W₂ GELU(W₁ h)``.

    Args:
        in_dim: length of ``h``.
        hidden: length of the hidden layer.
        out_dim: length of the result.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, out_dim)
        )  # fmt: skip

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: Place | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        first, last = cast(nn.Linear, self.proj[0]), cast(nn.Linear, self.proj[2])
        (hidden,) = _first(h, norm, first)
        return _apply(F.gelu(hidden), last, self.training)


class ShareLock(nn.Module):
    """Three times (Linear, BatchNorm, ReLU, Dropout 0.2), then Linear: ShareLock's text head.

    Its batch statistics are those of the whole batch, whatever it is divided into.

    Args:
        in_dim: length of ``h``.
        hidden: length of the hidden layers; 4096 if not given.
        out_dim: length of the result.
    """

    def __init__(self, in_dim: int, hidden: int | None, out_dim: int) -> None:
        super().__init__()
        width = hidden or _SHARELOCK_HIDDEN
        dims = [in_dim] + [width] * _SHARELOCK_LAYERS
        self.layers = nn.ModuleList(nn.Linear(i, width) for i in dims[:-1])
        self.norms = nn.ModuleList(BatchNorm(width) for _ in self.layers)
        self.dropouts = nn.ModuleList(
            Dropout(_SHARELOCK_DROPOUT, layer + 1) for layer in range(_SHARELOCK_LAYERS)
        )
        self.out = nn.Linear(width, out_dim)

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, place: Place | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        for layer, batch_norm, dropout in zip(self.layers, self.norms, self.dropouts, strict=True):
            (h,) = _first(h, norm, cast(nn.Linear, layer))
            h = dropout(F.relu(batch_norm(h, place)), place)
            norm = None
        return _apply(h, self.out, self.training)


class Stack(nn.Sequential):
    """Blocks one after the other, without residuals."""

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, place: Place | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        for block in self:
            h, norm = block(h, norm, place), None
        return h


def _first(h: Tensor, norm: nn.LayerNorm | None, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """The first layers of a block on ``h``, normalised but not yet scaled where there is a norm."""
    training = layers[0].training
    if norm is not None and training and torch.is_grad_enabled() and not h.requires_grad:
        return tuple(frozen_linear(h, norm, layer) for layer in layers)
    scaled = h if norm is None else torch.addcmul(norm.bias, h, norm.weight)
    return tuple(_apply(scaled, layer, training) for layer in layers)


def _apply(h: Tensor, layer: nn.Linear, training: bool) -> Tensor:
    # In evaluation a plain layer, which exporters and compilers understand.
    return linear(h, layer) if training else F.linear(h, layer.weight, layer.bias)
