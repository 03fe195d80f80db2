"""Several encoders, layers or poolings of one modality as one encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lateen.encoders.base import (
    Encoder,
    EncoderInfo,
    PatchEncoder,
    ViewedEncoder,
    shared_passes,
)
from lateen.errors import EncoderError, UsageError
from lateen.files import content_key

T = TypeVar("T")
# Fields of a part's description that can change its features; precision goes by the machine.
_FIELDS = ("dim", "pooling", "layer", "preprocessing", "weights")


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
        self._passes = shared_passes(self.parts)
        infos = [part.info.as_dict() for part in self.parts]
        self.info = EncoderInfo(**fused_info(infos, self.weights))

    def prepare(self, items: Sequence[Any]) -> list[FusedInput]:
        """Every item as each part prepares it; parts that share a network do so once."""
        prepared: dict[int, Sequence[Any]] = {}
        for together in self._passes:
            own = self.parts[together[0]].prepare(items)
            prepared.update(dict.fromkeys(together, own))
        return [FusedInput(inputs) for inputs in zip(*_in_order(prepared), strict=True)]

    def encode(self, prepared: Sequence[FusedInput]) -> torch.Tensor:
        """Fused features ``[n, dim]``, float32; a network runs once for all its parts.

        Raises:
            EncoderError: items that :meth:`prepare` of this encoder did not make.
        """
        inputs = self._by_part(prepared)
        features: dict[int, torch.Tensor] = {}
        for together in self._passes:
            views, own = [self.parts[index] for index in together], inputs[together[0]]
            first = views[0]
            if len(views) > 1 and isinstance(first, ViewedEncoder):
                features.update(zip(together, first.encode_views(own, views), strict=True))
            else:
                features[together[0]] = first.encode(own)
        return fuse_features(_in_order(features), self.weights)

    def encode_patches(self, prepared: Sequence[FusedInput]) -> torch.Tensor:
        """Fused patch features ``[n, patches, dim]``, float32, in raster order.

        Raises:
            EncoderError: a part has none, or parts cut images into different numbers of patches.
        """
        features = []
        for part, own in zip(self.parts, self._by_part(prepared), strict=True):
            if not isinstance(part, PatchEncoder):
                raise EncoderError(
                    f"{part.info.id}, part of {self.info.id}, has no features per patch",
                    "Fuse encoders that all have them.",
                )
            features.append(part.encode_patches(own))
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


class FusedNetwork(nn.Module):
    """Views of one network as one: what a fused encoder computes where it runs one network.

    Args:
        networks: of a :class:`~lateen.encoders.vision.VisionEncoder`, or of a
            :class:`~lateen.encoders.text.TextEncoder`, and of its views.
        weights: of each.
    """

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights = list(weights)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """What one of the networks takes, to fused features ``[n, dim]``, float32."""
        first: Any = self.networks[0]
        return fuse_features(first.views(self.networks, *inputs), self.weights)


def _in_order(by_part: Mapping[int, T]) -> list[T]:
    return [by_part[index] for index in range(len(by_part))]


def fuse_features(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """``concat_k(w_k √d_k x_k / ‖x_k‖)``: every part of unit root mean square, times its weight.

    So a part counts by its weight and its number of values, not by its encoder's scale.

    Args:
        parts: ``[..., d_k]`` each, the same shape but for the last dimension.
        weights: one per part.

    Returns:
        ``[..., Σ d_k]``, float32; a vector of zeros stays one.
    """
    return torch.cat([_unit(x.float()) * w for x, w in zip(parts, weights, strict=True)], dim=-1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    # Squares of large float32 values exceed float32.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float64).float()
    unit: torch.Tensor = x / norm.clamp_min(torch.finfo(torch.float32).tiny)
    return unit * math.sqrt(x.shape[-1])


def fusing_weights(parts: int, weights: Sequence[float] | None) -> list[float]:
    """One weight for each of ``parts`` parts; all 1 if there are none given.

    Raises:
        UsageError: fewer than two parts, another number of weights, or one that is not above 0.
    """
    if parts < 2:
        raise UsageError(f"{parts} cannot be fused", "Give two parts or more.")
    checked = [1.0] * parts if weights is None else [float(weight) for weight in weights]
    if len(checked) != parts:
        raise UsageError(f"{len(checked)} weights do not fit {parts} parts", "Give one for each.")
    for weight in checked:
        if not 0 < weight < math.inf:
            raise UsageError(f"a weight is {weight}", "Weights are numbers above 0.")
    return checked


def fused_info(encoders: Sequence[Mapping[str, Any]], weights: Sequence[float]) -> dict[str, Any]:
    """The fields of an :class:`~lateen.encoders.EncoderInfo` of fused features.

    Args:
        encoders: those of each part, at least ``id``, ``modality`` and ``dim``.
        weights: one per part.

    Returns:
        All fields; of parts that were imported no more than the name, modality and dim is known.

    Raises:
        UsageError: a part is itself fused.
    """
    for encoder in encoders:
        if "stores" in encoder or "fused" in encoder.get("preprocessing", {}):
            raise UsageError(f"{encoder['id']} is itself fused", "Fuse its parts instead.")
    info = {
        "id": " + ".join(Path(str(encoder["id"])).name for encoder in encoders),
        "modality": encoders[0]["modality"],
        "dim": sum(encoder["dim"] for encoder in encoders),
    }
    if not all("weights" in encoder for encoder in encoders):
        return info
    described = [{name: encoder[name] for name in _FIELDS} for encoder in encoders]
    loads = [dict(encoder["load"]) for encoder in encoders]
    return {
        **info,
        "pooling": ", ".join(map(_pooling, encoders)),
        "weights": content_key([encoder["weights"] for encoder in encoders]),
        "preprocessing": {
            "fused": [{**p, "weight": w} for p, w in zip(described, weights, strict=True)]
        },
        "precision": ", ".join(dict.fromkeys(encoder["precision"] for encoder in encoders)),
        "load": {"name": "fused", "parts": loads, "weights": list(weights)} if all(loads) else {},
    }


def _pooling(encoder: Mapping[str, Any]) -> str:
    layer = "" if encoder["layer"] is None else f" at layer {encoder['layer']}"
    return f"{encoder['pooling']}{layer}"
