"""Several encoders, layers or poolings of one modality as one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lateen.encoders.base import Encoder, EncoderInfo, PatchEncoder
from lateen.errors import EncoderError
from lateen.store.fusing import fuse_features, fused_info, fusing_weights


@dataclass(frozen=True)
class FusedInput:
    """One item, prepared for each part; as long as its longest, which token budgets count."""

    parts: tuple[Any, ...]

    def __len__(self) -> int:
        return max(map(len, self.parts))


class FusedEncoder:
    """Encoders of one modality whose features are normalised, weighted and concatenated.

    It gives what :func:`lateen.fuse` makes of its parts' stores, up to the rounding on disk.

    Args:
        parts: two or more encoders.
        weights: of each part, above 0; 1 if not given.

    Attributes:
        parts: the encoders.
        weights: one per part.

    Raises:
        EncoderError: parts of two modalities.
        UsageError: fewer than two parts, weights that do not fit, or a part that is itself fused.
    """

    def __init__(self, parts: Sequence[Encoder], weights: Sequence[float] | None = None) -> None:
        self.parts = list(parts)
        self.weights = fusing_weights(len(self.parts), weights)
        first = self.parts[0].info
        for part in self.parts:
            other = part.info
            if other.modality != first.modality:
                raise EncoderError(
                    f"{first.id} encodes {first.modality}s, {other.id} encodes {other.modality}s",
                    "Fuse encoders of one modality.",
                )
        infos = [part.info.as_dict() for part in self.parts]
        self.info = EncoderInfo(**fused_info(infos, self.weights))

    def prepare(self, items: Sequence[Any]) -> list[FusedInput]:
        """Every item as each part prepares it."""
        prepared = [part.prepare(items) for part in self.parts]
        return [FusedInput(inputs) for inputs in zip(*prepared, strict=True)]

    def encode(self, prepared: Sequence[FusedInput]) -> torch.Tensor:
        """Fused features ``[n, dim]``, float32.

        Raises:
            EncoderError: items that :meth:`prepare` of this encoder did not make.
        """
        inputs = self._by_part(prepared)
        features = [part.encode(mine) for part, mine in zip(self.parts, inputs, strict=True)]
        return fuse_features(features, self.weights)

    def encode_patches(self, prepared: Sequence[FusedInput]) -> torch.Tensor:
        """Fused patch features ``[n, patches, dim]``, float32, in raster order.

        Raises:
            EncoderError: a part has none, or parts cut images into different numbers of patches.
        """
        features = []
        for part, mine in zip(self.parts, self._by_part(prepared), strict=True):
            if not isinstance(part, PatchEncoder):
                raise EncoderError(
                    f"{part.info.id}, part of {self.info.id}, has no features per patch",
                    "Fuse encoders that all have them.",
                )
            features.append(part.encode_patches(mine))
        counts = [part.shape[1] for part in features]
        if len(set(counts)) > 1:
            raise EncoderError(
                f"the parts of {self.info.id} see {' and '.join(map(str, counts))} patches",
                "Fuse encoders of one image size and patch size.",
            )
        return fuse_features(features, self.weights)

    def _by_part(self, prepared: Sequence[FusedInput]) -> list[list[Any]]:
        if not all(isinstance(item, FusedInput) for item in prepared):
            raise EncoderError(
                f"{self.info.id} is several encoders, each with a preprocessing of its own",
                "Give it what its prepare makes of images or texts.",
            )
        return [[item.parts[index] for item in prepared] for index in range(len(self.parts))]
