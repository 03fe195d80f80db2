"""What a forward pass of an AlignedModel gives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AlignedOutput(ModelOutput):  # type: ignore[misc]
    """What a forward pass gives, named as in transformers' CLIP.

    Attributes:
        logits_per_image: ``[images, texts]``, t · cosine + b.
        logits_per_text: its transpose.
        image_embeds: ``[images, dim]``, L2-normalised.
        text_embeds: ``[texts, dim]``, L2-normalised.
    """

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
