"""What an exported image-text model is made of: two encoders, what is taken of them, two heads."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig


class LateenClipConfig(PreTrainedConfig):
    """A CLIP made of two encoders, trained with a softmax.

    Attributes:
        vision_encoder: the configuration of the image network, as transformers writes it.
        text_encoder: the same of the text network.
        vision_features: what is taken of the image network; several parts are each brought to a
            root mean square of 1, weighted and put side by side. A part has ``pooling`` (``cls``,
            ``mean``, ``cls+mean``, ``pooler``, ``projection``), ``layer`` (of the hidden states;
            ``None`` for the output), ``prefix`` (how many tokens stand before the patches) and
            ``weight``.
        text_features: the same of the text network: ``pooling`` (``mean``, ``first``, ``last``,
            ``pooler``, ``projection``), ``layer``, ``normalize`` and ``weight``.
        vision_head: the image head: ``name`` (``linear``, ``mlp``, ``glu``, ``sharelock``,
            ``identity``), ``depth``, ``hidden`` (the width inside, a number for each block) and
            ``in_dim``.
        text_head: the same for texts.
        projection_dim: the length of an embedding.
        image_size: height and width in pixels of images as the processor gives them.
        max_tokens: of a text at most.
        pad_to: the one length that the text network was trained with; ``None`` for any.
        pad_token: the id of padding.
        no_text: the id that stands for a text without any token.
    """

    model_type = "lateen_clip"

    vision_encoder: dict[str, Any] | None = None
    text_encoder: dict[str, Any] | None = None
    vision_features: list[dict[str, Any]] | None = None
    text_features: list[dict[str, Any]] | None = None
    vision_head: dict[str, Any] | None = None
    text_head: dict[str, Any] | None = None
    projection_dim: int = 512
    image_size: list[int] | None = None
    max_tokens: int = 77
    pad_to: int | None = None
    pad_token: int = 0
    no_text: int = 0


class LateenSiglipConfig(LateenClipConfig):
    """One that was trained with the sigmoid loss, whose probabilities are each label's own.

    transformers' pipeline takes the sigmoid, and no softmax, of models whose type has "siglip" in
    its name.
    """

    model_type = "lateen_siglip"


CONFIGS = (LateenClipConfig, LateenSiglipConfig)
