"""The two frozen encoders of a model: found and loaded when first needed, checked, copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def use(self, side: Side, given: str | Sequence[str] | Encoder) -> None:
        """Take ``given``, an encoder or where to load it from, instead of what the config names.

        Where the parts of a fused encoder are is a list of names, or one text with commas.

        Raises:
            ModelError: what was recorded of the encoder trained with does not fit it.
        """
        encoder = self._load(side, given) if isinstance(given, Sequence) else given
        self._check(side, encoder)
        self._ready[side] = encoder

    def copy_to(self, folder: Path, *, both: bool) -> None:
        """Copy the files of both encoders, or only of those that were trained, below ``folder``.

        Raises:
            ModelError: an encoder is code, or the model does not know how to load it.
            EncoderError: its files are not where they were.
        """
        sources = {side: self._sources(side) for side in _SIDES if both or self._trained(side)}
        for side, found in sources.items():
            for source, target in zip(found, self._inside(folder, side), strict=True):
                copy_encoder(source, target)

    def check_originals(self) -> None:
        """See that a copy of the model without the embedded encoders could find the originals.

        Raises:
            ModelError: it could not.
        """
        if not self._config.embedded_encoders:
            return
        for side in (side for side in _SIDES if not self._trained(side)):
            for part in _parts(self._recorded(side).get("load", {})):
                name = Path(part.get("name", ""))
                if name.is_absolute() and not name.is_dir():
                    raise ModelError(
                        f"the {side} encoder lies in the model's own folder and no longer in "
                        f"{name}, so that a model saved without its encoders could not find it",
                        "Save with encoders=True.",
                    )

    def _recorded(self, side: Side) -> dict[str, Any]:
        recorded: dict[str, Any] = getattr(self._config, side)
        return recorded

    def _trained(self, side: Side) -> bool:
        """Whether the encoder's weights are the model's own, which are nowhere else."""
        return bool(self._recorded(side).get("trained"))

    def _inside(self, folder: Path, side: Side) -> list[Path]:
        """Where below ``folder`` an embedded encoder lies; of a fused one, each of its parts."""
        place = folder / f"{side}_encoder"
        count = len(self._recorded(side).get("load", {}).get("parts", ()))
        return [place / str(part) for part in range(count)] or [place]

    def _embedded(self, side: Side) -> list[Path]:
        if self.folder is None or not (self._config.embedded_encoders or self._trained(side)):
            return []
        return self._inside(self.folder, side)

    def _load(self, side: Side, given: str | Sequence[str] | None = None) -> Encoder:
        recorded = self._recorded(side)
        load = recorded.get("load", {})
        parts = _parts(load)
        names = [str(place) for place in self._embedded(side)]
        names = names or [part.get("name", "") for part in parts]
        if given is not None:
            names = _names(given, fused="parts" in load)
        if not all(names):
            raise ModelError(
                f"this model does not know how to load its {side} encoder ({recorded['id']}): its "
                "features were imported, made by an object, or its heads came without encoders",
                f"Give it with --{side}.encoder, {side}_encoder= or set_encoders({side}=…), or "
                "project features that you computed yourself.",
            )
        if len(names) != len(parts):
            raise ModelError(
                f"the {side} encoder {recorded['id']} is of {len(parts)} parts, and the places of "
                f"{len(names)} are given",
                f"Give one for each: --{side}.encoder A,B or {side}_encoder=[A, B].",
            )
        moved = [_at(name, part) for name, part in zip(names, parts, strict=True)]
        arguments = {**load, "parts": moved} if "parts" in load else moved[0]
        return load_encoder(modality=_MODALITIES[side], **arguments)

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

    def _sources(self, side: Side) -> list[Path]:
        """The folder that an encoder's files can be copied from, or those of its parts."""
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
        return [_files(side, part) for part in _parts(load)]


def describe_encoder(
    side: Side, given: str | Encoder | None, dim: int
) -> tuple[dict[str, Any], Encoder | None]:
    """What a config is to record of the encoder for an existing head, and the encoder itself.

    Args:
        side: of the model.
        given: an encoder, where to load it from, or ``None`` if it is not known.
        dim: length of the features that the head takes.

    Raises:
        ModelError: the encoder's features have another length.
        EncoderError: it cannot be loaded.
    """
    if given is None:
        return {"id": "unknown", "modality": _MODALITIES[side], "dim": dim}, None
    encoder = load_encoder(given, _MODALITIES[side]) if isinstance(given, str) else given
    if encoder.info.dim != dim:
        raise ModelError(
            f"the {side} encoder {encoder.info.id} gives features of {encoder.info.dim} values, "
            f"but the {side} head takes {dim}",
            "Give the encoder, and the pooling, that the head was trained with.",
        )
    return encoder.info.as_dict(), encoder


def _parts(load: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What loads each part of a fused encoder; else what loads the encoder."""
    parts: Sequence[Mapping[str, Any]] = load.get("parts") or [load]
    return parts


def _names(given: str | Sequence[str], *, fused: bool) -> list[str]:
    if isinstance(given, str):
        return [name.strip() for name in given.split(",")] if fused else [given]
    return list(given)


def _at(name: str, load: Mapping[str, Any]) -> dict[str, Any]:
    """``load`` with the files in ``name``."""
    # A revision is a commit of the original's repository.
    kept = {k: v for k, v in load.items() if k != "revision" or name == load.get("name")}
    return {**kept, "name": name}


def _files(side: Side, load: Mapping[str, Any]) -> Path:
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
