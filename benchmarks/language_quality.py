"""Does the quality of a language model go with how well it aligns? (METHODS §1.5)

An assessment of image features that are there with the layers of MiniLM (trained for sentences) and
of a causal language model (not trained for them), as it is and asked for one word, on a part of the
captions. Quality is measured on the same captions, without images: whether two captions of one
photograph find each other (R@1). Layers of one network are not independent: correlations are told
within each network, and no interval over layers is one over networks.

    python benchmarks/language_quality.py CAPTIONS.csv LLM.gguf OUT IMAGE_STORE...
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from lateen import assess_stores
from lateen.data import open_dataset
from lateen.encoders import Encoder, EncoderOptions, load_encoder, load_views
from lateen.experiment.stages import view_stores
from lateen.features import Store

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
ONE_WORD = 'This photograph shows: "{}" means in one word:"'  # PromptEOL (arXiv:2307.16645)
LLM_LAYERS = range(0, 31, 3)


def some_captions(source: Path, target: Path, photographs: int, captions: int) -> Path:
    """A CSV file with the first captions of some photographs, drawn by seed 0."""
    by_image: dict[str, list[str]] = defaultdict(list)
    with source.open(newline="") as stream:
        for row in csv.DictReader(stream):
            by_image[row["image"]].append(row["caption"])
    chosen = sorted(random.Random(0).sample(sorted(by_image), photographs))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "caption"])
        writer.writerows([name, text] for name in chosen for text in by_image[name][:captions])
    return target


def candidates(llm: Path) -> Iterator[tuple[str, list[Encoder]]]:
    """Text encoders by the network that they are of; views of one network are run together."""
    options = EncoderOptions(precision="bfloat16", max_tokens=64)
    views = [(pooling, layer) for pooling in ("mean", "last") for layer in LLM_LAYERS]
    yield "bag of words", [load_encoder("lateen.encoders.baselines:bag_of_words")]
    yield "MiniLM", load_views(MINILM, "text", [("mean", layer) for layer in range(7)], options)
    untrained = EncoderOptions(precision="bfloat16", max_tokens=64, untrained=True)
    yield "MiniLM untrained", load_views(MINILM, "text", [("mean", None)], untrained)
    yield "LLM", load_views(str(llm), "text", views, options)
    asked = EncoderOptions(precision="bfloat16", max_tokens=64, prompt=ONE_WORD)
    one_word = [("last", layer) for layer in LLM_LAYERS]
    yield "LLM, one word", load_views(str(llm), "text", one_word, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="CSV file with the columns image and caption")
    parser.add_argument("llm", type=Path, help="GGUF file of a language model of 30 layers")
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=Path, nargs="+", help="stores of the images' features")
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--holdout", type=float, default=0.4, help="share of them to judge on")
    given = parser.parse_args()
    file = some_captions(given.captions, given.out / "captions.csv", given.photographs, 2)
    stores: list[Store] = []
    for network, encoders in candidates(given.llm):
        dataset = open_dataset(file, images=given.captions.parent / "images")
        made = view_stores(dataset, encoders, "float16", given.out / network, "text", "caption")
        stores += made
        print(network, len(made), "candidates", flush=True)
    assess_stores(given.images, stores, given.out / "assessment", holdout=given.holdout,
                  missing="drop")  # fmt: skip


if __name__ == "__main__":
    main()
