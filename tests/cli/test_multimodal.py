"""``lateen mllm build`` and ``lateen mllm answer``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call
from mllm.conftest import save_language_model

UNTRAINED = "The projector is untrained: the answer has nothing to do with the image."


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llm"))


def test_a_model_is_built_and_asked(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, llm: Path, tmp_path: Path,
    draw: Callable[..., Path],
) -> None:  # fmt: skip
    out = tmp_path / "mllm"
    code, said, err = call(
        capsys, "mllm", "build", "--tower", vit_folder, "--llm", llm, "--out", out, "--layer", "-2",
        "--grid", "2",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "4 tokens of 16 values (patch, without a head)" in said
    assert "projector  untrained: until it is trained, answers have nothing to do with" in said
    one, two = draw("a.png", 1), draw("b.png", 2)
    asked = ("mllm", "answer", out, "What is it?", "--image", one, "--max-tokens", 3)
    code, said, err = call(capsys, *asked)
    assert (code, err) == (0, "")
    assert said.splitlines()[-2:] == [
        "[The answer is cut: it reached the limit of 3 tokens.]",
        f"[{UNTRAINED}]",
    ]
    code, said, _ = call(capsys, *asked, "--image", two, "--json")
    given = json.loads(said)
    assert (code, given["images"], given["cut"], given["tokens"]) == (0, 2, True, 3)
    assert given["notes"][-1] == UNTRAINED


def test_the_record_of_a_build_as_json(
    capsys: pytest.CaptureFixture[str], clip_folder: Path, llm: Path, tmp_path: Path
) -> None:
    code, said, _ = call(capsys, "mllm", "build", "--tower", clip_folder, "--llm", llm,
                         "--out", tmp_path / "mllm", "--json")  # fmt: skip
    record = json.loads(said)
    assert (code, record["projector"], record["template"]) == (0, "untrained", "chatml")
    assert record["tower"]["tokens_per_image"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("build --tower VIT --llm gone --out o", "there is no language model gone"),
        ("build --tower ./gone --llm LLM --out o", "there is no folder ./gone"),
        ("build --tower VIT --llm VIT --out o", "the language model"),
        ("build --tower VIT --llm LLM --out o --tokens patches", "--tokens"),
        ("build --tower VIT --llm LLM --out o --grid 9", "a grid of 9 × 9 cannot be made"),
        ("build --tower VIT --llm LLM --out o --template none", "no chat template 'none'"),
        ("answer gone What?", "gone is no multimodal language model"),
        ("answer VIT What?", "but a model of type 'vit'"),
        ("answer VIT What? --image gone.png", "there is no image gone.png"),
        ("answer VIT What? --max-tokens 0", "--max-tokens is 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, llm: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, words: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"VIT": str(vit_folder), "LLM": str(llm)}
    code, out, err = call(capsys, "mllm", *(places.get(word, word) for word in words.split()))
    assert code in (1, 2)
    assert message in err
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "o").exists()


def test_on_a_terminal_words_come_as_they_are_found(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, llm: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    call(capsys, "mllm", "build", "--tower", vit_folder, "--llm", llm, "--out", tmp_path / "m")
    asked = ("mllm", "answer", tmp_path / "m", "What is it?", "--max-tokens", 6)
    _, plain, _ = call(capsys, *asked)
    written: list[str] = []
    from lateen.cli import multimodal

    monkeypatch.setattr(multimodal, "_write", written.append)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _, live, _ = call(capsys, *asked)
    assert "".join(written).strip() == plain.splitlines()[0].strip()
    assert live.splitlines() == ["", *plain.splitlines()[1:]]
