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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from lateen import assess_stores
from lateen.assessment.data import from_stores
from lateen.assessment.measure import caption_ranks
from lateen.assessment.probing import probe_pair
from lateen.assessment.recipe import ProbeSection
from lateen.data import open_dataset
from lateen.encoders import Encoder, EncoderOptions, load_encoder, load_views
from lateen.experiment.stages import view_stores
from lateen.features import Store
from lateen.metrics import RecallHits, bootstrap_scores, percentile_interval
from lateen.metrics.resampling import Tally, drawn_scores, interval_of

Array = np.ndarray[Any, Any]
DRAWS = 2000
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
    # As an embedding, the prompt's last token is the same for all texts.
    one_word = [("last", layer) for layer in LLM_LAYERS[1:]]
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
    networks: list[str] = []
    for network, encoders in candidates(given.llm):
        dataset = open_dataset(file, images=given.captions.parent / "images")
        made = view_stores(dataset, encoders, "float16", given.out / network, "text", "caption")
        stores += made
        networks += [network] * len(made)
        print(network, len(made), "candidates", flush=True)
    folder = given.out / "assessment"
    assess_stores(given.images, stores, folder, holdout=given.holdout, missing="drop")
    tell(networks, given.images, stores, folder, given.holdout)


def tell(
    networks: Sequence[str], images: Sequence[Path], stores: Sequence[Store], folder: Path,
    holdout: float,
) -> None:  # fmt: skip
    """Print quality beside alignment, and how they go together, all in the same draws of images."""
    opened = [Store.open(path) for path in images]
    data = from_stores(opened, stores, labels=None, holdout=holdout, missing="drop", seed=0)
    recipe = ProbeSection().recipe(len(data.train[0][0]))
    network_of = {store.path: network for network, store in zip(networks, stores, strict=True)}
    for vision, train, judged in zip(data.vision, data.train, data.judged, strict=True):
        units = len(judged[0])
        hits, found, groups = [], {}, []
        for text, learned, pairs in zip(data.text, train, judged, strict=True):
            hits.append(probe_pair(learned, pairs, recipe, folder / "results").hits)
            ranks = caption_ranks(pairs.texts[0])
            assert ranks is not None
            found[text.label] = Tally(np.tile(np.arange(units), 2), ranks.numpy() == 1)
            groups.append(f"{network_of[text.stores['all'][0].path]}, {text.pooling}")
        aligned = bootstrap_scores(hits, resamples=DRAWS)
        quality = drawn_scores(found, units, resamples=DRAWS)
        whole = np.ones((1, units))
        print(f"{vision.label}, {units} images: caption R@1, mean R@10")
        points, drawn = [], np.stack(list(quality.values()))
        for text, group, each, *scores in zip(data.text, groups, hits, drawn, aligned, strict=True):
            points.append((float(found[text.label].drawn(whole)[0]), recall(each)))
            limits = (
                interval_of(found[text.label], scores[0], units, 0.95),
                percentile_interval(scores[1], 0.95),
            )
            told = [
                f"{value:5.1f} ({low:.1f} to {high:.1f})"
                for value, (low, high) in zip(points[-1], limits, strict=True)
            ]
            print(f"{group:24} layer {text.layer!s:4}", *told)
        tell_correlations(groups, np.array(points), drawn, aligned)
        tell_best(groups, np.array(points), aligned)


def recall(hits: RecallHits) -> float:
    """R@10 in percent, mean of both directions."""
    ways = (sum(hits.text_to_image["R@10"]) / sum(hits.captions),
            sum(hits.image_to_text["R@10"]) / len(hits.captions))  # fmt: skip
    return 50 * sum(ways)


def tell_correlations(groups: Sequence[str], points: Array, quality: Array, aligned: Array) -> None:
    """Rank correlation over the layers of each network and pooling. Its interval is of images drawn
    anew, for these layers alone: of other networks it says nothing."""
    for group in dict.fromkeys(groups):
        rows = [index for index, other in enumerate(groups) if other == group]
        if len(rows) < 5:
            continue
        own = spearmanr(points[rows, 0], points[rows, 1]).statistic
        again = [
            spearmanr(x, y).statistic for x, y in zip(quality[rows].T, aligned[rows].T, strict=True)
        ]
        low, high = percentile_interval(np.array(again), 0.95)
        print(f"{group}: {len(rows)} layers, rank correlation {own:.2f} ({low:.2f} to {high:.2f})")


def tell_best(groups: Sequence[str], points: Array, aligned: Array) -> None:
    """The layer of each network that aligns best, and the one of the best quality, against the best
    of all: paired differences of R@10."""
    best = int(points[:, 1].argmax())
    for group in dict.fromkeys(groups):
        rows = [index for index, other in enumerate(groups) if other == group]
        for what, column in (("quality", 0), ("alignment", 1)):
            index = max(rows, key=lambda row: points[row, column])
            low, high = percentile_interval(aligned[index] - aligned[best], 0.95)
            print(f"{group}, best by {what}: caption R@1 {points[index, 0]:.1f}, R@10 "
                  f"{points[index, 1]:.1f}; to the best {points[index, 1] - points[best, 1]:+.1f} "
                  f"({low:+.1f} to {high:+.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
