"""A suite of questions: what is found, asked, kept, missing and told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lateen.errors import DataError, UsageError
from lateen.evaluation import compare
from lateen.evaluation.published import MLLM_SUITES
from lateen.evaluation.suite_page import suite_tables
from lateen.mllm import MultimodalModel, build, evaluate_questions, open_questions
from lateen.mllm.benchmarks import BENCHMARKS
from lateen.mllm.suite import HowAsked, evaluate_suite, find_benchmarks

from .benchmarks import published
from .test_evaluation import killed_after

QUICK = HowAsked(max_tokens=2)


def everything(root: Path) -> Path:
    """Three of SAIL's seven, in folders as people call them."""
    published.seed_bench(root / "SEED-Bench")
    published.pope(root / "pope")
    published.textvqa(root / "text_vqa")
    return root


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["state"] for each in summary["evaluations"]}


def test_every_benchmark_of_a_suite_is_known() -> None:
    assert all(name in BENCHMARKS for names in MLLM_SUITES.values() for name in names)
    assert len(MLLM_SUITES["sail"]) == len(MLLM_SUITES["in-context"]) == 7


def test_what_is_there_is_asked_and_the_rest_told(mllm: MultimodalModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary, results = evaluate_suite(mllm, everything(tmp_path / "data"), out, how=QUICK)
    assert states(summary) == dict.fromkeys(MLLM_SUITES["vqa"], "missing") | dict.fromkeys(
        ("seed-bench", "pope", "textvqa"), "done"
    )
    alone = evaluate_questions(
        mllm, open_questions("pope", tmp_path / "data" / "pope"), max_tokens=2
    )
    told = {"seconds_per_question", "model"}
    assert {k: v for k, v in results["pope"].items() if k not in told} == {
        k: v for k, v in alone.items() if k not in told
    }
    assert json.loads((out / "suite.json").read_text()) == summary
    for name in ("seed-bench.json", "pope-all.json", "pope-all.html", "textvqa-val.json"):
        assert (out / name).is_file()
    page = (out / "report.html").read_text()
    for text in ("Suite vqa: 3 of 7", "86.16 SAIL-L in LLaVA", "another&#x27;s image",
                 "the projector is untrained", "visualqa.org/download.html"):  # fmt: skip
        assert text in page
    overview, missing = suite_tables(summary, results, published=True)
    assert [column.name for column in overview.columns][-1].startswith("published (other")
    assert [row[1] for row in overview.rows if "SAIL-L" in str(row[-1])] == [
        "accuracy", "F1", "accuracy",
    ]  # fmt: skip
    assert [row[0] for row in missing.rows] == ["gqa", "vizwiz", "mmbench", "vqav2"]
    assert all("Get " in str(row[2]) for row in missing.rows)


def test_what_was_asked_is_not_asked_again(
    mllm: MultimodalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = everything(tmp_path / "data"), tmp_path / "out"
    evaluate_suite(mllm, root, out, how=QUICK)
    published.vsr(tmp_path / "data" / "vsr")
    said = killed_after(monkeypatch, 0)  # any question would end it

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(mllm, "answer", never)
    summary, results = evaluate_suite(mllm, root, out, how=QUICK)
    assert said == []
    assert [name for name, state in states(summary).items() if state == "kept"] == list(results)
    assert len(results) == 3


def test_one_that_fails_does_not_stop_the_others(mllm: MultimodalModel, tmp_path: Path) -> None:
    root = everything(tmp_path / "data")
    (root / "text_vqa" / "TextVQA_0.5.1_val.json").unlink()
    summary, results = evaluate_suite(mllm, root, tmp_path / "out", how=QUICK)
    assert set(results) == {"seed-bench", "pope"}
    failed = {e["name"]: e["message"] for e in summary["evaluations"] if e["state"] == "failed"}
    assert "has no TextVQA_0.5.1_val.json" in failed["textvqa"]
    assert "Failed" in (tmp_path / "out" / "report.html").read_text()


def test_a_split_without_answers_is_written_for_its_server(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    published.vqav2(tmp_path / "data" / "vqav2", "test-dev2015", answers=False)
    summary, results = evaluate_suite(mllm, tmp_path / "data", tmp_path / "out", how=QUICK)
    assert results == {}
    [entry] = [each for each in summary["evaluations"] if each["state"] == "upload"]
    assert (tmp_path / "out" / entry["upload"]).is_file()
    table = suite_tables(summary, results)[0]
    assert table.title == "To be scored elsewhere"
    assert list(table.rows) == [["vqav2", "vqav2-test-dev2015-upload.json"]]


def test_two_suites_are_compared(
    mllm: MultimodalModel, llm_folder: Path, aligned: Callable[..., Path], tmp_path: Path
) -> None:
    root = everything(tmp_path / "data")
    built = build(aligned(), llm_folder, seed=1)
    other = MultimodalModel(built.model, built.processor, built.record)
    for model, name in ((mllm, "a"), (other, "b")):
        evaluate_suite(model, root, tmp_path / name, how=QUICK)
    found = compare([tmp_path / "a", tmp_path / "b" / "suite.json"])
    assert found.labels == ("a", "b")
    rows = {(row.set, row.metric): row for row in found.rows}
    assert len(rows["pope, all", "F1"].values) == 2
    assert rows["pope, all", "F1"].differs == ()
    first, *_ = rows["pope, all", "F1"].published
    assert first.source == "SAIL-L in LLaVA"


def test_what_cannot_be_is_said_first(mllm: MultimodalModel, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"no suite 'vqas'\. Did you mean 'vqa'"):
        evaluate_suite(mllm, tmp_path, out, suite="vqas")
    with pytest.raises(DataError, match="has no folder of the 7 benchmarks"):
        evaluate_suite(mllm, tmp_path, out)
    with pytest.raises(UsageError, match="a suite is answered"):
        evaluate_suite(mllm, everything(tmp_path), out, how=HowAsked(answered_by="likelihood"))
    assert not out.exists()


def test_folders_go_by_usual_names(tmp_path: Path) -> None:
    for name in ("RefCOCO+", "refcoco", "Seed", "GQA", "other"):
        (tmp_path / name).mkdir()
    found = find_benchmarks(tmp_path, ("refcoco-plus", "refcoco", "seed-bench", "gqa", "pope"))
    assert {name: path.name for name, path in found.items()} == {
        "refcoco-plus": "RefCOCO+", "refcoco": "refcoco", "seed-bench": "Seed", "gqa": "GQA",
    }  # fmt: skip


def test_examples_and_first_tokens_where_there_can_be_some(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    published.vqav2(published.vqav2(root / "vqav2"), "train2014")
    how = HowAsked(answered_by="first token", max_tokens=2, shots=1)
    summary, results = evaluate_suite(mllm, root, tmp_path / "out", how=how)
    assert (results["vqav2"]["shots"], results["vqav2"]["answered_by"]) == (1, "generation")
    assert states(summary)["vqav2"] == "done"
    assert (tmp_path / "out" / "vqav2-val2014-1-shot.json").is_file()
