"""The two frozen encoders of a model: found and loaded when first needed, checked, copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lateen.encoders import Encoder, load_encoder
from lateen.encoders.resolve import resolve
from lateen.errors import ModelError
from lateen.files import canonical_json
from lateen.model.config import AlignedConfig
from lateen.model.saving import copy_encoder

Side = Literal["vision", "text"]

_SIDES: tuple[Side, ...] = ("vision", "text")
_MODALITIES: dict[Side, Literal["image", "text"]] = {"vision": "image", "text": "text"}
_DECISIVE = ("modality", "weights", "pooling", "layer", "preprocessing", "dim")


class AttachedEncoders:
    """Both encoders of one model.

    Args:
        config: the model's own; says which encoders the heads were trained with.

    Attributes:
        folder: the saved model, in which embedded encoders lie; ``None`` until there is one.
    """

    def __init__(self, config: AlignedConfig) -> None:
        self.folder: Path | None = None
        self._config = config
        self._ready: dict[Side, Encoder] = {}

    def get(self, side: Side) -> Encoder:
        """The encoder of a side, loaded when first asked for.

        Raises:
            ModelError: nothing says how to load it, or it is not the one trained with.
            EncoderError: it is not where the config says.
        """
        if side not in self._ready:
            self.use(side, self._load(side))
        return self._ready[side]

    def use(self, side: Side, given: str | Encoder) -> None:
        """Take ``given``, an encoder or where to load it from, instead of what the config names.

        Raises:
            ModelError: what was recorded of the encoder trained with does not fit it.
        """
        encoder = self._load(side, given) if isinstance(given, str) else given
        self._check(side, encoder)
        self._ready[side] = encoder

    def copy_to(self, folder: Path) -> None:
        """Copy the files of both encoders below ``folder``.

        Raises:
            ModelError: an encoder is code, or the model does not know how to load it.
            EncoderError: its files are not where they were.
        """
        sources = {side: self._source(side) for side in _SIDES}
        for side, source in sources.items():
            copy_encoder(source, folder / f"{side}_encoder")

    def check_originals(self) -> None:
        """See that a copy of the model without the embedded encoders could find the originals.

        Raises:
            ModelError: it could not.
        """
        if not self._config.embedded_encoders:
            return
        for side in _SIDES:
            name = Path(self._recorded(side).get("load", {}).get("name", ""))
            if name.is_absolute() and not name.is_dir():
                raise ModelError(
                    f"the {side} encoder lies in the model's own folder and no longer in {name}, "
                    "so that a model saved without its encoders could not find it",
                    "Save with encoders=True.",
                )

    def _recorded(self, side: Side) -> dict[str, Any]:
        recorded: dict[str, Any] = getattr(self._config, side)
        return recorded

    def _embedded(self, side: Side) -> Path | None:
        if self.folder is None or not self._config.embedded_encoders:
            return None
        return self.folder / f"{side}_encoder"

    def _load(self, side: Side, name: str | None = None) -> Encoder:
        recorded = self._recorded(side)
        arguments = dict(recorded.get("load", {}))
        own = arguments.pop("name", None)
        name = name or str(self._embedded(side) or own or "")
        if not name:
            raise ModelError(
                f"this model does not know how to load its {side} encoder ({recorded['id']}): its "
                "features were imported, or made by an object",
                f"Pass {side}_encoder=, or project features that you computed yourself.",
            )
        if name != own:
            arguments.pop("revision", None)  # a commit of the original's repository
        return load_encoder(name, _MODALITIES[side], **arguments)

    def _check(self, side: Side, encoder: Encoder) -> None:
        trained = {**self._recorded(side), "modality": _MODALITIES[side]}
        now_is = encoder.info.as_dict()
        # Of imported features little more than the dim is known.
        for field in (name for name in _DECISIVE if name in trained):
            before, now = trained[field], now_is[field]
            if canonical_json(before) != canonical_json(now):
                raise ModelError(
                    f"the {side} encoder {encoder.info.id} is not the one this model was trained "
                    f"with: {field} is {_short(now)}, it was {_short(before)}",
                    f"Give the original with --{side}.encoder or {side}_encoder=.",
                )

    def _source(self, side: Side) -> Path:
        """The folder that an encoder's files can be copied from."""
        recorded, ready = self._recorded(side), self._ready.get(side)
        load = recorded.get("load", {})
        if not load:
            raise ModelError(
                f"this model does not know how to load its {side} encoder ({recorded['id']}), so "
                "that a copy of it would be of no use",
                f"Save without encoders=True, and pass {side}_encoder= to from_pretrained.",
            )
        if ready is not None and ready.info.load:
            load = ready.info.load
        elif embedded := self._embedded(side):
            return embedded
        name = load["name"]
        if ":" in name and not Path(name).exists():
            raise ModelError(
                f"the {side} encoder {name} is code and cannot be saved with the model",
                "Save without encoders=True, and install its package where the model is used.",
            )
        return resolve(name, load.get("revision")).folder


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
