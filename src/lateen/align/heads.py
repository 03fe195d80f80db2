"""Alignment heads: the small trainable part between two frozen encoders (SAIL, METHODS §1.2)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lateen.recipe import HeadSection

MAX_SCALE = 100.0  # as in CLIP and SAIL: beyond it a few pairs dominate the gradient
_CLAMP = 1000.0
_WIDTHS = {"mlp": 4, "glu": 8}


class GLU(nn.Module):
    """Gated linear unit ``g(ReLU6(f1 h) ⊙ f2 h)``, SAIL's non-linear head.

    ``f2 h`` is clamped to ±1000 as in the released code; its clamp of ``f1 h`` is left out, because
    ReLU6 (0 to 6) gives the same value and gradient without it.

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

    def forward(self, h: Tensor) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        gated: Tensor = F.relu6(self.f1(h)) * self.f2(h).clamp(-_CLAMP, _CLAMP)
        return self.g(gated)  # type: ignore[no-any-return]


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

    def forward(self, h: Tensor) -> Tensor:
        """``[n, in_dim]`` to ``[n, out_dim]``."""
        return self.proj(h)  # type: ignore[no-any-return]


class FeatureDropout(nn.Module):
    """Dropout that draws one random byte per value, ten times as fast on a CPU as torch's own.

    There, drawing the mask would otherwise take as long as the rest of a linear head's step.

    Args:
        share: of the values set to 0 in training, rounded to 1/256; the others are scaled up.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._dropped = min(round(256 * share), 255)

    def forward(self, h: Tensor) -> Tensor:
        """``[n, d]`` to ``[n, d]``; does nothing in evaluation mode."""
        if not self.training or self._dropped == 0:
            return h
        words = torch.empty(-(-h.numel() // 8), dtype=torch.int64, device=h.device)
        noise = words.random_(-(2**63), None).view(torch.uint8)[: h.numel()].view(h.shape)
        return h * (noise >= self._dropped) * (256 / (256 - self._dropped))


class AlignmentHead(nn.Module):
    """LayerNorm on the frozen features, dropout, then the network into the shared space.

    Its parameters are named as in SAIL's checkpoints (METHODS §1.8), with ``norm`` for
    ``*_layer_norm`` and ``network`` for ``*_mapping_network``.

    Args:
        in_dim: length of the frozen features.
        network: maps ``[n, in_dim]`` to ``[n, dim]``.
        dropout: share of normalised feature values set to 0 in training.
    """

    def __init__(self, in_dim: int, network: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.dropout = FeatureDropout(dropout)
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Features ``[n, in_dim]`` to embeddings ``[n, dim]``, not normalised."""
        return self.network(self.dropout(self.norm(features)))  # type: ignore[no-any-return]


def build_head(settings: HeadSection, in_dim: int) -> AlignmentHead:
    """A head for features of length ``in_dim``: Xavier-uniform weights, zero biases.

    With ``depth`` above 1, blocks are stacked without residuals: the first maps ``in_dim`` to
    ``dim``, the others ``dim`` to ``dim``, each ``width`` times wider inside than its own input.
    """
    dims = [in_dim] + [settings.dim] * settings.depth
    blocks = [_block(settings, i, o) for i, o in pairwise(dims)]
    network = blocks[0] if settings.depth == 1 else nn.Sequential(*blocks)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return AlignmentHead(in_dim, network, settings.dropout)


def _block(settings: HeadSection, in_dim: int, out_dim: int) -> nn.Module:
    if settings.name == "linear":
        return nn.Linear(in_dim, out_dim)
    hidden = in_dim * (settings.width or _WIDTHS[settings.name])
    return {"mlp": MLP, "glu": GLU}[settings.name](in_dim, hidden, out_dim)


class AlignmentHeads(nn.Module):
    """Both heads with the learned scale and bias of the loss: all that training changes.

    Args:
        settings: shape of both heads.
        image_dim: length of the image features.
        text_dim: length of the text features.
        init_scale: t at the start.
        init_bias: b at the start.

    Attributes:
        vision: the image head.
        text: the text head.
        logit_scale: log t, a scalar.
        logit_bias: b, a scalar.
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
        self.vision = build_head(settings, image_dim)
        self.text = build_head(settings, text_dim)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(init_scale)))
        self.logit_bias = nn.Parameter(torch.tensor(float(init_bias)))

    @property
    def scale(self) -> Tensor:
        """t = exp(``logit_scale``), a scalar."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Bring t back to at most 100; the training loop calls it after every step.

        The parameter is clamped and not its value in the forward pass, where the gradient beyond
        the limit would be zero and t could never come back.
        """
        self.logit_scale.clamp_(max=math.log(MAX_SCALE))

    def embed_image(self, features: Tensor) -> Tensor:
        """Image features ``[n, image_dim]`` to L2-normalised embeddings ``[n, dim]``, float32."""
        return _normalize(self.vision(features))

    def embed_text(self, features: Tensor) -> Tensor:
        """Text features ``[n, text_dim]`` to L2-normalised embeddings ``[n, dim]``, float32."""
        return _normalize(self.text(features))


def _normalize(embeddings: Tensor) -> Tensor:
    # Autocast hands over bfloat16, whose 8 bits are too few for a norm and for what follows.
    wide = embeddings.float() if embeddings.dtype in (torch.bfloat16, torch.float16) else embeddings
    return F.normalize(wide, dim=-1)
