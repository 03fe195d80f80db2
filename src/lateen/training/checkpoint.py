"""The state of a training run in one safetensors file that is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lateen.errors import TrainingError
from lateen.files import atomic_path, canonical_json

_FORMAT = "lateen-training"
_VERSION = 1


# A single metadata key: safetensors does not promise an order among several, and equal states must
# give equal bytes.
_METADATA = "lateen"
_TENSORS = ("heads", "best", "optimizer")
_VALUES = ("identity", "step", "finished", "best_step", "best_metrics", "refits")


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on exactly, or, once finished, its result.

    Attributes:
        identity: settings and data keys; only an equal run may go on from it.
        step: steps done.
        finished: whether that was the last one; then ``heads`` are the best ones.
        best_step: the step of the best heads; 0 if there was no validation yet.
        best_metrics: their validation retrieval.
        heads: parameters by name.
        best: parameters of the best heads; empty if there was no validation yet or it is finished.
        optimizer: its state, by parameter index and name (``0.exp_avg``).
        refits: whether t and b may be fitted again at the end. What an earlier version has finished
            stays as it was, so that its model keeps its key.
    """

    identity: Mapping[str, Any]
    step: int
    finished: bool
    best_step: int
    best_metrics: Mapping[str, Any] | None
    heads: Mapping[str, Tensor]
    best: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    refits: bool = True


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all; equal states give equal bytes."""
    tensors = {
        f"{group}.{name}": tensor.detach().cpu().contiguous()
        for group in _TENSORS
        for name, tensor in getattr(checkpoint, group).items()
    }
    values = {name: getattr(checkpoint, name) for name in _VALUES}
    header = canonical_json({"format": _FORMAT, "version": _VERSION, **values})
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_METADATA: header})


def load_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read the checkpoint in ``path``; ``None`` if there is none.

    Raises:
        TrainingError: the file is damaged, or belongs to other settings or data (naming them).
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[_METADATA])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if (header.pop("format"), header.pop("version")) != (_FORMAT, _VERSION):
            raise ValueError("another format or version")
        groups: dict[str, dict[str, Tensor]] = {group: {} for group in _TENSORS}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        checkpoint = Checkpoint(
            **{"refits": False, **header},
            heads=groups["heads"], best=groups["best"], optimizer=groups["optimizer"],
        )  # fmt: skip
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{path} is not a whole training checkpoint ({error!r})",
            "Remove it to train anew, or choose another --out.",
        ) from error
    _check_identity(path, checkpoint.identity, identity)
    return checkpoint


def _check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    there, here = _flat(found), _flat(wanted)
    names = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if names:
        shown = "; ".join(f"{n}: {_short(there.get(n))} there, {_short(here.get(n))} now"
                          for n in names[:3])  # fmt: skip
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise TrainingError(
            f"{path.parent} holds a training with other settings or data ({shown}{more})",
            f"Choose another --out, or remove {path} to replace it.",
        )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": v for section, part in values.items() for name, v in part.items()}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by parameter index and name, such as ``0.exp_avg``."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": tensor for i, values in state.items() for name, tensor in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put :func:`optimizer_tensors` back into an optimiser of the same parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = _laid_out(tensor, parameters[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _laid_out(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A state with its parameter's order in memory, as of a convolution with channels last.

    A file has its values in their own order, and torch's fused AdamW takes the values of parameter
    and state as they lie, whatever their strides say.
    """
    if tensor.shape != parameter.shape or tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
