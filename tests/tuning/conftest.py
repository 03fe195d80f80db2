"""Photographs that a tiny CLIP is tuned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = 24


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        kind = ("red", "blue")[number % 2]
        colour = np.array([200, 60, 60] if kind == "red" else [60, 60, 200])
        coarse = colour + random.integers(-60, 60, (3, 3, 3))
        pixels = coarse.repeat(8, 0).repeat(8, 1)
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / kind / f"p{number}.png")
    return folder
