"""A server of embeddings in this process, which fails as it is told."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

DIM = 24


def vector(text: str, seed: int = 0, dim: int = DIM) -> np.ndarray[Any, Any]:
    """What the fake's model gives for a text ``[dim]``: its words' vectors' sum, normalised."""
    words = [np.random.default_rng([seed, zlib.crc32(w.encode())]).normal(size=dim)
             for w in text.split() or [""]]  # fmt: skip
    total = np.sum(words, axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class EmbeddingServer:
    """Answers as OpenAI's embeddings API does, but for what a test has it do.

    Attributes:
        models: that it lists.
        bytes: whether it sends vectors as bytes where that is asked for; ``None`` refuses it.
        vector: of a text.
        fault: given the texts of a request, what is to go wrong; nothing if it gives ``None``.
        requests: the texts of each request so far.
        keys: what each had for a key.
    """

    def __init__(self) -> None:
        self.models = ["toy"]
        self.bytes: bool | None = True
        self.vector: Callable[[str], np.ndarray[Any, Any]] = vector
        self.fault: Callable[[list[str]], str | None] = lambda texts: None
        self.requests: list[list[str]] = []
        self.keys: set[str] = set()
        self.scheme, self.port = "http", 0

    def name(self, model: str = "toy") -> str:
        """Of the encoder that is its model."""
        return f"openai+{self.scheme}://127.0.0.1:{self.port}/v1#{model}"

    def fail_once(self, fault: str, *, when: Callable[[list[str]], bool] = len) -> None:  # type: ignore[assignment]
        """Let the next request go wrong, of those with certain texts."""
        left = [fault]

        def once(texts: list[str]) -> str | None:
            return left.pop() if left and when(texts) else None

        self.fault = once

    def answer(self, model: str, texts: list[str], form: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body for a request."""
        fault = self.fault(texts)
        again = {"retry-after-ms": "1"}  # so that no test waits for long
        if model not in self.models:
            return 404, {}, {"error": {"message": f"The model `{model}` does not exist."}}
        if form == "base64" and self.bytes is None:
            return 400, {}, {"error": {"message": "unknown encoding_format"}}
        if fault is not None and fault.isdigit():
            return int(fault), again, {"error": {"message": f"toy says {fault}"}}
        if fault == "page":
            return 200, {"content-type": "text/html"}, "<html>hello</html>"
        rows = [{"index": i, "embedding": self.vector(t).tolist()} for i, t in enumerate(texts)]
        rows = _spoilt(rows, fault)
        if form == "base64" and self.bytes and fault != "null":
            rows = [{**row, "embedding": _as_bytes(row["embedding"])} for row in rows]
        return 200, {}, {"object": "list", "model": model, "data": rows}


def _as_bytes(numbers: list[float]) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


def _spoilt(rows: list[dict[str, Any]], fault: str | None) -> list[dict[str, Any]]:
    first = rows[0]
    if fault == "fewer":
        return rows[:-1]
    if fault == "shuffled":
        return rows[1::2] + rows[::2]
    if fault == "one index":
        return [{**row, "index": 0} for row in rows]
    if fault == "longer":
        return [{**row, "embedding": [*row["embedding"], 0.0]} for row in rows]
    if fault == "ragged":
        return [{**first, "embedding": first["embedding"][:-1]}, *rows[1:]]
    if fault == "nan":
        return [{**first, "embedding": [float("nan"), *first["embedding"][1:]]}, *rows[1:]]
    if fault == "null":
        return [{**first, "embedding": [None, *first["embedding"][1:]]}, *rows[1:]]
    if fault == "zeros":
        return [{**first, "embedding": [0.0] * len(first["embedding"])}, *rows[1:]]
    return rows


@contextlib.contextmanager
def serving(certificate: tuple[Path, Path] | None = None) -> Iterator[EmbeddingServer]:
    """A server on a free port of this machine.

    Args:
        certificate: files of a certificate and its key, for https.
    """
    server = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            listed = {
                "object": "list",
                "data": [{"id": m, "object": "model"} for m in server.models],
            }
            self._send(200, {}, listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.keys.add(str(self.headers["authorization"]))
            server.requests.append(body["input"])
            status, headers, answer = server.answer(
                body["model"], body["input"], body["encoding_format"]
            )
            if status == 444:  # the connection ends in the middle of an answer
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "1000")
                self.end_headers()
                self.wfile.write(b'{"data": [')
                self.close_connection = True
                return
            self._send(status, headers, answer)

        def _send(self, status: int, headers: dict[str, str], answer: Any) -> None:
            content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            for key, value in {"content-type": "application/json", **headers}.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that does not trust it, or has gone

    http = Quiet(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        server.scheme = "https"
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def vectors(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Of several texts ``[n, DIM]``."""
    return np.stack([vector(text) for text in texts])
