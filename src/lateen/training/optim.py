"""Optimisers and the learning-rate schedule (METHODS §1.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lateen.training.config import LoopSection
from lateen.training.trainable import Trainable

_IN_CACHE = 2**19  # values of each of four tensors
_BETAS = {"lion": (0.9, 0.99), "adamw": (0.9, 0.95)}


class Lion(torch.optim.Optimizer):
    """Lion: the sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023).

    ``p ← p (1 − lr λ) − lr sign(β₁ m + (1 − β₁) g)``, then ``m ← β₂ m + (1 − β₂) g``.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: β₁ and β₂.
        weight_decay: λ.

    On a CPU the parameters are updated a cache's worth at a time: each is read and written once
    instead of once per operation.
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
        gradients = [p.grad for p in params if p.grad is not None]
        momenta = [self._momentum(p) for p in params]
        if params[0].device.type != "cpu":
            _lion(params, gradients, momenta, group)
            return
        for p, g, m in zip(params, gradients, momenta, strict=True):
            if not p.is_contiguous():  # of which no flat view can be had: channels last
                _lion([p], [g], [m], group)
                continue
            flat = (torch.split(t.reshape(-1), _IN_CACHE) for t in (p, g, m))
            for some_p, some_g, some_m in zip(*flat, strict=True):
                _lion([some_p], [some_g], [some_m], group)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def _lion(
    params: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], group: dict[str, Any]
) -> None:
    lr, (beta1, beta2) = group["lr"], group["betas"]
    update = torch._foreach_lerp(gradients, momenta, beta1)
    torch._foreach_sign_(update)
    torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
    torch._foreach_add_(params, update, alpha=-lr)
    torch._foreach_lerp_(momenta, gradients, 1 - beta2)


def build_optimizer(module: Trainable, settings: LoopSection) -> torch.optim.Optimizer:
    """AdamW or Lion, with weight decay on weight matrices only.

    Biases, LayerNorm, scale and bias are vectors or scalars and stay free of it (METHODS §1.4).
    A group's ``pace`` is its share of the learning rate.
    """
    groups = [
        {"params": [p for p in params if (p.ndim >= 2) == decays], "pace": pace,
         "weight_decay": settings.weight_decay if decays else 0.0}
        for params, pace in module.rates(settings)
        for decays in (True, False) if params
    ]  # fmt: skip
    betas = settings.betas or _BETAS[settings.optimizer]
    if settings.optimizer == "lion":
        return Lion(groups, lr=settings.lr, betas=betas)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)


def learning_rate(step: int, total: int, settings: LoopSection) -> float:
    """Linear warm-up to ``settings.lr``, then cosine to 0.

    Args:
        step: from 0; the last one is ``total - 1``.
        total: how many steps there are.
        settings: ``lr``, and how many steps of ``total`` are warm-up.
    """
    warmup = settings.warmup_of(total)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
