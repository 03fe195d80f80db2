from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest

from lateen.data.samples import MemoryImage
from lateen.errors import DataError, UsageError
from lateen.evaluation.comparison import compare
from lateen.evaluation.questions import question_statistics, question_tables
from lateen.mllm.benchmarks import open_benchmark, other_images, score, write_upload
from lateen.mllm.benchmarks.questions import AnswerKind, Question, QuestionSet, rotations, some_of


def question(
    number: int, kind: AnswerKind, *answers: str, image: str = "", **more: Any
) -> Question:
    name = image or f"i{number}"
    picture = MemoryImage(name, name.encode())
    return Question(str(number), (picture,), (name,), "What?", kind, answers, **more)


def made(*questions: Question) -> QuestionSet:
    return QuestionSet("made-up", "", "", questions)


def test_vqa_accuracy_is_the_mean_over_questions_and_images_are_drawn(tmp_path: Path) -> None:
    found = open_benchmark("vqav2", published.vqav2(tmp_path))
    # Four of ten say 2 in some spelling, one says 4, all say yes.
    right = {"42000": "Two.", "42001": "yes", "7000": "dog"}
    result = score(found, right, other={"42000": "4", "42001": "no", "7000": "a cat"})
    assert result["accuracy"] == pytest.approx(100 * (1 + 1 + 0) / 3)
    assert result["control"]["accuracy"] == pytest.approx(100 * (0.3 + 0 + 1) / 3)
    assert result["gain"] == pytest.approx(result["accuracy"] - result["control"]["accuracy"])
    assert (result["n"], result["questions"]) == (2, 3)
    assert result["groups"]["answer type"]["number"] == {"accuracy": 100, "questions": 1}
    assert result["prior"] == {"answer": "yes", "accuracy": pytest.approx(100 / 3)}
    assert json.loads(json.dumps(result)) == result


def test_an_interval_is_of_images_and_not_of_questions() -> None:
    """Twenty questions about each of four images, all right about two of them: four tries."""
    asked = [question(n, "short", "yes", image=f"i{n % 4}") for n in range(80)]
    answers = {each.id: "yes" if int(each.id) % 4 < 2 else "no" for each in asked}
    apart = made(*(replace(each, image_ids=(each.id,)) for each in asked))
    together, alone = (score(each, answers) for each in (made(*asked), apart))
    assert together["accuracy"] == alone["accuracy"] == 50
    widths = [high - low for low, high in (r["intervals"]["accuracy"] for r in (together, alone))]
    assert widths[0] > 3 * widths[1]


def test_yes_and_no_worked_by_hand() -> None:
    """Three yes and two no; said: yes yes no, yes no."""
    asked = made(*(question(n, "yes-no", truth) for n, truth in
                   enumerate(["yes", "yes", "yes", "no", "no"])))  # fmt: skip
    said = dict(zip("01234", ["Yes.", "yes", "No", "Yes, there is.", "no"], strict=True))
    result = score(asked, said, other=dict.fromkeys("01234", ""))
    assert {name: result[name] for name in ("accuracy", "precision", "recall", "yes_ratio")} == {
        "accuracy": pytest.approx(60), "precision": pytest.approx(200 / 3),
        "recall": pytest.approx(200 / 3), "yes_ratio": pytest.approx(60),
    }  # fmt: skip
    assert result["f1"] == pytest.approx(200 / 3)
    assert result["control"]["yes_ratio"] == 100
    assert result["unread"] == 0
    assert score(asked, dict.fromkeys("01234", ""))["unread"] == 5
    assert result["chance"] == {"accuracy": 50}


def test_a_model_that_never_says_yes_has_a_precision_of_nothing() -> None:
    asked = made(*(question(n, "yes-no", "yes" if n % 2 else "no") for n in range(10)))
    result = score(asked, {each.id: "no" for each in asked.questions})
    assert (result["precision"], result["recall"], result["f1"]) == (0, 0, 0)
    assert np.isfinite([each for pair in result["intervals"].values() for each in pair]).all()


