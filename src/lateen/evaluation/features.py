"""Features of evaluation data, encoded once, and what a number that comes of them depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lateen.data import Dataset
from lateen.encoders import Encoder
from lateen.features import Store, encode
from lateen.files import cache_folder, content_key, library_versions
from lateen.model import AlignedModel


def cached_features(
    dataset: Dataset,
    encoder: Encoder,
    column: str | None = None,
    folder: Path | None = None,
    dtype: Literal["float16", "float32"] = "float16",
) -> Store:
    """The dataset's features, from the cache where they were computed before.

    The cache goes by the encoder's weights and settings and by the data's content.

    Args:
        dataset: what to encode.
        encoder: with what.
        column: the caption column, for a text encoder.
        folder: where to keep the store, replacing an older one; in lateen's cache if not given.
        dtype: of the features on disk.
    """
    if folder is None:
        name = content_key([encoder.info.key, dataset.fingerprint, column, dtype])[:24]
        folder = cache_folder() / "features" / name
    return encode(dataset, encoder, folder, column=column, dtype=dtype, overwrite=True, wait=True)


def conditions(model: AlignedModel, data: str) -> dict[str, Any]:
    """What a number depends on: the model's weights, the data's content, library versions.

    Args:
        model: the evaluated model.
        data: content key of what it was evaluated on. Nothing of the model is in it, so that
            results of several models on the same data can be told to be so.
    """
    return {
        "model": model_key(model),
        **_trained_alike(model),
        "data": data,
        "versions": library_versions(),
    }


def _trained_alike(model: AlignedModel) -> dict[str, Any]:
    """What is the same for models whose training differs in its seed alone, and the seed.

    Models of before do not say how they were trained, and what was not trained has no seed.
    """
    config = model.config
    training = config.training or {}
    if "settings" not in training:
        return {}
    sides = [_identity(side or {}) for side in (config.vision, config.text)]
    settings = config.head_settings.model_dump(mode="json")
    alike = content_key([*sides, settings, training["settings"], training["data"]])
    return {"trained_alike": alike, "train_seed": training["seed"]}


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
