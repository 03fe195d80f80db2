"""What the API answers, and what it says of requests that cannot be answered."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from serving_toys import Serve, encoded, engine_of, picture

HEADERS = {"content-type": "application/json"}


def ids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def colours(answer: Any) -> set[str]:
    return {name.rpartition("/")[2].partition("-")[0] for name in ids(answer)}


def upload(image: bytes) -> dict[str, Any]:
    return {"image": ("a.png", image, "image/png")}


def huge_png(width: int, height: int) -> bytes:
    """A PNG that claims many pixels, in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_sentence_finds_photographs_best_first(client: Any) -> None:
    answer = client.get("/api/search", params={"q": "red", "k": 12})
    assert colours(answer) == {"red"}
    hits = answer.json()["hits"]
    assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
    assert set(hits[0]) >= {"id", "path", "score", "width", "height", "taken", "folder"}
    assert answer.json()["query"] == "red"
    assert answer.json()["among"] == 36


def test_pages_go_on_where_the_last_ended_and_end(client: Any) -> None:
    whole = ids(client.get("/api/search", params={"q": "blue", "k": 36}))
    pages, offset = [], 0
    while offset is not None:
        answer = client.get("/api/search", params={"q": "blue", "k": 10, "offset": offset})
        pages += ids(answer)
        offset = answer.json()["next"]
    assert pages == whole
    assert len(set(pages)) == 36


def test_a_body_asks_the_same_as_an_address(client: Any) -> None:
    asked = {"query": "green", "k": 3, "filter": {"folder": "Italy", "since": "2020"}}
    posted = client.post("/api/search", json=asked)
    given = {"q": "green", "k": 3, "folder": "Italy", "since": "2020"}
    assert posted.json() == client.get("/api/search", params=given).json()
    assert all(name.startswith("Italy/") for name in ids(posted))
    assert 0 < posted.json()["among"] < 36


def test_a_picture_finds_what_is_like_it_and_words_beside_it_count(client: Any) -> None:
    red = upload(encoded(picture("red", seed=99)))
    assert colours(client.post("/api/search", files=red, data={"k": "12"})) == {"red"}
    both = client.post("/api/search", files=red, data={"k": "24", "query": "blue"})
    assert colours(both) == {"red", "blue"}
    inside = client.post("/api/search", files=red, data={"k": "9", "folder": "Norway"})
    assert {name.partition("/")[0] for name in ids(inside)} == {"Norway"}


def test_like_one_of_the_index_leaves_that_one_out(client: Any) -> None:
    name = ids(client.get("/api/search", params={"q": "red", "folder": "Italy/2023"}))[0]
    found = ids(client.get(f"/api/similar/{name}", params={"k": 11}))
    assert name not in found
    assert {each.rpartition("/")[2].partition("-")[0] for each in found} == {"red"}
    assert client.get("/api/similar/none.jpg").status_code == 404


def test_labels_sort_every_photograph(client: Any) -> None:
    asked = {"labels": ["red", "green", "blue"], "k": 2}
    answer = client.post("/api/classify", json=asked).json()
    assert [row["count"] for row in answer["labels"]] == [12, 12, 12]
    assert [len(row["hits"]) for row in answer["labels"]] == [2, 2, 2]
    assert answer["labels"][0]["hits"][0]["confidence"] > 0.3
    assert answer["among"] == 36
    inside = client.post("/api/classify", json=asked | {"filter": {"folder": "Norway"}}).json()
    assert inside["among"] == 9


