"""A text encoder that is trained together with the head on it (LiT, Zhai et al. 2022)."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lateen.encoders.text import TextEncoder
from lateen.features import Pairs, token_batches
from lateen.training.batches import BatchRows
from lateen.training.heads import AlignmentHeads, FrozenEncoders

_TOKENS = 1024  # of a forward pass, padding included


class TextTower(nn.Module):
    """Token ids to embeddings: a text encoder's network, then an alignment head.

    The network's own dropout stays off, also in training: the second pass of gradient caching must
    see what the first saw, and micro-batches what the whole batch would.

    Args:
        encoder: whose network is copied, so that the encoder itself stays as it is.
        head: from its features into the shared space.

    Attributes:
        network: what is trained at ``train.tower_lr``.
        head: what is trained at ``train.lr``.
        whole_batch: that of the head.
    """

    def __init__(self, encoder: TextEncoder, head: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(encoder.network).float().requires_grad_()
        self.head = head
        self.whole_batch = bool(head.whole_batch)
        self.train()

    @property
    def pretrained(self) -> nn.Module:
        """What was trained before, and is trained on at ``train.tower_lr``."""
        return self.network

    def train(self, mode: bool = True) -> Self:
        """As for any module, with the network always in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, tokens: Tensor, batch_rows: BatchRows | None = None) -> Tensor:
        """Token ids ``[n, length]``, padded with −1, to embeddings ``[n, dim]``, not normalised.

        Texts of like length share a pass, so that little of it is padding.

        Args:
            tokens: whole numbers of any dtype, each row with at least one token.
            batch_rows: where these lie in the batch, for the head.
        """
        ids = tokens.long()
        lengths = (ids >= 0).sum(1)
        batches = list(token_batches(lengths.tolist(), _TOKENS))
        features = torch.cat([self._features(ids[rows], lengths[rows]) for rows in batches])
        order = torch.tensor([row for rows in batches for row in rows], device=ids.device)
        embeddings: Tensor = self.head(features[order.argsort()], batch_rows)
        return embeddings

    def _features(self, ids: Tensor, lengths: Tensor) -> Tensor:
        ids = ids[:, : int(lengths.max())]
        # At the length of captions the fused kernel's backward pass takes half of a step on a CPU.
        plain = ids.device.type == "cpu"
        with sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext():
            features: Tensor = self.network(ids.clamp(min=0), (ids >= 0).long())
        return features


@dataclass(frozen=True)
class TrainedText(FrozenEncoders):
    """A text encoder that is trained with its head (LiT); the texts of pairs are its token ids, as
    :class:`~lateen.encoders.TokenEncoder` gives them.

    Attributes:
        encoder: whose network is copied; it is left as it is.
    """

    encoder: TextEncoder

    def dims(self, pairs: Pairs) -> tuple[int, int]:
        """Lengths of the image features and of what the text encoder gives."""
        return pairs.image.dim, self.encoder.info.dim

    def frozen_dims(self, pairs: Pairs) -> list[int]:
        """That of the image features alone."""
        return [pairs.image.dim]

    @property
    def key(self) -> dict[str, Any]:
        """The encoder that training begins with."""
        return {"text encoder": self.encoder.info.key}

    def complete(self, heads: AlignmentHeads) -> AlignmentHeads:
        """The heads with a :class:`TextTower` on the text side."""
        heads.text = TextTower(self.encoder, heads.text)
        return heads
