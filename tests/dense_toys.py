"""A model that sees colours patch by patch, and street scenes made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import toys
from PIL import Image
from torch.nn import functional as F

from lateen.model import AlignedModel
from lateen.model.config import AlignedConfig

NAMES = list(toys.COLOURS)


class PatchColours:
    """Per patch of 4 pixels, which of the colours is nearest: one of six values is 1."""

    def __init__(self) -> None:
        self.info = toys.ColourEncoder().info
        self._palette = torch.tensor(list(toys.COLOURS.values()), dtype=torch.float32)

    def prepare(self, items: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [torch.from_numpy(np.asarray(item, np.float32)).permute(2, 0, 1) for item in items]

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        patches = F.avg_pool2d(torch.stack(list(prepared)), 4).flatten(2).transpose(1, 2)
        return F.one_hot(torch.cdist(patches, self._palette).argmin(-1), len(NAMES)).float()

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.encode_patches(prepared).mean(1)


class Collapsed(PatchColours):
    """The same for every patch."""

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.ones_like(super().encode_patches(prepared))


def model(vision: object | None = None) -> AlignedModel:
    """Identity heads: one-hot patches meet one-hot words."""
    seen, words = vision or PatchColours(), toys.WordEncoder()
    head = {"name": "identity", "vision": "identity", "dim": len(NAMES), "dropout": 0.0}
    config = AlignedConfig(vision=seen.info.as_dict(), text=words.info.as_dict(), head=head)
    made = AlignedModel(config)
    made.set_encoders(seen, words)
    return made.eval()


def stripes(root: Path, count: int = 3, names: Sequence[str] = NAMES) -> dict[str, Path]:
    """64 × 32 pictures of two colours side by side, a third below both; masks, class names."""
    (root / "classes.txt").parent.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    palette = np.array(list(toys.COLOURS.values()), np.uint8)
    for index in range(count):
        labels = np.full((32, 64), index % 6, np.uint8)
        labels[:, 32:] = (index + 1) % 6
        labels[16:] = (index + 2) % 6
        for folder, picture in (("images", palette[labels]), ("masks", labels)):
            (root / folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(root / folder / f"{index}.png")
    return {name: root / name for name in ("images", "masks")} | {"classes": root / "classes.txt"}


SMALL = {"short_side": 32, "window": 16, "stride": 8}
