"""The record of training images: its size, its mistakes, and what writing and asking it cost.

    python benchmarks/trained_on.py [--rows 30000 2000000 5000000]

Ids are like Flickr's, images are random hashes. Asked is for a million images, half of them in the
record under their bytes; beside it Python's own set of the same hashes, in time and memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure import in_process, peak_growth

from lateen.data import hash64
from lateen.model.trained_on import ImageGroup, TrainedOn

ASKED = 1_000_000
IMAGE = 100_000  # bytes


def ids_of(count: int, first: int = 0) -> list[str]:
    return [f"{10**9 + first + i}_{(first + i) * 2654435761 % 2**32:08x}.jpg" for i in range(count)]


def random_hashes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, count, np.uint64)


def record(rows: int) -> dict[str, float]:
    """What a record of so many images costs."""
    ids, hashes = ids_of(rows), random_hashes(rows, 0)
    begin = time.perf_counter()
    made = TrainedOn({"train": ImageGroup.of(ids, hashes)})
    make = time.perf_counter() - begin
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.npz"
        made.save(path)
        size = path.stat().st_size
        begin = time.perf_counter()
        loaded = TrainedOn.load(path)
        load = time.perf_counter() - begin
    half = min(rows, ASKED // 2)
    asked_ids = ids_of(ASKED, rows)  # none of them in the record
    asked = np.concatenate([hashes[:half], random_hashes(ASKED - half, 1)])
    begin = time.perf_counter()
    same = loaded.find("train", asked_ids, asked)
    find = time.perf_counter() - begin
    if not same.by_bytes[:half].all():
        raise RuntimeError("an image was missed")
    known = loaded.groups["train"]
    return {
        "bytes a row": size / rows, "make s": make, "load s": load, "find s": find,
        "mistakes": float(same.by_bytes[half:].mean()),
        "id mistakes": float(known.ids.has(random_hashes(ASKED, 2)).mean()),
    }  # fmt: skip


def plain_set(rows: int) -> dict[str, float]:
    """A Python set of the hashes of the bytes alone."""
    hashes, asked = random_hashes(rows, 0).tolist(), random_hashes(ASKED, 1).tolist()
    known: set[int] = set()
    memory = peak_growth(lambda: known.update(hashes))
    begin = time.perf_counter()
    _ = [each in known for each in asked]
    return {"bytes a row": memory / rows, "find s": time.perf_counter() - begin}


def hashing() -> float:
    """Seconds to hash the bytes of one image."""
    data = np.random.default_rng(0).bytes(IMAGE)
    begin = time.perf_counter()
    for _ in range(1000):
        hash64(data)
    return (time.perf_counter() - begin) / 1000


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 2_000_000, 5_000_000])
    for rows in parser.parse_args(words).rows:
        print(f"{rows:,} images", {k: round(v, 5) for k, v in in_process(record, rows).items()})
        print("  a set", {k: round(v, 3) for k, v in in_process(plain_set, rows).items()})
    print(f"hashing an image of {IMAGE:,} bytes: {1e6 * hashing():.0f} µs")


if __name__ == "__main__":
    main(sys.argv[1:])
