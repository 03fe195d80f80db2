"""Only photographs of the index are read, and only where they are meant to be."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from serving_toys import Serve, encoded, engine_of, picture

from lateen.indexing import index
from lateen.serving.reading import GoneError, OutsideError

KINDS = ("thumbnail", "image", "similar")


@pytest.fixture
def secret(own: Path) -> Path:
    """A picture that nobody may see, beside the photographs."""
    path = own / "secret.jpg"
    picture("red", seed=5).save(path)
    return path


def served(own: Path, serve: Serve, **settings: Any) -> Any:
    index(own / "photos", own / "model", own / "index")
    return serve(own, rate=0, **settings)


@pytest.mark.parametrize(
    "path",
    [
        "../secret.jpg", "Italy/../../secret.jpg", "./Norway/../../secret.jpg", "/etc/passwd",
        "//etc/passwd", "..\\secret.jpg", "..%2fsecret.jpg", "%2e%2e/secret.jpg",
        "%2e%2e%2fsecret.jpg", "%252e%252e%252fsecret.jpg", "..%c0%afsecret.jpg", "%00",
        "secret.jpg%00.jpg", "....//secret.jpg", "file:///etc/passwd", "%2fetc%2fpasswd", "~", "",
        "Italy", "Italy/", ".", "..", "C:%5CWindows%5Cwin.ini", "a" * 5000,
    ],
)  # fmt: skip
def test_paths_are_no_ids(own: Path, secret: Path, serve: Serve, made: Path, path: str) -> None:
    client = serve(made, rate=0)
    for kind in KINDS:
        for given in (path, quote(path, safe="")):
            answer = client.get(f"/api/{kind}/{given}")
            assert answer.status_code in (400, 404, 405), (kind, given, answer.text)
            assert "root:" not in answer.text
    static = client.get(f"/static/{quote(path, safe='')}")
    assert static.status_code in (307, 404) or path == ".."  # which is the start page
    assert client.get("/api/search", params={"q": f"id:{path or 'x'}"}).status_code == 400


def test_a_raw_path_that_climbs_is_refused(serve: Serve) -> None:
    """Clients tidy paths up; this one does not."""
    client = serve(rate=0)
    for path in (b"/api/image/../../../../etc/passwd", b"/static/../settings.py",
                 b"/api/image/%2e%2e/%2e%2e/etc/passwd"):  # fmt: skip
        assert raw(client, path) in (401, 404)


def raw(client: Any, path: bytes) -> int:
    statuses: list[int] = []

    async def ask() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await client.app(
            {"type": "http", "method": "GET", "path": unquote(path.decode()), "raw_path": path,
             "headers": [(b"host", b"127.0.0.1")], "query_string": b"", "scheme": "http",
             "server": ("127.0.0.1", 7860), "client": ("127.0.0.1", 1), "http_version": "1.1",
             "root_path": "", "asgi": {"version": "3.0"}},
            receive, send,
        )  # fmt: skip

    client.portal.call(ask)
    return statuses[0]


def test_a_link_to_a_file_outside_is_not_followed(own: Path, secret: Path, serve: Serve) -> None:
    (own / "photos" / "link.jpg").symlink_to(secret)
    client = served(own, serve, originals=True)
    for path in ("thumbnail/link.jpg", "image/link.jpg", "image/link.jpg?original=1"):
        answer = client.get(f"/api/{path}")
        assert answer.status_code == 403
        assert "outside the indexed folder" in answer.json()["error"]
        assert str(own) not in answer.text


def test_a_linked_folder_outside_is_not_followed_unless_it_is_allowed(
    own: Path, serve: Serve
) -> None:
    elsewhere = own / "elsewhere"
    elsewhere.mkdir()
    picture("blue", seed=8).save(elsewhere / "blue.png")
    (own / "photos" / "linked").symlink_to(elsewhere, target_is_directory=True)
    client = served(own, serve)
    found = client.get("/api/search", params={"q": "blue", "folder": "linked"}).json()["hits"]
    assert [hit["id"] for hit in found] == ["linked/blue.png"]
    assert client.get("/api/thumbnail/linked/blue.png").status_code == 403
    allowing = served(own, serve, allow=(elsewhere,))
    assert allowing.get("/api/thumbnail/linked/blue.png").status_code == 200
    near = served(own, serve, allow=(own / "else",))  # a name that begins alike is another folder
    assert near.get("/api/thumbnail/linked/blue.png").status_code == 403


def test_a_photograph_that_has_become_a_link_is_not_followed(
    own: Path, secret: Path, serve: Serve
) -> None:
    photo = own / "photos" / "Norway" / "blue-02.jpg"
    client = served(own, serve)
    assert client.get("/api/thumbnail/Norway/blue-02.jpg").status_code == 200
    size = photo.stat().st_size
    data = secret.read_bytes()
    secret.write_bytes(data + b"\0" * (size - len(data)))  # as long as what was indexed
    photo.unlink()
    photo.symlink_to(secret)
    for kind in ("thumbnail", "image"):
        assert client.get(f"/api/{kind}/Norway/blue-02.jpg").status_code == 403
    shutil.move(own / "photos" / "Norway", own / "Norway")
    (own / "photos" / "Norway").symlink_to(own / "Norway", target_is_directory=True)
    assert client.get("/api/image/Norway/green-10.jpg").status_code == 403


def test_a_link_that_is_put_there_while_it_is_opened_is_seen(
    own: Path, secret: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swapped in for the moment of opening, and out again before anybody looks."""
    photo, kept = own / "photos" / "Norway" / "blue-02.jpg", own / "kept.jpg"
    client = served(own, serve)
    reader = engine_of(client).reader
    plain = os.open

    def swapping(path: Any, *args: Any, **kwargs: Any) -> int:
        if str(path) != str(photo):
            return plain(path, *args, **kwargs)
        photo.rename(kept)
        photo.symlink_to(secret)
        try:
            return plain(path, *args, **kwargs)
        finally:
            photo.unlink()
            kept.rename(photo)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises((OutsideError, GoneError)):
        reader.bytes_of("Norway/blue-02.jpg")
    monkeypatch.setattr(os, "open", plain)
    assert reader.bytes_of("Norway/blue-02.jpg").data == photo.read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_or_socket_in_its_place_does_not_hold_the_server(own: Path, serve: Serve) -> None:
    photo = own / "photos" / "Norway" / "blue-02.jpg"
    client = served(own, serve)
    photo.unlink()
    os.mkfifo(photo)
    assert client.get("/api/image/Norway/blue-02.jpg").status_code == 410
    photo.unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(photo))
        assert client.get("/api/image/Norway/blue-02.jpg").status_code == 410
    photo.unlink()
    photo.mkdir()
    assert client.get("/api/image/Norway/blue-02.jpg").status_code == 410


