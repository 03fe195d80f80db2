"""An index of photographs: what making it costs beside encoding them, and what looking again does.

    python benchmarks/index_photographs.py runs/f8k/model path/to/photographs --many 10000

Each round encodes the photographs into a store (``lateen encode``) and indexes them (``lateen
index``), in turns, each with a cache of its own; the ratio of the medians counts. Commands are
whole processes, so that loading is in their seconds, and a round is long enough that it weighs
little. Then a folder of ``--many`` files, links to the same photographs under other names, is
indexed, and the seconds of a second call, in which nothing has changed, are told; and those of
`lateen search` as a whole process.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lateen.report.tables import Column, TableData


def seconds(cache: Path, *words: object) -> float:
    """Of a command, as a process of its own."""
    environment = {**os.environ, "LATEEN_CACHE": str(cache)}
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lateen", *map(str, words), "--quiet"],
        check=True, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--encoder", required=True, help="the model's vision encoder")
    parser.add_argument("--pooling", default=None)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=5)
    given = parser.parse_args()
    files = sorted(path for path in given.photographs.rglob("*") if path.is_file())
    pooling = ["--pooling", given.pooling] if given.pooling else []
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        encode, index = [], []
        for number in range(given.rounds):
            place = work / f"round-{number}"
            encode.append(seconds(place / "a", "encode", given.photographs, "--encoder",
                                  given.encoder, *pooling, "--out", place / "store"))  # fmt: skip
            index.append(seconds(place / "b", "index", given.photographs, "--model", given.model,
                                 "--out", place / "index"))  # fmt: skip
            if number:
                shutil.rmtree(place)
        ratio = statistics.median(encode) / statistics.median(index)
        rows.append([f"encode {len(files):,} photographs", statistics.median(encode), ""])
        rows.append(["index them", statistics.median(index), f"{ratio:.2f} of the rate"])

        cache, place = work / "round-0" / "b", work / "round-0" / "index"
        asked = [f"a dog number {i} runs on grass" for i in range(given.queries)]
        seconds(cache, "search", place, "a first query")
        took = [seconds(cache, "search", place, query) for query in asked]
        rows.append(
            [f"search INDEX of {len(files):,}", statistics.median(took), f"{max(took):.2f}"]
        )
        folder = ["--images", given.photographs]
        seconds(cache, "search", given.model, "a first query", *folder)
        took = [seconds(cache, "search", given.model, query, *folder) for query in asked]
        rows.append(["search MODEL --images", statistics.median(took), f"{max(took):.2f}"])

        many = work / "many"
        for number in range(given.many):
            path = many / f"{number % 100:02d}" / f"{number}{files[number % len(files)].suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(files[number % len(files)], path) if _same_disk(
                files[0], many
            ) else shutil.copyfile(files[number % len(files)], path)
        first = seconds(cache, "index", many, "--model", given.model, "--out", work / "many-index")
        took = [
            seconds(cache, "index", many, "--model", given.model, "--out", work / "many-index")
            for _ in range(given.rounds)
        ]
        rows.append([f"index {given.many:,} known by content", first, ""])
        rows.append(
            ["the same again, nothing changed", statistics.median(took), f"{max(took):.2f}"]
        )
    columns = [Column("whole process"), Column("seconds, median", 2), Column("beside, or slowest")]
    print(TableData("Index of photographs", columns, rows).markdown())


def _same_disk(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


if __name__ == "__main__":
    main()
