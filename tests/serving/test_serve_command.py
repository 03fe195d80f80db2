"""``lateen serve``: what it says, how it ends, and what cannot harm it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import call
from serving_toys import picture

import lateen.cli.serving as command
from lateen.errors import UsageError
from lateen.serving.run import address_of, listen, with_token
from lateen.serving.settings import ServeSettings

TESTS = Path(__file__).parent.parent


def environment(folder: Path) -> dict[str, str]:
    paths = [str(TESTS), os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)]
    return {**os.environ, "LATEEN_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths))}  # fmt: skip


@contextmanager
def started(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lateen", "serve", *words, "--port", "0"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(folder),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        address = process.stdout.readline().strip()
        assert address, process.stderr.read()
        yield process, address
    finally:
        process.kill()
        process.communicate()


def ask(address: str, path: str) -> Any:
    with urllib.request.urlopen(address.partition("?")[0] + path, timeout=60) as answer:
        return json.load(answer)


def test_an_index_is_served_until_it_is_interrupted(made: Path) -> None:
    with started(made, "index") as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert process.stdout is not None
        assert process.stdout.readline().startswith("36 photographs of photos, found by ")
        assert len(ask(address, "api/search?q=red&k=5")["hits"]) == 5
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out, err) == (0, "ended\n", "")


def test_a_model_and_a_folder_are_served_with_a_token_beyond_this_machine(own: Path) -> None:
    words = ("model", "--images", "photos", "--host", "0.0.0.0", "--quiet")
    with started(own, *words) as (process, address):
        base, _, token = address.partition("/?token=")
        assert len(token) >= 32
        port = base.rpartition(":")[2]
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/search?q=blue&k=3",
            headers={"authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert len(json.load(answer)["hits"]) == 3
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"http://127.0.0.1:{port}/", "api/search?q=blue")
        assert refused.value.code == 401
        refused.value.close()
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.mark.slow
def test_an_indexer_that_is_killed_under_load_harms_no_search(own: Path) -> None:
    """Searches go on while photographs are added, whatever happens to who adds them."""
    add = [sys.executable, "-m", "lateen", "index", "photos", "--model", "model", "--out", "index",
           "--quiet"]  # fmt: skip
    where: dict[str, Any] = {"cwd": own, "env": environment(own), "check": True}
    subprocess.run(add, **where, stdout=subprocess.DEVNULL)
    done, wrong = [], []
    ended = threading.Event()

    def searching(address: str, colour: str) -> None:
        while not ended.is_set():
            try:
                answer = ask(address, f"api/search?q={colour}&k=4")
                done.append(len(answer["hits"]) == 4 and answer["among"] >= 36)
            except OSError as error:
                wrong.append(error)
                return

    with started(own, "index", "--rate", "0") as (_, address):
        threads = [
            threading.Thread(target=searching, args=(address, colour))
            for colour in ("red", "green", "blue", "red+%2B+blue")
        ]
        for each in threads:
            each.start()
        for number in range(3):
            for place in range(40):
                picture("red", seed=place).save(own / "photos" / f"new-{number}-{place}.png")
            killed = subprocess.Popen(add, cwd=own, env=environment(own))
            time.sleep(1.5 + number)
            killed.kill()
            killed.wait()
        subprocess.run(add, **where, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while ask(address, "healthz")["photographs"] < 156 and time.monotonic() < deadline:
            time.sleep(0.3)
        ended.set()
        for each in threads:
            each.join()
        assert ask(address, "api/search?q=red&k=1")["among"] == 156
    assert not wrong
    assert len(done) > 20 and all(done)


def test_a_port_that_is_taken_is_one_line(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = call(capsys, "serve", made / "index", "--port", port)
    assert (code, out) == (2, "")
    assert err == (
        f"error: port {port} is taken. Give another one: --port 7861; 0 takes any that is free.\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--port", "70000"), "there is no port 70000"),
        (("--token", "short"), "the token is too simple"),
        (("--token", "äöüäöüäöü"), "the token is too simple"),
        (("--upload", "0"), "amounts"),
        (("--rate", "nan"), "amounts"),
        (("--allow", "gone"), "there is no folder gone"),
        (("--host", "no.such.host.invalid"), "there is no address"),
        (("--host", "203.0.113.7", "--port", "0"), "no address of this machine"),
        (("--images", "gone", "--port", "0"), "is an index"),
    ],
)
def test_what_cannot_be_is_one_line(
    made: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    code, out, err = call(capsys, "serve", made / "index", *words)
    assert code in (1, 2)
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_what_is_no_index_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "serve", tmp_path / "gone", "--port", "0")
    assert code in (1, 2)
    assert "is no index" in err
    code, _, err = call(
        capsys, "serve", tmp_path / "gone", "--images", tmp_path, "--port", "0"
    )  # fmt: skip
    assert code in (1, 2)
    assert err.count("\n") == 1


def test_a_package_that_is_missing_is_named_with_how_to_get_it(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = command.importlib.util.find_spec
    monkeypatch.setattr(
        command.importlib.util, "find_spec",
        lambda name, *rest: None if name == "uvicorn" else plain(name, *rest),
    )  # fmt: skip
    code, _, err = call(capsys, "serve", made / "index")
    assert code == 2
    assert "pip install 'lateen[serve]'" in err


def test_a_token_is_made_where_others_can_ask() -> None:
    assert with_token(ServeSettings()).token is None
    made_up = {with_token(ServeSettings(host="0.0.0.0")).token for _ in range(3)}
    assert len(made_up) == 3
    assert all(token and len(token) >= 32 for token in made_up)
    assert with_token(ServeSettings(host="0.0.0.0", token="given")).token == "given"


def test_small_answers_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY on sockets that are of TCP by name; others wait for 40 ms."""
    with listen(ServeSettings(port=0)) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_addresses_are_ones_to_open() -> None:
    with listen(ServeSettings(port=0)) as local:
        port = local.getsockname()[1]
        assert address_of(ServeSettings(), local) == f"http://127.0.0.1:{port}/"
        named = address_of(ServeSettings(host="0.0.0.0", token="a b"), local)
        assert named == f"http://{socket.gethostname()}:{port}/?token=a%20b"
        assert address_of(ServeSettings(host="::1"), local).startswith("http://[::1]:")
    with pytest.raises(UsageError, match="no address of this machine"):
        listen(ServeSettings(host="203.0.113.7", port=0))
