"""How time and memory of every stage grow with the data: 10k, 40k, 160k and 1M images.

    python benchmarks/growth.py
    python benchmarks/growth.py --sizes 10000 1000000 --stages open pair

Features are random, 64 values a row, with one caption to an image and ids like COCO's. The stages
are import (both sides, from .npy files), open (both stores), pair (opening them, too), train (an
epoch of the default recipe), evaluate (retrieval of ready embeddings) and assess (one encoder of
each kind, a fifth held out). Each is measured in a process of its own, after a run on 256 rows that
loads what it needs. Memory is the peak of the whole process, and how far that lies above what the
process had before, by row: rows of import, open and pair are those of both stores, of the others
the images.

evaluate compares all with all and assess all that are held out: they are left out where the size
before says that they would take too long.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import in_process, peak_growth, resident

DIM = 64
SIZES = [10_000, 40_000, 160_000, 1_000_000]  # images
WARM = 256


def write(folder: Path, rows: int) -> None:
    """Features of both sides, the texts like their images, in another order; and their ids."""
    folder.mkdir()
    random = np.random.default_rng(0)
    ids = [f"{i:012d}.jpg" for i in range(rows)]
    order = random.permutation(rows)
    image = random.standard_normal((rows, DIM), np.float32)
    np.save(folder / "image.npy", image.astype(np.float16))
    image += random.standard_normal((rows, DIM), np.float32)
    np.save(folder / "text.npy", image[order].astype(np.float16))
    (folder / "image.txt").write_text("\n".join(ids) + "\n")
    (folder / "text.txt").write_text("\n".join(ids[i] for i in order) + "\n")


def import_both(folder: Path) -> object:
    from lateen.features import import_features

    return [
        import_features(
            folder / f"{side}.npy", folder / side, ids=folder / f"{side}.txt", modality=side,
            encoder=f"random {side}",
        )
        for side in ("image", "text")
    ]  # fmt: skip


def open_both(folder: Path) -> object:
    from lateen.features import Store

    return [Store.open(folder / side) for side in ("image", "text")]


def pair_both(folder: Path) -> object:
    from lateen.features import pair

    return pair(folder / "image", folder / "text")


def train_heads(folder: Path) -> object:
    from lateen.experiment.recipe import Recipe
    from lateen.features import pair
    from lateen.training.loop import train

    recipe = Recipe.build({"train": {"epochs": 1}})
    return train(
        pair(folder / "image", folder / "text"), head=recipe.head, settings=recipe.train,
        out=folder / "train",
    )  # fmt: skip


def evaluate_ready(folder: Path) -> object:
    from lateen.evaluation import evaluate_embeddings

    return evaluate_embeddings(folder / "image", folder / "text")


def assess_both(folder: Path) -> object:
    from lateen.assessment.assessment import assess_stores

    return assess_stores([folder / "image"], [folder / "text"], folder / "assess")


# The work, rows to an image, and the power of their number by which time must be expected to grow.
STAGES: dict[str, tuple[Callable[[Path], object], int, int]] = {
    "import": (import_both, 2, 1),
    "open": (open_both, 2, 1),
    "pair": (pair_both, 2, 1),
    "train": (train_heads, 1, 1),
    "evaluate": (evaluate_ready, 1, 2),
    "assess": (assess_both, 1, 2),
}


def measured(stage: str, folder: Path, warm: Path) -> tuple[float, float, float]:
    """Seconds, peak memory and its growth, in bytes, of a stage in this process."""
    work = STAGES[stage][0]
    work(warm)
    begin = time.perf_counter()
    growth = peak_growth(lambda: work(folder))
    return time.perf_counter() - begin, resident("VmHWM"), growth


def main() -> None:
    """Print a line per size and stage."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES,
                        help="images (default: %(default)s)")  # fmt: skip
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES,
                        help="(default: all)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=5.0,
                        help="a stage that must be expected to take longer is left out "
                        "(default: %(default)s)")  # fmt: skip
    options = parser.parse_args()
    last: dict[str, tuple[int, float]] = {}
    print(f"{len(os.sched_getaffinity(0))} CPUs")
    print(f"{'stage':9} {'images':>9} {'seconds':>8} {'rows/s':>9} {'peak MiB':>9} {'B/row':>6}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        warm = Path(name) / "warm"
        in_process(write, warm, WARM)
        for size in sorted(options.sizes):
            folder = Path(name) / str(size)
            in_process(write, folder, size)
            for made in (warm, folder):
                if "import" not in options.stages:
                    in_process(import_both, made)
            for stage in options.stages:
                _, rows, power = STAGES[stage]
                before, took = last.get(stage, (size, 0.0))
                expected = took * (size / before) ** power
                if expected > 60 * options.minutes:
                    print(f"{stage:9} {size:9,}   left out: about {expected / 60:.0f} minutes"
                          f"{', as it compares all with all' if power == 2 else ''}")  # fmt: skip
                    continue
                seconds, peak, growth = in_process(measured, stage, folder, warm)
                last[stage] = size, seconds
                count = rows * size
                print(f"{stage:9} {size:9,} {seconds:8.1f} {count / seconds:9,.0f} "
                      f"{peak / 2**20:9,.0f} {growth / count:6,.0f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
