"""Every reader on tiny files of the published layout."""

from __future__ import annotations

import base64
import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pytest
from builders import jpeg, write_images

from lateen.data import decode_image
from lateen.errors import DataError, UsageError
from lateen.mllm.benchmarks import BENCHMARKS, open_benchmark
from lateen.mllm.benchmarks.benchmark import benchmark_summaries
from lateen.mllm.benchmarks.questions import CAPTION, LETTER, SHORT, UNANSWERABLE, QuestionSet

MAKERS: dict[str, Callable[[Path], Path]] = {
    "ai2d": published.ai2d,
    "captions-of": published.captioned,
    "coco-captions": published.coco_captions,
    "easy-vqa": published.easy_vqa,
    "flickr30k-captions": published.flickr30k_captions,
    "gqa": published.gqa,
    "hateful-memes": published.hateful_memes,
    "llava-bench": published.llava_bench,
    "mmbench": lambda root: published.mmbench(
        root / "mmbench_dev_20230712.tsv", [row(7, answer="B")]
    ),
    "mmvp": published.mmvp,
    "ok-vqa": published.ok_vqa,
    "pope": published.pope,
    "pope-of-captions": published.captioned,
    "refcoco": published.refcoco,
    "refcoco-plus": published.refcoco,
    "refcocog": published.refcoco,
    "seed-bench": published.seed_bench,
    "tallyqa": published.tallyqa,
    "textvqa": published.textvqa,
    "vizwiz": published.vizwiz,
    "vqav2": published.vqav2,
    "vsr": published.vsr,
}


def row(index: int, **more: Any) -> dict[str, Any]:
    return {"index": index, "question": "What is it?", "A": "a cat", "B": "a dog",
            "category": "object localization", "image": published.picture(), **more}  # fmt: skip


def answers(found: QuestionSet) -> dict[str, tuple[str, ...]]:
    return {each.id: each.answers for each in found.questions}


def groups(found: QuestionSet) -> list[dict[str, str]]:
    return [dict(each.groups) for each in found.questions]


def test_every_benchmark_is_a_file_with_a_summary_and_has_a_test() -> None:
    assert set(BENCHMARKS) == set(MAKERS)
    assert all(len(summary) > 20 for summary in benchmark_summaries().values())
    assert all(BENCHMARKS[name].name == name for name in BENCHMARKS)


@pytest.mark.parametrize("name", MAKERS)
def test_every_image_can_be_opened_and_the_same_files_are_the_same_set(
    name: str, tmp_path: Path
) -> None:
    root = MAKERS[name](tmp_path / "a")
    found = open_benchmark(name, root)
    assert found.skips == ()
    assert found.ending == BENCHMARKS[name].ending
    for question in found.questions:
        assert [decode_image(image).size for image in question.images] == [(8, 6)]
        assert question.kind == found.kind == BENCHMARKS[name].kind
    assert len({question.id for question in found.questions}) == len(found.questions)
    assert open_benchmark(name, root).fingerprint == found.fingerprint
    assert open_benchmark(name, MAKERS[name](tmp_path / "b")).fingerprint == found.fingerprint


def test_vqav2(tmp_path: Path) -> None:
    found = open_benchmark("vqav2", published.vqav2(tmp_path))
    assert answers(found)["42000"] == tuple(published.TEN)
    assert groups(found)[1] == {"answer type": "yes/no"}
    assert found.questions[0].image_ids == found.questions[1].image_ids
    assert found.prompts()[0] == f"How many dogs?\n{SHORT}"


def test_test_questions_of_vqav2_have_no_answers(tmp_path: Path) -> None:
    root = published.vqav2(tmp_path, "test-dev2015", answers=False)
    found = open_benchmark("vqav2", root, split="test-dev2015")
    assert len(found.questions) == 3
    assert not found.has_answers


