"""``lateen mllm swap`` and ``lateen mllm compare``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import call
from mllm.benchmarks import published
from mllm.conftest import save_language_model


@pytest.fixture(scope="module")
def mllm(vit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lateen.mllm import build

    folder = tmp_path_factory.mktemp("mllm")
    build(vit_folder, save_language_model(folder / "llm"), folder / "mllm", grid=2)
    return folder / "mllm"


def test_a_tower_is_swapped_and_what_comes_next_is_said(
    capsys: pytest.CaptureFixture[str], mllm: Path, resnet_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("mllm", "swap", mllm, "--tower", resnet_folder, "--out", out)
    code, said, err = call(capsys, *words)
    assert code == 0, err
    entry = json.loads((out / "mllm.json").read_text())["swapped"][0]
    tower, unchanged, tokens, model, *following = said.splitlines()
    weights = entry["tower_weights"]
    assert f"{weights['before'][:12]} → " in tower
    assert f"{weights['after'][:12]}: 4 tokens of 16 values (patch)" in tower
    assert f"language model {entry['language_model'][:12]}, projector" in unchanged
    assert f"cosine with the old ones {entry['tokens']['cosine']:.3f}" in tokens
    assert model == f"model      {out}"
    assert following[-1].strip() == (
        f"lateen mllm swap {mllm} --tower {resnet_folder} --out {out} --benchmark NAME --data DIR"
    )
    assert "the projector is untrained: answers have nothing to do with the image" in err
    code, said, _ = call(capsys, *words, "--json")
    told = json.loads(said)
    assert (code, told["model"], told["swapped"]) == (0, str(out), [entry])
    assert told["notes"]


def test_both_are_asked_the_same_and_their_answers_stand_beside_each_other(
    capsys: pytest.CaptureFixture[str], mllm: Path, resnet_folder: Path, tmp_path: Path
) -> None:
    data, out = published.pope(tmp_path / "data"), tmp_path / "out"
    words = ("mllm", "swap", mllm, "--tower", resnet_folder, "--out", out, "--benchmark", "pope",
             "--data", data, "--device", "cpu")  # fmt: skip
    code, said, err = call(capsys, *words)
    assert code == 0, err
    assert said.splitlines()[-2:] == [f"results  {out}/eval/pope-all-compared.json",
                                      f"page     {out}/eval/pope-all-compared.html"]  # fmt: skip
    assert "The difference is after above before" in " ".join(said.split())
    compared = json.loads((out / "eval" / "pope-all-compared.json").read_text())
    assert compared["models"] == ["before", "after"]
    # The same of two finished evaluations, and of no model.
    places = (out / "eval-before", out / "eval")
    beside = ("mllm", "compare", *places, "--data", data)
    code, said, err = call(capsys, *beside, "--out", tmp_path / "page", "--labels", "a", "b")
    assert (code, err) == (0, "")
    assert said.splitlines()[-1] == f"page     {tmp_path}/page/pope-all-compared.html"
    again = json.loads((tmp_path / "page" / "pope-all-compared.json").read_text())
    assert again["numbers"] == compared["numbers"]
    assert again["models"] == ["a", "b"]
    code, said, _ = call(capsys, *beside, "--json")
    assert (code, json.loads(said)["models"]) == (0, ["eval-before", "eval"])
    code, said, _ = call(capsys, *beside, "--format", "markdown")
    assert said.startswith("| %")
    code, said, _ = call(capsys, "compare", *places, "--json")  # as any other results
    values = {row["metric"]: row["values"] for row in json.loads(said)["rows"]}
    assert [*values["accuracy"].values()] == again["numbers"][0]["values"]
    code, said, _ = call(capsys, *words, "--json")
    assert json.loads(said)["compared"]["numbers"] == compared["numbers"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("swap gone --tower VIT --out o", "gone is no multimodal language model"),
        ("swap MLLM --tower ./gone --out o", "there is no folder ./gone"),
        ("swap MLLM --tower VIT --out o --data .", "--data is of a benchmark, and there is none"),
        ("swap MLLM --tower VIT --out o --limit 0", "--limit is 0"),
        ("swap MLLM --tower VIT --out MLLM", "is the model itself"),
        ("swap MLLM --tower VIT --out o --benchmark popes", "Did you mean 'pope'?"),
        ("swap MLLM --tower VIT --out o --benchmark pope --data gone", "there is no gone"),
        ("swap MLLM --tower VIT --out o --benchmark llava-bench --data DATA", "cannot be scored"),
        ("swap MLLM --tower CLIP --out o", "tokens of another kind|of 24 values|cannot give"),
        ("compare gone MLLM", "there is no gone"),
        ("compare MLLM MLLM", "has no results"),
        ("compare MLLM MLLM --json --format latex", "are two forms"),
    ],
)
def test_what_is_wrong_is_one_line(
    capsys: pytest.CaptureFixture[str], vit_folder: Path, clip_folder: Path, mllm: Path,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"VIT": str(vit_folder), "MLLM": str(mllm), "CLIP": str(clip_folder)}
    if "DATA" in words:
        places["DATA"] = str(published.llava_bench(tmp_path / "data"))
    code, out, err = call(capsys, "mllm", *(places.get(word, word) for word in words.split()))
    assert code in (1, 2)
    assert any(each in err for each in message.split("|"))
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "o").exists()
