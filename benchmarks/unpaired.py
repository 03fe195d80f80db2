"""What images without captions and texts without images add to a few pairs.

    python benchmarks/unpaired.py RUN                      # of `lateen run recipes/flickr8k.yaml`
    python benchmarks/unpaired.py RUN --choose --pairs 1000 --weights 0.3,1,3

RUN is the folder of a run whose recipe had a test split. Some training photographs keep their
captions; of the rest one half gives images and the other half captions, so that no caption is of an
unpaired image. All pairs are trained on, with preset small (auto has other ridges and another
share), and the last step is
judged: mean R@10 on the test split, or with --choose on a tenth of the training photographs, which
then train nothing.

Controls: "own" has the transport loss on the pairs' own images and captions, so no further data;
"noise" has unpaired texts each of whose values is that of another, random text.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lateen.experiment.recipe import Recipe
from lateen.features import Pairs, Store, StoreRows, StoreWriter, pair
from lateen.training.canonical import RIDGES
from lateen.training.loop import train
from lateen.training.unpaired import Unpaired
from lateen.training.validation import validate

Rows = tuple[StoreRows | None, StoreRows | None]


def split(run: Path, name: str) -> Pairs:
    """A split's image store and its first text store."""
    stores = run / "stores"
    return pair(next(stores.glob(f"{name}-vision-*")), next(stores.glob(f"{name}-text-*")))


def divided(pool: Pairs, count: int, seed: int) -> tuple[Pairs, Pairs, Pairs]:
    """Pairs, and the photographs that give images and captions."""
    order = np.random.default_rng([seed, count]).permutation(len(pool))
    half = (len(pool) - count) // 2
    parts = np.split(order, [count, count + half])
    pairs, images, texts = (pool.take(np.sort(part)) for part in parts)
    return pairs, images, texts


def noise(texts: StoreRows, folder: Path, seed: int) -> StoreRows:
    """As many rows, in which every value is taken from a row of its own."""
    values = texts[:].numpy()
    shuffled = np.random.default_rng(seed).permuted(values, axis=0)
    writer = StoreWriter(folder, texts.store.manifest.description)
    ids = [str(i) for i in range(len(texts))]
    writer.write(torch.from_numpy(shuffled), ids, [], len(ids))
    writer.finish()
    return StoreRows(Store.open(folder), np.arange(len(ids)))


def recall(pairs: Pairs, judged: Pairs, rows: Rows | None, train_keys: dict[str, object]) -> float:
    """Mean R@10 of heads trained on pairs, and on unpaired rows if there are any."""
    section = {**train_keys, **({} if rows is None else {"unpaired": train_keys["unpaired"]})}
    if rows is None:
        section.pop("unpaired", None)
    plan = Recipe.build({"preset": "small", "train": section})
    with tempfile.TemporaryDirectory() as out:
        trained = {} if rows is None else {"trained": Unpaired(pairs, plan.train, *rows)}
        result = train(pairs, head=plan.head, settings=plan.train, out=Path(out), **trained)
        measured = validate(result.heads, judged)
    return statistics.mean(measured[way]["R@10"] for way in ("image_to_text", "text_to_image"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", default="250,1000,3000")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--weights", default="1")
    parser.add_argument("--arms", default="pairs,ridge,unpaired,own,noise")
    parser.add_argument("--choose", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pool = split(options.run, "train")
    pool, judged = pool.holdout(0.1, 1) if options.choose else (pool, split(options.run, "test"))
    for count in map(int, options.pairs.split(",")):
        for weight in map(float, options.weights.split(",")):
            found: dict[str, list[float]] = {arm: [] for arm in options.arms.split(",")}
            for seed in map(int, options.seeds.split(",")):
                with tempfile.TemporaryDirectory() as folder:
                    for arm, values in found.items():
                        values.append(measure(arm, pool, judged, count, seed, weight, Path(folder)))
                        print(f"{count} {weight:g} {seed} {arm:10}{values[-1]:6.2f}", flush=True)
            for arm, values in found.items():
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                gains = [a - b for a, b in zip(values, next(iter(found.values())), strict=True)]
                print(
                    f"{count} pairs, {arm:9} {statistics.mean(values):.2f}{spread} "
                    f"({statistics.mean(gains):+.2f}; {', '.join(f'{g:+.2f}' for g in gains)})"
                )


def measure(
    arm: str, pool: Pairs, judged: Pairs, count: int, seed: int, weight: float, folder: Path
) -> float:
    """One training of an arm."""
    pairs, *others = divided(pool, count, seed)
    images, texts = (StoreRows(*p.sources[side]) for side, p in enumerate(others))
    rows: dict[str, Callable[[], Rows | None]] = {
        "pairs": lambda: None, "ridge": lambda: None, "own": lambda: (None, None),
        "unpaired": lambda: (images, texts), "images": lambda: (images, None),
        "texts": lambda: (None, texts), "noise": lambda: (images, noise(texts, folder / "n", seed)),
    }  # fmt: skip
    keys: dict[str, object] = {"seed": seed, "unpaired": {"images": "-", "weight": weight}}
    if arm == "ridge":
        keys["cca_ridge"] = tuple(max(1.0, 6000 / count) * ridge for ridge in RIDGES)
    return recall(pairs, judged, rows[arm](), keys)


if __name__ == "__main__":
    main()