def test_a_question_without_an_answer_among_others_is_a_skip(tmp_path: Path) -> None:
    root = published.vqav2(tmp_path)
    path = root / "v2_mscoco_val2014_annotations.json"
    content = json.loads(path.read_text())
    published.write(path, {"annotations": content["annotations"][:2]})
    found = open_benchmark("vqav2", root)
    assert [(skip.id, skip.reason) for skip in found.skips] == [("7000", "it has no answer")]


def test_ok_vqa_is_of_the_form_of_vqa(tmp_path: Path) -> None:
    found = open_benchmark("ok-vqa", published.ok_vqa(tmp_path))
    assert found.kind == "human"
    assert list(answers(found)) == ["42000", "42001", "7000"]


def test_gqa(tmp_path: Path) -> None:
    found = open_benchmark("gqa", published.gqa(tmp_path))
    assert answers(found) == {"201": ("yes",), "202": ("red",)}
    assert groups(found) == [{"question type": "verify"}, {"question type": "query"}]


def test_vizwiz_says_what_to_answer_where_nothing_can_be_said(tmp_path: Path) -> None:
    found = open_benchmark("vizwiz", published.vizwiz(tmp_path))
    assert groups(found)[1] == {"answer type": "unanswerable", "answerable": "no"}
    assert found.prompts()[0] == f"What is this?\n{UNANSWERABLE}\n{SHORT}"


def test_textvqa(tmp_path: Path) -> None:
    found = open_benchmark("textvqa", published.textvqa(tmp_path))
    assert len(answers(found)["34602"]) == 10


def test_pope_is_all_three_files_or_one(tmp_path: Path) -> None:
    root = published.pope(tmp_path)
    found = open_benchmark("pope", root)
    assert answers(found)["random-2"] == ("no",)
    assert [each["negatives"] for each in groups(found)] == [
        "random", "random", "popular", "popular", "adversarial", "adversarial",
    ]  # fmt: skip
    assert len(open_benchmark("pope", root, split="popular").questions) == 2
    one = open_benchmark("pope", root / "coco_pope_adversarial.json")
    assert list(answers(one)) == ["adversarial-1", "adversarial-2"]
    (root / "coco_pope_random.json").rename(root / "gqa_pope.json")
    assert list(answers(open_benchmark("pope", root / "gqa_pope.json"))) == [
        "gqa_pope-1", "gqa_pope-2",
    ]  # fmt: skip


def test_seed_bench_leaves_videos_out(tmp_path: Path) -> None:
    found = open_benchmark("seed-bench", published.seed_bench(tmp_path))
    assert answers(found) == {"101669": ("A",)}
    assert groups(found) == [{"dimension": "Instances Counting"}]
    assert found.prompts() == [
        f"How many towels are in the image?\nA. One\nB. Two\nC. Three\nD. Four\n{LETTER}"
    ]


def test_mmbench_as_published_has_its_rotations(tmp_path: Path) -> None:
    path = published.mmbench(tmp_path / "mmbench_dev_20230712.tsv", [
        row(7, answer="B", hint="look closely"),
        row(1000007, A="a dog", B="a cat", answer="A", hint="look closely"),
        row(8, C="a bird", D="nan", answer="C", hint="nan"),
    ])  # fmt: skip
    found = open_benchmark("mmbench", path)
    assert answers(found) == {"7": ("B",), "1000007": ("A",), "8": ("C",)}
    assert [each.rotation_of for each in found.questions] == ["7", "7", "8"]
    assert found.prompts()[0] == f"look closely\nWhat is it?\nA. a cat\nB. a dog\n{LETTER}"
    assert found.questions[2].choices == ("a cat", "a dog", "a bird")


def test_mmbench_without_rotations_gets_them(tmp_path: Path) -> None:
    path = published.mmbench(tmp_path / "mmbench_dev_en.tsv", [row(7, C="a bird", answer="B")])
    found = open_benchmark("mmbench", path)
    assert [(each.id, each.choices, each.answers) for each in found.questions] == [
        ("7", ("a cat", "a dog", "a bird"), ("B",)),
        ("1000007", ("a dog", "a bird", "a cat"), ("A",)),
        ("2000007", ("a bird", "a cat", "a dog"), ("C",)),
    ]
    assert {each.rotation_of for each in found.questions} == {"7"}


