"""Exact nearest neighbours, 20,000 × 384, and the measures on them: against faiss-cpu and torch.

    python benchmarks/neighbours.py

All sides are measured in turns in one run, with the same number of threads; the ratio of the
medians counts, not the seconds. Seconds are those of a processor, all threads added, so that other
work on the machine counts less; ``--clock wall`` for those on the wall, on an idle one. faiss's
index is ``IndexFlatIP``, its exact one; the plain side is ten lines of torch in float32. All must
find the same neighbours, but for those that float32 cannot tell apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.metrics import cknna, knn_accuracy, mutual_knn, nearest_neighbours

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def in_torch(x: Tensor, k: int) -> Tensor:
    units = F.normalize(x, dim=1)
    found = []
    for start in range(0, len(x), 1024):
        scores = units[start : start + 1024] @ units.T
        rows = torch.arange(len(scores))
        scores[rows, start + rows] = -2
        found.append(scores.topk(k, dim=1).indices)
    return torch.cat(found)


def faiss_search() -> Callable[[Tensor, int], Tensor]:
    try:
        import faiss
    except ImportError:
        sys.exit("no faiss-cpu: pip install --no-deps faiss-cpu, or measure --without faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())

    def search(x: Tensor, k: int) -> Tensor:
        units = F.normalize(x, dim=1).numpy()
        index = faiss.IndexFlatIP(units.shape[1])
        index.add(units)
        found = torch.from_numpy(index.search(units, k + 1)[1])
        # Each row finds itself too, of equals maybe later or not at all.
        other = found != torch.arange(len(x))[:, None]
        other[other.all(1), -1] = False
        return found[other].view(len(x), k)

    return search


def agreement(found: Tensor, expected: Tensor) -> float:
    return mutual_knn(found, expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="cpu")
    parser.add_argument("--without", choices=["faiss"])
    options = parser.parse_args()
    clock, k = CLOCKS[options.clock], options.k
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.rows, options.dim, generator=generator)
    y = x + torch.randn(options.rows, options.dim, generator=generator)
    searches = {"lateen": lambda x, k: nearest_neighbours(x, k), "torch": in_torch}
    if options.without != "faiss":
        searches["faiss"] = faiss_search()
    tables = nearest_neighbours(x, k), nearest_neighbours(y, k)
    measures = {
        "CKNNA beside its tables": lambda: cknna(x, y, *tables),
        "mutual kNN beside its tables": lambda: mutual_knn(*tables),
        "kNN accuracy, k = 10 to 200": lambda: knn_accuracy(x, torch.arange(len(x)) % 10),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*searches, *measures)}
    for _ in range(options.rounds):
        for name, search in searches.items():
            begin = clock()
            found = search(x, k)
            seconds[name].append(clock() - begin)
            assert agreement(found, tables[0]) > 0.9999, name
        for name, measure in measures.items():
            begin = clock()
            measure()
            seconds[name].append(clock() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:28} {value:6.2f} s   {value / medians['lateen']:5.2f} of lateen's neighbours")


if __name__ == "__main__":
    main()
