"""``lateen index``, ``search`` and ``duplicates`` as people type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import calibrated_model, call, saved_model
from toys import COLOURS, photo


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and photographs in two folders."""
    monkeypatch.chdir(tmp_path)
    saved_model(Path("model"))
    for i in range(12):
        photo(Path("photos") / ("day", "night")[i % 2] / f"{i:02d}.png", list(COLOURS)[i % 6],
              seed=i)  # fmt: skip
    return tmp_path


def words(capsys: pytest.CaptureFixture[str], *given: object) -> str:
    """What a command that goes well prints."""
    code, out, err = call(capsys, *given)
    assert code == 0, err
    return out


@pytest.fixture
def index(place: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = words(capsys, "index", "photos", "--model", "model", "--out", "index")
    assert out.startswith("12 photographs: 12 added, 0 changed, 0 removed\n")
    assert 'lateen search index "..." finds' in out
    return place / "index"


def test_an_index_is_made_grown_and_searched(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo(Path("photos/more.png"), "red", seed=8)
    Path("photos/bad.png").write_bytes(b"no picture")
    grown = json.loads(
        words(capsys, "index", "photos", "--model", "model", "--out", "index", "--json")
    )
    assert (grown["added"], grown["count"], grown["unreadable"][0]["id"]) == (1, 13, "bad.png")
    out = words(capsys, "search", "index", "something", "red", "--k", 3)
    assert "something red" in out and "more.png" in out
    assert "among 13 photographs, as of 20" in out
    found = json.loads(
        words(capsys, "search", "index", "2:red + photos/day/02.png - white", "--json")
    )
    assert found["query"] == '2 × "red" + 02.png − "white"'
    assert found["same"] == ["day/02.png"] and found["among"] == 12
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 12


def test_a_lone_hyphen_is_a_minus(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apart = json.loads(words(capsys, "search", "index", "red", "-", "white", "--json"))
    whole = json.loads(words(capsys, "search", "index", "red - white", "--json"))
    assert apart == whole and apart["query"] == '"red" − "white"'


def test_filters_likeness_and_folders_of_results(
    index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    night = json.loads(words(capsys, "search", "index", "red", "--folder", "night", "--json"))
    assert {hit["folder"] for hit in night["hits"]} == {"night"} and night["among"] == 6
    none = words(capsys, "search", "index", "red", "--where", "width > 9999")
    assert "No hits." in none and "among 0 photographs" in none
    like = json.loads(words(capsys, "search", "index", "--like", "day/00.png", "--k", 2, "--json"))
    assert like["hits"][0]["id"] == "day/06.png"  # of the same colour
    both = ["--image", "photos/day/00.png", "--out", "sheet.png"]
    assert "like 00.png" in words(capsys, "search", "index", *both)
    assert Path("sheet.png").read_bytes()[:4] == b"\x89PNG"
    words(capsys, "search", "index", "red", "--k", 3, "--copy-to", "copies", "--link-to", "links")
    assert [p.name[:2] for p in sorted(Path("copies").iterdir())] == ["1-", "2-", "3-"]
    link = min(Path("links").iterdir())
    assert link.is_symlink() and link.read_bytes() == min(Path("copies").iterdir()).read_bytes()
    code, _, err = call(capsys, "search", "index", "red", "--k", 3, "--copy-to", "copies")
    assert (code, "exists. Give a folder without results" in err) == (2, True)


def test_nothing_like_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrated_model(Path("model"), -60.0)
    asked = ["search", "model", "red", "--images", "photos"]
    out = words(capsys, *asked)
    assert out.startswith("nothing like that among 12 photographs: the nearest, ")
    assert "the cut-off is 0.8 %. --cut-off 0 shows the nearest anyway." in out
    anyway = words(capsys, *asked, "--cut-off", 0)
    assert "shows it (%)" in anyway and "nothing like that" not in anyway
    assert json.loads(words(capsys, *asked, "--json"))["nothing"] is True


def test_copies_are_grouped(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile("photos/day/00.png", "photos/copy.png")
    words(capsys, "index", "photos", "--model", "model", "--out", "index")
    found = json.loads(words(capsys, "duplicates", "index", "--near", 0.99999, "--json"))
    [group] = [g for g in found["groups"] if any(p["id"] == "copy.png" for p in g["photographs"])]
    assert group["identical"] == ["day/00.png"]
    assert [round(p["score"], 3) for p in group["photographs"]][:2] == [1.0, 1.0]
    out = words(capsys, "duplicates", "index", "--near", 0.99999)
    assert "Nearly the same" in out and "by a cosine of 0.99999 or more" in " ".join(out.split())
    every = json.loads(words(capsys, "duplicates", "model", "--images", "photos", "--near", 0.01,
                             "--json"))  # fmt: skip
    assert [len(g["photographs"]) for g in every["groups"]] == [13]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("search index", "there is nothing to look for. Give a sentence, --image FILE or --like"),
        ("search index red --image gone.jpg", "there is no image gone.jpg"),
        ("search index gone.jpg", "there is no image gone.jpg"),
        ("search index --like gone", "the index has no photograph 'gone'"),
        ("search index red --images photos", "index is an index, which knows its photographs"),
        ("search model red", "model is no index, and no photographs are given"),
        ("search index red --where wid>3", "No field named wid. The columns are: id, "),
        ("search index red --since 20244", "since is '20244', and no date"),
        ("search index red --k 0", "k is 0"),
        ("search index - red", "only what is not wanted"),
        ("search index red --bank other.npz", "is by its own query bank"),
        ("search photos red --images photos", "photos is not a lateen model"),
        ("index gone --model model --out i", "there is no gone"),
        ("index photos --model gone --out i", "gone is not a lateen model"),
        ("index photos --model model --out photos", "photos is not empty and not an index"),
        ("index photos --model model --out model/config.json", "is a file"),
        ("duplicates index --near 1.5", "near is 1.5"),
        ("duplicates gone", "gone is no index"),
    ],
)
def test_what_is_wrong_is_one_line(
    index: Path, capsys: pytest.CaptureFixture[str], given: str, message: str
) -> None:
    code, out, err = call(capsys, *given.split())
    assert (out, err.count("\n")) == ("", 1)
    assert code in (1, 2) and message in err
