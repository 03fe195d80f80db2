"""Two models' answers to the same questions: who is right where, how sure, and on which page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lateen.errors import DataError, UsageError
from lateen.mllm import MultimodalModel, compare_answers, evaluate_questions, evaluate_swap, swap
from lateen.mllm.benchmarks import QuestionSet
from lateen.mllm.choosing import Choice
from lateen.mllm.comparison import shared_results

from .test_evaluation import asked, rows


@pytest.fixture
def answering(mllm: MultimodalModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Evaluates a model that says what it is told to, into a folder."""

    def evaluated(out: Path, questions: QuestionSet, said: str, **options: Any) -> Path:
        """``said``: y or n for each question, in order."""
        by_prompt = dict(zip(questions.prompts(), said, strict=False))

        def choose(_: Any, prompt: str, *rest: Any) -> Choice:
            del rest
            yes = by_prompt[prompt] == "y"
            return Choice("yes" if yes else "no", {"yes": 0.9 if yes else 0.2}, 0.5)

        monkeypatch.setattr("lateen.mllm.answering.choose", choose)
        record = {**mllm.record, "projector": options.pop("projector", "trained")}
        named = MultimodalModel(mllm.model, mllm.processor, record)
        evaluate_questions(named, questions, out=out, **options)
        return out

    return evaluated


def test_who_is_right_where(answering: Callable[..., Path], tmp_path: Path) -> None:
    """Right is no, yes, no, yes, no, yes."""
    questions = asked(tmp_path)
    one = answering(tmp_path / "one", questions, "nyyyyn")  # right: 0, 1, 3
    two = answering(tmp_path / "two", questions, "nnnynn")  # right: 0, 2, 3, 4
    found = compare_answers(one, two, questions, out=tmp_path / "out")
    kinds = {name: [q.id for q in some] for name, some in found.sorted_by_winner().items()}
    assert kinds == {
        "Only two is right": ["2", "4"], "Only one is right": ["1"], "Both are wrong": ["5"],
        "Both are right": ["0", "3"],
    }  # fmt: skip
    assert found.same == 3
    saved = json.loads((tmp_path / "out" / "pope-random-compared.json").read_text())
    assert saved["right"] == {name: len(some) for name, some in kinds.items()}
    assert saved["models"] == ["one", "two"]
    [accuracy] = [each for each in saved["numbers"] if each["metric"] == "accuracy"]
    assert accuracy["values"] == pytest.approx([50, 100 * 4 / 6])
    assert accuracy["difference"] == pytest.approx(100 / 6)
    assert accuracy["apart"] is False


def test_the_difference_is_of_the_same_draws(
    answering: Callable[..., Path], tmp_path: Path
) -> None:
    """By hand: images drawn anew, each with its two questions, both models on each draw."""
    questions = asked(tmp_path, 40)
    right = "".join("y" if at % 2 else "n" for at in range(40))
    wrong = "".join("n" if at % 2 else "y" for at in range(40))
    first = wrong[:14] + right[14:]
    one = answering(tmp_path / "one", questions, first)
    two = answering(tmp_path / "two", questions, wrong[:2] + right[2:])
    [accuracy] = [each for each in compare_answers(one, two, questions).numbers
                  if each.metric == "accuracy"]  # fmt: skip
    gains = np.zeros(20)  # of each image, in questions
    gains[1:7] = 2
    draws = np.random.default_rng(0).choice(gains, (20000, 20)).sum(1) * 100 / 40
    low, high = np.percentile(draws, [2.5, 97.5])
    assert accuracy.interval == (pytest.approx(low, abs=3), pytest.approx(high, abs=3))
    assert accuracy.difference == pytest.approx(30)
    assert accuracy.apart
    own = accuracy.intervals[0]
    assert own is not None
    assert own[1] - own[0] == pytest.approx(high - low, abs=6)


