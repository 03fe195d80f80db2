"""What `lateen plan --gpus` predicts of GPUs that fail, against a simulation of them.

    python benchmarks/cluster.py

Encoding the 23M merge of the paper: long captions by NV-Embed-2 at 25 a second and images by
DINOv2-L at 830, per A100. Slices are those that are really cut, and files those that are really
written: whole shards, and parts of a minute. Each GPU fails after a time that is drawn from an
exponential distribution. The intervals are of the simulated mean, 95 %.
"""

import argparse
import functools
import heapq
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lateen.experiment.planning.makespan import Work, expect
from lateen.features.encode import SHARD_ITEMS
from lateen.features.pipeline import PART_SECONDS
from lateen.features.shares import Share

STORES = {  # items per second of an A100, shard, items of a forward pass
    "long captions": (25.0, SHARD_ITEMS["text"], 256),
    "images": (830.0, SHARD_ITEMS["image"], 256),
}
IMAGES = 23_000_000


@dataclass(frozen=True)
class Workers:
    """So many, with mean seconds to failure and seconds of a restart."""

    count: int
    failure: float
    restart: float
    slices: int = 1  # for each


@functools.cache
def files(items: int, rate: float, shard_items: int, batch: int) -> np.ndarray:
    """Seconds of work after which each file of a slice is on disk, as `encode_items` writes them:
    after the batch with which a shard ends, or a minute is over."""
    done, last, found = 0.0, 0.0, []
    for start in range(0, items, shard_items):
        stop = min(start + shard_items, items)
        for at in range(start, stop, batch):
            done += (min(at + batch, stop) - at) / rate
            if at + batch >= stop or done - last >= PART_SECONDS:
                found.append(done)
                last = done
    return np.array(found)


def work_through(
    saved: np.ndarray, workers: Workers, begin: float, chance: np.random.Generator
) -> tuple[float, int]:
    """Seconds that a worker needs for a slice, and its failures.

    Args:
        saved: see `files`.
        workers: how they fail.
        begin: seconds before it is at work.
        chance: of its failures.
    """
    seconds, on_disk, waiting, failures = 0.0, 0.0, begin, 0
    while True:
        life = chance.exponential(workers.failure)
        needed = waiting + saved[-1] - on_disk
        if life >= needed:
            return seconds + needed, failures
        seconds += life
        failures += 1
        if life > waiting:
            kept = np.searchsorted(saved, on_disk + life - waiting, side="right")
            on_disk = saved[kept - 1] if kept else 0.0
        waiting = workers.restart


def simulate(
    items: int, rate: float, shard_items: int, batch: int, workers: Workers,
    chance: np.random.Generator,
) -> tuple[float, float, int]:  # fmt: skip
    """Encode a store once: (seconds until all is done, busy seconds of all workers, failures)."""
    of = workers.count * workers.slices
    slices = [len(Share(index, of).items(items, shard_items)) for index in range(of)]
    free = [(0.0, True)] * workers.count  # when each takes its next slice, and if it is the first
    busy, failures, end = 0.0, 0, 0.0
    for length in filter(None, slices):
        now, first = heapq.heappop(free)
        saved = files(length, rate, shard_items, batch)
        seconds, failed = work_through(saved, workers, workers.restart if first else 0.0, chance)
        heapq.heappush(free, (now + seconds, False))
        busy, failures, end = busy + seconds, failures + failed, max(end, now + seconds)
    return end, busy, failures


def mean(values: list[float]) -> tuple[float, float]:
    """The mean, and how far its 95 % interval goes to either side."""
    return statistics.fmean(values), 1.96 * statistics.stdev(values) / len(values) ** 0.5


def rows(runs: int, seed: int) -> Iterator[str]:
    for name, (rate, shard_items, batch) in STORES.items():
        for gpus in (4, 16, 64, 256):
            for hours, minutes in ((24, 10), (4, 10), (1, 10), (1, 30)):
                for per_worker in (1, 4):
                    workers = Workers(gpus, hours * 3600, minutes * 60, per_worker)
                    work = Work.encoding(IMAGES, rate, shard_items, gpus, per_worker)
                    told = expect(work, workers.failure, workers.restart)
                    chance = np.random.default_rng(seed)
                    seen = [
                        simulate(IMAGES, rate, shard_items, batch, workers, chance)
                        for _ in range(runs)
                    ]
                    (took, around), (busy, _), (failures, _) = (
                        mean(list(map(float, each))) for each in zip(*seen, strict=True)
                    )
                    yield (
                        f"| {name} | {gpus} | {hours} h, {minutes} min | {per_worker} | "
                        f"{told.makespan / 3600:.2f} | {took / 3600:.2f} ± {around / 3600:.2f} | "
                        f"{told.makespan / took:.3f} | {told.busy / busy:.3f} | "
                        f"{told.failures:.1f} / {failures:.1f} |"
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print("| store | GPUs | fail after, back in | slices a GPU | hours, formula | simulated | "
          "ratio | GPU-hours, ratio | failures, formula / simulated |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows(given.runs, given.seed):
        print(row, flush=True)


if __name__ == "__main__":
    main()
