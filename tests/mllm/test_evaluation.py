"""Benchmarks asked and scored: what is written, what a killed run keeps, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import jpeg

from lateen.data.samples import FileImage
from lateen.errors import DataError, ModelError, UsageError
from lateen.evaluation import compare
from lateen.mllm import MultimodalModel, build, evaluate_questions, open_questions
from lateen.mllm.answering import AnswerFile, Given
from lateen.mllm.benchmarks import Question, QuestionSet, other_images
from lateen.mllm.choosing import choose, first_tokens
from lateen.mllm.evaluation import model_key, question_sets
from lateen.model.model import as_image

from .benchmarks import published
from .test_choosing import YES_NO


def asked(tmp_path: Path, count: int = 6, **changes: Any) -> QuestionSet:
    """Yes/no questions, two about each picture."""
    made = []
    for at in range(count):
        file = tmp_path / f"{at // 2}.jpg"
        file.write_bytes(jpeg((40 * at // 2, 90, 200 - 30 * (at // 2))))
        question = Question(str(at), (FileImage(file),), (file.name,), f"Is it {at}?", "yes-no",
                            ("yes" if at % 2 else "no",))  # fmt: skip
        made.append(replace(question, **changes))
    return QuestionSet("pope", "random", "Answer.", tuple(made))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_answers_are_those_of_the_model_under_both_images(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    result = evaluate_questions(mllm, questions, out=tmp_path / "out")
    tokens = first_tokens(mllm, YES_NO)

    def by_hand(some: QuestionSet) -> dict[str, str]:
        return {each.id: choose(mllm, each.prompt("Answer."), [as_image(each.images[0].path)],
                                tokens).text for each in some.questions}  # fmt: skip

    own, other = by_hand(questions), by_hand(other_images(questions))
    head, *answers = rows(tmp_path / "out" / "pope-random-answers.jsonl")
    assert {r["question"]: r["answer"] for r in answers if r["image"] == "own"} == own
    assert {r["question"]: r["answer"] for r in answers if r["image"] == "another"} == other
    right = [own[each.id] == each.answers[0] for each in questions.questions]
    assert result["accuracy"] == pytest.approx(100 * sum(right) / 6)
    under = [other[each.id] == each.answers[0] for each in questions.questions]
    assert result["control"]["accuracy"] == pytest.approx(100 * sum(under) / 6)
    assert (result["answered_by"], result["max_tokens"], result["cut"]) == ("first token", None, 0)
    assert 0 < result["first_token_share"] < 1
    assert "auroc" in result
    assert result["conditions"]["model"] == head["model"] == model_key(mllm)
    assert json.loads((tmp_path / "out" / "pope-random.json").read_text()) == result


def test_generated_answers_that_are_cut_are_counted(mllm: MultimodalModel, tmp_path: Path) -> None:
    result = evaluate_questions(
        mllm, asked(tmp_path), out=tmp_path / "out", answered_by="generation", max_tokens=2
    )
    assert (result["cut"], result["cut_under_another"]) == (6, 6)
    assert result["cut_examples"] == list("012345")
    assert (result["answered_by"], result["max_tokens"]) == ("generation", 2)
    page = (tmp_path / "out" / "pope-random.html").read_text()
    assert "Answers are generated, of at most 2 tokens. 6 answers are cut by that limit." in page
    assert page.count("… (cut)") == 12
    generated = rows(tmp_path / "out" / "pope-random-answers.jsonl")[1]["answer"]
    prompt = asked(tmp_path).prompts()[0]
    assert generated == mllm.answer(prompt, tmp_path / "0.jpg", max_tokens=2).text


class Killed(BaseException):
    """As a signal is."""


def killed_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Let so many questions be asked; what was asked."""
    said: list[str] = []

    def dies(mllm: MultimodalModel, prompt: str, *rest: Any) -> Any:
        if len(said) == count:
            raise Killed
        said.append(prompt)
        return choose(mllm, prompt, *rest)

    monkeypatch.setattr("lateen.mllm.answering.choose", dies)
    return said