def test_the_page_has_both_answers_and_whose_is_right(
    answering: Callable[..., Path], tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    one = answering(tmp_path / "one", questions, "nyyyyn")
    two = answering(tmp_path / "two", questions, "nnnynn")
    compare_answers(one, two, questions, out=tmp_path / "out", labels=("A", "B"))
    page = (tmp_path / "out" / "pope-random-compared.html").read_text()
    order = [page.index(each) for each in (
        "Only B is right: 2 of 6", "Only A is right: 1 of 6", "Both are wrong: 1 of 6",
        "Both are right: 2 of 6",
    )]  # fmt: skip
    assert order == sorted(order)
    assert page.count("<img ") == 6
    assert page.count("<dt>right answer</dt>") == 6
    card = page[page.index("Is it 1?") :]
    card = card[: card.index("</li>")]
    assert card.index("<dt>A</dt><dd>yes <b") < card.index("<dt>B</dt><dd>no <b")
    assert '<dd>yes <b class="right"' in card
    assert '<dd>no <b class="wrong"' in card
    assert "not beyond chance" in page
    assert "Both give the same answer to 3 of 6 questions" in page


def test_answers_that_are_partly_right_are_ordered_too(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    people = ("red",) * 2 + ("blue",) * 8  # two of ten say red, which is worth 0.6
    questions = asked(tmp_path, 2, kind="human", answers=people)
    for name, said in {"one": ["red", "red"], "two": ["blue", "red"]}.items():
        evaluate_questions(mllm, questions, out=tmp_path / name, control=False, max_tokens=1)
        file = tmp_path / name / "pope-random-answers.jsonl"
        head, *lines = rows(file)
        changed = [{**line, "answer": word} for line, word in zip(lines, said, strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in [head, *changed]))
    found = compare_answers(tmp_path / "one", tmp_path / "two", questions)
    counts = {name: len(some) for name, some in found.sorted_by_winner().items()}
    assert counts == {"two is more right": 1, "one is more right": 0, "Both are partly right": 1}


def test_a_drawn_part_with_an_unreadable_image_is_found_again(
    answering: Callable[..., Path], tmp_path: Path
) -> None:
    questions = asked(tmp_path, 8)
    (tmp_path / "0.jpg").write_bytes(b"no image")
    (tmp_path / "2.jpg").write_bytes(b"no image")
    one = answering(tmp_path / "one", questions, "n" * 8, limit=5)
    two = answering(tmp_path / "two", questions, "y" * 8, limit=5)
    found = compare_answers(one, two, questions)
    result = json.loads((one / "pope-random.json").read_text())
    assert 0 < result["questions"] < 5
    assert len(found.questions.questions) == result["questions"]
    answering(two, questions, "y" * 8, limit=7)
    with pytest.raises(DataError, match="not of the same data"):
        compare_answers(one, two, questions)


def test_other_questions_than_these_are_refused(
    answering: Callable[..., Path], tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    one = answering(tmp_path / "one", questions, "nyyyyn")
    two = answering(tmp_path / "two", questions, "nnnynn")
    reworded = replace(questions, ending="Say it.")
    with pytest.raises(DataError, match=r"not those of .*one.pope-random.json \(such as 0\)"):
        compare_answers(one, two, reworded)
    fewer = replace(questions, questions=questions.questions[:4])
    with pytest.raises(DataError, match="not those of"):
        compare_answers(one, two, fewer)
    with pytest.raises(DataError, match="no set of questions in common"):
        compare_answers(one, two, replace(questions, name="vsr"))
    (two / "pope-random-answers.jsonl").unlink()
    with pytest.raises(DataError, match=r"there is no .*answers\.jsonl"):
        compare_answers(one, two, questions)
    with pytest.raises(UsageError, match="are not two different ones"):
        compare_answers(one, one, questions, labels=("a", "a"))
    with pytest.raises(DataError, match=r"there is no .*gone"):
        compare_answers(one, tmp_path / "gone", questions)


def test_the_set_that_both_have_is_found(answering: Callable[..., Path], tmp_path: Path) -> None:
    questions = asked(tmp_path)
    vsr = replace(questions, name="vsr")
    for name in ("one", "two"):
        answering(tmp_path / name, questions, "nyyyyn")
    answering(tmp_path / "one", vsr, "nyyyyn")
    one, two = shared_results(tmp_path / "one", tmp_path / "two")
    assert one.result["set"] == two.result["set"] == "pope"
    answering(tmp_path / "two", vsr, "nyyyyn")
    with pytest.raises(UsageError, match="both have 2 sets: pope, random; vsr, random"):
        shared_results(tmp_path / "one", tmp_path / "two")
    assert shared_results(tmp_path / "one", tmp_path / "two", "vsr")[0].result["set"] == "vsr"
    with pytest.raises(UsageError, match="has several results of pope, random"):
        shared_results(tmp_path, tmp_path, "pope")


def test_what_was_answered_otherwise_or_blindly_is_said(
    answering: Callable[..., Path], mllm: MultimodalModel, tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    one = answering(tmp_path / "one", questions, "nyyyyn", projector="untrained")
    evaluate_questions(
        mllm, questions, out=tmp_path / "two", answered_by="generation", max_tokens=1
    )
    found = compare_answers(one, tmp_path / "two", questions, out=tmp_path / "out")
    assert found.warnings[0].startswith("the projector is untrained (one and two)")
    assert "not the same for both: answered_by, max_tokens" in found.warnings[1]
    assert all(each.interval is None and not each.apart for each in found.numbers)
    page = (tmp_path / "out" / "pope-random-compared.html").read_text()
    assert page.count("Beware: the projector is untrained") == 2
    assert "beyond chance</small>" not in page
    assert "Answers cut by the limit of tokens: one 0, two 6." in page


def test_a_swap_is_evaluated_on_both_sides(
    folder: Path, aligned: Callable[..., Path], tmp_path: Path
) -> None:
    """Of one tower for itself all answers are the same, and the difference is nothing."""
    questions = asked(tmp_path)
    out = tmp_path / "out"
    swap(folder, aligned(), out)
    found = evaluate_swap(folder, out, questions, limit=4)
    assert found.labels == ("before", "after")
    assert found.same == len(found.questions.questions) == 4
    [accuracy] = [each for each in found.numbers if each.metric == "accuracy"]
    assert (accuracy.difference, accuracy.interval, accuracy.apart) == (0, (0, 0), False)
    assert (out / "eval" / "pope-random-compared.html").is_file()
    before, after = (json.loads((out / each / "pope-random.json").read_text())
                     for each in ("eval-before", "eval"))  # fmt: skip
    assert before["accuracy"] == after["accuracy"]
    with pytest.raises(UsageError, match="cannot be scored here"):
        evaluate_swap(folder, out, asked(tmp_path, answers=()))