def test_a_share_of_few_has_an_interval_of_few() -> None:
    """Of 200 answers two say yes, both rightly: the precision is of two images, not of 200."""
    asked = made(*(question(n, "yes-no", "yes" if n < 100 else "no") for n in range(200)))
    result = score(
        asked, {each.id: "yes" if int(each.id) < 2 else "no" for each in asked.questions}
    )
    assert result["precision"] == 100
    assert result["intervals"]["precision"] == pytest.approx([100 * 0.025**0.5, 100])


def test_letters_count_under_all_rotations() -> None:
    choices = ("a cat", "a dog", "a bird")
    asked = [
        each for number, answer in ((1, "B"), (2, "C"))
        for each in rotations(question(number, "letter", answer, choices=choices))
    ]  # fmt: skip
    answers = {each.id: f"({each.answers[0]})" for each in asked}
    answers["2000002"] = "It is A or C"
    result = score(made(*asked), answers)
    assert result["accuracy"] == pytest.approx(100 * 5 / 6)
    assert (result["circular"], result["metric"], result["unread"]) == (50, "circular", 1)
    assert result["chance"] == {"accuracy": pytest.approx(100 / 3),
                                "circular": pytest.approx(100 / 27)}  # fmt: skip
    always = score(made(*asked), {each.id: "A" for each in asked})
    assert (always["accuracy"], always["circular"]) == (pytest.approx(100 / 3), 0)


def test_pairs_count_if_both_are_right(tmp_path: Path) -> None:
    found = open_benchmark("mmvp", published.mmvp(tmp_path))
    result = score(found, {"1": "(a)", "2": "(b) Closed", "3": "Right", "4": "Right"})
    assert (result["accuracy"], result["pairs"], result["metric"]) == (75, 50, "pairs")
    assert (result["n"], result["chance"]["pairs"]) == (2, 25)


def test_rotations_follow_the_right_choice() -> None:
    turned = rotations(question(7, "letter", "A", choices=("w", "x", "y", "z")))
    assert [each.choices["ABCD".index(each.answers[0])] for each in turned] == ["w"] * 4
    assert [each.id for each in turned] == ["7", "1000007", "2000007", "3000007"]
    named = rotations(replace(turned[0], id="0.png-0"))
    assert [each.id for each in named][:2] == ["0.png-0", "0.png-0+1"]


def test_boxes(tmp_path: Path) -> None:
    """The photograph has 8 by 6 pixels; the left half is right, and so is a little more."""
    found = open_benchmark("refcoco", published.refcoco(tmp_path))
    left, red, right = (each.id for each in found.questions)
    result = score(found, {left: "[0, 0, 0.9, 1]", red: "(0, 0), (4, 6)", right: "over there"})
    assert result["accuracy"] == pytest.approx(200 / 3)  # IoU 5/9, 1 and none
    assert (result["unread"], result["n"], result["prior"]) == (1, 1, None)
    assert score(found, dict.fromkeys((left, red, right), "[0,0,1,.9]"))["accuracy"] == 0


def test_counts_are_of_the_first_number(tmp_path: Path) -> None:
    found = open_benchmark("tallyqa", published.tallyqa(tmp_path))
    result = score(found, {"30095774": "There are four.", "2": "none"})
    assert result["accuracy"] == 100
    assert score(found, {"30095774": "many", "2": ""})["unread"] == 2


def test_gqa_compares_as_llava_does(tmp_path: Path) -> None:
    found = open_benchmark("gqa", published.gqa(tmp_path))
    assert score(found, {"201": "Yes.", "202": "the red"})["accuracy"] == 50


