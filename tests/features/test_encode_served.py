"""Stores of an encoder behind a server: those of the encoder itself, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from commands import call
from served_toys import EmbeddingServer, serving, vector, vectors

from lateen.encoders import Encoder, load_encoder
from lateen.errors import EncoderError, ModelError, StoreError
from lateen.features import encode, pipeline
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

pytest.importorskip("openai", reason="openai, the client, is not installed")

LONG = "a text that is far too long"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as made:
        yield made


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Of 90 images, one each."""
    lines = [{"image": f"{i}.jpg", "caption": f"caption {i} of a dog " + "x " * (i % 7)}
             for i in range(90)]  # fmt: skip
    lines[40]["caption"] = LONG
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Direct:
    """The fake's model without a server between."""

    def __init__(self, served: Encoder) -> None:
        self.info = served.info

    def prepare(self, items: Sequence[str]) -> list[str]:
        return list(items)

    def encode(self, prepared: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(vectors(prepared))


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stored(server: EmbeddingServer, captions: Path, out: Path) -> Path:
    encode(captions, server.name(), out, texts_only=True, shard_items=40)
    return out


def test_the_store_is_that_of_the_encoder_itself(
    server: EmbeddingServer, captions: Path, tmp_path: Path
) -> None:
    served = stored(server, captions, tmp_path / "served")
    direct = Direct(load_encoder(server.name()))
    encode(captions, direct, tmp_path / "direct", texts_only=True, shard_items=40)
    assert digest(served) == digest(tmp_path / "direct")


@pytest.mark.parametrize("fault", ["500", "fewer", "longer", "429"])
def test_a_server_that_fails_loses_nothing(
    server: EmbeddingServer, captions: Path, tmp_path: Path, fault: str
) -> None:
    whole = stored(server, captions, tmp_path / "whole")
    server.fault = lambda texts: fault if any("caption 50 " in text for text in texts) else None
    with pytest.raises(EncoderError):
        stored(server, captions, tmp_path / "s")
    server.fault = lambda texts: None
    server.requests.clear()
    assert digest(stored(server, captions, tmp_path / "s")) == digest(whole)
    asked = [text for texts in server.requests for text in texts]
    assert not any(text.startswith("caption 7 ") for text in asked)  # of the first shard


def test_a_text_that_is_refused_is_left_out(
    server: EmbeddingServer, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda texts: "400" if LONG in texts else None
    out = tmp_path / "s"
    words = ("encode", captions, "--texts-only", "--encoder", server.name(), "--out", out, "--json")
    code, printed, err = call(capsys, *words)
    assert code == 0, err
    assert "1 × the server refused the text" in err
    assert json.loads(printed)["rows"] == 89
    [skip] = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert skip["reason"] == "the server refused the text (400: toy says 400)"
    assert skip["id"] == "40.jpg"


def test_a_refused_text_in_a_part_on_disk_keeps_its_reason(
    server: EmbeddingServer, captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = lambda texts: "400" if LONG in texts else None  # noqa: E731
    server.fault = refused
    whole = stored(server, captions, tmp_path / "whole")
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    again = partial(
        encode, captions, server.name(), tmp_path / "s", texts_only=True, batch_size=1,
        shard_items=40,
    )  # fmt: skip
    # The longest of the second shard come last.
    server.fault = lambda texts: (
        refused(texts) or ("500" if any("caption 48 " in text for text in texts) else None)
    )
    with pytest.raises(EncoderError):
        again()
    assert list((tmp_path / "s").glob("*.part-*"))
    server.fault = refused
    assert again().skipped
    left = {name: d for name, d in digest(tmp_path / "s").items() if name != "plan.json"}
    assert left == {name: d for name, d in digest(whole).items() if name != "plan.json"}


def test_a_half_written_store_of_another_model_is_refused(
    server: EmbeddingServer, captions: Path, tmp_path: Path
) -> None:
    server.fault = lambda texts: "500" if any("caption 50 " in text for text in texts) else None
    with pytest.raises(EncoderError):
        stored(server, captions, tmp_path / "s")
    server.fault = lambda texts: None
    server.vector = partial(vector, seed=1)
    with pytest.raises(StoreError, match="weights"):
        stored(server, captions, tmp_path / "s")


def test_a_model_finds_the_server_and_knows_its_model(
    server: EmbeddingServer, vit_folder: Path, tmp_path: Path
) -> None:
    texts = ["a dog", "a cat", "a red dog"]
    image = load_encoder(str(vit_folder), "image", pooling="cls")
    text = load_encoder(server.name(), prompt="of: ")
    head = HeadSection(dropout=0.0, dim=8)
    made = AlignedModel.build(
        AlignmentHeads(head, image.info.dim, text.info.dim), image.info.as_dict(),
        text.info.as_dict(), head.model_dump(),
    )  # fmt: skip
    folder = tmp_path / "model"
    made.save_pretrained(folder)
    model = AlignedModel.from_pretrained(folder)
    features = torch.from_numpy(vectors([f"of: {text}" for text in texts]))
    torch.testing.assert_close(model.encode_text(texts), model.project_text(features))
    # A copy for others names the model in its card, and finds the server.
    model.save_pretrained(tmp_path / "copy", local_paths=False)
    assert "**toy** for texts" in (tmp_path / "copy" / "README.md").read_text()
    again = AlignedModel.from_pretrained(tmp_path / "copy")
    assert again.text_encoder.info.id == server.name()
    torch.testing.assert_close(again.encode_text(texts), model.encode_text(texts))
    with pytest.raises(ModelError, match="behind a server and cannot be saved"):
        model.save_pretrained(tmp_path / "whole", encoders=True)
    server.vector = partial(vector, seed=1)
    with pytest.raises(ModelError, match="not the one this model was trained with: weights"):
        AlignedModel.from_pretrained(folder).encode_text(texts)
