"""Twenty-line fakes that several tests share: encoders of colour and of colour words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lateen.encoders import EncoderInfo

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (250, 250, 250),
           "black": (5, 5, 5), "yellow": (255, 255, 0)}  # fmt: skip


class ColourEncoder:
    """The mean colour of an image, and its square: six values."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="toys:colour_encoder", modality="image", dim=6, pooling="mean", weights="v1",
        )  # fmt: skip

    def prepare(self, items: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.asarray(i, np.float32).mean((0, 1)) / 255) for i in items]

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        mean = torch.stack(list(prepared))
        return torch.cat([mean, mean**2], dim=1)


class WordEncoder:
    """Which colour words a text has."""

    def __init__(self) -> None:
        self.info = EncoderInfo(
            id="toys:word_encoder", modality="text", dim=len(COLOURS), pooling="mean", weights="v1",
        )  # fmt: skip

    def prepare(self, items: Sequence[str]) -> list[str]:
        return list(items)

    def encode(self, prepared: Sequence[str]) -> torch.Tensor:
        return torch.tensor([[float(word in text) for word in COLOURS] for text in prepared])


def colour_encoder() -> ColourEncoder:
    return ColourEncoder()


def word_encoder() -> WordEncoder:
    return WordEncoder()


def photo(path: Path, colour: str, seed: int = 0) -> Path:
    """A small noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 12, (12, 16, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def album(root: Path, count: int = 24) -> Path:
    """``images/`` and ``train.jsonl``: pictures of one colour with two captions each."""
    rows = []
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        photo(root / "images" / f"{i:03d}.png", colour, seed=i)
        captions = [f"a {colour} picture", f"{colour} number {i}"]
        rows.append(json.dumps({"image": f"{i:03d}.png", "caption": captions}))
    (root / "train.jsonl").write_text("\n".join(rows) + "\n")
    return root


def painted(path: Path, shade: tuple[int, int, int], seed: int = 0) -> Path:
    """A picture of a shade that fades to one side, with noise: no two have like features."""
    fade = np.linspace(0.3, 1, 40)[None, :, None]
    noise = np.random.default_rng(seed).normal(0, 25, (32, 40, 3))
    pixels = np.clip(np.array(shade) * fade + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
