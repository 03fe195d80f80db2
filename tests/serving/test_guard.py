"""Who may ask, and what keeps a browser from anything else."""

from __future__ import annotations

from typing import Any

import pytest
from serving_toys import ADDRESS, Serve, encoded, picture
from starlette.testclient import TestClient

from lateen.serving.settings import ServeSettings, is_loopback

TOKEN = "correct horse battery"
SEARCH = "/api/search?q=red&k=1"


def with_host(client: Any, host: str, path: str = SEARCH) -> int:
    return int(client.get(path, headers={"host": host}).status_code)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860", "LOCALHOST:1"]
)
def test_its_own_names_are_answered(client: Any, host: str) -> None:
    assert with_host(client, host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.evil.example",
     "127.0.0.1@evil.example", "evil.example@127.0.0.1", "192.168.1.5", "", "[::1", "a:b:c"],
)  # fmt: skip
def test_another_name_that_points_here_is_refused(client: Any, host: str) -> None:
    answer = client.get(SEARCH, headers={"host": host})
    assert answer.status_code == 421
    assert "not called" in answer.json()["error"]
    assert with_host(client, host, "/") == 421
    assert with_host(client, host, "/healthz") == 421


def test_on_a_network_addresses_are_answered_and_names_only_if_they_are_its_own() -> None:
    settings = ServeSettings(host="0.0.0.0", names=("Photos.example.org",))
    assert all(
        map(settings.knows_host, ("192.168.1.5", "fe80::1", "localhost", "photos.example.org"))
    )
    assert not settings.knows_host("evil.example")
    assert [is_loopback(h) for h in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.5", "example.org")] == [False] * 4


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": ADDRESS}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://127.0.0.1:9999"}, False),
        ({"origin": "http://[::1"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, False),
    ],
)
def test_pages_of_other_sites_may_not_ask(
    client: Any, headers: dict[str, str], allowed: bool
) -> None:
    answers = [
        client.get(SEARCH, headers=headers),
        client.post("/api/search", json={"query": "red"}, headers=headers),
        client.get("/metrics", headers=headers),
    ]
    assert {each.status_code for each in answers} == ({200} if allowed else {403})


def test_a_link_on_another_site_shows_the_page(client: Any) -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/?q=red", headers=followed).status_code == 200
    assert client.get(SEARCH, headers=followed).status_code == 403


def test_every_answer_keeps_browsers_from_loading_anything_else(client: Any) -> None:
    for path in ("/", SEARCH, "/api/nothing", "/docs", "/static/none", "/api/search"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    assert client.get("/", headers={"host": "evil.example"}).headers["x-frame-options"] == "DENY"


def test_without_the_token_nothing_is_told(serve: Serve) -> None:
    client = serve(rate=0, token=TOKEN)
    for path in (SEARCH, "/api/similar/a.jpg", "/api/thumbnail/a.jpg", "/api/image/a.jpg",
                 "/api/folders", "/api/about", "/metrics", "/api/openapi.json", "/api/nothing",
                 "/nothing", "//", "/healthz/../api/about", "/api/about/"):  # fmt: skip
        assert client.get(path).status_code == 401, path
    for path in ("search", "classify", "embed"):
        assert client.post(f"/api/{path}", content=b"{").status_code == 401
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 401
        assert "36" not in page.text
        assert 'action="/enter"' in page.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("given", "known"),
    [(f"Bearer {TOKEN}", True), (f"bearer  {TOKEN}", True), (f"Basic {TOKEN}", False),
     ("Bearer wrong", False), ("Bearer", False), (TOKEN, False), (f"Bearer {TOKEN}x", False)],
)  # fmt: skip
def test_a_token_in_a_header(serve: Serve, given: str, known: bool) -> None:
    client = serve(rate=0, token=TOKEN)
    answer = client.get(SEARCH, headers={"authorization": given})
    assert answer.status_code == (200 if known else 401)
    strange = client.get(SEARCH, headers={"authorization": "Bearer \xe9\xff".encode("latin-1")})
    assert strange.status_code == 401


def test_the_link_with_the_token_is_remembered_as_a_cookie_that_no_script_reads(
    serve: Serve,
) -> None:
    client = serve(rate=0, token=TOKEN)
    page = client.get("/", params={"token": TOKEN, "q": "red"})
    assert page.status_code == 200
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert client.get(SEARCH).status_code == 200  # the client sends the cookie back
    assert "set-cookie" not in client.get("/").headers
    client.cookies.clear()
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    # In an address it counts for pages alone: other addresses end up in histories and logs.
    assert client.get(SEARCH, params={"token": TOKEN}).status_code == 401


def test_the_token_can_be_typed(serve: Serve) -> None:
    client = serve(rate=0, token=TOKEN)
    wrong = client.post("/enter", data={"token": "guessed"})
    assert wrong.status_code == 401
    assert "another token" in wrong.text
    assert client.post("/enter").status_code == 401
    right = client.post("/enter", data={"token": TOKEN}, follow_redirects=False)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert client.get(SEARCH).status_code == 200


def test_a_page_that_another_site_linked_to_asks_again_by_itself(serve: Serve) -> None:
    """Browsers keep a strict cookie back then, and send it when the page asks again."""
    client = serve(rate=0, token=TOKEN)
    linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert 'http-equiv="refresh"' in client.get("/", headers=linked).text
    assert 'http-equiv="refresh"' not in client.get("/").text


def test_guessing_tokens_is_slowed_down(serve: Serve) -> None:
    client = serve(rate=1, token=TOKEN)
    guesses = [
        client.get(SEARCH, headers={"authorization": f"Bearer {i}"}).status_code for i in range(30)
    ]
    assert guesses.count(429) >= 15
    typed = [client.post("/enter", data={"token": "x"}).status_code for _ in range(5)]
    assert 429 in typed


def test_who_asks_too_much_is_told_when_to_ask_again(serve: Serve) -> None:
    client = serve(rate=0.5)
    answers = [client.get(SEARCH) for _ in range(12)]
    refused = [each for each in answers if each.status_code == 429]
    assert refused
    assert answers[0].status_code == 200
    assert int(refused[0].headers["retry-after"]) >= 1
    assert "more than one client" in refused[0].json()["error"]
    assert client.get("/healthz").status_code == 200
    others = TestClient(client.app, base_url=ADDRESS, client=("10.0.0.9", 1))
    assert others.get(SEARCH).status_code == 200


def test_who_a_proxy_says_that_it_asks_for_is_not_believed(serve: Serve) -> None:
    client = serve(rate=0.5)
    codes = {
        client.get(SEARCH, headers={"x-forwarded-for": f"10.0.0.{i}"}).status_code
        for i in range(12)
    }  # fmt: skip
    assert 429 in codes


def test_websockets_are_refused(client: Any) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/search"):
        pass


def test_an_upload_that_says_its_size_is_refused_before_it_is_read(serve: Serve) -> None:
    client = serve(rate=0, upload_bytes=100)
    answer = client.post("/api/search", files={"image": encoded(picture("red"))})
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
