"""A server under load: 32 clients on loopback, searches that share forward passes beside ones that
do not, memory before and after, and first results.

    python benchmarks/serve.py INDEX
    python benchmarks/serve.py INDEX --clients 32 --seconds 20 --turns 3

Servers and clients have the same cores. Every search is another sentence, so that no embedding is
remembered; 24 photographs are asked for. The servers take turns, and each is a process of its own,
asked over kept connections. After that, one server gets what pages ask for: searches with further
pages, thumbnails, photographs like one, pictures, labels. A request is lost if it is not answered
with 200. Memory is resident, of the server's process.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psutil

WORDS = (
    "small|brown|happy|young|old|wet|tired|black|white|blond|fast|sleeping|running|tall",
    "dog|child|man|woman|girl|boy|horse|cat|bird|team|crowd|runner|biker|skater|climber",
    "runs|sits|jumps|plays|stands|looks|swims|climbs|waits|rests|walks|turns|falls|eats",
    "on a beach|in the snow|in a park|by a river|at night|on a street|in a field|near a lake",
)
Work = Callable[["Client", int], Iterator[tuple[str, int]]]
KINDS = {"all": 64, "alone": 1}  # rows of a forward pass


def sentences(start: int = 0) -> Iterator[str]:
    """Sentences that differ, without end."""
    parts = itertools.product(*(each.split("|") for each in WORDS))
    every = ["a " + " ".join(words) for words in parts]
    for number in itertools.count(start):
        yield f"{every[number * 7919 % len(every)]} {number // len(every) or ''}".strip()


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        headers = {"content-type": kind} if kind else {}
        self._connection.request("POST" if body else "GET", path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


@dataclass
class Taken:
    """Seconds of requests by kind, and how many were lost."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)

    def note(self, kind: str, status: int, seconds: float) -> None:
        if status == 200:
            self.seconds.setdefault(kind, []).append(seconds)
        else:
            self.lost[status] = self.lost.get(status, 0) + 1


@contextmanager
def server(index: str, rows: int) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a process of its own: its port, and the process."""
    command = [sys.executable, __file__, index, "--serve", str(rows)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = int(process.stdout.readline())
    try:
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def run_server(index: str, rows: int) -> None:
    from lateen.indexing import Index
    from lateen.serving.run import listen, serve
    from lateen.serving.settings import ServeSettings

    settings = ServeSettings(port=0, rate=0, pass_rows=rows)
    listening = listen(settings)
    port = listening.getsockname()[1]
    serve(Index.open(index), settings, listening, ready=lambda _: print(port, flush=True))


def load(
    port: int, clients: int, seconds: float, work: Callable[[Client, int], Iterator[str]]
) -> Taken:
    """What all clients did within some time; each goes on with ``work`` as it gives requests."""
    taken, until = Taken(), time.perf_counter() + seconds

    def one(number: int) -> None:
        client = Client(port)
        tasks = work(client, number)
        while time.perf_counter() < until:
            start = time.perf_counter()
            kind, status = next(tasks)
            taken.note(kind, status, time.perf_counter() - start)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(clients)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return taken


def searches(client: Client, number: int) -> Iterator[tuple[str, int]]:
    for sentence in sentences(number * 100_003):
        status, _ = client.ask(f"/api/search?q={quote(sentence)}&k=24")
        yield "search", status


def pages(client: Client, number: int) -> Iterator[tuple[str, int]]:
    """What a visitor's page asks for."""
    picture = upload()
    for turn, sentence in enumerate(sentences(number * 100_003)):
        for offset in (0, 48):
            path = f"/api/search?q={quote(sentence)}&k=48&cut=0&offset={offset}"
            status, body = client.ask(path)
            yield "search", status
        hits = json.loads(body)["hits"]
        for hit in hits[:12]:
            status, _ = client.ask(f"/api/thumbnail/{quote(hit['id'])}?size=320")
            yield "thumbnail", status
        status, _ = client.ask(f"/api/similar/{quote(hits[0]['id'])}?k=48")
        yield "similar", status
        if turn % 4 == number % 4:
            status, _ = client.ask("/api/search", *picture)
            yield "picture", status
        if number == 0 and turn % 8 == 0:
            labels = {"labels": ["a dog", "a child", f"a boat {turn}"], "k": 12}
            status, _ = client.ask("/api/classify", json.dumps(labels).encode(), "application/json")
            yield "classify", status


