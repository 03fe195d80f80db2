"""Optimisers and the learning-rate schedule (METHODS §1.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lateen.recipe import TrainSection

_BETAS = {"lion": (0.9, 0.99), "adamw": (0.9, 0.95)}


class Lion(torch.optim.Optimizer):
    """Lion: the sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023).

    ``p ← p (1 − lr λ) − lr sign(β₁ m + (1 − β₁) g)``, then ``m ← β₂ m + (1 − β₂) g``.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: β₁ and β₂.
        weight_decay: λ.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss again, as for any :class:`torch.optim.Optimizer`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        lr, (beta1, beta2) = group["lr"], group["betas"]
        gradients = [p.grad for p in params if p.grad is not None]
        momenta = [self._momentum(p) for p in params]
        update = torch._foreach_lerp(gradients, momenta, beta1)
        torch._foreach_sign_(update)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        torch._foreach_add_(params, update, alpha=-lr)
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def build_optimizer(heads: nn.Module, settings: TrainSection) -> torch.optim.Optimizer:
    """AdamW or Lion, with weight decay on weight matrices only.

    Biases, LayerNorm, scale and bias are vectors or scalars and stay free of it (METHODS §1.4).
    """
    params = list(heads.parameters())
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = settings.betas or _BETAS[settings.optimizer]
    if settings.optimizer == "lion":
        return Lion(groups, lr=settings.lr, betas=betas)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)


def learning_rate(step: int, total: int, settings: TrainSection) -> float:
    """Linear warm-up to ``settings.lr``, then cosine to 0.

    Args:
        step: from 0; the last one is ``total - 1``.
        total: how many steps there are.
        settings: ``lr``, and ``warmup`` as a share of ``total``.
    """
    warmup = round(settings.warmup * total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
