"""What suits how many pairs: presets `small` and `auto`, and ridges of the closed form.

    python benchmarks/pairs.py --images STORE --texts STORE
    python benchmarks/pairs.py --images STORE --texts STORE --ridges

A tenth of the images is held out and judges; every seed draws its own pairs from the rest. The
last step is judged, so that nothing is chosen on what judges. With --ridges the closed form stands
alone, and its two ridges are written as what `auto` multiplies with: features per row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

from lateen.experiment import train
from lateen.features import Pairs, pair
from lateen.metrics.retrieval import mean_recall

HELD_OUT, WHICH = 0.1, 12345
FACTORS = (1.0, 4.0, 8.0, 16.0)


def recalls(pairs: Pairs, judged: Pairs, **settings: Any) -> tuple[float, float]:
    """Mean over R@1, R@5 and R@10 both ways, and mean R@10, after the last step."""
    model = train(pairs, validation=judged, validations=1, checkpoints=1, **settings)
    metrics = (model.config.training or {})["validation"]
    return mean_recall(metrics), mean_recall(metrics, (10,))


def main() -> None:
    """Print a line per number of pairs and setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--pairs", type=int, nargs="+", default=[300, 1000, 2500, 5400])
    parser.add_argument("--seeds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--ridges", action="store_true", help="of the closed form alone")
    options = parser.parse_args()
    rest, judged = pair(options.images, options.texts).holdout(HELD_OUT, WHICH)
    for count in options.pairs:
        settings: dict[str, dict[str, Any]] = {name: {"preset": name} for name in ("small", "auto")}
        if options.ridges:
            rows = sum(len(column.rows) for column in rest.texts) / len(rest) * count
            per_row = rest.image.dim / count, rest.texts[0].store.dim / rows
            settings = {
                f"{image:g}, {text:g}": {
                    "preset": "small", "epochs": 0, "cca": 1.0,
                    "cca_ridge": (image * per_row[0], text * per_row[1]),
                }
                for image in FACTORS for text in FACTORS
            }  # fmt: skip
        for name, given in settings.items():
            measured = [
                recalls(rest.draw(count, seed), judged, seed=seed, **given)
                for seed in range(options.seeds)
            ]
            both = " / ".join(f"{mean(values):.1f}" for values in zip(*measured, strict=True))
            each = ", ".join(f"{r10:.1f}" for _, r10 in measured)
            print(f"{count:,} pairs, {name}: mean R@1/5/10 and R@10 {both} (R@10: {each})")


if __name__ == "__main__":
    main()
