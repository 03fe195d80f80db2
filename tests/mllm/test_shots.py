"""Examples before questions: which they are, how they stand there, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import jpeg

from lateen.data import decode_image
from lateen.data.samples import FileImage
from lateen.errors import DataError, ModelError, UsageError
from lateen.evaluation import compare
from lateen.mllm import MultimodalModel, evaluate_questions, open_questions
from lateen.mllm.benchmarks import Question, QuestionSet, other_images
from lateen.mllm.evaluation import file_stem
from lateen.mllm.shots import Shots, open_shots

from .benchmarks import published
from .test_evaluation import rows


def questions(folder: Path, split: str, count: int = 4, **changes: Any) -> QuestionSet:
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for at in range(count):
        file = folder / f"{split}{at}.jpg"
        file.write_bytes(jpeg((40 * at, 90, 255 if split == "train" else 0)))
        made.append(Question(f"{split}{at}", (FileImage(file),), (file.name,), f"Q{at}?", "yes-no",
                             ("yes" if at % 2 else "no",)))  # fmt: skip
    return QuestionSet("pope", split, "Go.", tuple(replace(q, **changes) for q in made))


def conversation_text(shots: Shots, question: Question, prompt: str) -> list[tuple[str, str]]:
    return [
        (turn["role"], "".join(part.get("text", "<image>") for part in turn["content"]))
        for turn in shots.conversation(question, prompt)
    ]


def test_examples_stand_before_the_question_with_their_images(tmp_path: Path) -> None:
    asked = questions(tmp_path, "test")
    shots = Shots(2, questions(tmp_path, "train"))
    first, second = shots.before(asked.questions[0])
    assert conversation_text(shots, asked.questions[0], "Q0?\nGo.") == [
        ("user", f"<image>{first.text}\nGo."), ("assistant", first.example_answer),
        ("user", f"<image>{second.text}\nGo."), ("assistant", second.example_answer),
        ("user", "<image>Q0?\nGo."),
    ]  # fmt: skip
    assert {each.example_answer for each in shots.pool.questions} == {"Yes", "No"}
    assert len(shots.pictures(asked.questions[0])) == 2


def test_the_lot_is_of_the_question_and_the_seed(tmp_path: Path) -> None:
    asked = questions(tmp_path, "test", 12).questions
    pool = questions(tmp_path, "train", 6)

    def drawn(seed: int, order: int = 1) -> dict[str, tuple[str, ...]]:
        shots = Shots(2, pool, seed)
        return {q.id: tuple(e.id for e in shots.before(q)) for q in asked[::order]}

    assert drawn(0) == drawn(0, -1)  # whatever is asked before
    assert drawn(0) != drawn(1)
    assert len(set(drawn(0).values())) > 1  # drawn anew for each question
    assert all(len(set(some)) == 2 for some in drawn(0).values())


def test_no_example_is_about_the_questions_own_image(tmp_path: Path) -> None:
    pool = questions(tmp_path, "train")
    copied = tmp_path / "copy.jpg"
    copied.write_bytes((tmp_path / "train1.jpg").read_bytes())
    same_name = replace(pool.questions[0], id="q")
    same_bytes = replace(pool.questions[1], id="q", images=(FileImage(copied),), image_ids=("c",))
    for question, own in ((same_name, "train0"), (same_bytes, "train1")):
        found = {each.id for each in Shots(3, pool).before(question)}
        assert found == {f"train{at}" for at in range(4)} - {own}
        with pytest.raises(DataError, match=r"has 3 questions about other images .*--shots 3"):
            Shots(4, pool).before(question)


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"kind": "human", "answers": ("cat", "dog", "dog")}, "dog"),
        ({"kind": "caption", "answers": ("A dog.", "Dogs.", "Dogs.")}, "A dog."),
        ({"kind": "letter", "answers": ("B",), "choices": ("a", "b")}, "B"),
        ({"kind": "count", "answers": ("3",)}, "3"),
        ({"kind": "box", "answers": (), "box": (0.1, 0.25, 0.5, 1.0)}, "[0.10, 0.25, 0.50, 1.00]"),
    ],
)
def test_what_an_example_answers(tmp_path: Path, change: dict[str, Any], shown: str) -> None:
    assert questions(tmp_path, "train", 1, **change).questions[0].example_answer == shown


def test_answers_are_those_of_the_conversation(mllm: MultimodalModel, tmp_path: Path) -> None:
    asked, pool = questions(tmp_path, "test", 3), questions(tmp_path, "train")
    out = tmp_path / "out"
    result = evaluate_questions(
        mllm, asked, out=out, shots=Shots(1, pool), answered_by="generation", max_tokens=3
    )
    _, *answers = rows(out / "pope-test-1-shot-answers.jsonl")
    given = {(row["question"], row["image"]): row["answer"] for row in answers}
    shots = Shots(1, pool)
    for under, some in (("own", asked), ("another", other_images(asked))):
        for question in some.questions:
            [example] = shots.before(asked.questions[int(question.id[-1])])
            turns = [
                {"role": "user", "content": f"<image>{example.text}\nGo."},
                {"role": "assistant", "content": example.example_answer},
                {"role": "user", "content": f"<image>{question.text}\nGo."},
            ]
            images = [example.images[0].path, question.images[0].path]  # type: ignore[attr-defined]
            expected = mllm.answer(turns, images, max_tokens=3).text
            assert given[question.id, under] == expected
    assert (result["shots"], result["shots_from"]) == (1, "pope train")
    assert json.loads((out / "pope-test-1-shot.json").read_text()) == result
    assert (
        "Examples before each question: 1, drawn by lot for each of pope train"
        in (out / "pope-test-1-shot.html").read_text()
    )


def test_results_with_and_without_examples_are_not_mixed(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    asked, pool = questions(tmp_path, "test"), questions(tmp_path, "train")
    out = tmp_path / "out"
    evaluate_questions(mllm, asked, out=out)
    evaluate_questions(mllm, asked, out=out, shots=Shots(1, pool))
    assert file_stem("pope", "test", 1) == "pope-test-1-shot"
    found = [row for row in compare([out]).rows if row.metric == "accuracy"]
    assert sorted(row.set for row in found) == ["pope, test", "pope, test, 1-shot"]
    evaluate_questions(mllm, asked, out=tmp_path / "b", shots=Shots(1, asked))
    [row] = [r for r in compare([out / "pope-test-1-shot.json", tmp_path / "b"]).rows
             if r.metric == "accuracy"]  # fmt: skip
    assert row.differs == ("shots_from", "shots_drawn")


def test_examples_beyond_the_context_are_told_before_anything_is_asked(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    asked, pool = questions(tmp_path, "test"), questions(tmp_path, "train", 30)
    out = tmp_path / "out"
    with pytest.raises(ModelError) as raised:
        evaluate_questions(mllm, asked, out=out, shots=Shots(16, pool))
    message = str(raised.value)
    assert "with 16 examples and its answer is" in message
    assert "the language model takes 256" in message
    assert not out.exists()
    fits = int(message.partition("Take --shots ")[2].partition(",")[0])
    evaluate_questions(mllm, asked, shots=Shots(fits, pool))
    with pytest.raises(ModelError):
        evaluate_questions(mllm, asked, shots=Shots(fits + 1, pool))


def test_the_length_that_is_told_is_the_one_that_is_asked(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    asked, pool = questions(tmp_path, "test", 1), questions(tmp_path, "train", 30)
    shots = Shots(16, pool)
    with pytest.raises(ModelError) as raised:
        evaluate_questions(mllm, asked, shots=shots)
    said = str(raised.value).partition("answer is ")[2].partition(" tokens")[0]
    question = asked.questions[0]
    inputs = mllm.inputs(
        shots.conversation(question, question.prompt("Go.")),
        [*shots.pictures(question), decode_image(question.images[0])],
    )
    assert int(said.replace(",", "")) == inputs["input_ids"].shape[1] + 1  # the answer's token


def test_a_benchmarks_own_examples(tmp_path: Path) -> None:
    root = published.vqav2(tmp_path / "vqa")
    published.vqav2(root, "train2014")
    assert open_shots("vqav2", 1, root).called == "vqav2 train2014"
    assert open_shots("vqav2", 1, root, source="val2014").called == "vqav2 val2014"
    other = published.vqav2(tmp_path / "other", "train2014")
    assert open_shots("vqav2", 1, tmp_path, source=str(other)).called == "vqav2 train2014"
    asked = root / "v2_OpenEnded_mscoco_val2014_questions.json"
    assert open_shots("vqav2", 1, asked).called == "vqav2 train2014"  # and not that file's
    with pytest.raises(UsageError, match="pope has no split to take examples from"):
        open_shots("pope", 1, published.pope(tmp_path / "pope"))
    with pytest.raises(UsageError, match="0 examples are none"):
        open_shots("vqav2", 0, root)
    unanswered = published.vqav2(tmp_path / "t", "test-dev2015", answers=False)
    with pytest.raises(UsageError, match="have no answers to show"):
        open_shots("vqav2", 1, unanswered, source="test-dev2015")


def test_vsr_and_gqa_have_questions_to_train_on(tmp_path: Path) -> None:
    root = published.vsr(tmp_path / "vsr")
    splits = root / "splits" / "zeroshot"
    (splits / "test.jsonl").rename(splits / "train.jsonl")
    assert open_shots("vsr", 1, root).called == "vsr train-zeroshot"
    root = published.gqa(tmp_path / "gqa")
    (root / "testdev_balanced_questions.json").rename(root / "train_balanced_questions.json")
    assert open_questions("gqa", root, split="train_balanced").has_answers


def test_examples_of_captions_are_from_another_dataset(tmp_path: Path) -> None:
    table = published.captioned(tmp_path / "a")
    with pytest.raises(UsageError, match="captions-of has no split to take examples from"):
        open_shots("captions-of", 1, table)
    shots = open_shots("captions-of", 2, table, source=str(table))
    [question, *_] = open_questions("captions-of", table).questions
    told = conversation_text(shots, question, "Describe it.")
    assert {text for role, text in told if role == "assistant"} == {
        published.CAPTIONS["b"][0], published.CAPTIONS["c"][0],
    }  # fmt: skip


def test_an_example_that_cannot_be_read_leaves_its_question_out(
    mllm: MultimodalModel, tmp_path: Path
) -> None:
    asked, pool = questions(tmp_path, "test"), questions(tmp_path, "train")
    shots = Shots(1, pool)
    drawn = {each.id: shots.before(each)[0].id for each in asked.questions}
    broken = drawn["test0"]
    (tmp_path / f"{broken}.jpg").write_bytes(b"no image")
    result = evaluate_questions(mllm, asked, shots=Shots(1, pool))
    lost = [name for name, example in drawn.items() if example == broken]
    assert [each["id"] for each in result["left_out_examples"]] == lost
    assert result["left_out_examples"][0]["reason"].startswith("an example before it: ")


def test_an_example_that_changed_is_asked_with_again(
    mllm: MultimodalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pool = questions(tmp_path, "test"), questions(tmp_path, "train")
    shots, out = Shots(1, pool), tmp_path / "out"
    drawn = {each.id: shots.before(each)[0].id for each in asked.questions}
    evaluate_questions(mllm, asked, out=out, control=False, shots=shots)
    (tmp_path / f"{drawn['test2']}.jpg").write_bytes(jpeg((1, 2, 3), size=(9, 9)))
    evaluate_questions(mllm, asked, out=out, control=False, shots=Shots(1, pool))
    _, *answers = rows(out / "pope-test-1-shot-answers.jsonl")
    again = [row["question"] for row in answers[len(drawn) :]]
    assert again == [name for name, each in drawn.items() if each == drawn["test2"]]
