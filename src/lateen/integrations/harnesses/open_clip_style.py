"""A model as open_clip gives one: tensors of pixels and of tokens in, embeddings out.

What was written around open_clip's three, model, preprocessing and tokenizer, takes any model of
ours by it. A plain CLIP can also be written in open_clip's own layout
(:mod:`lateen.integrations.open_clip`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from lateen.encoders import Encoder
from lateen.encoders.fused import FusedInput
from lateen.errors import EncoderError
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image

Preprocess = Callable[[Image.Image], Tensor]
Tokenizer = Callable[[str | Sequence[str]], Tensor]

_PADDING = -1  # which no character is
_INSTEAD = "Use lateen evaluate, or lateen.integrations.harnesses.mteb: they hand images over."


def open_clip_style(
    model: AlignedModel | str | Path,
) -> tuple[OpenClipStyle, Preprocess, Tokenizer]:
    """What ``open_clip.create_model_from_pretrained`` and ``get_tokenizer`` give, of any model.

    Args:
        model: an aligned model, or the folder or hub id of one or of a plain CLIP.

    Returns:
        The model; a function of a PIL image that gives its pixels ``[3, H, W]``; and one of texts
        that gives tokens ``[n, length]``.

    Raises:
        ModelError: there is no such model.
        EncoderError: an encoder is not where it was, or prepares images as no tensors.
    """
    style = OpenClipStyle(model if isinstance(model, AlignedModel) else open_model(model))
    return style.eval(), style.preprocess, style.tokenize


class OpenClipStyle(nn.Module):
    """An aligned model with open_clip's methods; its parameters are those of the heads.

    Embeddings are on the device of the heads. Each encoder computes in the precision that it has in
    lateen, and the heads in theirs, also where the caller has autocast on.

    Args:
        model: an aligned model, with its encoders.

    Attributes:
        model: as given.
        visual: ``visual.image_size`` is the height and width of the images that the (first) image
            encoder reads, or ``None`` where it does not read images as such.

    Raises:
        EncoderError: the image encoder prepares images as something else than tensors.
    """

    def __init__(self, model: AlignedModel) -> None:
        super().__init__()
        self.model = model
        self._layout = PixelLayout(model.vision_encoder)
        first = self._layout.shapes[0]
        self.visual = SimpleNamespace(image_size=tuple(first[1:]) if len(first) == 3 else None)

    @property
    def logit_scale(self) -> Tensor:
        """log t, as open_clip keeps it."""
        return self.model.logit_scale

    @property
    def logit_bias(self) -> Tensor:
        """b."""
        return self.model.logit_bias

    def preprocess(self, image: Image.Image) -> Tensor:
        """One image to pixels ``[3, H, W]``, as the image encoder prepares it.

        Those of a fused encoder are all its parts' in one row, ``[1, 1, values]``.

        Raises:
            EncoderError: it is prepared to another size than others are.
        """
        return self._layout.pack(self.model.vision_encoder.prepare([as_image(image)])[0])

    def tokenize(self, texts: str | Sequence[str]) -> Tensor:
        """Texts to tokens ``[n, length of the longest]``, int64: the code points of characters.

        The text encoder's own tokens are made of them in :meth:`encode_text`: they are of no one
        form that fits every encoder (a fused one has those of each part).
        """
        points = [list(map(ord, text)) for text in ([texts] if isinstance(texts, str) else texts)]
        tokens = torch.full((len(points), max(map(len, points), default=0)), _PADDING)
        for row, own in zip(tokens, points, strict=True):
            row[: len(own)] = torch.tensor(own, dtype=torch.int64)
        return tokens

    @torch.no_grad()
    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        """Pixels of :meth:`preprocess`, stacked ``[n, …]``, to embeddings ``[n, dim]``.

        Args:
            image: on any device.
            normalize: L2-normalise.
        """
        encoder = self.model.vision_encoder
        with self._no_autocast():
            features = encoder.encode(self._layout.unpack(image))
            return self.model.project_image(features, normalize=normalize)

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        """Tokens of :meth:`tokenize` to embeddings ``[n, dim]``.

        Args:
            text: on any device.
            normalize: L2-normalise.
        """
        texts = ["".join(chr(point) for point in row if point != _PADDING) for row in text.tolist()]
        with self._no_autocast():
            found = self.model.encode_text(texts, normalize=normalize)
        return found.to(self.logit_scale.device)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised embeddings of images and of texts, and t."""
        return (
            self.encode_image(image, normalize=True),
            self.encode_text(text, normalize=True),
            self.logit_scale.exp(),
        )

    def _no_autocast(self) -> torch.autocast:
        return torch.autocast(self.logit_scale.device.type, enabled=False)


class PixelLayout:
    """How what an encoder prepares of an image lies in one tensor, which loaders can stack.

    Parts of a fused encoder that prepare alike share theirs.

    Args:
        encoder: an image encoder.

    Attributes:
        shapes: of each tensor that is prepared.

    Raises:
        EncoderError: it prepares something else than tensors.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._name = encoder.info.id
        probe = encoder.prepare([Image.new("RGB", (64, 64))])[0]
        self._fused = isinstance(probe, FusedInput)
        parts = _parts(probe)
        if not all(isinstance(part, Tensor) for part in parts):
            raise EncoderError(
                f"{self._name} prepares images as something else than tensors of pixels", _INSTEAD
            )
        own = _distinct(parts)
        self._places = [list(own).index(id(part)) for part in parts]
        self.shapes = [part.shape for part in own.values()]

    def pack(self, prepared: Any) -> Tensor:
        """One image as one tensor.

        Raises:
            EncoderError: its size is not that of others.
        """
        own = list(_distinct(_parts(prepared)).values())
        if [part.shape for part in own] != self.shapes:
            raise EncoderError(
                f"{self._name} prepares images to sizes of their own, which cannot be stacked",
                _INSTEAD,
            )
        return own[0] if len(own) == 1 else torch.cat([part.flatten() for part in own])[None, None]

    def unpack(self, pixels: Tensor) -> list[Any]:
        """Stacked images as the encoder takes them."""
        values = [math.prod(shape) for shape in self.shapes]
        pieces = torch.split(pixels.flatten(1), values, dim=1)
        own = [
            piece.reshape(len(pixels), *shape)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]
        if not self._fused:
            return list(own[0])
        return [FusedInput(tuple(own[place][row] for place in self._places))
                for row in range(len(pixels))]  # fmt: skip


def _parts(prepared: Any) -> list[Any]:
    return list(prepared.parts) if isinstance(prepared, FusedInput) else [prepared]


def _distinct(parts: Sequence[Any]) -> dict[int, Any]:
    """Each object once, in order."""
    return {id(part): part for part in parts}