def test_a_photograph_that_is_gone_or_another_is_told(own: Path, serve: Serve) -> None:
    client = served(own, serve)
    folder = own / "photos" / "Norway"
    (folder / "blue-02.jpg").unlink()
    (folder / "green-10.jpg").write_bytes(encoded(picture("red", size=(90, 90)), "JPEG"))
    for name, words in (("blue-02", "not there any more"), ("green-10", "has changed")):
        for kind in ("thumbnail", "image"):
            answer = client.get(f"/api/{kind}/Norway/{name}.jpg")
            assert answer.status_code == 410
            assert words in answer.json()["error"]
            assert "lateen index" in answer.json()["remedy"]
    # What the index knows is found all the same.
    assert client.get("/api/search", params={"q": "blue"}).json()["among"] == 36
    assert client.get("/api/similar/Norway/blue-02.jpg").status_code == 200


def test_of_a_shard_only_its_own_pictures_are_read(own: Path, serve: Serve) -> None:
    shard = own / "shards" / "a.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for number, colour in enumerate(("red", "green")):
            path = own / f"{number}.jpg"
            picture(colour, seed=number).save(path)
            tar.add(path, f"{number}.jpg")
            (own / f"{number}.txt").write_text(f"a {colour} picture")
            tar.add(own / f"{number}.txt", f"{number}.txt")
    index(shard, own / "model", own / "index")
    client = serve(own, rate=0, originals=True)
    found = client.get("/api/search", params={"q": "green", "k": 1}).json()["hits"][0]
    original = client.get(f"/api/image/{found['id']}", params={"original": "1"})
    assert original.content == (own / "1.jpg").read_bytes()
    assert client.get(f"/api/thumbnail/{found['id']}").status_code == 200
    shard.write_bytes(shard.read_bytes()[:100])
    assert client.get(f"/api/image/{found['id']}").status_code == 410


def test_paths_are_told_relative_to_the_folder(client: Any, made: Path) -> None:
    answer = client.get("/api/search", params={"q": "red", "k": 36})
    assert all(hit["path"] == hit["id"] for hit in answer.json()["hits"])
    pages = [answer.text, client.get("/").text, client.get("/api/about").text,
             client.get("/metrics").text, client.get("/docs").text]  # fmt: skip
    assert not any(str(made) in page for page in pages)
