"""Alignment heads: the small trainable part between two frozen encoders (SAIL, METHODS §1.2).

The networks inside are called with the normalised features of a head and its norm, whose weight
and bias belong in front of the first layer; a block further up a stack is called without a norm.
Their parameters are named as in SAIL's checkpoints (METHODS §1.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lateen.errors import TrainingError
from lateen.features import Pairs, StoreRows
from lateen.training.batches import BatchRows
from lateen.training.config import HeadName, HeadSection, TrainSection
from lateen.training.layers import GATE_LIMIT, BatchNorm, Dropout, frozen_linear, gate, linear
from lateen.training.loader import StoreSource
from lateen.training.losses import infonce_loss, sigmoid_loss
from lateen.training.ranks import ALONE, Ranks
from lateen.training.trainable import Trainable

_SHARELOCK_HIDDEN = 4096
_SHARELOCK_LAYERS = 3
_SHARELOCK_DROPOUT = 0.2
MAX_SCALE = 100.0  # as in CLIP and SAIL: beyond it a few pairs dominate the gradient
_WIDTHS = {"mlp": 4, "glu": 8}
_DIM = 512


class Linear(nn.Linear):
    """``W h``."""

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: BatchRows | None = None
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
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: BatchRows | None = None
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
        self, h: Tensor, norm: nn.LayerNorm | None = None, _: BatchRows | None = None
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
        self, h: Tensor, norm: nn.LayerNorm | None = None, rows: BatchRows | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        for layer, batch_norm, dropout in zip(self.layers, self.norms, self.dropouts, strict=True):
            (h,) = _first(h, norm, cast(nn.Linear, layer))
            h = dropout(F.relu(batch_norm(h, rows)), rows)
            norm = None
        return _apply(h, self.out, self.training)


class Stack(nn.Sequential):
    """Blocks one after the other, without residuals."""

    def forward(
        self, h: Tensor, norm: nn.LayerNorm | None = None, rows: BatchRows | None = None
    ) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        for block in self:
            h, norm = block(h, norm, rows), None
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


class AlignmentHead(nn.Module):
    """LayerNorm on the frozen features, dropout, then the network into the shared space.

    Its parameters are named as in SAIL's checkpoints (METHODS §1.8), with ``norm`` for
    ``*_layer_norm`` and ``network`` for ``*_mapping_network``.

    Args:
        in_dim: length of the frozen features.
        network: maps ``[n, in_dim]`` to ``[n, dim]``.
        dropout: share of normalised feature values set to 0 in training.

    Attributes:
        whole_batch: whether an output depends on the other rows of the batch, so that the batch
            cannot be divided.
    """

    def __init__(self, in_dim: int, network: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.dropout = Dropout(dropout)
        self.network = network
        self.whole_batch = isinstance(network, ShareLock)

    def forward(self, features: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Features ``[n, in_dim]`` to embeddings ``[n, dim]``, not normalised.

        Args:
            features: of any floating dtype.
            rows: where these lie in the batch, for dropout and batch statistics while training.
        """
        # The norm's weight and bias come after dropout, in the network's first layer.
        wide = features.to(self.norm.weight.dtype)
        normed = F.layer_norm(wide, self.norm.normalized_shape, eps=self.norm.eps)
        return self.network(self.dropout(normed, rows), self.norm, rows)  # type: ignore[no-any-return]


class IdentityHead(nn.Module):
    """The features themselves: the locked image side of LiT and ShareLock."""

    whole_batch = False

    def forward(self, features: Tensor, _: BatchRows | None = None) -> Tensor:
        """Features ``[n, dim]``, at least in float32."""
        return _wide(features)


def build_head(
    settings: HeadSection, in_dim: int, side: Literal["image", "text"] = "text"
) -> nn.Module:
    """A head for features of length ``in_dim``: Xavier-uniform weights, zero biases.

    With ``depth`` above 1, blocks are stacked without residuals: the first maps ``in_dim`` to
    ``dim``, the others ``dim`` to ``dim``, each ``width`` times wider inside than its own input.

    Args:
        settings: with a ``dim``.
        in_dim: length of the features.
        side: which of the two heads.
    """
    name, dropout = (
        (settings.image_name, settings.dropout)
        if side == "image"
        else (settings.name, settings.text_dropout)
    )
    assert settings.dim is not None
    if name == "identity":
        return IdentityHead()
    dims = [in_dim] + [settings.dim] * settings.depth
    blocks = [_block(name, settings.width, i, o) for i, o in pairwise(dims)]
    network = blocks[0] if settings.depth == 1 else Stack(*blocks)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return AlignmentHead(in_dim, network, dropout)


def _block(name: HeadName, width: int | None, in_dim: int, out_dim: int) -> nn.Module:
    if name == "linear":
        return Linear(in_dim, out_dim)
    if name == "sharelock":
        return ShareLock(in_dim, width and in_dim * width, out_dim)
    hidden = in_dim * (width or _WIDTHS[name])
    return {"mlp": MLP, "glu": GLU}[name](in_dim, hidden, out_dim)


def complete(settings: HeadSection, image_dim: int, text_dim: int) -> HeadSection:
    """``settings`` with the length of the shared embedding, which an identity head dictates.

    Raises:
        TrainingError: an identity head whose features have another length than the embedding.
    """
    names = {"image": (settings.image_name, image_dim), "text": (settings.name, text_dim)}
    fixed = {side: dim for side, (name, dim) in names.items() if name == "identity"}
    dim = settings.dim or next(iter(fixed.values()), _DIM)
    for side, length in fixed.items():
        if length != dim:
            raise TrainingError(
                f"an identity head cannot turn {side} features of {length} values into embeddings "
                f"of {dim}",
                "Leave head.dim out, or give that side a head of another kind.",
            )
    return settings.model_copy(update={"dim": dim})