def upload() -> tuple[bytes, str]:
    """A form with a picture."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((1024, 768)).save(data, "JPEG")
    head = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    return head + data.getvalue() + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def words(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"p50 {1000 * p50:6.1f} ms  p99 {1000 * p99:6.1f} ms"


def mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / (1 << 20)


def first_results(index: str) -> None:
    start = time.perf_counter()
    with server(index, KINDS["all"]) as (port, _):
        ready = time.perf_counter() - start
        client, taken = Client(port), Taken()
        asked = iter(sentences())
        for number in range(60):
            start = time.perf_counter()
            status, body = client.ask(f"/api/search?q={quote(next(asked))}&k=48&cut=0")
            taken.note("first" if number == 0 else "alone", status, time.perf_counter() - start)
            if number == 0:
                began = time.perf_counter()
                for hit in json.loads(body)["hits"][:12]:
                    client.ask(f"/api/thumbnail/{quote(hit['id'])}?size=320")
                thumbnails = time.perf_counter() - began
        print(
            f"started in {ready:.1f} s; first search {1000 * taken.seconds['first'][0]:.0f} ms, "
            f"its first 12 thumbnails {1000 * thumbnails:.0f} ms; then, one at a time, "
            f"{words(taken.seconds['alone'])}"
        )


def compare(index: str, clients: int, seconds: float, turns: int) -> None:
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(turns):
        for kind, rows in KINDS.items():
            with server(index, rows) as (port, process):
                Client(port).ask("/api/search", *upload())  # has the model loaded, too
                load(port, clients, 2, searches)
                before = mib(process)
                taken = load(port, clients, seconds, searches)
                after = mib(process)
                _, text = Client(port).ask("/metrics")
            counted = {
                line.split()[0]: float(line.split()[1])
                for line in text.decode().splitlines() if line.startswith("lateen_text_")
            }  # fmt: skip
            shared = counted["lateen_text_rows_total"] / counted["lateen_text_passes_total"]
            done = taken.seconds["search"]
            found[kind].append(len(done) / seconds)
            print(
                f"turn {turn}  {kind:5}  {len(done) / seconds:6.1f} searches/s  {words(done)}  "
                f"{shared:4.1f} a pass  lost {sum(taken.lost.values())} {taken.lost or ''}  "
                f"memory {before:.0f} → {after:.0f} MiB"
            )
    medians = {kind: statistics.median(rates) for kind, rates in found.items()}
    print(f"shared passes: {medians['all'] / medians['alone']:.2f} × the searches of single ones")


def mixed(index: str, clients: int, seconds: float) -> None:
    with server(index, KINDS["all"]) as (port, process):
        load(port, clients, 5, pages)
        memory = [mib(process)]
        for _ in range(4):
            taken = load(port, clients, seconds, pages)
            memory.append(mib(process))
            print("pages: " + "; ".join(
                f"{kind} {len(each) / seconds:.1f}/s {words(each)}"
                for kind, each in sorted(taken.seconds.items())
            ) + f"; lost {sum(taken.lost.values())} {taken.lost or ''}")  # fmt: skip
        print("memory " + " → ".join(f"{each:.0f}" for each in memory) + " MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    if given.serve:
        run_server(given.index, given.serve)
        return
    first_results(given.index)
    compare(given.index, given.clients, given.seconds, given.turns)
    mixed(given.index, given.clients, given.seconds)


if __name__ == "__main__":
    main()
