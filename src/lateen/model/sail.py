"""The checkpoints of SAIL's released code: heads, scale and bias, without encoders (METHODS §1.8).

The file names neither the heads' shape nor the encoders; the shape is inferred from the tensors.
It is read without unpickling anything but tensors, plain containers and NumPy scalars.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lateen.errors import ModelError, choices
from lateen.files import atomic_path
from lateen.model.config import AlignedConfig
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

Kind = Literal["glu", "mlp", "linear"]


# The layers of each kind of mapping network, the first to see the features at the front.
_LAYERS: dict[Kind, tuple[str, ...]] = {
    "glu": ("f1.", "f2.", "g."),
    "mlp": ("proj.0.", "proj.2."),
    "linear": ("",),
}
_SIDES = ("vision", "text")
_SCALARS = ("logit_scale", "logit_bias")
_PARTS = {"layer_norm.": "norm.", "mapping_network.": "network."}
_OURS = {f"{side}_{sail}": f"{side}.{own}" for side in _SIDES for sail, own in _PARTS.items()}
_THEIRS = {own: sail for sail, own in _OURS.items()}


# What pickle makes a NumPy number of, under its module's name before and since NumPy 2.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
]
_WHOLE = "Give a checkpoint as SAIL's training code writes it, copied whole."


@dataclass(frozen=True)
class SailCheckpoint:
    """What a SAIL checkpoint holds.

    Attributes:
        head: shape of the heads, inferred; without dropout, which SAIL does not use.
        image_dim: length of the image features that it takes.
        text_dim: length of the text features that it takes.
        state: for ``AlignmentHeads.load_state_dict``.
        training: the ``checkpoint``'s name and ``epoch``, ``None`` where it does not say.
    """

    head: HeadSection
    image_dim: int
    text_dim: int
    state: dict[str, Tensor]
    training: dict[str, str | int | None]

    def config(self, vision: dict[str, Any], text: dict[str, Any]) -> AlignedConfig:
        """A model's config around these heads and the encoders' infos as dicts."""
        head = self.head.model_dump(mode="json")
        return AlignedConfig(vision=vision, text=text, head=head, training=self.training)


class _Shape(NamedTuple):
    kind: Kind
    in_dim: int
    width: int | None
    dim: int


def read_sail_checkpoint(path: str | Path) -> SailCheckpoint:
    """Read and check a checkpoint of SAIL's released code.

    A ``module.`` before every key (data-parallel training) is dropped. Without ``logit_bias``, as
    InfoNCE needs none, b is 0, which leaves that loss's logits as they were.

    Args:
        path: the torch file.

    Raises:
        ModelError: no such file; objects other than tensors, plain containers and numbers; missing
            or unknown keys; shapes that fit no heads; NaN.
    """
    path = Path(path)
    content = _load(path)
    tensors = _tensors(path, content)
    tensors.setdefault("logit_bias", torch.zeros(()))
    kinds = {side: _kind(path, tensors, side) for side in _SIDES}
    _check_keys(path, tensors, kinds)
    image, text = (_shape(path, tensors, side, kinds[side]) for side in _SIDES)
    head = _settings(path, image, text)
    with torch.device("meta"):
        expected = AlignmentHeads(head, image.in_dim, text.in_dim).state_dict()
    name, epoch = content.get("name"), content.get("epoch")
    return SailCheckpoint(
        head, image.in_dim, text.in_dim, _state(path, tensors, expected),
        {"checkpoint": name if isinstance(name, str) else None,
         "epoch": int(epoch) if isinstance(epoch, int | np.integer) else None},
    )  # fmt: skip


def write_sail_checkpoint(
    path: str | Path, heads: AlignmentHeads, training: Mapping[str, Any]
) -> None:
    """Write heads as SAIL's released code does, with an empty optimiser state.

    Args:
        path: the torch file; whole or not there at all.
        heads: ``glu``, ``mlp`` or ``linear`` heads of depth 1.
        training: where its ``checkpoint`` and ``epoch`` are known, they become name and epoch;
            else the file's own name and 0 do.

    Raises:
        ModelError: the format has no place for such heads.
    """
    state = {_translate(k, _THEIRS): v.detach().cpu() for k, v in heads.state_dict().items()}
    for side in _SIDES:
        if not any(_keys(side, kind) == _of_side(state, side) for kind in _LAYERS):
            raise ModelError(
                f"SAIL's checkpoint format cannot hold this model's {side} head",
                f"It holds heads named {', '.join(_LAYERS)} of depth 1.",
            )
    state.update({name: state[name].reshape(1) for name in _SCALARS})
    path = Path(path)
    name, epoch = training.get("checkpoint") or path.stem, training.get("epoch") or 0
    content = {"epoch": epoch, "name": name, "state_dict": state, "optimizer": {}}
    # Through an open file, because torch would write the temporary name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"there is no file {path}", "Check the path.")
    with path.open("rb"):
        pass  # a file that may not be read is the system's error and not the content's
    # Leaving safe_globals takes its entries away, also those that the program had made before.
    known = torch.serialization.get_safe_globals()
    allowed = [entry for entry in _NUMPY if entry not in known]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols and archives
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # a damaged pickle raises any kind
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise ModelError(
                f"{path} cannot be loaded as tensors alone: it is damaged, no torch file, or holds "
                "other Python objects, which lateen never unpickles",
                _WHOLE,
            ) from error
        raise ModelError(
            f"{path} holds the Python object {foreign[1]}, which lateen does not unpickle, because "
            "that can run code",
            "If you trust its origin, save a dict with only its 'state_dict' with torch.save.",
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), Mapping):
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else ""
        raise ModelError(
            f"{path} is not a SAIL checkpoint: it has no 'state_dict' "
            f"({keys[:100] or type(content).__name__})",
            _WHOLE,
        )
    return content


def _tensors(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, its values checked to be float tensors."""
    state = {str(key): value for key, value in content["state_dict"].items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    for key, value in state.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        if not plain or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"{path}: {key!r} is no dense float tensor ({kind})", _WHOLE)
    return {key: value.detach() for key, value in state.items()}