def test_photographs_in_mmbench_are_larger_than_cells_of_csv_may_be(tmp_path: Path) -> None:
    large = jpeg() + bytes(150_000)
    image = base64.b64encode(large).decode("ascii")
    rows = [row(n, hint='Read "this":\nline two', image=image, answer="A") for n in (1, 1000001)]
    found = open_benchmark("mmbench", published.mmbench(tmp_path / "mmbench_dev.tsv", rows))
    assert [each.images[0].read() for each in found.questions] == [large, large]
    assert found.questions[1].text == 'Read "this":\nline two\nWhat is it?'
    assert csv.field_size_limit() < 200_000


def test_in_place_of_an_image_mmbench_may_name_the_row_that_has_it(tmp_path: Path) -> None:
    rows = [row(7, image=published.picture(200)), row(9, image="7", answer="A")]
    found = open_benchmark("mmbench", published.mmbench(tmp_path / "mmbench_dev.tsv", rows))
    [question] = [each for each in found.questions if each.id == "9"]
    assert question.images[0].read() == jpeg((200, 200, 200))
    assert question.image_ids == ("7",)


def test_mmvp_is_pairs_of_questions(tmp_path: Path) -> None:
    found = open_benchmark("mmvp", published.mmvp(tmp_path))
    assert answers(found) == {"1": ("A",), "2": ("B",), "3": ("B",), "4": ("A",)}
    assert [each.pair for each in found.questions] == ["1", "1", "2", "2"]
    assert found.questions[2].choices == ("Left", "Right")


def test_what_counts_together_goes_together(tmp_path: Path) -> None:
    root = published.mmvp(tmp_path)
    (root / "MMVP Images" / "3.jpg").unlink()
    found = open_benchmark("mmvp", root)
    assert [each.id for each in found.questions] == ["1", "2"]
    assert [skip.id for skip in found.skips] == ["3", "4"]
    assert found.skips[1].reason == "another question that it counts with cannot be asked"


def test_ai2d_is_divided_by_its_list(tmp_path: Path) -> None:
    root = published.ai2d(tmp_path)
    found = open_benchmark("ai2d", root)
    assert answers(found) == {"0.png-0": ("D",)}
    assert groups(found) == [{"letters in the diagram": "yes", "category": "partsOfA"}]
    assert list(answers(open_benchmark("ai2d", root, split="train"))) == ["5.png-0"]
    (root / "ai2d_test_ids.csv").unlink()
    with pytest.raises(DataError, match=r"no ai2d_test_ids\.csv"):
        open_benchmark("ai2d", root)
    assert len(open_benchmark("ai2d", root, split="all").questions) == 2


def test_tallyqa(tmp_path: Path) -> None:
    found = open_benchmark("tallyqa", published.tallyqa(tmp_path))
    assert answers(found) == {"30095774": ("4",), "2": ("0",)}
    assert groups(found) == [{"question": "complex"}, {"question": "simple"}]


def test_vsr(tmp_path: Path) -> None:
    found = open_benchmark("vsr", published.vsr(tmp_path))
    assert list(answers(found).values()) == [("yes",), ("no",)]
    assert groups(found)[1] == {"relation": "far away from"}
    assert found.questions[0].text.endswith("The teddy bear is in front of the person.")


def test_hateful_memes(tmp_path: Path) -> None:
    root = published.hateful_memes(tmp_path)
    found = open_benchmark("hateful-memes", root)
    assert answers(found) == {"8291": ("yes",), "46971": ("no",)}
    assert "'bravery at its finest'" in found.questions[1].text
    assert not open_benchmark("hateful-memes", root, split="test_seen").has_answers


def test_llava_bench(tmp_path: Path) -> None:
    found = open_benchmark("llava-bench", published.llava_bench(tmp_path))
    assert found.prompts() == ["What is it called?", "Describe it."]
    assert not found.has_answers


