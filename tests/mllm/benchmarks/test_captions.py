"""Captions scored: words, CIDEr-D, and what a result says of it."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import published
import pytest

from lateen.errors import LateenError, UsageError
from lateen.evaluation import compare
from lateen.mllm import MultimodalModel, evaluate_questions
from lateen.mllm.benchmarks import cider as measure
from lateen.mllm.benchmarks import open_benchmark, score
from lateen.mllm.benchmarks.cider import PLAIN, PTB, cider, plain_words
from lateen.mllm.benchmarks.scoring import points_of

REFERENCES = {
    "a": ["a dog runs on the grass", "a brown dog runs"],
    "b": ["two men sit on a bench", "men on a bench outside"],
    "c": ["a cat sleeps", "the cat 's old chair"],
}
GIVEN = {"a": "a dog runs on grass", "b": "a dog sits on a bench", "c": "nothing like it"}
needs_pycocoevalcap = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None, reason="pycocoevalcap is not installed"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A dog runs.", "a dog runs"),
        ("Two  men, outside!\n", "two men outside"),
        ("The man's well-worn T-shirt", "the man 's well-worn t-shirt"),
        ("It’s 2.5 m", "it 's 2.5 m"),
        ("“Café” (open) _ -", "café open"),
        ("", ""),
    ],
)
def test_plain_words(text: str, words: str) -> None:
    assert plain_words(text) == words


def grams(text: str) -> Counter[tuple[str, ...]]:
    words = text.split()
    starts = range(len(words))
    some = (tuple(words[at : at + n]) for n in range(1, 5) for at in starts if at + n <= len(words))
    return Counter(some)


def cider_by_hand(references: Mapping[str, Sequence[str]], given: Mapping[str, str]) -> list[float]:
    """CIDEr-D as the paper's equations have it, sigma 6, times 10."""
    seen = Counter(g for texts in references.values() for g in {g for t in texts for g in grams(t)})

    def vector(text: str, n: int) -> dict[tuple[str, ...], float]:
        weight = {g: math.log(len(references)) - math.log(max(1, seen[g])) for g in grams(text)}
        return {g: c * weight[g] for g, c in grams(text).items() if len(g) == n}

    def norm(some: Mapping[Any, float]) -> float:
        return math.sqrt(sum(each**2 for each in some.values()))

    scores = []
    for name, texts in references.items():
        of_image = []
        for text in texts:
            # The released code takes the numbers of pairs of words for the lengths.
            length = max(0, len(given[name].split()) - 1) - max(0, len(text.split()) - 1)
            penalty = math.exp(-(length**2) / 72)
            for n in range(1, 5):
                own, right = vector(given[name], n), vector(text, n)
                dot = sum(min(v, right.get(g, 0)) * right.get(g, 0) for g, v in own.items())
                scale = norm(own) * norm(right)
                of_image.append(10 / 4 * penalty * (dot / scale if scale else dot))
        scores.append(sum(of_image) / len(texts))
    return scores


@needs_pycocoevalcap
def test_cider_is_that_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.shutil, "which", lambda _: None)
    found = cider(REFERENCES, GIVEN)
    assert found.tokenized_by == PLAIN
    assert list(found.values.values()) == pytest.approx(cider_by_hand(REFERENCES, GIVEN))
    assert found.values["c"] == 0 < found.values["b"] < found.values["a"]


@needs_pycocoevalcap
@pytest.mark.skipif(measure.shutil.which("java") is None, reason="there is no Java")
def test_the_ptb_tokenizer_finds_the_same_words_in_plain_captions() -> None:
    texts = {"a": ["A dog's bone, on the grass.", ""], "b": ["Two men\nsit!"]}
    assert measure._ptb_words(texts) == measure._plain_words(texts)
    written = {name: [f"{text}." for text in some] for name, some in REFERENCES.items()}
    found = cider(written, GIVEN)
    assert found.tokenized_by == PTB
    assert list(found.values.values()) == pytest.approx(cider_by_hand(REFERENCES, GIVEN))


