"""What shuffling by blocks costs in quality, on data in the worst order.

    python benchmarks/shuffle.py --images STORE --texts STORE --held-images STORE --held-texts STORE

Images are put in the order of their projection on the first principal component of their features,
so that neighbours look alike, as in data sorted by class or day, and heads are trained with blocks
of several sizes; retrieval on the held-out stores is compared. Beside it: the share of an image's
companions in a batch that are of its own block, and the greatest deviation from uniform of where in
an epoch an image comes (Kolmogorov-Smirnov over 2,000 epochs; 1.36 / sqrt(2000) = 0.030 is what a
perfect shuffle exceeds once in twenty times).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from lateen.experiment.recipe import Recipe
from lateen.features import Pairs, pair
from lateen.training.batches import shuffled
from lateen.training.loop import train

EPOCHS = 2000


def alike_together(pairs: Pairs) -> Pairs:
    """The same pairs, neighbours looking alike."""
    features = pairs.image_features(slice(None))
    _, _, directions = torch.pca_lowrank(features, q=1)
    return pairs.take((features @ directions[:, 0]).argsort().numpy())


def deviation(count: int, block: int) -> float:
    """Kolmogorov-Smirnov distance from uniform of the place of the middle image in an epoch."""
    random = np.random.default_rng(0)
    places = [
        np.flatnonzero(shuffled(count, block, random) == count // 2)[0] for _ in range(EPOCHS)
    ]
    steps = np.arange(EPOCHS + 1) / EPOCHS
    values = np.sort(places) / count
    return float(max(np.abs(values - steps[1:]).max(), np.abs(values - steps[:-1]).max()))


def main() -> None:
    """Print a line per block size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in ("--images", "--texts", "--held-images", "--held-texts"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 8, 64, 256, 512])
    parser.add_argument("--seeds", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args()
    pairs = alike_together(pair(options.images, options.texts))
    held = pair(options.held_images, options.held_texts)
    for block in options.blocks:
        recalls = []
        for seed in range(options.seeds):
            recipe = Recipe.build({"train": {"block": block, "seed": seed, "cca": 0.0}})
            with tempfile.TemporaryDirectory() as out:
                result = train(pairs, validation=held, head=recipe.head, settings=recipe.train,
                               out=Path(out))  # fmt: skip
            assert result.best_metrics is not None
            ways = ("text_to_image", "image_to_text")
            recalls.append(np.mean([result.best_metrics[way]["R@10"] for way in ways]))
        companions = min(block, recipe.train.batch) - 1
        print(
            f"block {block:4}: mean R@10 {np.mean(recalls):.1f} (seeds "
            f"{', '.join(f'{recall:.1f}' for recall in recalls)}); of its own block are "
            f"{companions / (recipe.train.batch - 1):.1%} of an image's companions; deviation of "
            f"places {deviation(len(pairs), block):.3f}"
        )


if __name__ == "__main__":
    main()
