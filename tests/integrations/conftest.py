"""A model of small encoders in the real format, for the doors that take such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.encoders import Encoder, load_encoder
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads


def small_model(vit: Path, bert: Path, **text: Any) -> AlignedModel:
    """A model of a small ViT and a small BERT, in float32, with linear heads of eight values."""
    sides = {
        "vision": load_encoder(str(vit), "image", pooling="cls", precision="float32"),
        "text": load_encoder(str(bert), "text", **{"pooling": "mean", **text}, precision="float32"),
    }
    return built(sides["vision"], sides["text"])


def built(images: Encoder, texts: Encoder, loss: str = "sigmoid", **head: Any) -> AlignedModel:
    """A model of two encoders with untrained heads, and statistics of batches that are not 0."""
    torch.manual_seed(0)
    settings = HeadSection(dropout=0.0, **{"dim": 8, **head})
    heads = AlignmentHeads(settings, images.info.dim, texts.info.dim)
    for module in heads.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    model = AlignedModel.build(
        heads, images.info.as_dict(), texts.info.as_dict(), settings.model_dump(mode="json"),
        training={"loss": loss},
    )  # fmt: skip
    model.set_encoders(images, texts)
    return model


@pytest.fixture
def small(vit_folder: Path, bert_folder: Path) -> AlignedModel:
    return small_model(vit_folder, bert_folder)


@pytest.fixture
def odd_images(tmp_path: Path) -> list[Path]:
    """Pictures as people have them: CMYK, turned by EXIF, palette, grey, 1 × 1."""
    from PIL import Image

    folder = tmp_path / "odd"
    folder.mkdir()
    noise = torch.randint(0, 255, (30, 40, 3), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(noise.byte().numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "plain.png")
    image.save(folder / "turned.jpg", exif=exif)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png", transparency=3)
    image.convert("L").save(folder / "grey.png")
    image.resize((1, 1)).save(folder / "one.png")
    return sorted(folder.iterdir())
