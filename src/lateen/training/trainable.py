"""What the loop trains: a module with two sides, and the loss that holds them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lateen.training.batches import BatchRows
from lateen.training.ranks import ALONE, Ranks


class Trainable(nn.Module):
    """Embeds both sides of a batch, and says how far they are from what they should be.

    :class:`~lateen.training.heads.AlignmentHeads` is one: images and texts, and a contrastive loss.
    A side without parameters may hand on what the source gives, such as another network's features.

    Attributes:
        vision: embeds images; its ``whole_batch`` says whether it needs a batch undivided.
        text: likewise for the other side.
    """

    vision: nn.Module
    text: nn.Module

    def embed_image(self, inputs: Tensor, rows: BatchRows | None = None) -> Tensor:
        """A part's images ``[n, …]``, as the source gives them, to embeddings ``[n, …]``."""
        raise NotImplementedError

    def embed_text(self, inputs: Tensor, rows: BatchRows | None = None) -> Tensor:
        """The same for the other side."""
        raise NotImplementedError

    def loss(
        self, image: Tensor, texts: Sequence[Tensor], settings: Any, ranks: Ranks = ALONE
    ) -> Tensor:
        """The loss of the whole batch, a scalar.

        Its gradients are those with respect to this process's rows; with respect to
        :meth:`of_the_loss` they are this process's part of a sum.

        Args:
            image: embeddings ``[n, …]``, this process's rows.
            texts: as many of the other side, for each tensor that the source gives.
            settings: the section that the module is trained with.
            ranks: the processes that share the batch.
        """
        raise NotImplementedError

    def of_the_loss(self) -> list[nn.Parameter]:
        """Parameters of the loss itself, such as scale and bias."""
        return []

    def rates(self, settings: Any) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters, by their share of the learning rate."""
        del settings
        return [(list(self.parameters()), 1.0)]

    def figures(self) -> Mapping[str, float]:
        """What is logged of a step beside its loss."""
        return {}

    def after_step(self) -> None:
        """Called when the parameters have been updated."""

    def compile_networks(self) -> None:
        """Run through :func:`torch.compile`, from now on, what gains by it."""
