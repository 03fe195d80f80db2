"""One epoch of block-shuffled reading against reading the same files from end to end.

    python benchmarks/loader.py --folder /somewhere/with/space
    python benchmarks/loader.py --rows 100000 --block 16

Random features at SAIL's shapes are written once below the folder (2048-d image features and one
caption column of 4096-d ones, float16: 12 KB a pair). Before each pass the kernel is told to forget
the files, so that both come from the disk; passes take turns. Peak memory is that of the epoch,
in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from measure import in_process, peak_growth

from lateen.features import Description, Pairs, StoreWriter, pair
from lateen.training.batches import BatchPlan
from lateen.training.loader import Loader

SHARD = 2048


def write(folder: Path, rows: int) -> None:
    """Both stores."""
    generator = torch.Generator().manual_seed(0)
    for modality, dim, column in (("image", 2048, None), ("text", 4096, "caption")):
        description = Description(modality, dim, {"id": "b"}, "0" * 64, "b", "b", column)
        writer = StoreWriter(folder / modality, description)
        for start in range(writer.done, rows, SHARD):
            count = min(SHARD, rows - start)
            ids = [str(i) for i in range(start, start + count)]
            writer.write(torch.randn(count, dim, generator=generator).half(), ids, [], count)
        writer.finish()


def shards(folder: Path) -> list[Path]:
    """The files of both stores."""
    return sorted(folder.glob("*/shard-*"))


def forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    for path in shards(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sequential(folder: Path) -> float:
    """Seconds to read every byte in order."""
    buffer = bytearray(8 * 2**20)
    begin = time.perf_counter()
    for path in shards(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - begin


def epoch(pairs: Pairs, block: int | None, micro: int) -> float:
    """Seconds to read every pair once, in the order of training."""
    plan = BatchPlan(
        pairs, batch=32768, epochs=1, captions_per_image=1, seed=0, block=block, micro_batch=micro
    )
    loader = Loader(pairs)
    begin = time.perf_counter()
    parts = (part for step in range(plan.steps) for part in plan.parts(step))
    rows = sum(len(batch.image) for batch in loader.stream(parts))
    assert rows == len(pairs)
    return time.perf_counter() - begin


def growth(folder: Path, block: int | None, micro: int) -> float:
    """Peak growth of an epoch's memory, in bytes."""
    pairs = pair(folder / "image", folder / "text")
    return peak_growth(lambda: epoch(pairs, block, micro))


def main() -> None:
    """Print the ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to write (a temporary folder)")
    parser.add_argument("--rows", type=int, default=200_000, help="pairs (default: %(default)s)")
    parser.add_argument("--block", type=int, help="neighbours read together (default: automatic)")
    parser.add_argument("--micro", type=int, default=2048, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write(folder, options.rows)
        size = sum(path.stat().st_size for path in shards(folder))
        pairs = pair(folder / "image", folder / "text")
        times: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            forget(folder)
            times[0].append(sequential(folder))
            forget(folder)
            times[1].append(epoch(pairs, options.block, options.micro))
        whole, ours = map(statistics.median, times)
        held = in_process(growth, folder, options.block, options.micro)
        print(
            f"{size / 2**30:.2f} GB, {options.rows} pairs: loader {whole / ours:.2f} of the "
            f"sequential rate ({size / ours / 2**20:.0f} of {size / whole / 2**20:.0f} MB/s); "
            f"memory grows by {held / 2**20:.0f} MB"
        )


if __name__ == "__main__":
    main()
