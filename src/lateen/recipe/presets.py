"""Whole sets of values, of a paper or for a size of data, that go beneath those given."""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["small", "sail", "probe", "probe-small", "linear-infonce", "sharelock", "lit"]

_LION_AT_SCALE = {
    "cca": 0.0, "optimizer": "lion", "lr": 1e-5, "betas": (0.9, 0.99), "batch": 32768,
    "epochs": 100, "warmup": 0.1, "clip_norm": None, "precision": "auto",
}  # fmt: skip
_SAIL_LOSS = {"loss": "sigmoid", "normalization": "batch_squared", "positives": "sum"}

# METHODS §1.4 and §1.7. `small` is what `lateen run` uses where nothing else is said. sharelock's
# values are those of its authors' configuration, for some 560,000 pairs.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "small": {},
    "sail": {
        "head": {"name": "glu", "dim": 1024, "width": 8, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, **_SAIL_LOSS, "weight_decay": 1e-4, "micro_batch": 1024},
    },
    "probe": {
        "head": {"name": "linear", "dim": 2048, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, **_SAIL_LOSS, "weight_decay": 1e-7},
    },
    # The heads and loss of `probe` with steps for thousands of pairs: a second or two for
    # 6,000 images, within a point or two of R@10 of four times as many epochs.
    "probe-small": {
        "head": {"name": "linear", "dim": 256, "dropout": 0.3, "text_dropout": 0.1},
        "train": {
            "cca": 0.0, "lr": 5e-3, "batch": 512, "epochs": 15, "validations": 1, "checkpoints": 1,
        },
    },
    "linear-infonce": {
        "head": {"name": "linear", "dim": 1024, "dropout": 0.0},
        "train": {**_LION_AT_SCALE, "loss": "infonce", "weight_decay": 1e-4},
    },
    "sharelock": {
        "head": {"name": "sharelock", "dropout": 0.0},
        "train": {
            "loss": "infonce", "optimizer": "adamw", "lr": 1e-3, "weight_decay": 1e-4,
            "betas": (0.9, 0.999), "batch": 16384, "epochs": 145, "warmup": 0.03, "clip_norm": 1.0,
            "precision": "auto",
        },
    },
    # LiT's method (locked image side, softmax loss) at the size of a small machine.
    "lit": {
        "text": {"train": True},
        "head": {"name": "linear", "vision": "identity", "dropout": 0.5},
        "train": {
            "loss": "infonce", "optimizer": "adamw", "lr": 3e-3, "tower_lr": 5e-5, "batch": 256,
            "micro_batch": 128, "epochs": 8, "init_scale": 50.0, "validations": 4, "checkpoints": 4,
        },
    },
}  # fmt: skip