def test_texts_and_pictures_are_embedded(client: Any) -> None:
    answer = client.post("/api/embed", json={"texts": ["red", "blue"]}).json()
    assert np.allclose(answer["vectors"], [[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
    assert answer["dim"] == 6
    answer = client.post("/api/embed", files=upload(encoded(picture("red")))).json()
    assert np.isclose(np.linalg.norm(answer["vectors"][0]), 1)


def test_what_hardly_shows_it_is_left_out_unless_asked_for(serve: Serve) -> None:
    client = serve(calibrated=True, rate=0)
    answer = client.get("/api/search", params={"q": "red", "k": 24}).json()
    assert len(answer["hits"]) == 12
    assert answer["cut_off"] == 0.5
    assert all(hit["probability"] >= 0.5 for hit in answer["hits"])
    nothing = client.get("/api/search", params={"q": "red + green + blue", "k": 5}).json()
    assert (nothing["hits"], nothing["nothing"], nothing["next"]) == ([], True, None)
    assert nothing["nearest"]["probability"] < 0.5
    anyway = client.get("/api/search", params={"q": "red + green + blue", "k": 5, "cut": "0"})
    assert len(ids(anyway)) == 5


def test_what_is_served_is_told(client: Any) -> None:
    about = client.get("/api/about").json()
    assert about["photographs"] == 36
    assert about["name"] == "photos"
    assert "/" not in about["model"].replace("/model", "")
    assert {"width", "taken", "folder"} <= set(about["columns"])
    assert client.get("/healthz").json() == {"status": "ok", "photographs": 36}
    folders = client.get("/api/folders").json()
    assert {"folder": "Italy", "count": 18} in folders["folders"]
    assert (folders["first"], folders["last"]) == ("2018-05-31", "2023-05-31")


def test_the_place_of_photographs_is_not_told_unless_asked_for(serve: Serve) -> None:
    plain, told = serve(rate=0), serve(rate=0, originals=True)
    asked = {"q": "red", "k": 1}
    assert not {"latitude", "longitude"} & set(
        plain.get("/api/search", params=asked).json()["hits"][0]
    )
    assert told.get("/api/search", params=asked).json()["hits"][0]["latitude"] == pytest.approx(
        48.137, abs=1e-3
    )
    # Nor found out by conditions, one comparison after the other.
    for where in (
        "latitude > 48",
        '"latitude" > 48',
        "LATITUDE > 48",
        "width > 1 OR longitude < 1",
    ):
        answer = plain.get("/api/search", params=asked | {"where": where})
        assert answer.status_code == 400, where
        assert "where photographs were taken" in answer.json()["error"]
    assert told.get("/api/search", params=asked | {"where": "latitude > 48"}).json()["among"] == 36


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"q": " "}, "empty"),
        ({}, "'q' is missing"),
        ({"q": "red", "k": "0"}, "'k': "),
        ({"q": "red", "k": "201"}, "'k': "),
        ({"q": "red", "k": "many"}, "'k': "),
        ({"q": "red", "offset": "-1"}, "'offset': "),
        ({"q": "- red"}, "not wanted"),
        ({"q": "red - red"}, "cancel out"),
        ({"q": "1" * 400 + ":red"}, "weighs too much"),
        ({"q": "r" * 1001}, "'q': "),
        ({"q": "a\0b"}, "no text"),
        ({"q": "id:gone.jpg"}, "no photograph"),
        ({"q": "red", "since": "May"}, "no date"),
        ({"q": "red", "since": "2024-02-31"}, "no date"),
        ({"q": "red", "where": "width >"}, "condition"),
        ({"q": "red", "where": "secret = 1"}, "no column"),
        ({"q": "red", "where": "width > 1" * 100}, "'where': "),
    ],
)
def test_a_search_that_cannot_be_is_told_why(
    client: Any, params: dict[str, str], words: str
) -> None:
    answer = client.get("/api/search", params=params)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert set(answer.json()) == {"error", "remedy"}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("search", b"", "no JSON"),
        ("search", b"{", "no JSON"),
        ("search", b"[" * 100_000, "no JSON"),
        ("search", b"[]", ""),
        ("search", b'{"query": "red", "limit": 3}', "'limit'"),
        ("search", b'{"query": "\\ud800"}', ""),
        ("search", b'{"k": 3}', "'query' is missing"),
        ("search", b'{"query": "red", "filter": {"sql": "1"}}', "'filter.sql'"),
        ("classify", b'{"labels": ["one"]}', "'labels': "),
        ("classify", b'{"labels": ["red", "red"]}', ""),
        ("classify", b'{"labels": ["red", ""]}', ""),
        ("classify", b"nothing", "no JSON"),
        ("embed", b'{"texts": []}', "'texts': "),
        ("embed", b'{"texts": [1]}', "'texts.0': "),
    ],
)
def test_a_body_that_cannot_be_is_told_why(client: Any, path: str, body: bytes, words: str) -> None:
    answer = client.post(f"/api/{path}", content=body, headers=HEADERS)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]


