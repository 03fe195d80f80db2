"""What changes while training: heads, optimiser, step, and the best heads so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lateen.align.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from lateen.align.heads import AlignmentHeads
from lateen.align.optim import build_optimizer
from lateen.align.seeding import Stream, seeded
from lateen.align.tower import TextTower
from lateen.encoders.text import TextEncoder
from lateen.metrics.retrieval import Retrieval, mean_recall
from lateen.recipe import HeadSection, TrainSection
from lateen.store import Pairs


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
