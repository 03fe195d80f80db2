"""Lateen's own prompts against the published ones, on the same images: paired differences.

    python benchmarks/prompts.py MODEL IMAGES...

Published prompts are read from open_clip and CLIP_benchmark (pip install --no-deps open_clip_torch
clip-benchmark).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lateen import AlignedModel
from lateen.data.published import PUBLISHED
from lateen.evaluation import evaluate
from lateen.evaluation.intervals import paired_difference, redrawn
from lateen.evaluation.tasks.classification import classification_statistics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="class folders")
    given = parser.parse_args()
    model = AlignedModel.from_pretrained(given.model)
    for images in given.images:
        results = {
            name: evaluate(model, "classification", images=images, templates=name)
            for name in (None, *PUBLISHED)
        }
        draws = {name: redrawn(each, classification_statistics) for name, each in results.items()}
        for name, each in results.items():
            line = (
                f"{images.name:20} {len(each['templates']):3} prompts, {each['templates_from']}: "
            )
            for number in ("top1", "mean_per_class"):
                own, other = draws[None], draws[name]
                line += f" {number} {each[number]:.1f}"
                if name is not None and own is not None and other is not None:
                    low, high = paired_difference(other[number], own[number]).interval
                    gain = each[number] - results[None][number]
                    line += f" ({gain:+.1f}, {low:+.1f} to {high:+.1f})"
            print(f"{line}, n = {each['images']}", flush=True)


if __name__ == "__main__":
    main()
