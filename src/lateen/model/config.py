"""The configuration an AlignedModel is saved with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from lateen.errors import ModelError, choices
from lateen.files import read_json
from lateen.recipe import HeadSection

# What transformers itself writes into every config.json.
_TRANSFORMERS_KEYS = frozenset(
    {"architectures", "dtype", "model_type", "transformers_version", "_name_or_path"}
)


class AlignedConfig(PreTrainedConfig):  # type: ignore[misc]
    """Names both frozen encoders and the heads between them.

    Attributes:
        vision: the vision encoder's :class:`~lateen.encoders.EncoderInfo` as a dict; its ``load``
            is what finds and loads it again.
        text: the same for the text encoder.
        head: the :class:`~lateen.recipe.HeadSection` as a dict.
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

    @property
    def image_dim(self) -> int:
        """Length of the vision encoder's features."""
        return int((self.vision or {})["dim"])

    @property
    def text_dim(self) -> int:
        """Length of the text encoder's features."""
        return int((self.text or {})["dim"])


def read_config(folder: Path) -> AlignedConfig:
    """Read and check ``config.json``.

    Raises:
        ModelError: no such file, another kind of model, an unknown key or a missing one.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} is not a lateen model: it has no config.json",
            "Train one with `lateen run`, or point at the model folder of a run.",
        )
    values = read_json(path)
    kind = values.get("model_type")
    if kind != AlignedConfig.model_type:
        raise ModelError(
            f"{folder} holds a model of type {kind!r}, not a lateen model",
            "Point at the model folder of a run.",
        )
    own = ("vision", "text", "head", "training", "embedded_encoders")
    for key in values:
        if key not in own and key not in _TRANSFORMERS_KEYS:
            raise ModelError(f"{path} has the unknown key {key!r}", choices(key, own))
    for key in ("vision", "text", "head"):
        if not isinstance(values.get(key), dict):
            raise ModelError(f"{path} lacks the key {key!r}", "Save the model again.")
    return AlignedConfig(**{key: values[key] for key in own if key in values})
