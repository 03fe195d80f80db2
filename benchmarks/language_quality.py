"""Does the quality of a language model go with how well it aligns? (METHODS §1.5)

``lateen assess`` on a part of Flickr8k: MobileNetV2 and ViT-Tiny with the layers of MiniLM (trained
for sentences) and of a causal language model (not trained for them), as it is and asked for one
word. Quality is measured on the same captions, without images: whether two captions of one
photograph find each other (R@1). Layers of one network are not independent, so that correlations
are told within each network, and no interval over layers is one over networks.

    python benchmarks/language_quality.py DATA LLM.gguf OUT
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lateen import assess
from lateen.encoders.baselines import bag_of_words

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ONE_WORD = 'This photograph shows: "{}" means in one word:"'


def some_captions(source: Path, target: Path, photographs: int, captions: int) -> Path:
    """A CSV file with the first captions of some photographs, drawn by seed 0."""
    with source.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    by_image: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_image[row["image"]].append(row["caption"])
    names = sorted(by_image)
    chosen = random.Random(0).sample(names, min(photographs, len(names)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        writer.writerows([n, text] for n in sorted(chosen) for text in by_image[n][:captions])
    return target.resolve()


def recipe(data: Path, llm: Path, out: Path, photographs: int, captions: int) -> dict[str, Any]:
    """The assessment's."""
    flickr8k = data / "flickr8k"
    train, dev = (
        some_captions(flickr8k / f"{name}.csv", out / "captions" / f"{name}.csv", count, captions)
        for name, count in (("train", photographs), ("dev", 1000))
    )
    layers = list(range(0, 31, 3))
    model = {"encoder": str(llm.resolve()), "max_tokens": 64, "layer": layers}
    return {
        "precision": "bfloat16",
        "data": {"root": str(data), "images": "flickr8k/images", "train": str(train), "test": str(dev)},
        "vision": [
            {"encoder": "encoders/mobilenet-v2", "pooling": "pooler"},
            {"encoder": "encoders/vit-tiny", "pooling": "cls+mean"},
        ],
        "text": [
            {"name": "MiniLM", "encoder": MINILM, "pooling": "mean", "layer": list(range(7))},
            {"name": "LLM", **model, "pooling": ["mean", "last"]},
            {"name": "LLM one word", **model, "pooling": "last", "prompt": ONE_WORD},
            {"name": "MiniLM untrained", "encoder": MINILM, "pooling": "mean", "untrained": True},
            {"encoder": f"{bag_of_words.__module__}:{bag_of_words.__name__}", "baseline": True},
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with flickr8k and encoders")
    parser.add_argument("llm", type=Path, help="GGUF file of a language model of 30 layers")
    parser.add_argument("out", type=Path)
    parser.add_argument("--photographs", type=int, default=2000, help="to train probes on")
    parser.add_argument("--captions", type=int, default=2, help="of each photograph")
    given = parser.parse_args()
    plan = recipe(given.data, given.llm, given.out, given.photographs, given.captions)
    results = assess(plan, given.out / "assessment")
    for one in results["text"]:
        print(one["label"], one.get("caption_retrieval"), one["counted"])


if __name__ == "__main__":
    main()
