"""Encoders that know nothing: what a trained one must beat before its numbers mean anything.

Named in recipes and commands as ``lateen.encoders.baselines:raw_pixels`` and
``lateen.encoders.baselines:bag_of_words``.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL.Image import Image, Resampling

from lateen.encoders.base import EncoderInfo

_EDGE = 16
_BUCKETS = 2048
_WORD = re.compile(r"\w+")


class RawPixels:
    """An image's colours on a 16 × 16 grid, each the mean of its area: 768 values in [0, 1]."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="raw pixels", modality="image", dim=_EDGE * _EDGE * 3, pooling="none",
            weights="raw-pixels-1", preprocessing={"size": _EDGE, "resample": "box"},
        )  # fmt: skip

    def prepare(self, items: Sequence[Image]) -> list[torch.Tensor]:
        """RGB images to ``[768]`` values, row by row."""
        small = [image.resize((_EDGE, _EDGE), Resampling.BOX) for image in items]
        return [torch.from_numpy(np.asarray(image, np.float32) / 255).flatten() for image in small]

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        """The same values, ``[n, 768]``."""
        return torch.stack(list(prepared))


class BagOfWords:
    """Which words a text has, in any order, hashed into 2,048 buckets and L2-normalised.

    A word adds +1 or −1, by its hash, so that words that share a bucket cancel on average.
    """

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="bag of words", modality="text", dim=_BUCKETS, pooling="none",
            weights="bag-of-words-1", preprocessing={"words": _WORD.pattern, "lower": True},
        )  # fmt: skip

    def prepare(self, items: Sequence[str]) -> list[list[str]]:
        """Texts to their different words in lower case, sorted; one without words has itself."""
        return [sorted(set(_WORD.findall(text.lower()))) or [text] for text in items]

    def encode(self, prepared: Sequence[list[str]]) -> torch.Tensor:
        """``[n, 2048]``."""
        features = np.zeros((len(prepared), _BUCKETS), np.float32)
        for row, words in enumerate(prepared):
            for word in words:
                code = zlib.crc32(word.encode())
                features[row, code % _BUCKETS] += 1.0 if code >> 31 else -1.0
        return torch.nn.functional.normalize(torch.from_numpy(features), dim=-1)


def raw_pixels() -> RawPixels:
    """The image baseline."""
    return RawPixels()


def bag_of_words() -> BagOfWords:
    """The text baseline."""
    return BagOfWords()
