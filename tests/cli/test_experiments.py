import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import call

LADDER = """
base:
  data: {train: train.jsonl, holdout: 0.25, captions: ["caption#0"]}
  train: {batch: 6, epochs: 2, validations: 1}
  head: {dim: 8}
seeds: [0, 1, 2]
rungs:
  - name: linear
    published: {t2i: 11.1, i2t: 13.5}
  - name: glu
    set: {head.name: glu}
    published: {t2i: 16.1, i2t: 22.5}
"""
TOYS = ["--vision.encoder", "toys:colour_encoder", "--text.encoder", "toys:word_encoder"]


def test_ablate_prints_the_ladder(album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (album / "ladder.yaml").write_text(LADDER)
    words = ["ablate", album / "ladder.yaml", "--data.root", album, *TOYS, "--seeds", "1,2",
             "--out", album / "out", "--train.epochs", "1"]  # fmt: skip
    code, out, err = call(capsys, *words)
    assert (code, err.count("\n")) == (0, 1)
    assert "6 held-out images" in err
    for shown in ("linear", "glu", "±", "11.1 / 13.5", "T2I published", "+5.0", "report.html"):
        assert shown in out
    code, out, _ = call(capsys, *words, "--json")
    results = json.loads(out)
    assert code == 0
    code, out, _ = call(capsys, *words, "--format", "latex", "--figures", album / "figures")
    assert (code, out.count(r"\begin{table}"), out.count(r"\toprule")) == (0, 2, 2)
    assert r"$\pm$" in out
    assert "report.html" not in out
    names = {path.name for path in (album / "figures").iterdir()}
    assert names == {"ladder.svg", "ladder.pdf"}
    code, _, err = call(capsys, *words, "--format", "latex", "--json")
    assert (code, err) == (2, "error: --json and --format latex are two forms. Give one of them.\n")
    assert results["seeds"] == [1, 2]
    assert {rung["train"]["epochs"] for rung in results["rungs"]} == {1}


WRONG: list[tuple[Sequence[str], int, str]] = [
    (["absent.yaml"], 2, "there is no ladder absent.yaml"),
    (["l.yaml", "--seeds", "0,one"], 2, "--seeds cannot be '0,one'"),
    (["l.yaml", "--seeds", "-1,2"], 2, "seeds"),
    (["l.yaml", "--seeds", "1,1"], 2, "'seeds' in the ladder cannot be (1, 1)"),
    (["l.yaml", "--train.lrr", "1"], 2, "Did you mean 'train.lr'?"),
    (["l.yaml", "stray"], 2, "unexpected argument 'stray'"),
    (["key.yaml"], 2, "unknown key 'rung 2 sett' in the ladder. Did you mean 'set'?"),
    (["from.yaml"], 2, "rung 'glu' builds on 'gru', which is no rung above it"),
    (["cycle.yaml"], 2, "rung 'linear' builds on 'glu', which is no rung above it"),
    (["l.yaml", "--data.root", "nowhere"], 1, "nowhere"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_ladders_are_one_line_with_a_remedy(
    words: Sequence[str], code: int, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.yaml").write_text(LADDER)
    (tmp_path / "key.yaml").write_text(LADDER.replace("set:", "sett:"))
    (tmp_path / "from.yaml").write_text(LADDER.replace("set:", "from: gru\n    set:"))
    cycle = LADDER.replace("set:", "from: linear\n    set:").replace(
        "linear\n", "linear\n    from: glu\n", 1
    )
    (tmp_path / "cycle.yaml").write_text(cycle)
    got, out, err = call(capsys, "ablate", *words, *TOYS, "--out", "o")
    assert message in err
    assert got == code
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_caption_that_is_not_there_is_one_line(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "ladder.yaml").write_text(LADDER.replace("caption#0", "caption#9"))
    code, _, err = call(
        capsys, "ablate", album / "ladder.yaml", "--data.root", album, *TOYS, "--out", album / "o"
    )
    assert code == 1
    assert err.startswith("error: caption#9 needs 10 captions of every image")
    assert not (album / "o").exists()  # nothing was encoded
