"""Servers in this process that answer as OpenAI's does, of embeddings and of chat, and fail as they
are told."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

DIM = 24


def vector(text: str, seed: int = 0, dim: int = DIM) -> np.ndarray[Any, Any]:
    """What the fake's model gives for a text ``[dim]``: its words' vectors' sum, normalised."""
    words = [np.random.default_rng([seed, zlib.crc32(w.encode())]).normal(size=dim)
             for w in text.split() or [""]]  # fmt: skip
    total = np.sum(words, axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


class FakeServer:
    """Answers as OpenAI's API does, but for what a test has it do.

    Attributes:
        models: that it has.
        lists: whether it lists them, or fails there.
        keys: what each request had for a key.
    """

    def __init__(self) -> None:
        self.models = ["toy"]
        self.lists = True
        self.keys: set[str] = set()
        self.scheme, self.port = "http", 0

    def name(self, model: str = "toy") -> str:
        """Of what is its model."""
        return f"openai+{self.scheme}://127.0.0.1:{self.port}/v1#{model}"

    def take(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body for what was posted."""
        raise NotImplementedError

    def common(self, model: str, fault: str | None) -> tuple[int, dict[str, str], Any] | None:
        """The same where whatever was asked goes wrong: another model, a status, a page."""
        if model not in self.models:
            return 404, {}, {"error": {"message": f"The model `{model}` does not exist."}}
        if fault is not None and fault.isdigit():
            again = {"retry-after-ms": "1"}  # so that no test waits for long
            return int(fault), again, {"error": {"message": f"toy says {fault}"}}
        if fault == "page":
            return 200, {"content-type": "text/html"}, "<html>hello</html>"
        return None


class EmbeddingServer(FakeServer):
    """Of embeddings.

    Attributes:
        bytes: whether it sends vectors as bytes where that is asked for; ``None`` refuses it.
        vector: of a text.
        fault: given the texts of a request, what is to go wrong; nothing if it gives ``None``.
        requests: the texts of each request so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: bool | None = True
        self.vector: Callable[[str], np.ndarray[Any, Any]] = vector
        self.fault: Callable[[list[str]], str | None] = lambda texts: None
        self.requests: list[list[str]] = []

    def fail_once(self, fault: str, *, when: Callable[[list[str]], bool] = len) -> None:  # type: ignore[assignment]
        """Let the next request go wrong, of those with certain texts."""
        left = [fault]

        def once(texts: list[str]) -> str | None:
            return left.pop() if left and when(texts) else None

        self.fault = once

    def take(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        self.requests.append(body["input"])
        return self.answer(body["model"], body["input"], body["encoding_format"])

    def answer(self, model: str, texts: list[str], form: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body for a request."""
        fault = self.fault(texts)
        if model in self.models and form == "base64" and self.bytes is None:
            return 400, {}, {"error": {"message": "unknown encoding_format"}}
        if wrong := self.common(model, fault):
            return wrong
        rows = [{"index": i, "embedding": self.vector(t).tolist()} for i, t in enumerate(texts)]
        rows = _spoilt(rows, fault)
        if form == "base64" and self.bytes and fault != "null":
            rows = [{**row, "embedding": _as_bytes(row["embedding"])} for row in rows]
        return 200, {}, {"object": "list", "model": model, "data": rows}


class ChatServer(FakeServer):
    """Of chat completions about one image each: it says how bright that is.

    Attributes:
        fault: given the image of a request, what is to go wrong; nothing if it gives ``None``.
        requests: the bodies of each request so far.
        pictures: the image of each.
        says: the answer for an image.
        wait: seconds before an answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault: Callable[[Image.Image], str | None] = lambda picture: None
        self.requests: list[dict[str, Any]] = []
        self.pictures: list[Image.Image] = []
        self.says: Callable[[Image.Image], str | None] = brightness
        self.wait: Callable[[Image.Image], float] = lambda picture: 0.0
        self._lock = threading.Lock()

    def take(self, body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        picture = picture_in(body)
        with self._lock:  # so that a fault can go by how many there were
            self.requests.append(body)
            self.pictures.append(picture)
            fault = self.fault(picture)
        time.sleep(self.wait(picture))
        if wrong := self.common(body["model"], fault):
            return wrong
        if fault == "other name" and "max_tokens" in body:
            return 400, {}, {"error": {"message": "Unsupported.", "param": "max_tokens"}}
        message: dict[str, Any] = {"role": "assistant", "content": self.says(picture)}
        finish = "stop"
        if fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I will not."}
        elif fault == "filter":
            message["content"], finish = None, "content_filter"
        elif fault == "length":
            finish = "length"
        elif fault == "spent":
            message["content"], finish = "", "length"
        elif fault == "no message":
            message = {"role": "assistant", "content": [{"type": "odd"}]}
        answer = {
            "id": "1", "object": "chat.completion", "created": 0, "model": f"{body['model']}-1",
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }  # fmt: skip
        if fault == "no usage":
            del answer["usage"]
        return 200, {}, {"object": "none"} if fault == "no choices" else answer


def picture_in(body: dict[str, Any]) -> Image.Image:
    """The image in a request to a chat."""
    parts = body["messages"][-1]["content"]
    [url] = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    kind, _, data = url.partition(";base64,")
    assert kind == "data:image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def brightness(picture: Image.Image) -> str:
    """What the fake's model says of an image."""
    return f"It is {round(np.asarray(picture).mean())} bright."


Served = TypeVar("Served", bound=FakeServer)


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
def serving(
    certificate: tuple[Path, Path] | None = None,
    kind: type[Served] = EmbeddingServer,  # type: ignore[assignment]
) -> Iterator[Served]:
    """A server on a free port of this machine.

    Args:
        certificate: files of a certificate and its key, for https.
        kind: of server.
    """
    server = kind()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if not server.lists:
                return self._send(500, {}, "Internal Server Error")
            listed = {
                "object": "list",
                "data": [{"id": m, "object": "model"} for m in server.models],
            }
            return self._send(200, {}, listed)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.keys.add(str(self.headers["authorization"]))
            status, headers, answer = server.take(body)
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


def certificate_files(folder: Path) -> tuple[Path, Path]:
    """A certificate of this machine, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    made, key = folder / "made.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=toy",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", made],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key
