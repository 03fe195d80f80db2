import json
from pathlib import Path

import pytest
import toys
import yaml
from commands import call

from lateen.features import encode

PROBE = ["--probe.head.dim", "8", "--probe.train.batch", "16", "--probe.train.epochs", "3",
         "--measure.k", "3", "--measure.resamples", "100", "--measure.svcca_dim", "2"]  # fmt: skip


@pytest.fixture
def recipe(album: Path) -> Path:
    """A recipe of two vision encoders and one text encoder."""
    path = album / "assess.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.4},
                "vision": [
                    {"encoder": "toys:colour_encoder"},
                    {"encoder": "lateen.encoders.baselines:raw_pixels", "baseline": True},
                ],
                "text": [{"encoder": "toys:word_encoder"}],
            }
        )
    )
    return path


def test_a_recipe_prints_the_leaderboard_and_what_it_says(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = recipe.parent / "out"
    code, shown, err = call(capsys, "assess", recipe, "--out", out, *PROBE)
    assert (code, err) == (0, "")
    for word in ("Leaderboard", "toys:colour_encoder", "raw pixels (baseline)", "aligns best",
                 "report.html"):  # fmt: skip
        assert word in " ".join(shown.split())
    code, shown, _ = call(capsys, "assess", recipe, "--out", out, *PROBE, "--json")
    assert code == 0
    assert json.loads(shown) == json.loads((out / "leaderboard.json").read_text())
    figures = recipe.parent / "figures"
    code, shown, _ = call(
        capsys, "assess", recipe, "--out", out, *PROBE, "--format", "latex", "--figures", figures
    )
    assert (code, shown.count(r"\begin{table}")) == (0, 2)
    assert "toys:colour\\_encoder" in shown
    assert "aligns best" not in shown
    assert {"scatter-cka.svg", "scatter-cka.pdf"} <= {path.name for path in figures.iterdir()}


def test_stores_are_assessed_without_a_recipe(
    album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(album / "images", toys.ColourEncoder(), album / "i")
    encode(album / "train.jsonl", toys.WordEncoder(), album / "t")
    words = ["assess", "--images", album / "i", "--texts", album / "t", "--out", album / "out",
             "--holdout", "0.5"]  # fmt: skip
    code, shown, err = call(capsys, *words, *PROBE)
    assert (code, err) == (0, "")
    assert "is the only pair" in " ".join(shown.split())
    assert (album / "out" / "report.html").is_file()
    code, _, err = call(capsys, *words, "--train.lr", "1")
    assert code == 2
    assert "Did you mean 'probe.train.lr'?" in err


WRONG = [
    ([], 2, "there is nothing to assess"),
    (["absent.yaml"], 2, "there is no recipe absent.yaml"),
    (["a.yaml", "--images", "x"], 2, "--images belongs to an assessment without a recipe"),
    (["a.yaml", "--missing", "drop"], 2, "--missing belongs to an assessment without a recipe"),
    (["a.yaml", "--limit", "0"], 2, "--limit"),
    (["a.yaml", "--measure.knn", "10,x"], 2, "'measure.knn.1' cannot be 'x'"),
    (["a.yaml", "--data.rot", "x"], 2, "Did you mean 'data.root'?"),
    (["a.yaml", "--sweep", "all"], 2, "'sweep' cannot be 'all'"),
    (["a.yaml", "stray"], 2, "unexpected argument 'stray'"),
    (["--images", "nowhere", "--texts", "nowhere"], 1, "nowhere"),
    (["--images", "nowhere"], 2, "there is nothing to assess"),
    (["run.yaml"], 2, "it is a recipe of `lateen run`"),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG)
def test_wrong_input_is_one_line_with_a_remedy(
    words: list[str], code: int, message: str, recipe: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(recipe.parent)
    recipe.rename("a.yaml")
    Path("run.yaml").write_text("vision: {encoder: x}\n")
    found, _, err = call(capsys, "assess", *words, "--out", "out")
    assert found == code
    assert message in err
    assert len(err.splitlines()) == 1


def test_run_and_plan_refuse_the_recipe_of_an_assessment(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["run", recipe, "--out", recipe.parent / "o"], ["plan", recipe]):
        code, _, err = call(capsys, *words)
        assert code == 2
        assert "it is a recipe of `lateen assess`" in err
