"""``lateen mllm build``, ``lateen mllm answer`` and ``lateen mllm evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call
from mllm.benchmarks import published
from mllm.conftest import save_language_model

UNTRAINED = "The projector is untrained: the answer has nothing to do with the image."


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="module")
def mllm(vit_folder: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lateen.mllm import build

    folder = tmp_path_factory.mktemp("mllm") / "mllm"
    build(vit_folder, llm, folder, grid=2)
    return folder


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


def test_two_towers_are_fused(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, resnet_folder: Path, llm: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    towers = ("--tower", vit_folder, "--tower", resnet_folder)
    out = ("--llm", llm, "--out", tmp_path / "mllm")
    code, said, _ = call(capsys, "mllm", "build", *towers, *out, "--share", "0.7")
    assert code == 0
    name = f"{vit_folder.name} + {resnet_folder.name}"
    assert f"tower      {name}: 16 tokens of 16 values (additive, 0.7 of the first)" in said
    assert f"  part     {resnet_folder.name}: 16 values (patch, without a head), scale" in said
    code, said, _ = call(capsys, "mllm", "build", *towers, *out, "--mix", "channels", "--json")
    assert (code, json.loads(said)["tower"]["width"]) == (0, 32)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("build --tower VIT --llm gone --out o", "there is no language model gone"),
        ("build --tower ./gone --llm LLM --out o", "there is no folder ./gone"),
        ("build --tower VIT --llm VIT --out o", "the language model"),
        ("build --tower VIT --llm LLM --out o --tokens patches", "--tokens"),
        ("build --tower VIT --llm LLM --out o --grid 9", "a grid of 9 × 9 cannot be made"),
        ("build --tower VIT --llm LLM --out o --template none", "no chat template 'none'"),
        ("build --tower VIT --tower ./gone --llm LLM --out o", "there is no folder ./gone"),
        ("build --tower VIT --mix channels --llm LLM --out o", "one tower is no mixture"),
        ("build --tower VIT --tower VIT --share 2 --llm LLM --out o", "a share of 2 leaves"),
        ("answer gone What?", "gone is no multimodal language model"),
        ("answer VIT What?", "but a model of type 'vit'"),
        ("answer VIT What? --image gone.png", "there is no image gone.png"),
        ("answer VIT What? --max-tokens 0", "--max-tokens is 0"),
        ("evaluate", "there is no model"),
        ("evaluate VIT", "there is no --benchmark"),
        ("evaluate gone --benchmark pope", "gone is no multimodal language model"),
        ("evaluate VIT --benchmark pope", "but a model of type 'vit'"),
        ("evaluate VIT --benchmark pope --data nodata", "there is no nodata"),
        ("evaluate VIT --benchmark pope --limit 0", "--limit is 0"),
        ("evaluate VIT --benchmark pope --json --format latex", "are two forms"),
        ("evaluate MLLM --benchmark popes", "no benchmark 'popes'. Did you mean 'pope'?"),
        ("evaluate gone --benchmark popes --data nodata", "3 things are wrong"),
        ("evaluate MLLM --benchmark pope --suite vqa", "are two things"),
        ("evaluate MLLM --suite vqa --data .", "--suite needs --data and --out"),
        ("evaluate MLLM --suite vq --data . --out o", "no suite 'vq'. Did you mean 'vqa'?"),
        ("evaluate MLLM --suite vqa --data gone --out o", "there is no folder gone"),
        ("evaluate MLLM --suite vqa --data . --out o", "has no folder of the 7 benchmarks"),
        ("evaluate MLLM --suite vqa --data . --out o --split val", "--split is of one benchmark"),
        ("evaluate MLLM --benchmark pope --shots -1", "--shots is -1"),
        ("evaluate MLLM --benchmark pope --shots-from train", "--shots-from is of --shots"),
        ("evaluate MLLM --benchmark pope", "pope needs the folder with its files"),
        ("evaluate MLLM --benchmark pope --split none", "pope has no split 'none'"),
        ("evaluate MLLM --benchmark pope --data .", "coco_pope_random.json"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, llm: Path, mllm: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, words: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"VIT": str(vit_folder), "LLM": str(llm), "MLLM": str(mllm)}
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


def test_a_model_is_evaluated_and_compared(
    capsys: pytest.CaptureFixture[str], mllm: Path, tmp_path: Path
) -> None:
    data = published.seed_bench(tmp_path / "data")
    asked = ("mllm", "evaluate", mllm, "--benchmark", "seed-bench", "--data", data)
    out = tmp_path / "out"
    code, said, err = call(capsys, *asked, "--out", out, "--device", "cpu")
    assert (code, err) == (0, "")
    assert "1 questions about 1 images" in said
    assert "Beware: the projector is untrained" in " ".join(said.split())
    assert said.splitlines()[-2:] == [f"results  {out}/seed-bench.json",
                                      f"page     {out}/seed-bench.html"]  # fmt: skip
    code, said, _ = call(capsys, *asked, "--by", "generation", "--max-tokens", 2, "--json")
    result = json.loads(said)
    assert (code, result["answered_by"], result["cut"]) == (0, "generation", 1)
    code, said, _ = call(capsys, "compare", out, "--json")
    rows = {row["metric"]: row["values"] for row in json.loads(said)["rows"]}
    assert rows["accuracy"]["out"] in (0, 100)
    code, said, err = call(capsys, "evaluate", "mllm", mllm)
    assert (code, "See `lateen mllm evaluate --help`" in err) == (2, True)


def test_a_suite_is_evaluated_with_examples(
    capsys: pytest.CaptureFixture[str], mllm: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    published.vqav2(published.vqav2(root / "VQAv2"), "train2014")
    published.pope(root / "pope")
    asked = ("mllm", "evaluate", mllm, "--suite", "vqa", "--data.root", root, "--max-tokens", 2)
    code, said, err = call(capsys, *asked, "--out", tmp_path / "out", "--shots", 1)
    assert code == 0, err
    assert "pope: pope has no split to take examples from" in err
    assert "Missing: 5 evaluations" in said
    assert "SAIL-L in LLaVA" in " ".join(said.split())
    assert said.splitlines()[-2:] == [f"results  {tmp_path}/out/suite.json",
                                      f"report   {tmp_path}/out/report.html"]  # fmt: skip
    code, said, _ = call(capsys, *asked, "--out", tmp_path / "b", "--json")
    results = json.loads(said)["results"]
    assert {name: each["answered_by"] for name, each in results.items()} == {
        "pope": "first token", "vqav2": "generation",
    }  # fmt: skip


def test_likelihoods_are_compared(
    capsys: pytest.CaptureFixture[str], mllm: Path, tmp_path: Path
) -> None:
    data = published.captioned(tmp_path / "data")
    asked = ("mllm", "evaluate", mllm, "--data", data, "--by", "likelihood", "--out", tmp_path)
    code, said, _ = call(capsys, *asked, "--benchmark", "captions-of")
    assert code == 0
    assert "own likelier" in said
    assert "Nothing is answered: how likely captions are is compared." in " ".join(said.split())
    assert f"results  {tmp_path}/captions-of-likelihood.json" in said
    code, said, err = call(capsys, *asked, "--benchmark", "captions-of", "--max-tokens", 3)
    assert (code, "take no limit of tokens" in err) == (2, True)


def test_a_file_for_the_server_is_named(
    capsys: pytest.CaptureFixture[str], mllm: Path, tmp_path: Path
) -> None:
    data = published.vizwiz(tmp_path / "data", "test")
    asked = ("mllm", "evaluate", mllm, "--benchmark", "vizwiz", "--split", "test", "--data", data)
    code, said, err = call(capsys, *asked)
    assert (code, said) == (2, "")
    assert "Name one with --out" in err
    code, said, _ = call(capsys, *asked, "--out", tmp_path / "out", "--max-tokens", 2)
    assert "2 answers are cut by the limit of 2 tokens" in said
    file = Path(said.splitlines()[-1].removeprefix("upload   "))
    assert [row["image"] for row in json.loads(file.read_text())] == [
        "VizWiz_test_00000000.jpg", "VizWiz_test_00000001.jpg",
    ]  # fmt: skip


def test_all_benchmarks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    from lateen.mllm.evaluation import question_sets

    code, said, _ = call(capsys, "mllm", "evaluate", "--list", "--json")
    known = json.loads(said)
    assert code == 0
    assert known == question_sets()
    _, table, _ = call(capsys, "mllm", "evaluate", "--list")
    assert all(name in table for name in known)
