"""Photographs, tiny models and settings that the tests of tuning share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tune_toys import TINY

from lateen.encoders import Encoder, load_encoder
from lateen.hardware import use_hardware
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads
from lateen.tuning import Tuned, TuneRecipe, tune
from lateen.tuning.preparation import Preparation

IMAGES = 24


def photographs(folder: Path, count: int = IMAGES, size: tuple[int, int] = (3, 3)) -> Path:
    """Pictures of two classes, each in a folder of its own, of so many squares of 8 pixels."""
    random = np.random.default_rng(0)
    for number in range(count):
        kind = ("red", "blue")[number % 2]
        colour = np.array([200, 60, 60] if kind == "red" else [60, 60, 200])
        coarse = colour + random.integers(-60, 60, (size[1], size[0], 3))
        pixels = coarse.repeat(8, 0).repeat(8, 1)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / kind / f"p{number}.png")
    return folder


def values_of(**settings: Any) -> dict[str, Any]:
    """Settings for a tuning of seconds; others by name, with ``__`` for the dot."""
    return {
        **TINY, "precision": "float32",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }  # fmt: skip


def tuned(model: Path, target: Path | str, images: Path, out: Path, **settings: Any) -> Tuned:
    return tune(model, str(target), images, out=out, settings=values_of(**settings))


def prepared(model: Path, target: Path | str, images: Path, **settings: Any) -> Preparation:
    given = {"model": str(model), "target.encoder": str(target), "images": str(images)}
    plan = TuneRecipe.above(None, {**given, **values_of(**settings)})
    with plan.on_hardware(), use_hardware(precision="float32"):
        return Preparation.of(plan)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """A cache for what a whole module's tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATEEN_CACHE", str(folder))
        yield


def resnet(folder: Path) -> Path:
    """A convolution whose running statistics are not those of its start."""
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    model = ResNetModel(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
    model.save_pretrained(folder)
    ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(folder)
    return folder


def students(place: Path, clip: Path, siglip: Path, vit: Path, bert: Path) -> dict[str, Path]:
    """Folders of a model of every kind that has a tower to tune, by name."""
    sides = {
        "vit": load_encoder(str(vit), "image", pooling="cls+mean"),
        "conv": load_encoder(str(resnet(place / "resnet")), "image", pooling="mean"),
        "clip tower": load_encoder(str(clip), "image", pooling="projection"),
        "clip pooler": load_encoder(str(clip), "image", pooling="pooler"),
    }
    made = {name: aligned(place / name, side, bert) for name, side in sides.items()}
    bare = load_encoder(str(vit), "image", pooling="cls")
    made["bare"] = aligned(place / "bare", bare, bert, kind="identity")
    return {"clip": clip, "siglip": siglip, **made}


def aligned(folder: Path, vision: Encoder, text: Path, dim: int = 8, kind: str = "linear") -> Path:
    """The folder of an AlignedModel with random heads."""
    words = load_encoder(str(text), "text", pooling="mean")
    identity = kind == "identity"
    head = HeadSection.model_validate(
        {"name": kind, "vision": kind, "dim": vision.info.dim if identity else dim, "dropout": 0.3}
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        heads = AlignmentHeads(head, vision.info.dim, words.info.dim)
    model = AlignedModel.build(
        heads, vision.info.as_dict(), words.info.as_dict(), head.model_dump()
    )
    model.set_encoders(vision, words)
    model.save_pretrained(folder)
    return folder
