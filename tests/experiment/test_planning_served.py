"""What a plan says of a text encoder behind a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import call
from served_toys import EmbeddingServer, serving
from test_run import recipe

import lateen
from lateen.errors import UsageError
from lateen.experiment.planning import training

pytest.importorskip("openai", reason="openai, the client, is not installed")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    monkeypatch.setattr(training, "_STEPS", 2)
    monkeypatch.setattr(training, "_ENOUGH", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as made:
        yield made


def characters(album: Path) -> int:
    lines = (album / "train.jsonl").read_text().splitlines()
    return sum(len(text) for line in lines for text in json.loads(line)["caption"])


def test_it_counts_what_is_sent(server: EmbeddingServer, album: Path) -> None:
    text = {"encoder": server.name(), "prompt": "of: "}
    sent = lateen.plan(recipe(album, text=text), text_price=20.0)["sent"]
    whole = characters(album) + 48 * len("of: ")
    assert sent == {
        "encoders": [server.name()], "texts": 48, "characters": whole,
        "tokens": round(whole / 4), "requests": 2, "dollars": round(whole / 4) * 20 / 1e6,
    }  # fmt: skip
    assert lateen.plan(recipe(album))["sent"] is None
    with pytest.raises(UsageError, match="text_price is 0"):
        lateen.plan(recipe(album), text_price=0)


def test_the_command_says_so(
    server: EmbeddingServer, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(album, text={"encoder": server.name()})
    (album / "r.yaml").write_text(json.dumps(values))
    code, out, err = call(capsys, "plan", album / "r.yaml", "--text-price", 1000)
    assert code == 0, err
    whole = characters(album)
    assert f"sent     48 texts of {whole:,} characters to a server, in about 2 requests" in out
    assert f"by estimate {round(whole / 4):,} tokens, {round(whole / 4) / 1000:,.2f} $" in out
