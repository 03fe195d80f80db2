"""Small checkpoints as SAIL's released code writes them."""

from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]
DIM = 3
LAYERS = {"glu": {"f1": "up", "f2": "up", "g": "down"}, "mlp": {"proj.0": "up", "proj.2": "down"}}


def side(name: str, kind: str, in_dim: int, width: int) -> State:
    """One head of kind ``kind`` under SAIL's keys."""
    state = {f"{name}_layer_norm.{part}": torch.randn(in_dim) for part in ("weight", "bias")}
    network, hidden = f"{name}_mapping_network", width * in_dim
    if kind == "linear":
        sizes = {network: (DIM, in_dim)}
    else:
        way = {"up": (hidden, in_dim), "down": (DIM, hidden)}
        sizes = {f"{network}.{layer}": way[to] for layer, to in LAYERS[kind].items()}
    for layer, size in sizes.items():
        state |= {f"{layer}.weight": torch.randn(size), f"{layer}.bias": torch.randn(size[0])}
    return state


def released(
    image: str = "glu", text: str | None = None, widths: tuple[int, int] = (2, 2)
) -> State:
    torch.manual_seed(0)
    return {
        "logit_scale": torch.tensor([3.0]), "logit_bias": torch.tensor([-9.0]),
        **side("vision", image, 6, widths[0]), **side("text", text or image, 6, widths[1]),
    }  # fmt: skip


def write(path: Path, state: object, **more: object) -> Path:
    torch.save({"epoch": 7, "name": "run", "state_dict": state, "optimizer": {}, **more}, path)
    return path
