from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from benchmark_toys import mmvp_folder, winoground_images, winoground_row, write
from commands import call, saved_model
from labelled_toys import class_folder

from lateen.features import import_features


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A saved model of toys: identity heads."""
    return saved_model(tmp_path / "model")


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Two sets of the suite, as of long ago."""
    root = tmp_path / "sets"
    mmvp_folder(root / "mmvp-vlm", [(1, "Text", "red"), (2, "Text", "blue")])
    examples = [winoground_row(0, "red and blue", "green and white")]
    write(root / "winoground" / "examples.jsonl", "\n".join(map(json.dumps, examples)))
    for name, data in winoground_images(examples).items():
        write(root / "winoground" / "images" / f"{name}.png", data)
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (1e9, 1e9))
    return root


def test_a_result_is_kept_whole_beside_the_pictures(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = class_folder(tmp_path / "photos", ["red", "green", "blue"])
    words = ("evaluate", model, "--images", images, "--out", tmp_path / "out")
    code, out, err = call(capsys, *words, "--task", "classification")
    assert (code, err) == (0, "")
    for text in ("Zero-shot classification: photos", "chance", "Accuracy by class",
                 "classification.json"):  # fmt: skip
        assert text in out
    assert (tmp_path / "out" / "confusion.png").is_file()
    saved = json.loads((tmp_path / "out" / "classification.json").read_text())
    code, out, _ = call(capsys, *words, "--task", "classification", "--json")
    assert (code, json.loads(out)) == (0, saved)
    assert saved["model"] == {
        "place": str(model), "vision": "toys:colour_encoder (mean)",
        "text": "toys:word_encoder (mean)", "head": "identity",
    }  # fmt: skip
    assert saved["options"] == {"images": str(images)}
    assert (saved["seed"], len(saved["templates"]) > 1) == (None, True)
    assert set(saved["conditions"]) == {"model", "data", "versions"}
    code, out, err = call(capsys, *words, "--task", "knn", "--k", 2, 3)  # which draws nothing
    assert (code, err) == (0, "")
    assert set(json.loads((tmp_path / "out" / "knn.json").read_text())["encoder"]) == {"2", "3"}


def test_suite_and_comparison(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate", model, "--suite", "paper", "--data.root", sets, "--out", tmp_path / "eval")
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    for text in ("winoground", "pair accuracy", "Missing", "clip-benchmark/wds_imagenetv2",
                 "(gated)", "report.html"):  # fmt: skip
        assert text in out
    code, out, err = call(capsys, *words)
    assert "2 of 2 were done before" in out
    code, out, err = call(capsys, *words, "--json")
    assert set(json.loads(out)["results"]) == {"winoground", "mmvp-vlm"}
    code, out, err = call(capsys, "compare", tmp_path / "eval", "--published")
    assert (code, err) == (0, "")
    for text in ("(1 of 135", "(1 of 400", "eval"):  # of less than the set nothing is published
        assert text in out
    table = tmp_path / "tables" / "all.csv"
    code, out, err = call(
        capsys, "compare", tmp_path / "eval" / "winoground.json", "--out", table, "--labels", "mine"
    )
    assert (code, err) == (0, "")
    with table.open() as file:
        assert [row["metric"] for row in csv.DictReader(file)] == ["text", "image", "group"]
    code, out, _ = call(capsys, "compare", tmp_path / "eval", "--format", "markdown")
    assert out.startswith("| task | set | metric | eval |")
    code, out, _ = call(capsys, "compare", tmp_path / "eval", "--json")
    assert json.loads(out)["models"] == ["eval"]


WRONG: list[tuple[Sequence[str], int, str]] = [
    (["evaluate", "M"], 2, "one of --task and --suite"),
    (["evaluate", "retreival", "M"], 2, "unknown task 'retreival'. Did you mean 'retrieval'?"),
    (["evaluate", "retrieval", "M", "--ouut", "o"], 2, "takes no --ouut. Did you mean 'out'?"),
    (["evaluate", "retrieval"], 2, "there is no model"),
    (["evaluate", "mmvp", "M"], 2, "mmvp needs --data"),
    (["evaluate", "suite", "M", "--data.root", "."], 2, "suite needs --out"),
    (["evaluate", "M", "--task", "knn", "--suite", "paper"], 2, "one of --task and --suite"),
    (["evaluate", "M", "--suite", "paper"], 2, "--suite needs --data.root"),
    (["evaluate", "M", "--suite", "paper", "--data.root", "."], 2, "--suite needs --out"),
    (["evaluate", "M", "--suite", "papr", "--data.root", ".", "--out", "o"], 2, "papr"),
    (["evaluate", "M", "--suite", "paper", "--data.root", "empty", "--out", "o"], 1, "none of the"),
    (["evaluate", "M", "--suite", "paper", "--data.root", "x", "--out", "o"], 1,
     "there is no folder"),
    (
        ["evaluate", "M", "--suite", "paper", "--data.root", ".", "--out", "o", "--per-image", "5"],
        2, "--per-image belongs to --task",
    ),
    (["evaluate", "M", "--task", "knn", "--data.root", "."], 2, "--data.root belongs to --suite"),
    (["evaluate", "M", "--task", "mmvp"], 2, "mmvp needs --data"),
    (["evaluate", "M", "--task", "mmvp", "--data", ".", "--seed", "1"], 2, "mmvp takes no --seed"),
    (
        ["evaluate", "M", "--task", "retrieval", "--images", ".", "--out", "file"],
        1, "file cannot be made",
    ),
    (["compare"], 2, "nothing to compare"),
    (["compare", "nowhere"], 1, "there is no nowhere"),
    (["compare", "empty"], 1, "empty has no results"),
    (["compare", "file"], 1, "file is not valid JSON"),
    (["compare", "empty", "--format", "html"], 2, "html"),
    (["compare", "empty", "--json", "--format", "csv"], 2, "two forms"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_input_is_one_line_with_a_remedy(
    words: Sequence[str], code: int, message: str, model: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(model.parent)
    Path("empty").mkdir()
    Path("file").write_text("in the way")
    got, out, err = call(capsys, *(str(model) if word == "M" else word for word in words))
    assert message in err
    assert got == code
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""


def test_embeddings_that_are_ready_need_no_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.eye(4, dtype=np.float32)
    for name, modality, ids in (
        ("i", "image", ["a", "b", "c", "d"]), ("t", "text", ["a", "b", "c", "d"]),
        ("n", "text", ["up", "down", "left", "right"]),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", rows)
        import_features(
            tmp_path / f"{name}.npy", tmp_path / name, ids=ids, modality=modality, encoder="mine"
        )
    words = ["evaluate", "--images", tmp_path / "i", "--texts"]
    code, out, _ = call(capsys, *words, tmp_path / "t", "--task", "retrieval", "--json")
    assert code == 0
    assert json.loads(out)["rsum"] == 600
    (tmp_path / "l.csv").write_text("id,label\na,up\nb,left\n")
    named = [*words, tmp_path / "n", "--task", "classification"]
    code, out, _ = call(capsys, *named, "--labels", tmp_path / "l.csv", "--json")
    assert code == 0
    assert json.loads(out)["top1"] == 50
    for wrong, message in (
        (named, "do not go together"),
        ([*words, tmp_path / "t", "--task", "mmvp"], "there is no model"),
        (["evaluate", "--task", "retrieval"], "there is no model"),
        ([*words, tmp_path / "t", "--task", "retrieval", "--window", "3"], "--window is of a"),
    ):
        code, _, err = call(capsys, *wrong)
        assert code == 2
        assert message in err
        assert len(err.splitlines()) == 1
