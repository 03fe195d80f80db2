"""Small feature stores: images with captions that point, noisily, the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from lateen.features import Description, Pairs, Store, StoreWriter, pair

MakePairs = Callable[..., Pairs]


def write_store(
    folder: Path, modality: str, features: torch.Tensor, ids: Sequence[str], column: str | None
) -> Store:
    description = Description(
        modality, features.shape[1], {"id": "test"}, "0" * 64, "test", "test", column, "float32"
    )
    writer = StoreWriter(folder, description)
    writer.write(features, ids, [], len(ids))
    writer.finish()
    return Store.open(folder)


@pytest.fixture
def make_pairs(tmp_path: Path) -> MakePairs:
    """``make_pairs(counts, seed=, columns=)``: one image per count, with so many captions.

    Feature 0 of an image is its index / 100 and feature 0 of a caption that + turn / 10, so that
    a test can see what was put together.
    """

    def make(counts: Sequence[int], *, seed: int = 0, columns: int = 1, name: str = "a") -> Pairs:
        generator = torch.Generator().manual_seed(seed)
        latent = torch.randn(len(counts), 6, generator=generator)
        ids = [f"{name}{i:03d}" for i in range(len(counts))]
        index = torch.arange(len(counts)).float()[:, None] / 100
        image = torch.cat([index, latent @ torch.randn(6, 11, generator=generator)], 1)
        images = write_store(tmp_path / f"{name}-image", "image", image, ids, None)
        mix = torch.randn(6, 7, generator=generator)
        owners = [i for i, count in enumerate(counts) for _ in range(count)]
        turns = torch.tensor([turn for count in counts for turn in range(count)])[:, None] / 10
        texts = []
        for column in range(columns):
            noise = 0.1 * torch.randn(len(owners), 7, generator=generator)
            text = torch.cat([index[owners] + turns, latent[owners] @ mix + noise], 1)
            texts.append(
                write_store(
                    tmp_path / f"{name}-text{column}", "text", text, [ids[i] for i in owners],
                    f"column{column}",
                )
            )  # fmt: skip
        return pair(images, *texts)

    return make