def test_area_under_the_curve_is_the_share_of_pairs_in_order(tmp_path: Path) -> None:
    asked = made(*(question(n, "yes-no", "yes" if n < 3 else "no") for n in range(7)))
    sure = dict(zip("0123456", [0.9, 0.4, 0.6, 0.4, 0.1, 0.6, 0.2], strict=True))
    pairs = [(sure[yes] > sure[no]) + 0.5 * (sure[yes] == sure[no])
             for yes in "012" for no in "3456"]  # fmt: skip
    answers = dict.fromkeys("0123456", "no")
    result = score(asked, answers, confidences=sure)
    assert result["auroc"] == pytest.approx(100 * np.mean(pairs))
    low, high = result["intervals"]["auroc"]
    assert low < result["auroc"] < high
    with pytest.raises(DataError, match="a confidence is no number"):
        score(asked, answers, confidences=sure | {"0": float("nan")})
    with pytest.raises(DataError, match="no yes/no questions"):
        score(made(question(0, "short", "a")), {"0": "a"}, confidences={"0": 1.0})


def test_the_numbers_of_a_draw_are_those_of_its_questions() -> None:
    """Every statistic in a draw of images against the plain formula on the questions drawn."""
    generator = np.random.default_rng(0)
    unit = generator.integers(0, 6, 40)
    truth, said = generator.integers(0, 2, (2, 40))
    points = 3000 * (truth == said)
    member = generator.integers(0, 2, 40)
    arrays = {"unit": unit, "points": points, "is_yes": truth, "said_yes": said,
              "rotation": np.arange(40) // 2, "groups.a.b": member,
              "other_points": points[::-1].copy(), "other_said_yes": said}  # fmt: skip
    arrays["unit"] = unit.repeat(2)[:40]  # both rotations of a question are about one image
    counts = generator.multinomial(6, [1 / 6] * 6, 5).astype(float)
    found = question_statistics(arrays)
    for at, count in enumerate(counts):
        rows = np.repeat(np.arange(40), count[arrays["unit"]].astype(int))
        tp = (said * truth)[rows].sum()
        expected = {
            "accuracy": points[rows].mean() / 30,
            "precision": 100 * tp / said[rows].sum(),
            "recall": 100 * tp / truth[rows].sum(),
            "f1": 200 * tp / (said[rows].sum() + truth[rows].sum()),
            "circular": 100 * np.mean([points[r] + points[r ^ 1] == 6000 for r in rows]),
            "groups.a.b.accuracy": points[rows][member[rows] == 1].mean() / 30,
            "gain": (points - points[::-1])[rows].mean() / 30,
        }
        for path, value in expected.items():
            assert found[path].drawn(counts)[at] == pytest.approx(value), path


def test_pairs_and_losses_of_a_draw_are_those_of_its_images() -> None:
    """Against lists in which an image stands as often as it was drawn."""
    rng = np.random.default_rng(0)
    rows, images = 40, 9
    arrays = {name: rng.integers(0, high, rows) for name, high in {
        "unit": images, "thing": 3, "is_yes": 2, "likelihood": 12, "other_likelihood": 12,
    }.items()}  # fmt: skip
    counts = rng.multinomial(images, np.full(images, 1 / images), 5).astype(float)
    found = question_statistics(arrays)
    unit, thing, is_yes = (arrays[name] for name in ("unit", "thing", "is_yes"))
    for at, drawn in enumerate(counts):
        again = np.repeat(np.arange(rows), drawn[unit].astype(int))

        def in_order(ranks: Any, again: Any = again) -> float:
            told = [
                (ranks[a] > ranks[b]) + (ranks[a] == ranks[b]) / 2
                for a in again for b in again if is_yes[a] > is_yes[b] and thing[a] == thing[b]
            ]  # fmt: skip
            return float(100 * np.mean(told))

        own, other = in_order(arrays["likelihood"]), in_order(arrays["other_likelihood"])
        assert found["pairwise"].drawn(counts)[at] == pytest.approx(own)
        assert found["gain"].drawn(counts)[at] == pytest.approx(own - other)
    losses = {
        "unit": unit,
        "loss": rng.integers(0, 4, rows),
        "other_loss": rng.integers(0, 4, rows),
    }
    likelier = question_statistics(losses)["own_likelier"].drawn(counts)
    for at, drawn in enumerate(counts):
        again = np.repeat(np.arange(rows), drawn[unit].astype(int))
        own, other = losses["loss"][again], losses["other_loss"][again]
        assert likelier[at] == pytest.approx(100 * np.mean((own < other) + (own == other) / 2))