def test_easy_vqa(tmp_path: Path) -> None:
    found = open_benchmark("easy-vqa", published.easy_vqa(tmp_path))
    assert [each["asked for"] for each in groups(found)] == ["shape", "yes/no", "colour"]
    assert answers(found) == {"0": ("triangle",), "1": ("no",), "2": ("blue",)}


def test_refcoco_asks_each_phrase(tmp_path: Path) -> None:
    found = open_benchmark("refcoco", published.refcoco(tmp_path))
    assert [each.text.rpartition(": ")[2] for each in found.questions] == [
        "left thing", "the red one", "right thing",
    ]  # fmt: skip
    assert found.questions[0].box == (0, 0, 0.5, 1)
    assert found.questions[2].box == (0.5, 0.5, 1, 1)
    assert {each.image_ids for each in found.questions} == {("COCO_train2014_000000581857",)}


def test_a_row_of_refcoco_without_an_image_is_a_skip(tmp_path: Path) -> None:
    rows = [
        {"question_id": str(at), "image": {"bytes": data, "path": None}, "answer": ["it"],
         "bbox": [0.0, 0.0, 4.0, 6.0], "file_name": "x"}
        for at, data in enumerate((jpeg(), b"no image"))
    ]  # fmt: skip
    found = open_benchmark("refcoco", published.refcoco(tmp_path, rows))
    assert [each.id for each in found.questions] == ["0-0"]
    assert "its image or box cannot be used" in found.skips[0].reason


def test_a_missing_image_is_a_skip_and_all_missing_an_error(tmp_path: Path) -> None:
    root = published.gqa(tmp_path)
    (root / "images" / "n2.jpg").unlink()
    found = open_benchmark("gqa", root)
    assert [skip.id for skip in found.skips] == ["202"]
    assert found.skips[0].reason.endswith("n2.jpg")
    (root / "images" / "n1.jpg").unlink()
    with pytest.raises(DataError, match=r"not one of the 2 images .* images="):
        open_benchmark("gqa", root)


def test_images_may_be_elsewhere(tmp_path: Path) -> None:
    root = published.gqa(tmp_path / "gqa")
    (root / "images").rename(tmp_path / "elsewhere")
    assert len(open_benchmark("gqa", root, images=tmp_path / "elsewhere").questions) == 2


def test_a_damaged_line_is_called_so(tmp_path: Path) -> None:
    root = published.hateful_memes(tmp_path)
    path = root / "dev_seen.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, '{"id": 9, "img": "img/9.p', "[1]", ""]))
    found = open_benchmark("hateful-memes", root)
    first, second = found.skips
    assert first.reason.startswith("the line is not valid JSON (Unterminated string")
    assert first.source == f"{path}:{len(lines) + 1}"
    assert second.reason == "the line is not a JSON object"


def test_captions_of_karpathys_splits(tmp_path: Path) -> None:
    found = open_benchmark("coco-captions", published.coco_captions(tmp_path))
    assert [each.id for each in found.questions] == ["val2014/a.jpg", "val2014/b.jpg"]
    assert answers(found)["val2014/a.jpg"] == tuple(published.CAPTIONS["a"])
    assert set(found.prompts()) == {CAPTION}
    train = open_benchmark("coco-captions", tmp_path, split="train")
    assert [each.id for each in train.questions] == ["val2014/c.jpg"]


def test_captions_in_cocos_own_form(tmp_path: Path) -> None:
    write_images(tmp_path / "val2014", ["COCO_val2014_000000000009.jpg"])
    content = {
        "images": [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}],
        "annotations": [{"image_id": 9, "id": 1, "caption": "A dog."},
                        {"image_id": 9, "id": 2, "caption": "Dogs run."}],
    }  # fmt: skip
    published.write(tmp_path / "annotations" / "captions_val2014.json", content)
    found = open_benchmark("coco-captions", tmp_path, split="val2014")
    assert answers(found) == {"COCO_val2014_000000000009.jpg": ("A dog.", "Dogs run.")}


