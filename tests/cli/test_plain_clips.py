"""A plain CLIP or SigLIP works wherever a command asks for a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call
from toys import photo

Capture = pytest.CaptureFixture[str]


@pytest.fixture(params=["clip_folder", "siglip_folder"])
def plain(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def test_every_command_that_takes_a_model_takes_it(
    plain: Path, album: Path, tmp_path: Path, capsys: Capture
) -> None:
    images = ["--images", album / "images"]
    for colour in ("red", "blue"):
        for index in range(2):
            photo(tmp_path / "classes" / colour / f"{index}.png", colour, seed=index)
    captions = ["--captions", album / "train.jsonl", *images]
    commands: list[list[object]] = [
        ["search", plain, "a red dog", *images],
        ["search", plain, "--image", album / "images" / "000.png", *images],
        ["classify", plain, *images, "--labels", "a dog,a cat"],
        ["embed", plain, *images, "--out", tmp_path / "e.npy"],
        ["evaluate", "retrieval", plain, *captions, "--out", tmp_path / "eval"],
        ["evaluate", "classification", plain, "--images", tmp_path / "classes"],
        ["evaluate", plain, "--task", "knn", "--images", tmp_path / "classes", "--k", 1],
        ["export", plain, "--to", "lateen", "--out", tmp_path / "handed"],
        ["compare", tmp_path / "eval"],
    ]  # fmt: skip
    for words in commands:
        code, out, err = call(capsys, *words, "--json")
        assert code == 0, (words, err)
        json.loads(out)
    code, _, err = call(capsys, "export", plain, "--to", "sail", "--out", tmp_path / "s.pt")
    assert (code, "cannot hold" in err) == (1, True)


def test_what_is_no_model_at_all_is_refused_alike(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p").mkdir()
    photo(tmp_path / "p" / "a.png", "red")
    images = ["--images", tmp_path / "p"]
    for words in (
        ["search", tmp_path, "x", *images], ["classify", tmp_path, *images, "--labels", "a,b"],
        ["embed", tmp_path, *images, "--out", tmp_path / "e.npy"],
        ["export", tmp_path, "--to", "lateen", "--out", tmp_path / "o"],
        ["evaluate", "retrieval", tmp_path, *images],
    ):  # fmt: skip
        code, out, err = call(capsys, *words)
        assert (code, out) == (1, "")
        assert "is not a lateen model" in err and err.count("\n") == 1