def test_what_cannot_be_scored_says_what_to_do(tmp_path: Path) -> None:
    hidden = open_benchmark("vizwiz", published.vizwiz(tmp_path, "test"), split="test")
    with pytest.raises(DataError, match=r"vizwiz, split test, are not published.*write_upload"):
        score(hidden, {each.id: "a" for each in hidden.questions})
    open_ended = open_benchmark("llava-bench", published.llava_bench(tmp_path / "b"))
    with pytest.raises(DataError, match="judged by people"):
        score(open_ended, {"0": "a", "1": "b"})
    asked = made(question(0, "short", "a"), question(1, "short", "b"))
    with pytest.raises(DataError, match=r"nothing for 1 of the 2 .*the first: 1\)"):
        score(asked, {"0": "a"})
    with pytest.raises(DataError, match="other has nothing"):
        score(asked, {"0": "a", "1": "b"}, other={"0": "a"})


def test_uploads_are_of_the_form_that_servers_take(tmp_path: Path) -> None:
    vqa = open_benchmark("vqav2", published.vqav2(tmp_path / "a"))
    path = write_upload(vqa, {each.id: "The two dogs." for each in vqa.questions}, tmp_path / "up")
    assert path.suffix == ".json"
    assert json.loads(path.read_text())[0] == {"question_id": 42000, "answer": "2 dogs"}
    blind = open_benchmark("vizwiz", published.vizwiz(tmp_path / "b", "test"), split="test")
    path = write_upload(blind, {each.id: "Soup" for each in blind.questions}, tmp_path / "v.json")
    assert json.loads(path.read_text())[0] == {
        "image": "VizWiz_test_00000000.jpg", "answer": "soup",
    }  # fmt: skip
    seed = open_benchmark("seed-bench", published.seed_bench(tmp_path / "c"))
    path = write_upload(seed, {"101669": "A"}, tmp_path / "seed")
    assert path.read_text() == '{"question_id": "101669", "prediction": "A"}\n'
    rows = [{"index": 7, "question": "What?", "A": "x", "B": "y", "image": published.picture()}]
    mmb = open_benchmark("mmbench", published.mmbench(tmp_path / "mmbench_test.tsv", rows),
                         split="test")  # fmt: skip
    path = write_upload(mmb, {each.id: "B" for each in mmb.questions}, tmp_path / "m.xlsx")
    assert path.read_text().splitlines() == [
        "index\tquestion\tA\tB\tC\tD\tprediction", "7\tWhat?\tx\ty\t\t\tB",
        "1000007\tWhat?\ty\tx\t\t\tB",
    ]  # fmt: skip


def test_an_upload_needs_all_answers_and_a_server(tmp_path: Path) -> None:
    found = open_benchmark("vqav2", published.vqav2(tmp_path))
    with pytest.raises(DataError, match="question 42001 of vqav2 has no answer"):
        write_upload(found, {"42000": "a"}, tmp_path / "up.json")
    with pytest.raises(UsageError, match="made-up"):
        write_upload(made(question(0, "short", "a")), {"0": "a"}, tmp_path / "up.json")