def test_without_the_package_the_remedy_is_told(tmp_path: Path) -> None:
    if importlib.util.find_spec("pycocoevalcap") is not None:
        pytest.skip("pycocoevalcap is installed")
    questions = open_benchmark("captions-of", published.captioned(tmp_path))
    with pytest.raises(UsageError, match=r"needs the package .*pip install pycocoevalcap"):
        score(questions, {each.id: "A dog." for each in questions.questions})


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In place of pycocoevalcap: what the paper's equations give, and what it was given."""
    told: dict[str, Any] = {}

    class Cider:
        def compute_score(self, right: Any, given: Any) -> tuple[float, Any]:
            told.update(right=right, given=given)
            values = cider_by_hand(right, {name: each for name, [each] in given.items()})
            return float(np.mean(values)), np.array(values)

    class PTBTokenizer:
        def tokenize(self, captions: Any) -> Any:
            told["ptb"] = captions
            return {} if told.get("fails") else {
                name: [plain_words(each["caption"]) for each in some]
                for name, some in captions.items()
            }  # fmt: skip

    def module(name: str) -> ModuleType:
        made = importlib.util.module_from_spec(ModuleSpec(name, None))
        monkeypatch.setitem(sys.modules, name, made)
        return made

    for name in ("pycocoevalcap", "pycocoevalcap.cider", "pycocoevalcap.tokenizer"):
        module(name)
    for name, made in {"cider.cider": Cider, "tokenizer.ptbtokenizer": PTBTokenizer}.items():
        setattr(module(f"pycocoevalcap.{name}"), made.__name__, made)
    monkeypatch.setattr(measure.shutil, "which", lambda _: told.get("java"))
    return told


@pytest.mark.parametrize("java", [None, "java"])
def test_a_result_of_captions(tmp_path: Path, scorer: dict[str, Any], java: str | None) -> None:
    scorer["java"] = java
    questions = open_benchmark("captions-of", published.captioned(tmp_path))
    right = {f"{name}.jpg": [plain_words(text) for text in texts]
             for name, texts in published.CAPTIONS.items()}  # fmt: skip
    given = {"a.jpg": "A dog runs on grass.", "b.jpg": "A dog.", "c.jpg": "A cat sleeps"}
    other = {"a.jpg": "A dog.", "b.jpg": "A dog.", "c.jpg": ""}
    result = score(questions, given, other=other)
    own, under = (
        cider_by_hand(right, {name: plain_words(text) for name, text in some.items()})
        for some in (given, other)
    )
    assert result["cider"] == pytest.approx(100 * sum(own) / 3, abs=1e-3)
    assert result["control"]["cider"] == pytest.approx(100 * sum(under) / 3, abs=1e-3)
    assert result["gain"] == pytest.approx(result["cider"] - result["control"]["cider"], abs=1e-3)
    assert result["tokenized_by"] == (PTB if java else PLAIN)
    assert ("ptb" in scorer) is (java is not None)
    assert result["metric"] == "cider"
    assert "accuracy" not in result
    low, high = result["intervals"]["cider"]
    assert low <= result["cider"] <= high
    assert points_of(questions, given) == pytest.approx(own, abs=1e-4)


def test_java_that_fails_is_an_error(tmp_path: Path, scorer: dict[str, Any]) -> None:
    scorer |= {"java": "java", "fails": True}
    questions = open_benchmark("captions-of", published.captioned(tmp_path))
    with pytest.raises(LateenError, match="did not give back a line for each caption"):
        score(questions, {each.id: "A dog." for each in questions.questions})


def test_a_model_is_asked_for_captions(
    mllm: MultimodalModel, tmp_path: Path, scorer: dict[str, Any]
) -> None:
    table = published.captioned(tmp_path)
    with_coco = published.coco_captions(tmp_path / "coco")
    out = tmp_path / "out"
    result = evaluate_questions(mllm, open_benchmark("captions-of", table), out=out)
    assert (result["max_tokens"], result["answered_by"]) == (64, "generation")
    page = (out / "captions-of.html").read_text()
    for text in ("Less like people&#x27;s captions: 1 of 3", "More like them: 2 of 3", "CIDEr-D",
                 "Words for CIDEr-D are found by lateen&#x27;s own rule"):  # fmt: skip
        assert text in page
    rows = {row.metric: row for row in compare([out]).rows}
    assert rows["CIDEr"].values == (result["cider"],)
    scorer["java"] = "java"
    evaluate_questions(mllm, open_benchmark("captions-of", table), out=tmp_path / "b")
    differs = {row.differs for row in compare([out, tmp_path / "b"]).rows}
    assert differs == {("tokenized_by",)}
    few = evaluate_questions(mllm, open_benchmark("coco-captions", with_coco), max_tokens=2)
    assert (few["set"], few["split"], few["n"]) == ("coco-captions", "test", 2)