class AlignmentHeads(Trainable):
    """Both heads with the learned scale and bias of the loss: all that training changes.

    Args:
        settings: shape of both heads.
        image_dim: length of the image features.
        text_dim: length of the text features.
        init_scale: t at the start.
        init_bias: b at the start.

    Attributes:
        settings: shape of both heads, complete.
        vision: the image head.
        text: the text head.
        logit_scale: log t, a scalar.
        logit_bias: b, a scalar.

    Raises:
        TrainingError: an identity head whose features have another length than the embedding.
    """

    def __init__(
        self,
        settings: HeadSection,
        image_dim: int,
        text_dim: int,
        *,
        init_scale: float = 20.0,
        init_bias: float = -10.0,
    ) -> None:
        super().__init__()
        self.settings = complete(settings, image_dim, text_dim)
        self.vision = build_head(self.settings, image_dim, "image")
        self.text = build_head(self.settings, text_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(init_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(float(init_bias)))

    @property
    def scale(self) -> Tensor:
        """t = exp(``logit_scale``), a scalar."""
        return self.logit_scale.exp()

    def loss(
        self, image: Tensor, texts: Sequence[Tensor], settings: TrainSection, ranks: Ranks = ALONE
    ) -> Tensor:
        """The contrastive loss of a batch of embeddings, a scalar.

        Args:
            image: ``[n, dim]``, this process's rows.
            texts: as many, for each text of an image.
            settings: which loss.
            ranks: the processes that share the batch.
        """
        if settings.loss == "infonce":
            return infonce_loss(
                image, texts, self.scale, positives=settings.positives,
                chunk_size=settings.chunk, ranks=ranks,
            )  # fmt: skip
        return sigmoid_loss(
            image, texts, self.scale, self.logit_bias, normalization=settings.normalization,
            positives=settings.positives, chunk_size=settings.chunk, ranks=ranks,
        )  # fmt: skip

    def of_the_loss(self) -> list[nn.Parameter]:
        """What is learned beside the two sides: t and b."""
        return [self.logit_scale, self.logit_bias]

    def rates(self, settings: TrainSection) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters by their share of the learning rate: 1, and ``tower_lr / lr`` for what a
        side has that was trained before (:class:`~lateen.training.lit.TextTower`)."""
        networks = [getattr(side, "pretrained", None) for side in (self.vision, self.text)]
        pretrained = [
            p for network in networks if network is not None for p in network.parameters()
        ]
        known = set(map(id, pretrained))
        fresh = [p for p in self.parameters() if id(p) not in known]
        return [(fresh, 1.0), (pretrained, settings.tower_lr / settings.lr)]

    def figures(self) -> dict[str, float]:
        """What is logged of a step beside its loss."""
        return {"logit_scale": self.scale.item(), "logit_bias": self.logit_bias.item()}

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring t back to at most 100; the training loop calls it after every step.

        The parameter is clamped and not its value in the forward pass, where the gradient beyond
        the limit would be zero and t could never come back.
        """
        self.logit_scale.clamp_(max=math.log(MAX_SCALE))

    def compile_networks(self) -> None:
        """Run the networks of both heads through :func:`torch.compile` from now on.

        Not what changes with every batch, such as dropout's noise: that would compile anew.
        """
        for head in (self.vision, self.text):
            if isinstance(head, AlignmentHead) and not head.whole_batch:
                head.network.compile(dynamic=True)

    def embed_image(self, features: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Image features ``[n, image_dim]`` to L2-normalised embeddings ``[n, dim]``, float32."""
        return _normalize(self.vision(features, rows))

    def embed_text(self, features: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Text features ``[n, text_dim]`` to L2-normalised embeddings ``[n, dim]``, float32."""
        return _normalize(self.text(features, rows))


def _normalize(embeddings: Tensor) -> Tensor:
    # Autocast hands over bfloat16, whose 8 bits are too few for a norm and for what follows.
    return F.normalize(_wide(embeddings), dim=-1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


class FrozenEncoders:
    """What is trained where both encoders are frozen: the heads on their features.

    Where more is trained, a subclass says what the heads are put on.

    Attributes:
        images: those that are trained on beside the pairs', if there are any.
    """

    images: StoreRows | None = None

    def dims(self, pairs: Pairs) -> tuple[int, int]:
        """Lengths of what the image head and the text head take."""
        return pairs.image.dim, pairs.texts[0].store.dim

    def frozen_dims(self, pairs: Pairs) -> list[int]:
        """Lengths of the features that stay as they are, images first."""
        return list(self.dims(pairs))

    @property
    def key(self) -> dict[str, Any]:
        """What decides the result beside heads, settings and data, as JSON values."""
        return {}

    @property
    def told(self) -> dict[str, Any]:
        """What a model says of what it was trained on beside the pairs, as JSON values."""
        return {}

    def source(self, pairs: Pairs, settings: TrainSection, ranks: Ranks = ALONE) -> StoreSource:
        """The batches to train on.

        Args:
            pairs: what is trained on.
            settings: of the batches.
            ranks: the processes that share them.
        """
        return StoreSource(pairs, settings, ranks)

    def complete(self, heads: AlignmentHeads) -> AlignmentHeads:
        """The module that embeds what a source yields: the heads with all that is trained."""
        return heads

    def trained(self, heads: AlignmentHeads) -> AlignmentHeads:
        """What :meth:`complete` made, without what is of use in training alone."""
        return heads


FROZEN = FrozenEncoders()
