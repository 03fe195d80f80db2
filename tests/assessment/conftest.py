"""A small world to assess: an album, a class folder, and encoders that see some or none of it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import toys


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """60 pictures with captions below ``album``, the same by colour below ``classes``."""
    album = toys.album(tmp_path / "album", 60)
    for index, colour in enumerate(list(toys.COLOURS) * 10):
        place = tmp_path / "classes" / colour / f"{index:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(album / "images" / f"{index:03d}.png", place)
    return tmp_path


@pytest.fixture
def plan(world: Path, vit_folder: Path, bert_folder: Path) -> dict[str, Any]:
    """Two views of a tiny ViT and an encoder of colours, with a tiny BERT and one of words."""
    return {
        "data": {"root": str(world), "train": "album/train.jsonl", "images": "album/images",
                 "holdout": 0.25},
        "labelled": "classes",
        "vision": [
            {"encoder": str(vit_folder), "pooling": ["cls", "cls+mean"], "name": "vit"},
            {"encoder": "toys:colour_encoder"},
        ],
        "text": [
            {"encoder": str(bert_folder), "pooling": "mean", "layer": [1, None], "name": "bert"},
            {"encoder": "toys:word_encoder", "score": 7},
        ],
        "probe": {"head": {"dim": 8}, "train": {"batch": 16, "epochs": 4, "lr": 0.01}},
        "measure": {"k": 3, "knn": [3, 5], "resamples": 100, "svcca_dim": 2},
    }  # fmt: skip
