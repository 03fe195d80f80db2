"""Encoding in slices, and merging them, against one process: the same photographs.

    OMP_NUM_THREADS=1 python benchmarks/slices.py path/to/photographs --encoder path/to/mobilenet-v2

Seconds of the processor, of processes of their own, loading included; rounds in turns. The store
must be the same to the byte. With ``--ray`` it is seconds on the wall, on an idle machine, of one
process with two threads against two actors with one each.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(*words: str) -> float:
    """Of the processor, of one command in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "lateen", *words], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall(*words: str, threads: int) -> float:
    """On the wall, likewise."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lateen", *words], check=True, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    return time.perf_counter() - begun


def against_ray(words: tuple[str, ...], rounds: int) -> None:
    took: dict[str, list[float]] = {"one process": [], "Ray": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            one, ray = Path(name) / "one", Path(name) / "ray"
            took["one process"].append(wall(*words, "--out", str(one), threads=2))
            took["Ray"].append(
                wall(*words, "--on", "ray", "--actors", "2", "--out", str(ray), threads=1)
            )
            assert content(one) == content(ray)
    median = {name: statistics.median(values) for name, values in took.items()}
    ratio = median["Ray"] / median["one process"]
    print(", ".join(f"{name} {value:.1f} s" for name, value in median.items()), f"({ratio:.2f}×)")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    words = ("encode", str(given.photographs), "--encoder", given.encoder, "--shard-items", "256")
    if given.ray:
        against_ray(words, given.rounds)
        return
    took: dict[str, list[float]] = {"one": [], "slices": [], "merge": [], "loading": []}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            took["one"].append(seconds(*words, "--out", str(place / "one")))
            # A finished store is opened: what loading and looking through the data takes.
            took["loading"].append(seconds(*words, "--out", str(place / "one")))
            parts = [str(place / str(index)) for index in range(given.slices)]
            took["slices"].append(sum(
                seconds(*words, "--slice", f"{index + 1}/{given.slices}", "--out", part)
                for index, part in enumerate(parts)
            ))  # fmt: skip
            took["merge"].append(seconds("merge", *parts, "--out", str(place / "merged")))
            assert content(place / "merged") == content(place / "one")
    median = {name: statistics.median(values) for name, values in took.items()}
    more = median["slices"] + median["merge"] - median["one"]
    loading = (given.slices - 1) * median["loading"]
    print(f"one process {median['one']:.1f} s; {given.slices} slices {median['slices']:.1f} s, "
          f"merge {median['merge']:.1f} s: {more / median['one']:+.1%}, of which "
          f"{loading / median['one']:.1%} is loading {given.slices - 1} times more")  # fmt: skip


if __name__ == "__main__":
    main()
