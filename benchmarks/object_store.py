"""One epoch of block-shuffled reading from an object store against reading the same objects whole.

    python benchmarks/object_store.py
    python benchmarks/object_store.py --url s3://bucket/bench --rows 200000

Without a URL, moto's S3 server runs on this machine (``pip install 'moto[s3,server]'``), in a
process of its own. Stores at SAIL's shapes (:mod:`loader`) are written to it, then read: every
object whole, one after the other, by pyarrow alone; in the order of training without anything kept
on this disk; with an empty cache; and with the cache that leaves. Passes take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loader import epoch, write

from lateen.features import pair
from lateen.objects import ObjectPath, to_path
from lateen.objects.client import file_system
from lateen.objects.ranges import range_cache

PORT = 5091


def serve() -> subprocess.Popen[bytes]:
    """Start moto's server, and say where it is."""
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{PORT}", AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="benchmark", AWS_SECRET_ACCESS_KEY="benchmark",
    )  # fmt: skip
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(5)
    from pyarrow import fs

    fs.S3FileSystem(
        endpoint_override=f"127.0.0.1:{PORT}", scheme="http", allow_bucket_creation=True
    ).create_dir("bench")
    return server


def sequential(folder: ObjectPath) -> tuple[float, int]:
    """Seconds to read every shard whole, one after the other, and how many bytes that were."""
    size = 0
    begin = time.perf_counter()
    for name in folder.files():
        if name.endswith(".safetensors"):
            key = (folder / name).key
            with file_system(key).open_input_file(key.within) as file:
                size += len(file.read())
    return time.perf_counter() - begin, size


def ours(folder: ObjectPath, cache: Path, limit: str, block: int | None) -> float:
    """Seconds of an epoch."""
    os.environ.update(LATEEN_CACHE=str(cache), LATEEN_OBJECT_CACHE=limit)
    seconds = epoch(pair(folder / "image", folder / "text"), block, 2048)
    range_cache().flush()
    return seconds


def main() -> None:
    """Print a row a way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", help="where to write (moto's server on this machine)")
    parser.add_argument("--rows", type=int, default=40_000, help="pairs (default: %(default)s)")
    parser.add_argument("--block", type=int, help="neighbours read together (default: automatic)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    server = None if options.url else serve()
    try:
        folder = to_path(options.url or "s3://bench/stores")
        assert isinstance(folder, ObjectPath)
        if not (folder / "text" / "manifest.json").is_file():
            write(folder, options.rows)
        times: dict[str, list[float]] = {"whole": [], "nothing kept": [], "empty": [], "kept": []}
        size = 0
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as cache:
                seconds, size = sequential(folder)
                times["whole"].append(seconds)
                times["nothing kept"].append(ours(folder, Path(cache), "0", options.block))
                times["empty"].append(ours(folder, Path(cache), "100GB", options.block))
                times["kept"].append(ours(folder, Path(cache), "100GB", options.block))
        whole = statistics.median(times["whole"])
        for name, taken in times.items():
            middle = statistics.median(taken)
            rounds = ", ".join(f"{each:.2f}" for each in taken)
            print(f"{name:13} {whole / middle:6.2f} of the sequential rate, "
                  f"{size / middle / 2**20:.0f} MB/s ({rounds} s)")  # fmt: skip
    finally:
        if server is not None:
            server.terminate()


if __name__ == "__main__":
    main()
