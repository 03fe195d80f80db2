"""A join of 23 million rows: an image store and two text stores of few values, as large as SAIL's.

    python benchmarks/rows.py
    python benchmarks/rows.py --rows 1000000 --folder /somewhere/with/space

Stores are written once below the folder, in shards as `lateen encode` makes them, with ids such as
cc12m/00123/001230045. Each step is measured in a process of its own: to open a store, to join all
three, and to have the order of an epoch and its first batches, beyond the join. Memory is the peak
of the whole process; torch alone takes some 250 MB of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from measure import in_process, resident

from lateen.features import Description, Store, StoreWriter, pair
from lateen.training.batches import plan_batches
from lateen.training.config import TrainSection
from lateen.training.loader import Loader
from lateen.training.ranks import ALONE

SHARDS = {"image": 2048, "raw": 8192, "hq": 8192}
DIM = 4


def write(folder: Path, name: str, rows: int) -> None:
    """One of the stores."""
    torch.set_num_threads(1)
    modality, column, size = ("image", None, 2048) if name == "image" else ("text", name, 8192)
    description = Description(
        modality, DIM, {"id": name}, "0" * 64, name, "b", column, shard_items=size
    )
    writer = StoreWriter(folder / name, description)
    for start in range(writer.done, rows, size):
        count = min(size, rows - start)
        ids = [f"cc12m/{i // 10_000:05d}/{i:09d}" for i in range(start, start + count)]
        features = torch.arange(start * DIM, (start + count) * DIM).view(count, DIM) % 997 / 100
        writer.write(features, ids, [], count)
    if not writer.finished:
        writer.finish()


def opening(folder: Path) -> tuple[float, float]:
    """Seconds and peak memory of opening the image store."""
    begin = time.perf_counter()
    store = Store.open(folder / "image")
    assert len(store)
    return time.perf_counter() - begin, resident("VmHWM")


def joining(folder: Path) -> tuple[float, float]:
    """Of the join of all three."""
    begin = time.perf_counter()
    pairs = pair(*(folder / name for name in SHARDS))
    assert len(pairs) == len(pairs.image)
    return time.perf_counter() - begin, resident("VmHWM")


def epoch(folder: Path) -> tuple[float, float]:
    """Of the first batches of an epoch, once the stores are joined."""
    pairs = pair(*(folder / name for name in SHARDS))
    begin = time.perf_counter()
    plan = plan_batches(pairs, TrainSection(batch=32768, epochs=1), ALONE)
    parts = (part for step in range(2) for part in plan.parts(step))
    rows = sum(len(batch.image) for batch in Loader(pairs).stream(parts))
    assert rows
    return time.perf_counter() - begin, resident("VmHWM")


def start(folder: Path) -> tuple[float, float]:
    """Of what a training asks of the pairs before its first step: their key and a holdout."""
    pairs = pair(*(folder / name for name in SHARDS))
    begin = time.perf_counter()
    rest, held = pairs.holdout(0.0002)
    assert rest.key
    assert held.key
    return time.perf_counter() - begin, resident("VmHWM")


def main() -> None:
    """Print a line a step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--rows", type=int, default=23_000_000, help="(default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        if missing := [name for name in SHARDS if not (folder / name / "manifest.json").is_file()]:
            with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
                list(pool.map(write, [folder] * 3, missing, [options.rows] * 3))
        for step in (opening, joining, epoch, start):
            seconds, peak = in_process(step, folder)
            print(f"{step.__name__:8} {options.rows:,} rows  {seconds:7.2f} s  "
                  f"{peak / 2**30:5.2f} GiB at its peak", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
