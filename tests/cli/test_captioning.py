"""``lateen caption``: from photographs to a model that is trained beside their raw captions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call
from mllm.conftest import save_language_model
from served_toys import ChatServer, serving
from toys import COLOURS

import lateen

pytest.importorskip("openai", reason="openai, the client, is not installed")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(kind=ChatServer) as made:
        made.says = lambda picture: f"All of it is {_colour(picture.getpixel((2, 2)))}."
        yield made


def _colour(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return min(
        COLOURS, key=lambda n: sum((a - b) ** 2 for a, b in zip(COLOURS[n], pixel, strict=True))
    )


def test_made_captions_are_trained_on_beside_raw_ones(
    server: ChatServer, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda picture: "refusal" if len(server.requests) == 5 else None
    made, stores = tmp_path / "vlm.parquet", tmp_path / "stores"
    words = ("caption", album / "images", "--model", server.name(), "--out", made)
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert "captions  23 of 24 images, in the column vlm_caption" in out
    assert "1 × the model refused (I will not.)" in out
    assert "tokens: 2,400 given, 168 came" in out
    for name, source, encoder in (
        ("images", album / "images", "toys:colour_encoder"),
        ("raw", album / "train.jsonl", "toys:word_encoder"),
        ("vlm", made, "toys:word_encoder"),
    ):
        images = ("--images", album / "images") if name == "raw" else ()
        code, _, err = call(
            capsys, "encode", source, "--encoder", encoder, "--out", stores / name, *images
        )
        assert code == 0, err
    code, out, err = call(
        capsys, "train", "--images", stores / "images", "--texts", stores / "raw", stores / "vlm",
        "--out", tmp_path / "run", "--head.dim", "4", "--train.epochs", "2", "--json",
    )  # fmt: skip
    assert code == 0, err
    pairs = lateen.pair(*(stores / name for name in ("images", "raw", "vlm")))
    assert [column.store.name for column in pairs.texts] == ["caption", "vlm_caption"]
    assert len(pairs) == 23  # one has no made caption
    assert 0 < json.loads(out)["text_to_image"]["R@10"] <= 100
    code, out, _ = call(capsys, *words, "--json")
    assert (code, json.loads(out)["asked"], json.loads(out)["before"]) == (0, 0, 24)


def test_a_plan_says_what_it_costs(
    server: ChatServer, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("caption", album / "images", "--model", server.name(), "--out", tmp_path / "v.parquet")
    code, out, err = call(capsys, *words, "--plan", "--price-in", 1000, "--price-out", 1e4)
    assert code == 0, err
    assert "sample    000.png (" in out
    assert "24: 0 have an answer, 0 cannot be read, 24 to ask about" in out
    assert "2,400 given (the images' own among them), 168 come, by the mean of 3" in out
    assert "price     4.08 $" in out
    code, _, err = call(capsys, *words, "--samples", 2)
    assert (code, "--samples is of --plan" in err) == (2, True)


def test_a_model_of_a_folder_captions(
    vit_folder: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lateen.mllm import build

    llm = save_language_model(tmp_path / "llm", talks=True)
    build(vit_folder, llm, tmp_path / "mllm", grid=2)
    code, out, err = call(
        capsys, "caption", album / "images", "--model", tmp_path / "mllm", "--prompt", "What?",
        "--max-tokens", 4, "--out", tmp_path / "v.parquet", "--json",
    )  # fmt: skip
    assert code == 0, err
    summary = json.loads(out)
    assert summary["asked"] == 24
    assert summary["tokens"]["answer"] == 24 * 4
    assert "The projector is untrained" in err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("photos", "--model", "openai+host:80#m"), "is not the address of a server"),
        (("photos", "--model", "gone"), "gone is no multimodal language model"),
        (("gone", "--model", "openai+http://host/v1#m"), "there is no gone"),
        (("photos", "--model", "openai+http://host/v1#m", "--at-once", "0"), "--at-once is 0"),
        (("photos", "--model", "openai+http://host/v1#m", "--timeout", "0"), "--timeout is 0"),
    ],
)
def test_what_is_wrong_is_said_first(
    wrong: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    code, _, err = call(capsys, "caption", *wrong, "--out", "v.parquet")
    assert code
    assert told in err