def test_an_image_without_captions_is_a_skip_of_a_captioned_dataset(tmp_path: Path) -> None:
    table = published.captioned(tmp_path)
    write_images(tmp_path, ["d.jpg"])
    table.write_text(table.read_text() + "d.jpg,\n")
    found = open_benchmark("captions-of", table)
    assert len(found.questions) == 3
    assert [skip.id for skip in found.skips] == ["d.jpg"]


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ({"imageId": "n1"}, "the entry is not of the published form (KeyError('question'))"),
        ({"imageId": "n1", "question": 3, "answer": "no"}, "a question is not text"),
        ({"imageId": "n1", "question": " ", "answer": "no"}, "a question is not text"),
        ({"imageId": "n1", "question": "Is it?", "answer": None}, "an answer is not text"),
    ],
)
def test_an_entry_of_another_form_is_a_skip(tmp_path: Path, damaged: Any, reason: str) -> None:
    root = published.gqa(tmp_path)
    path = root / "testdev_balanced_questions.json"
    content = json.loads(path.read_text()) | {"203": damaged}
    published.write(path, content)
    found = open_benchmark("gqa", root)
    assert len(found.questions) == 2
    assert found.skips[0].reason == reason
    assert found.skips[0].source.endswith("[203]")


def test_an_id_that_comes_twice_is_asked_once(tmp_path: Path) -> None:
    root = published.tallyqa(tmp_path)
    rows = json.loads((root / "test.json").read_text())
    published.write(root / "test.json", [*rows, rows[0]])
    found = open_benchmark("tallyqa", root)
    assert [skip.reason for skip in found.skips] == ["the id 30095774 was already used"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("v2_OpenEnded_mscoco_val2014_questions.json", "[]", "no list 'questions'"),
        ("v2_OpenEnded_mscoco_val2014_questions.json", "{", "not valid JSON"),
        ("v2_mscoco_val2014_annotations.json", "{}", "not a file of annotations"),
    ],
)
def test_a_file_of_another_form_is_an_error(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    root = published.vqav2(tmp_path)
    (root / name).write_text(content)
    with pytest.raises(DataError, match=said):
        open_benchmark("vqav2", root)


def test_what_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no SEED-Bench\.json.*huggingface"):
        open_benchmark("seed-bench", tmp_path)
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        open_benchmark("seed-bench", tmp_path / "nowhere")
    with pytest.raises(DataError, match="needs the folder"):
        open_benchmark("gqa")
    with pytest.raises(UsageError, match=r"no benchmark 'popes'.*Did you mean 'pope'"):
        open_benchmark("popes", tmp_path)
    with pytest.raises(UsageError, match=r"no split 'best'"):
        open_benchmark("pope", tmp_path, split="best")
    with pytest.raises(DataError, match=r"no column 'bbox'"):
        open_benchmark("refcoco", published.refcoco(tmp_path, [{
            "question_id": "1", "image": {"bytes": b"", "path": None}, "answer": ["it"],
        }]))  # fmt: skip


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"answer": "C"}, "its answer 'C' is none of the letters AB"),
        ({"answer": "A", "B": "nan"}, "it has 1 choices"),
        ({"answer": "A", "index": "x"}, "the entry is not of the published form"),
    ],
)
def test_a_letter_must_be_one_of_its_choices(
    tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    rows = [row(1, answer="A"), row(1000001, answer="B"), row(2) | more]
    found = open_benchmark("mmbench", published.mmbench(tmp_path / "mmbench_dev.tsv", rows))
    assert list(answers(found)) == ["1", "1000001"]
    assert reason in found.skips[0].reason


@pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="needs easy-vqa")
@pytest.mark.parametrize(
    ("split", "count", "images"), [("test", 9673, 1000), ("train", 38575, 4000)]
)
def test_the_package_easy_vqa_is_read_whole(split: str, count: int, images: int) -> None:
    found = open_benchmark("easy-vqa", split=split)
    assert (len(found.questions), len(found.skips)) == (count, 0)
    assert len({each.image_ids for each in found.questions}) == images