def test_the_control_gives_each_question_another_image() -> None:
    asked = made(*(question(n, "short", "a", image=f"i{n // 3}") for n in range(12)))
    control = other_images(asked)
    assert [each.id for each in control.questions] == [each.id for each in asked.questions]
    pairs = {(own.image_ids[0], swapped.images[0].name) for own, swapped in
             zip(asked.questions, control.questions, strict=True)}  # fmt: skip
    assert len(pairs) == 4  # questions about one image get the same other
    assert {own for own, _ in pairs} == {other for _, other in pairs}
    assert all(own != other for own, other in pairs)
    assert control == other_images(asked)
    with pytest.raises(DataError, match="at least two"):
        other_images(made(question(0, "short", "a")))


def test_some_of_a_set_are_among_more_and_what_counts_together_stays_together() -> None:
    alone = [question(n, "letter", "A", choices=("x", "y")) for n in range(10)]
    rotated = [replace(question(20 + n, "letter", "A", choices=("x", "y")), rotation_of=str(n // 3))
               for n in range(9)]  # fmt: skip
    asked = made(*alone, *rotated)
    drawn = [some_of(asked, most).questions for most in range(1, 20)]
    for few, more in pairwise(drawn):
        assert {each.id for each in few} <= {each.id for each in more}
    for most, some in zip(range(1, 20), drawn, strict=True):
        assert len(some) <= max(most, 3)
        assert set(Counter(each.rotation_of for each in some if each.rotation_of).values()) <= {3}
        assert [each.id for each in some] == [e.id for e in asked.questions if e in some]
    assert len(drawn[-1]) == 19
    assert some_of(asked, 5, seed=1) != some_of(asked, 5)


def test_two_models_are_compared_question_by_question(tmp_path: Path) -> None:
    asked = made(*(question(n, "yes-no", "yes" if n % 2 else "no") for n in range(100)))
    truth = {each.id: each.answers[0] for each in asked.questions}
    other = dict.fromkeys(truth, "yes")
    worse = {name: "yes" if int(name) < 30 else answer for name, answer in truth.items()}
    for name, answers in (("good", truth), ("worse", worse)):
        result = score(asked, answers, other=other, conditions={"model": name})
        published.write(tmp_path / name / "mllm.json", result)
    rows = {row.metric: row for row in compare([tmp_path / "good", tmp_path / "worse"]).rows}
    assert rows["accuracy"].values == (100, 85)
    assert rows["accuracy"].best == (0,)
    assert rows["accuracy"].n == 100
    assert rows["another's image"].values == (50, 50)
    assert rows["another's image"].best == ()
    assert rows["own above another's"].values == (50, 35)
    assert rows["F1"].best == (0,)
    assert rows["yes ratio"].best == ()  # more of it is not better


def test_of_untrained_projectors_none_is_best(tmp_path: Path) -> None:
    asked = made(*(question(n, "yes-no", "yes" if n % 2 else "no") for n in range(60)))
    truth = {each.id: each.answers[0] for each in asked.questions}
    for name, answers in (("good", truth), ("worse", dict.fromkeys(truth, "yes"))):
        result = {**score(asked, answers, conditions={"model": name}),
                  "model": {"projector": "untrained" if name == "good" else "trained"}}  # fmt: skip
        published.write(tmp_path / name / "mllm.json", result)
    [row] = [r for r in compare([tmp_path / "good", tmp_path / "worse"]).rows
             if r.metric == "accuracy"]  # fmt: skip
    assert row.values == (100, 50)
    assert (row.best, row.blind) == ((), {0: "projector untrained"})


def test_tables_have_the_control_beside(tmp_path: Path) -> None:
    found = open_benchmark("pope", published.pope(tmp_path))
    right = {each.id: each.answers[0] for each in found.questions}
    result = score(found, right, other=dict.fromkeys(right, "yes"))
    main, by_group = question_tables(result)
    assert main.rows[0][:2] == ["accuracy", 100]
    assert main.rows[0][3:] == [50, 50]
    assert "6 questions about 1 images" in main.note
    assert [row[0] for row in by_group.rows] == ["random", "popular", "adversarial"]
