"""The two frozen encoders of a model: found and loaded when first needed, checked, copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lateen.encoders import SIDES, Encoder, Side, load_encoder, modality_of
from lateen.encoders.openai_server import is_server
from lateen.encoders.own import is_factory
from lateen.encoders.resolve import folder_here, resolve
from lateen.errors import ModelError
from lateen.files import canonical_json
from lateen.hardware import hardware
from lateen.model.card import EncoderSource
from lateen.model.config import AlignedConfig
from lateen.model.saving import copy_encoder

# Fields of an encoder's description in which it must be the one that the heads were trained with.
_CHECKED = ("modality", "weights", "pooling", "layer", "preprocessing", "dim")


class EncoderPair:
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
        # All sources are found before the first copy.
        copied = [side for side in SIDES if both or self._trained(side)]
        sources = {side: self._sources(side) for side in copied}
        for side, places in sources.items():
            targets = self._embedded_folders(folder, side)
            for target, source in dict(zip(targets, places, strict=True)).items():
                copy_encoder(source, target)

    def check_originals(self) -> None:
        """See that a copy of the model without the embedded encoders could find the originals.

        Raises:
            ModelError: it could not.
        """
        if not self._config.embedded_encoders:
            return
        for side in (side for side in SIDES if not self._trained(side)):
            for part in _part_loads(self._recorded(side).get("load", {})):
                name = Path(part.get("name", ""))
                elsewhere = name.is_absolute() or part.get("name", "").startswith("./")
                if elsewhere and not name.exists():
                    raise ModelError(
                        f"the {side} encoder lies in the model's own folder and no longer in "
                        f"{name}, so that a model saved without its encoders could not find it",
                        "Save with encoders=True.",
                    )

    def card_sources(self, folder: Path) -> dict[Side, list[EncoderSource]]:
        """Where each side's encoder, or its parts, come from, for the card of a model saved in
        ``folder``."""
        sources: dict[Side, list[EncoderSource]] = {}
        for side in SIDES:
            recorded = self._recorded(side)
            if not recorded.get("load"):  # only its name is known
                name = str(recorded.get("id"))
                name = Path(name).name if Path(name).is_absolute() else name
                sources[side] = [EncoderSource(name, None, None)]
                continue
            loads = _part_loads(recorded["load"])
            inside = self._embedded_folders(folder, side)
            each = [
                EncoderSource.of(load, where if where.is_dir() else _here(load))
                for load, where in zip(loads, inside, strict=True)
            ]
            sources[side] = list(dict.fromkeys(each))  # layers of one network have one source
            if self._trained(side):  # its files lie in the model, under the name of what it was
                sources[side] = [EncoderSource.of({"name": recorded["id"]}, inside[0])]
        return sources

    def _recorded(self, side: Side) -> dict[str, Any]:
        recorded: dict[str, Any] = getattr(self._config, side)
        return recorded

    def _trained(self, side: Side) -> bool:
        """Whether the encoder's weights are the model's own, which are nowhere else."""
        return bool(self._recorded(side).get("trained"))

    def _embedded_folders(self, folder: Path, side: Side) -> list[Path]:
        """Where below ``folder`` an embedded encoder lies; of a fused one, each of its parts.

        Layers of one network lie there once, but in models that were saved with a copy for each.
        """
        whole = folder / f"{side}_encoder"
        own = [whole / str(part) for part in range(len(self._networks(side)))]
        return [
            path if path.is_dir() else own[first]
            for path, first in zip(own, self._networks(side), strict=True)
        ] or [whole]

    def _networks(self, side: Side) -> list[int]:
        """For each part of a fused encoder, the first part that is of the same network."""
        recorded = self._recorded(side)
        fused = recorded.get("preprocessing", {}).get("fused", ())
        networks = [
            (load.get("name"), load.get("revision"), part["weights"])
            for load, part in zip(recorded.get("load", {}).get("parts", ()), fused, strict=False)
        ]
        return [networks.index(each) for each in networks]

    def _embedded(self, side: Side) -> list[Path]:
        """Where the encoder lies in the saved model itself; nothing if it is not in there."""
        if self.folder is None or not (self._config.embedded_encoders or self._trained(side)):
            return []
        return self._embedded_folders(self.folder, side)

    def _load(self, side: Side, given: str | Sequence[str] | None = None) -> Encoder:
        """The encoder that was recorded, from ``given``, the model's own folder or its first one.

        Raises:
            ModelError: nothing says where it is, or not where each of its parts is.
        """
        recorded = self._recorded(side)
        load = recorded.get("load", {})
        parts = _part_loads(load)
        names = [str(folder) for folder in self._embedded(side)]
        names = names or [part.get("name", "") for part in parts]
        if given is not None:
            names = _names(given, fused="parts" in load)
            networks = self._networks(side)
            if len(names) == len(set(networks)) < len(parts):  # one for each network
                place = dict(zip(dict.fromkeys(networks), names, strict=True))
                names = [place[first] for first in networks]
        if not all(names):
            raise ModelError(
                f"this model does not know how to load its {side} encoder ({recorded['id']}): its "
                "features were imported, made by an object, or its heads came without encoders",
                f"Give it with --{side}.encoder, {side}_encoder= or set_encoders({side}=…), or "
                "project features that you computed yourself.",
            )
        if len(names) != len(parts):
            count = len(set(self._networks(side)))
            of = f" of {count} networks" if 0 < count < len(parts) else ""
            raise ModelError(
                f"the {side} encoder {recorded['id']} is of {len(parts)} parts{of}, and the places "
                f"of {len(names)} are given",
                f"Give one for each: --{side}.encoder A,B or {side}_encoder=[A, B].",
            )
        if given is None and (gone := next(filter(_is_gone, names), None)):
            where = (
                f"was in {gone}, where there is nothing now" if Path(gone).is_absolute() else
                f"was a file or folder called {Path(gone).name} where the model was made, and is "
                "not in it"
            )  # fmt: skip
            raise ModelError(
                f"the {side} encoder of this model {where}",
                f"Say where it is now with --{side}.encoder or {side}_encoder=; or export the "
                "model again, with --with-encoders.",
            )
        if lost := next((p for p in (part.get("python") for part in parts) if _is_lost(p)), None):
            raise ModelError(
                f"the {side} encoder of this model runs in {lost}, where there is nothing now",
                "Make that environment again, or give the encoder in another: "
                f"set_encoders({side}=load_encoder(…, python=…)).",
            )
        loads = [_relocated(part, name) for name, part in zip(names, parts, strict=True)]
        arguments = {**load, "parts": loads} if "parts" in load else loads[0]
        preprocessing = recorded.get("preprocessing") or {}
        if preprocessing.get("prompt", "") is None:
            # Whatever prompt the encoder has by now: these heads were trained without one.
            arguments = {"prompt": "", **arguments}
        return load_encoder(modality=modality_of(side), **arguments)

    def _check(self, side: Side, encoder: Encoder) -> None:
        """See that an encoder is the one that the heads were trained with.

        Raises:
            ModelError: it differs in something that was recorded.
        """
        recorded = {**self._recorded(side), "modality": modality_of(side)}
        info = encoder.info.as_dict()
        # Of imported features little more than the dim is known.
        for field in (name for name in _CHECKED if name in recorded):
            before, now = (_without_empty_prompt(each[field]) for each in (recorded, info))
            if canonical_json(before) != canonical_json(now):
                raise ModelError(
                    f"the {side} encoder {encoder.info.id} is not the one this model was trained "
                    f"with: {field} is {_short(now)}, it was {_short(before)}",
                    f"Give the original with --{side}.encoder or {side}_encoder=.",
                )

    def _sources(self, side: Side) -> list[Path]:
        """The folder, or GGUF file, that an encoder can be copied from, or those of its parts.

        Raises:
            ModelError: an encoder is code, or the model does not know how to load it.
            EncoderError: its files are not where they were.
        """
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
        return [_source(side, part) for part in _part_loads(load)]


def _without_empty_prompt(value: Any) -> Any:
    """Of a description's value, an empty prompt as what it is: none."""
    if isinstance(value, dict) and value.get("prompt") == "":
        return {**value, "prompt": None}
    return value


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
        return {"id": "unknown", "modality": modality_of(side), "dim": dim}, None
    encoder = load_encoder(given, modality_of(side)) if isinstance(given, str) else given
    if encoder.info.dim != dim:
        raise ModelError(
            f"the {side} encoder {encoder.info.id} gives features of {encoder.info.dim} values, "
            f"but the {side} head takes {dim}",
            "Give the encoder, and the pooling, that the head was trained with.",
        )
    return encoder.info.as_dict(), encoder


