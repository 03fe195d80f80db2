"""The configuration an AlignedModel is saved with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from transformers import PreTrainedConfig

from lateen.config import first_fault
from lateen.encoders import Side
from lateen.encoders.resolve import read_model_config, require_model_type
from lateen.errors import ModelError, choices
from lateen.features.manifest import FeatureDtype
from lateen.training.config import HeadSection

_KEYS = ("vision", "text", "head", "training", "embedded_encoders")


# What transformers itself writes into every config.json.
_TRANSFORMERS_KEYS = frozenset(
    {"architectures", "dtype", "model_type", "transformers_version", "_name_or_path"}
)


class AlignedConfig(PreTrainedConfig):  # type: ignore[misc]
    """Names both frozen encoders and the heads between them.

    Attributes:
        vision: the vision encoder's :class:`~lateen.encoders.EncoderInfo` as a dict; its ``load``
            is what finds and loads it again.
        text: the same for the text encoder; with ``trained: true`` its weights were trained with
            the heads, and it lies beside them.
        head: the :class:`~lateen.training.config.HeadSection` as a dict.
        training: the conditions under which the heads were trained, for people.
        embedded_encoders: whether the encoders lie beside the heads, in folders of their own.
    """

    model_type = "lateen"

    vision: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    embedded_encoders: bool = False

    @property
    def head_settings(self) -> HeadSection:
        """The heads' shape, checked."""
        return HeadSection.model_validate(self.head or {})

    def feature_dtype(self, side: Side) -> FeatureDtype:
        """The number format of the features that this side was trained on, for caching more."""
        described: dict[str, Any] = getattr(self, side) or {}
        return cast(FeatureDtype, described.get("dtype", "float16"))

    @property
    def image_dim(self) -> int:
        """Length of the vision encoder's features."""
        return int((self.vision or {})["dim"])

    @property
    def text_dim(self) -> int:
        """Length of the text encoder's features."""
        return int((self.text or {})["dim"])


def encoder_identity(info: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder is, wherever it lies; of imported features nothing but the name tells.

    Args:
        info: an encoder's description, as a config has it.
    """
    where = ("id", "load") if "weights" in info else ("load",)
    return {key: value for key, value in info.items() if key not in where}


def read_config(folder: Path) -> AlignedConfig:
    """Read and check ``config.json``.

    Raises:
        ModelError: no such file, another kind of model, an unknown key, a missing one, or a value
            that does not fit.
    """
    path, values = folder / "config.json", read_model_config(folder)
    require_model_type(folder, values)
    for key in values:
        if key not in _KEYS and key not in _TRANSFORMERS_KEYS:
            raise ModelError(f"{path} has the unknown key {key!r}", choices(key, _KEYS))
    for side in ("vision", "text"):
        _check_side(path, side, _mapping(path, values, side))
    _check_head(path, _mapping(path, values, "head"))
    if not isinstance(values.get("training"), dict | None):
        raise _misfit(path, "training", values["training"], "must be a mapping or null")
    if not isinstance(values.get("embedded_encoders", False), bool):
        raise _misfit(path, "embedded_encoders", values["embedded_encoders"], "must be a bool")
    return AlignedConfig(**{key: values[key] for key in _KEYS if key in values})


def _mapping(path: Path, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    mapping = values.get(key)
    if mapping is None:
        raise _lacks(path, key)
    if not isinstance(mapping, dict):
        raise _misfit(path, key, mapping, "must be a mapping")
    return mapping


def _check_side(path: Path, side: str, values: Mapping[str, Any]) -> None:
    """What is needed of an encoder: a name for people, its dim, and how to load it, if known."""
    for key in ("id", "dim"):
        if key not in values:
            raise _lacks(path, f"{side}.{key}")
    dim, load = values["dim"], values.get("load", {})
    if type(dim) is not int or dim < 1:
        raise _misfit(path, f"{side}.dim", dim, "must be a whole number above 0")
    if not isinstance(load, dict) or (load and not isinstance(load.get("name"), str)):
        raise _misfit(path, f"{side}.load", load, "must be a mapping with the encoder's name")


def _check_head(path: Path, values: Mapping[str, Any]) -> None:
    try:
        HeadSection.model_validate(values)
    except ValidationError as error:
        fault = first_fault(error, HeadSection)
        key = f"head.{fault.dotted}" if fault.path else "head"
        if fault.kind == "unknown":
            raise ModelError(
                f"{path} has the unknown key {key!r}", choices(fault.dotted, fault.choices)
            ) from error
        wrong = _misfit(path, key, fault.value, f"breaks: {fault.rule}")
        if fault.choices:
            wrong = ModelError(wrong.message, choices(str(fault.value), fault.choices))
        raise wrong from error


def _lacks(path: Path, key: str) -> ModelError:
    return ModelError(f"{path} lacks the key {key!r}", "Save the model again.")


def _misfit(path: Path, key: str, value: Any, rule: str) -> ModelError:
    return ModelError(f"{path}: {key} is {value!r}, it {rule}", "Save or copy the model again.")