def test_ten_thousand_labels_are_refused(client: Any) -> None:
    answer = client.post("/api/classify", json={"labels": [f"label {i}" for i in range(10_000)]})
    assert answer.status_code == 400
    assert "at most 200" in answer.json()["error"]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 422, "empty"),
        (b"no picture at all", 422, "picture cannot be read: not an image"),
        (b"<html></html>", 422, "web page"),
        (encoded(picture("red"))[:-40], 422, "truncated"),
        (huge_png(20_000, 10_000), 413, "20000 × 10000"),
        (huge_png(2**31 - 1, 2**31 - 1), 413, "pixels"),
        (huge_png(0, 5), 422, ""),
    ],
)
def test_a_picture_that_cannot_be_is_told_why(
    client: Any, data: bytes, status: int, words: str
) -> None:
    for path in ("search", "embed"):
        answer = client.post(f"/api/{path}", files=upload(data))
        assert answer.status_code == status, answer.text
        assert words in answer.json()["error"]


def test_a_form_without_a_picture_is_told_so(client: Any) -> None:
    for given in ({"data": {"query": "red"}}, {"files": {"image": (None, "words")}},
                  {"files": {"photo": ("a.png", encoded(picture("red")))}}):  # fmt: skip
        answer = client.post("/api/search", **given)
        assert answer.status_code == 400
        assert "picture" in answer.json()["error"] or "photo" in answer.json()["error"]
    broken = client.post(
        "/api/search", content=b"--x\r\nnonsense", headers={"content-type": "multipart/form-data"}
    )
    assert broken.status_code == 400


def test_a_request_that_is_too_large_is_refused_with_and_without_its_length(serve: Serve) -> None:
    client = serve(rate=0, upload_bytes=1000)
    large = client.post("/api/search", files=upload(b"x" * 2000))
    assert large.status_code == 413
    assert "larger than" in large.json()["error"]

    def parts() -> Any:
        for _ in range(100):
            yield b"x" * 100

    unsaid = client.post("/api/search", content=parts(), headers=HEADERS)
    assert unsaid.status_code == 413
    classified = client.post("/api/classify", content=parts(), headers=HEADERS)
    assert classified.status_code == 413


def test_what_is_not_there_and_methods_that_are_not_taken(client: Any) -> None:
    assert client.get("/api/nothing").status_code == 404
    assert client.get("/static/none.js").status_code == 404
    assert client.delete("/api/search").status_code == 405
    assert "error" in client.delete("/api/search").json()
    for path in ("/docs/oauth2-redirect", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_a_failure_of_the_server_tells_nothing_of_its_insides(client: Any) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    engine_of(client).index.search = fails
    answer = client.get("/api/search", params={"q": "red"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert client.get("/healthz").status_code == 200


def test_the_api_is_described_for_machines_and_people(client: Any) -> None:
    schema = client.get("/api/openapi.json").json()
    assert {"/api/search", "/api/classify", "/api/embed", "/api/similar/{id}", "/healthz",
            "/metrics"} <= set(schema["paths"])  # fmt: skip
    assert set(schema["paths"]["/api/search"]) == {"get", "post"}
    page = client.get("/docs").text
    for words in ("/api/similar/{id}", "curl", "cosine between query and photograph", "since"):
        assert words in page
    assert "http://" not in page.replace("http://127.0.0.1:7860", "").replace(
        "http://www.w3.org", ""
    )
    assert json.dumps(schema)


def test_what_another_process_adds_is_found_without_a_new_start(own: Any, serve: Serve) -> None:
    from lateen.indexing import index

    index(own / "photos", own / "model", own / "index")
    client = serve(own, rate=0)
    assert client.get("/api/search", params={"q": "red"}).json()["among"] == 36
    picture("red", seed=77).save(own / "photos" / "new.png")
    index(own / "photos", own / "model", own / "index")
    engine_of(client)._look_again()
    answer = client.get("/api/search", params={"q": "red", "k": 40})
    assert answer.json()["among"] == 37
    assert "new.png" in ids(answer)
    assert client.get("/healthz").json()["photographs"] == 37