def _is_gone(name: str) -> bool:
    """Whether a name is that of a folder or file that is not here: of another machine
    (:func:`saving.without_paths`), or moved since."""
    return (name.startswith("./") or Path(name).is_absolute()) and not Path(name).exists()


def _is_lost(python: str | None) -> bool:
    """Whether another environment's Python, if there is one, is no longer there."""
    return python is not None and not Path(python).exists()


def _here(load: Mapping[str, Any]) -> Path | None:
    name = str(load.get("name", ""))
    code = not name or is_factory(name) or is_server(name)
    return None if code else folder_here(name, load.get("revision"))


def _part_loads(load: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """What loads each part of a fused encoder; else what loads the encoder."""
    parts: Sequence[Mapping[str, Any]] = load.get("parts") or [load]
    return parts


def _names(given: str | Sequence[str], *, fused: bool) -> list[str]:
    """Where the encoder, or each part of a fused one, is to be loaded from."""
    if isinstance(given, str):
        return [name.strip() for name in given.split(",")] if fused else [given]
    return list(given)


def _relocated(load: Mapping[str, Any], name: str) -> dict[str, Any]:
    """``load`` with the files in ``name``."""
    # A revision is a commit of the original's repository.
    options = {k: v for k, v in load.items() if k != "revision" or name == load.get("name")}
    if hardware().precision != "auto":  # which is asked for, whatever was recorded
        options.pop("precision", None)
    return {**options, "name": name}


def _source(side: Side, load: Mapping[str, Any]) -> Path:
    name = load["name"]
    if is_server(name):
        raise ModelError(
            f"the {side} encoder {name} is behind a server and cannot be saved with the model",
            "Save without encoders=True (--with-encoders); who uses the model needs that server.",
        )
    if is_factory(name):
        raise ModelError(
            f"the {side} encoder {name} is code and cannot be saved with the model",
            "Save without encoders=True (--with-encoders), and install its package where the model "
            "is used.",
        )
    return resolve(name, load.get("revision")).place


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
