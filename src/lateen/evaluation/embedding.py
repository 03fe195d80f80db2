"""Embeddings of features, and what a number that comes of them depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.files import content_key
from lateen.model import AlignedModel
from lateen.store import Store
from lateen.store.manifest import library_versions

_ROWS = 8192  # features projected at a time


@torch.no_grad()
def project_rows(
    project: Callable[[Tensor], Tensor], features: Store | Tensor, rows: Sequence[int] | Any
) -> Tensor:
    """Embeddings ``[len(rows), dim]`` of these rows on the CPU, a few thousand at a time.

    Args:
        project: ``project_image`` or ``project_text`` of a model.
        features: a store, or features ``[n, feature dim]``.
        rows: which of them, in order.
    """
    parts = [project(features[rows[i : i + _ROWS]]).cpu() for i in range(0, len(rows), _ROWS)]
    return torch.cat(parts)


def conditions(model: AlignedModel, data: str) -> dict[str, Any]:
    """What a number depends on: the model's weights, the data's content, library versions.

    Args:
        model: the evaluated model.
        data: content key of what it was evaluated on. Nothing of the model is in it, so that
            results of several models on the same data can be told to be so.
    """
    return {"model": model_key(model), "data": data, "versions": library_versions()}


def model_facts(model: AlignedModel, place: str | Path | None = None) -> dict[str, str | None]:
    """What a model is, for people: its ``place``, and its ``vision``, ``text`` and ``head``."""
    encoders = {
        side: f"{Path(str(info.get('id'))).name} ({info.get('pooling')})"
        for side in ("vision", "text")
        for info in [getattr(model.config, side) or {}]
    }
    place = place if place is not None else getattr(model, "name_or_path", None)
    return {
        "place": str(place) if place else None,
        **encoders,
        "head": model.config.head_settings.name,
    }


def model_key(model: AlignedModel) -> str:
    """Content key (64 hex digits) of a model's heads and of what its encoders are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    sides = [_identity(getattr(model.config, side)) for side in ("vision", "text")]
    return content_key([digest.hexdigest(), *sides])


def _identity(info: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder is, wherever it lies; of imported features nothing but the name tells."""
    where = ("id", "load") if "weights" in info else ("load",)
    return {key: value for key, value in info.items() if key not in where}