def _keys(side: str, kind: Kind) -> set[str]:
    """The keys of one side's head."""
    layers = [f"mapping_network.{layer}" for layer in _LAYERS[kind]]
    return {f"{side}_{at}{part}" for at in ("layer_norm.", *layers) for part in ("weight", "bias")}


def _of_side(keys: Iterable[str], side: str) -> set[str]:
    return {key for key in keys if key.startswith(side)}


def _kind(path: Path, keys: Iterable[str], side: str) -> Kind:
    """The kind of head that has most of one side's mapping network."""
    network = {key for key in _of_side(keys, side) if "mapping_network" in key}
    shared = {kind: len(network & _keys(side, kind)) for kind in _LAYERS}
    kind = max(shared, key=lambda k: shared[k])
    if shared[kind] == 0:
        raise ModelError(
            f"{path} is not a SAIL checkpoint: its state_dict has no {side}_mapping_network with "
            f"the layers of a {', '.join(_LAYERS)} head",
            _WHOLE,
        )
    return kind


def _check_keys(path: Path, tensors: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> None:
    expected = [*_SCALARS, *(k for side in _SIDES for k in sorted(_keys(side, kinds[side])))]
    for key in tensors.keys() - set(expected):
        raise ModelError(f"{path} has the unknown key {key!r}", choices(key, expected))
    for key in expected:
        if key not in tensors:
            raise ModelError(f"{path} lacks the key {key!r}", _WHOLE)


def _shape(path: Path, tensors: Mapping[str, Tensor], side: str, kind: Kind) -> _Shape:
    """One side's head as its first and last matrix have it."""
    first, last = (f"{side}_mapping_network.{_LAYERS[kind][at]}weight" for at in (0, -1))
    for key in (first, last):
        if tensors[key].ndim != 2 or tensors[key].numel() == 0:
            raise _misshapen(path, key, tensors[key], "[out, in]")
    (hidden, in_dim), dim = tensors[first].shape, tensors[last].shape[0]
    if kind == "linear":
        return _Shape(kind, in_dim, None, dim)
    if hidden % in_dim:
        raise ModelError(
            f"{path}: {first!r} has shape {[hidden, in_dim]}, whose hidden length is no whole "
            "multiple of its input's",
            _WHOLE,
        )
    return _Shape(kind, in_dim, hidden // in_dim, dim)


def _settings(path: Path, image: _Shape, text: _Shape) -> HeadSection:
    """The one description of both heads, whose kinds may differ."""
    widths = {width for width in (image.width, text.width) if width}  # a linear head has none
    for what, sizes in (("width", widths), ("output length", {image.dim, text.dim})):
        if len(sizes) > 1:
            raise ModelError(
                f"{path}: the {what} of its heads differs: {', '.join(map(str, sorted(sizes)))}",
                "The two heads of a lateen model are alike in it.",
            )
    return HeadSection(
        name=text.kind, vision=None if image.kind == text.kind else image.kind, dim=text.dim,
        width=next(iter(widths), None), depth=1, dropout=0.0,
    )  # fmt: skip


def _state(
    path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors under lateen's names, their shapes and values checked."""
    state = {}
    for key, tensor in tensors.items():
        own = expected[_translate(key, _OURS)]
        scalar = key in _SCALARS and tensor.numel() == 1
        if tensor.shape != own.shape and not scalar:
            raise _misshapen(path, key, tensor, own.shape)
        if not tensor.isfinite().all():
            raise ModelError(
                f"{path}: {key!r} has NaN or infinity in it: its training diverged",
                "Take an earlier checkpoint.",
            )
        state[_translate(key, _OURS)] = tensor.reshape(own.shape)
    return state


def _translate(key: str, prefixes: Mapping[str, str]) -> str:
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _misshapen(path: Path, key: str, tensor: Tensor, shape: Iterable[int] | str) -> ModelError:
    expected = shape if isinstance(shape, str) else list(shape)
    return ModelError(f"{path}: {key!r} has shape {list(tensor.shape)}, not {expected}", _WHOLE)
