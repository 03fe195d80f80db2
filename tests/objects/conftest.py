"""An S3 server on loopback (moto's), with a bucket of each test's own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lateen.objects import ObjectPath, to_path

_FAULT = "<Error><Code>{}</Code><Message>no</Message></Error>"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server that keeps objects in memory, in a process of its own."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("moto is not installed: pip install 'lateen[dev]'")
    code = (
        "from moto.server import ThreadedMotoServer as S; import sys, time; "
        "s = S('127.0.0.1', 0, verbose=False); s.start(); "
        "print(s.get_host_and_port()[1], flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
    server.stdin.close()
    server.stdout.close()
    server.terminate()
    server.wait(10)


@pytest.fixture
def bucket(
    s3_server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> ObjectPath:
    """An empty bucket of this test's own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    from pyarrow import fs

    name = f"b{abs(hash(request.node.nodeid)):x}"
    fs.S3FileSystem(
        endpoint_override=s3_server.removeprefix("http://"), scheme="http",
        allow_bucket_creation=True,
    ).create_dir(name)  # fmt: skip
    path = to_path(f"s3://{name}")
    assert isinstance(path, ObjectPath)
    return path


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], None]]:
    """A server that answers every request with a status and one of S3's codes."""
    answer = [403, "AccessDenied"]
    monkeypatch.setattr("lateen.objects.client._TRIES", 1)

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = _FAULT.format(answer[1]).encode()
            self.send_response(int(answer[0]))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

        def refuse(status: int, code: str) -> None:
            answer[:] = [status, code]

        yield refuse
        server.shutdown()
