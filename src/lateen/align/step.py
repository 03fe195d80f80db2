"""One step of training: loss, gradients, update."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from lateen.align.batches import Batch
from lateen.align.heads import AlignmentHeads
from lateen.align.losses import infonce_loss, sigmoid_loss
from lateen.align.state import TrainState
from lateen.encoders.runtime import resolve_precision
from lateen.errors import TrainingError
from lateen.recipe import Precision, TrainSection


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Matrix products in bfloat16 where ``precision`` says so; parameters stay float32."""
    low = resolve_precision(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=low)


def contrastive_loss(heads: AlignmentHeads, batch: Batch, settings: TrainSection) -> Tensor:
    """The loss of a batch of features, a scalar."""
    image = heads.embed_image(batch.image)
    texts = heads.embed_text(torch.cat(batch.texts)).chunk(len(batch.texts))
    if settings.loss == "infonce":
        return infonce_loss(
            image, texts, heads.scale, positives=settings.positives, chunk_size=settings.chunk
        )
    return sigmoid_loss(
        image, texts, heads.scale, heads.logit_bias, normalization=settings.normalization,
        positives=settings.positives, chunk_size=settings.chunk,
    )  # fmt: skip


def training_step(
    state: TrainState, batch: Batch, lr: float, settings: TrainSection
) -> Mapping[str, float]:
    """Update the heads once and count the step.

    Returns:
        ``loss``; ``lr``; ``logit_scale`` (t itself) and ``logit_bias`` that the loss was computed
        with; ``grad_norm`` before clipping.

    Raises:
        TrainingError: the loss or a gradient is NaN or infinite; the heads are left as they were.
    """
    heads, optimizer = state.heads, state.optimizer
    with autocast(settings.precision, batch.image.device):
        loss = contrastive_loss(heads, batch, settings)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(heads.parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
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
        group["lr"] = lr
    optimizer.step()
    heads.clamp_scale()
    state.step += 1
    return row