@pytest.mark.parametrize("after", [2, 8])
def test_a_killed_run_goes_on_where_it_stopped(
    mllm: MultimodalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    questions = asked(tmp_path)
    whole = evaluate_questions(mllm, questions, out=tmp_path / "whole")
    said = killed_after(monkeypatch, after)
    with pytest.raises(Killed):
        evaluate_questions(mllm, questions, out=tmp_path / "out")
    file = tmp_path / "out" / "pope-random-answers.jsonl"
    assert len(rows(file)) == 1 + after
    file.write_text(file.read_text() + '{"question": "5", "ima')  # killed within a line
    before = list(said)
    said.clear()
    monkeypatch.undo()
    said = killed_after(monkeypatch, 99)
    again = evaluate_questions(mllm, questions, out=tmp_path / "out")
    assert len(before) + len(said) == 12
    told = {"seconds_per_question"}
    assert {k: v for k, v in again.items() if k not in told} == {
        k: v for k, v in whole.items() if k not in told
    }
    assert len(rows(file)) == 13
    said.clear()
    evaluate_questions(mllm, questions, out=tmp_path / "out")
    assert said == []


def test_a_question_that_changed_is_asked_again(
    mllm: MultimodalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = asked(tmp_path)
    evaluate_questions(mllm, questions, out=tmp_path / "out", control=False)
    said = killed_after(monkeypatch, 99)
    (tmp_path / "1.jpg").write_bytes(jpeg((1, 2, 3)))
    evaluate_questions(mllm, questions, out=tmp_path / "out", control=False)
    assert said == questions.prompts()[2:4]


def test_answers_of_another_model_are_not_taken(
    mllm: MultimodalModel, llm_folder: Path, aligned: Callable[..., Path], tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    evaluate_questions(mllm, questions, out=tmp_path / "out", control=False)
    built = build(aligned(), llm_folder, seed=1)
    other = MultimodalModel(built.model, built.processor, built.record)
    assert model_key(other) != model_key(mllm)
    with pytest.raises(DataError, match=r"has answers of another kind .*of another evaluation"):
        evaluate_questions(other, questions, out=tmp_path / "out")
    with pytest.raises(DataError, match="answered_by first token, not generation"):
        evaluate_questions(mllm, questions, out=tmp_path / "out", answered_by="generation")
    (tmp_path / "out" / "pope-random-answers.jsonl").write_text("nothing\n")
    with pytest.raises(DataError, match="is no file of answers"):
        evaluate_questions(mllm, questions, out=tmp_path / "out")


def test_a_model_is_the_same_wherever_it_lies(
    mllm: MultimodalModel, folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    assert model_key(MultimodalModel.from_pretrained(tmp_path / "copy")) == model_key(mllm)


def test_a_limit_draws_questions_and_says_so(mllm: MultimodalModel, tmp_path: Path) -> None:
    questions = asked(tmp_path)
    few = evaluate_questions(mllm, questions, limit=3, out=tmp_path / "out")
    assert (few["questions"], few["of_questions"]) == (3, 6)
    _, *answers = rows(tmp_path / "out" / "pope-random-answers.jsonl")
    drawn = {row["question"] for row in answers}
    assert len(drawn) == 3
    more = evaluate_questions(mllm, questions, limit=5, out=tmp_path / "out", control=False)
    own = [r["question"] for r in rows(tmp_path / "out" / "pope-random-answers.jsonl")
           if r.get("image") == "own"]  # fmt: skip
    assert len(own) == len(set(own)) == 5  # what was asked is not asked again
    assert more["questions"] == 5
    [row] = [r for r in compare([tmp_path / "out"]).rows if r.metric == "accuracy"]
    assert row.short == "5 of 6 questions"


def test_an_image_that_cannot_be_read_is_left_out_with_its_pair(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    paired = tuple(replace(q, pair="p") if q.id in "35" else q for q in questions.questions)
    (tmp_path / "1.jpg").write_bytes(b"no image")
    result = evaluate_questions(mllm, replace(questions, questions=paired), out=tmp_path / "out")
    assert (result["questions"], result["skipped"]) == (3, 3)
    reasons = {each["id"]: each["reason"] for each in result["left_out_examples"]}
    assert set(reasons) == {"2", "3", "5"}
    assert "another question that it counts with" in reasons["5"]
    for number in (0, 2):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="not one question of pope could be asked"):
        evaluate_questions(mllm, questions)


def test_an_untrained_projector_is_said_wherever_numbers_are(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    result = evaluate_questions(mllm, asked(tmp_path), out=tmp_path / "out")
    assert result["model"]["projector"] == "untrained"
    [warning] = result["warnings"]
    assert warning.startswith("the projector is untrained")
    page = (tmp_path / "out" / "pope-random.html").read_text()
    assert "Beware: the projector is untrained. The answers have nothing to do with" in page
    trained = MultimodalModel(mllm.model, mllm.processor, {**mllm.record, "projector": "trained"})
    assert evaluate_questions(trained, asked(tmp_path))["warnings"] == []


def test_where_first_tokens_do_not_tell_answers_are_generated(
    aligned: Callable[..., Path], llm_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In Vicuna's template all answers begin with a space, which here is a token of its own."""
    built = build(aligned(), llm_folder, template="vicuna")
    ready = MultimodalModel(built.model, built.processor, built.record)
    result = evaluate_questions(ready, asked(tmp_path, 2))
    assert (result["answered_by"], result["max_tokens"]) == ("generation", 16)
    assert "answers are generated: the answers 'yes' and 'no' begin with the same" in caplog.text
    with pytest.raises(UsageError, match="begin with the same token"):
        evaluate_questions(ready, asked(tmp_path, 2), answered_by="first token")


def test_a_question_beyond_the_context_is_named(mllm: MultimodalModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"question 0: the question with its images is .* tokens"):
        evaluate_questions(mllm, asked(tmp_path, text="Is it? " * 60))


def test_the_page_has_questions_answers_and_photographs(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    result = evaluate_questions(mllm, questions, out=tmp_path / "out")
    page = (tmp_path / "out" / "pope-random.html").read_text()
    right = round(result["accuracy"] * 6 / 100)
    for heading, count in {"Right": right, "Wrong": 6 - right}.items():
        assert (f"{heading}: {count} of 6" in page) == bool(count)
    assert page.count("<img ") == 6
    assert page.count("another&#x27;s image</dt>") == 6
    assert all(f"Is it {at}?" in page for at in range(6))


@pytest.mark.parametrize(
    ("name", "make", "by", "limit"),
    [
        ("pope", published.pope, "first token", None),
        ("vsr", published.vsr, "first token", None),
        ("mmvp", published.mmvp, "first token", None),
        ("seed-bench", published.seed_bench, "first token", None),
        ("vqav2", published.vqav2, "generation", 16),
        ("gqa", published.gqa, "generation", 16),
        ("tallyqa", published.tallyqa, "generation", 16),
        ("refcoco", published.refcoco, "generation", 64),
        ("easy-vqa", published.easy_vqa, "generation", 16),
    ],
)
def test_every_kind_of_answer(
    mllm: MultimodalModel, tmp_path: Path, name: str, make: Callable[[Path], Path], by: str,
    limit: int | None,
) -> None:  # fmt: skip
    questions = open_questions(name, make(tmp_path / "data"))
    result = evaluate_questions(mllm, questions, out=tmp_path / "out")
    assert (result["answered_by"], result["max_tokens"]) == (by, limit)
    assert 0 <= result["accuracy"] <= 100
    one = len({each.image_ids for each in questions.questions}) == 1
    assert ("control" in result) is not one
    assert any("there is no control" in each for each in result["warnings"]) is one


def test_without_the_control_nothing_is_asked_twice(
    mllm: MultimodalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = killed_after(monkeypatch, 99)
    result = evaluate_questions(mllm, asked(tmp_path), control=False)
    assert len(said) == 6
    assert "control" not in result


@pytest.mark.parametrize(
    ("name", "split", "suffix"),
    [("vqav2", "test-dev2015", ".json"), ("llava-bench", None, ".jsonl")],
)
def test_where_answers_are_not_published_the_upload_is_written(
    mllm: MultimodalModel, tmp_path: Path, name: str, split: str | None, suffix: str
) -> None:
    root = tmp_path / "data"
    if name == "vqav2":
        published.vqav2(root, "test-dev2015", answers=False)
    else:
        published.llava_bench(root)
    questions = open_questions(name, root, split=split)
    with pytest.raises(UsageError, match="needs a folder"):
        evaluate_questions(mllm, questions)
    out = tmp_path / "out"
    result = evaluate_questions(mllm, questions, out=out, max_tokens=3)
    assert (result["task"], result["cut"]) == ("mllm-upload", len(questions.questions))
    few = evaluate_questions(mllm, questions, out=tmp_path / "few", limit=1, max_tokens=3)
    assert few["warnings"][-1] == (
        f"the file lacks {len(questions.questions) - 1} of the set's questions"
    )
    file = out / result["upload"]
    assert file.suffix == suffix
    told = file.read_text()
    assert all(row["answer"] in told for row in rows(next(out.glob("*-answers.jsonl")))[1:])
    with pytest.raises(DataError, match="has no results"):
        compare([out])


def test_two_models_are_compared(
    mllm: MultimodalModel, llm_folder: Path, aligned: Callable[..., Path], tmp_path: Path
) -> None:
    questions = asked(tmp_path)
    built = build(aligned(), llm_folder, seed=1)
    other = MultimodalModel(built.model, built.processor, built.record)
    first = evaluate_questions(mllm, questions, out=tmp_path / "a")
    second = evaluate_questions(other, questions, out=tmp_path / "b")
    found = {row.metric: row for row in compare([tmp_path / "a", tmp_path / "b"]).rows}
    assert found["accuracy"].values == (first["accuracy"], second["accuracy"])
    assert found["accuracy"].differs == ()
    assert found["accuracy"].blind == dict.fromkeys((0, 1), "projector untrained")
    assert "Not of what the model sees: a: projector untrained, b:" in compare(
        [tmp_path / "a", tmp_path / "b"]
    ).text("markdown")
    assert found["another's image"].values[0] == first["control"]["accuracy"]
    evaluate_questions(other, questions, out=tmp_path / "c", answered_by="generation", max_tokens=2)
    [row] = [r for r in compare([tmp_path / "a", tmp_path / "c"]).rows if r.metric == "accuracy"]
    assert row.differs == ("answered_by", "max_tokens")


def test_what_cannot_be_asked_is_said_first(mllm: MultimodalModel, tmp_path: Path) -> None:
    words = asked(tmp_path, kind="short", answers=("red",))
    with pytest.raises(UsageError, match="first tokens do not tell them"):
        evaluate_questions(mllm, words, answered_by="first token")
    with pytest.raises(UsageError, match="an answer of 0 tokens is none"):
        evaluate_questions(mllm, words, max_tokens=0)
    with pytest.raises(UsageError, match="0 questions are none"):
        evaluate_questions(mllm, words, limit=0)
    unknown = asked(tmp_path, answers=())
    with pytest.raises(UsageError, match="what file a server of it takes is not known"):
        evaluate_questions(mllm, unknown, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pope_of_any_captions(
    tmp_path: Path, write_captions: Callable[[Sequence[str]], Path]
) -> None:
    assert "pope-of-captions" in question_sets()
    table = write_captions(["A dog runs.", "A cat sleeps.", "A dog on grass.", "A man reads."])
    questions = open_questions("pope-of-captions", table)
    assert questions.name == "pope-of-captions"
    assert {each.answers[0] for each in questions.questions} == {"yes", "no"}
    with pytest.raises(UsageError, match="is made of captions"):
        open_questions("pope-of-captions")


@pytest.fixture
def write_captions(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    def write(captions: Sequence[str]) -> Path:
        lines = ["image,caption"]
        for at, text in enumerate(captions):
            (tmp_path / f"c{at}.jpg").write_bytes(jpeg((at, at, at)))
            lines.append(f"c{at}.jpg,{text}")
        file = tmp_path / "captions.csv"
        file.write_text("\n".join(lines) + "\n")
        return file

    return write


def test_answers_with_any_line_break_are_read_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl", {"model": "m"})
    file.add(("q", "own", "k"), Given("one\u2028two\x85three\nfour", False, 1.0))
    file.close()
    with (tmp_path / "answers.jsonl").open("a", encoding="utf-8") as cut:
        cut.write('{"question": "r", ')
    again = AnswerFile(tmp_path / "answers.jsonl", {"model": "m"})
    again.close()
    assert [each.answer for each in again.stored.values()] == ["one\u2028two\x85three\nfour"]
