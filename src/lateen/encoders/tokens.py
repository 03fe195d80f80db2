"""Text encoders that are trained themselves (LiT): which can be, and what they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lateen.encoders.base import Encoder
from lateen.encoders.text import TextEncoder
from lateen.errors import EncoderError

PADDING = -1  # what stands after the last token of a row


class TokenEncoder:
    """Texts to rows of token ids, so that a store can hold what a text encoder is trained on.

    Ids are whole numbers below 2²⁴, which float32 holds exactly, and float16 does not. Of the
    encoder its tokenizer, its prompt and its limit decide the rows; its weights do not.

    Args:
        encoder: gives them.

    Attributes:
        info: ``dim`` is the encoder's ``max_tokens``.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        known = encoder.info.preprocessing
        processing = {key: known[key] for key in ("max_tokens", "prompt", "tokenizer")}
        self.info = replace(
            encoder.info, dim=known["max_tokens"], pooling="tokens", layer=None, weights="none",
            precision="float32", preprocessing=processing,
        )  # fmt: skip
        self._encoder = encoder

    def prepare(self, items: Sequence[str]) -> list[list[int]]:
        """Texts to token ids, as the encoder prepares them."""
        return self._encoder.prepare(items)

    def encode(self, prepared: Sequence[list[int]]) -> torch.Tensor:
        """Token ids ``[n, max_tokens]``, float32, padded with −1 after the last."""
        rows = torch.full((len(prepared), self.info.dim), float(PADDING))
        for row, tokens in zip(rows, prepared, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return rows


def trainable(encoder: Encoder) -> TextEncoder:
    """``encoder``, if it can be trained and saved as a model of its own.

    Raises:
        EncoderError: it runs in a library or in code of its own, or is part of a larger model.
    """
    remedy = "Leave text.train out, or train an encoder that is one transformers model with one "
    remedy += "pooling, such as sentence-transformers/all-MiniLM-L6-v2."
    if not isinstance(encoder, TextEncoder):
        raise EncoderError(
            f"{encoder.info.id} cannot be trained: it does not run as a plain transformers model",
            remedy,
        )
    from transformers import MODEL_MAPPING

    # What AutoModel would load again; of an encoder-decoder or a dual tower that is the whole.
    model = encoder.network.model
    whole = MODEL_MAPPING.get(type(model.config), type(model))
    if encoder.network.project is not None or not isinstance(model, whole):
        raise EncoderError(
            f"{encoder.info.id} cannot be trained: its text encoder is a part of a larger model",
            remedy,
        )
    return encoder
