"""Tiny files in the layouts that benchmarks are published in, each with its images."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from builders import jpeg, write_csv, write_images, write_jsonl

TEN = ["2", "2", "2", "two", "3", "3", "3", "3", "3", "4"]


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def humans(answers: Sequence[str]) -> list[dict[str, Any]]:
    return [{"answer": a, "answer_confidence": "yes", "answer_id": i + 1}
            for i, a in enumerate(answers)]  # fmt: skip


def vqav2(root: Path, split: str = "val2014", *, answers: bool = True, prefix: str = "v2_") -> Path:
    asked = [
        {"image_id": 42, "question": "How many dogs?", "question_id": 42000},
        {"image_id": 42, "question": "Is it wet?", "question_id": 42001},
        {"image_id": 7, "question": "What is it?", "question_id": 7000},
    ]
    write(root / f"{prefix}OpenEnded_mscoco_{split}_questions.json", {"questions": asked})
    if answers:
        kinds = ["number", "yes/no", "other"]
        told = [
            {"question_id": q["question_id"], "image_id": q["image_id"], "answer_type": kind,
             "question_type": "how", "multiple_choice_answer": "2", "answers": humans(people)}
            for q, kind, people in zip(asked, kinds, [TEN, ["yes"] * 10, ["cat"] * 10], strict=True)
        ]  # fmt: skip
        write(root / f"{prefix}mscoco_{split}_annotations.json", {"annotations": told})
    folder = "test2015" if split.startswith("test") else split
    names = [f"COCO_{folder}_{number:012d}.jpg" for number in (42, 7)]
    write_images(root / folder, names)
    return root


def ok_vqa(root: Path) -> Path:
    return vqav2(root, prefix="")


def gqa(root: Path) -> Path:
    types = {"structural": "verify", "semantic": "rel", "detailed": "existRelS"}
    write(root / "testdev_balanced_questions.json", {
        "201": {"imageId": "n1", "question": "Is it left?", "answer": "yes", "types": types},
        "202": {"imageId": "n2", "question": "What color is it?", "answer": "red",
                "types": {**types, "structural": "query"}},
    })  # fmt: skip
    write_images(root / "images", ["n1.jpg", "n2.jpg"])
    return root


def vizwiz(root: Path, split: str = "val") -> Path:
    rows: list[dict[str, Any]] = [
        {"image": f"VizWiz_{split}_00000000.jpg", "question": "What is this?"},
        {"image": f"VizWiz_{split}_00000001.jpg", "question": "Can you tell me the color?"},
    ]
    if split == "val":
        rows[0] |= {"answers": humans(["soup can"] * 10), "answer_type": "other", "answerable": 1}
        rows[1] |= {"answers": humans(["unanswerable"] * 10), "answer_type": "unanswerable",
                    "answerable": 0}  # fmt: skip
    write(root / "Annotations" / f"{split}.json", rows)
    write_images(root / split, [row["image"] for row in rows])
    return root


def textvqa(root: Path) -> Path:
    rows = [{"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "what brand?",
             "answers": ["nous les gosses"] * 9 + ["dakota"], "set_name": "val"}]  # fmt: skip
    write(root / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": rows})
    write_images(root / "train_images", ["003a8ae2ef43b901.jpg"])
    return root


def pope(root: Path) -> Path:
    image = "COCO_val2014_000000016631.jpg"
    root.mkdir(parents=True, exist_ok=True)
    for drawn in ("random", "popular", "adversarial"):
        write_jsonl(root / f"coco_pope_{drawn}.json", [
            {"question_id": 1, "image": image, "text": "Is there a person in the image?",
             "label": "yes"},
            {"question_id": 2, "image": image, "text": f"Is there a {drawn} in the image?",
             "label": "no"},
        ])  # fmt: skip
    write_images(root / "val2014", [image])
    return root


def seed_bench(root: Path) -> Path:
    row = {f"choice_{letter}": word for letter, word in
           zip("abcd", ("One", "Two", "Three", "Four"), strict=True)}  # fmt: skip
    write(root / "SEED-Bench.json", {
        "questions": [
            {**row, "answer": "A", "data_id": "1454426_2591111986", "data_type": "image",
             "question": "How many towels are in the image?", "question_id": "101669",
             "question_type_id": 5},
            {**row, "answer": "B", "data_id": "94328.webm", "data_type": "video",
             "question": "What is the action?", "question_id": "v1738", "question_type_id": 10},
        ],
        "question_type": {"Instances Counting": 5, "Action Recognition": 10},
    })  # fmt: skip
    write_images(root / "SEED-Bench-image", ["1454426_2591111986"])
    return root


COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image",
           "source", "l2-category", "comment", "split"]  # fmt: skip


def mmbench(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def picture(grey: int = 0) -> str:
    return base64.b64encode(jpeg((grey, grey, grey))).decode("ascii")


def mmvp(root: Path, rows: Sequence[Sequence[str]] = ()) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = rows or [
        ["1", "Are its wings open or closed?", "(a) Open (b) Closed", "(a)"],
        ["2", "Are its wings open or closed?", "(a) Open (b) Closed", "(b)"],
        ["3", "Is it left or right?", "(a) Left (b) Right", "(b)"],
        ["4", "Is it left or right?", "(a) Left (b) Right", "(a)"],
    ]
    write_csv(root / "Questions.csv", [["Index", "Question", "Options", "Correct Answer"], *rows])
    write_images(root / "MMVP Images", [f"{row[0]}.jpg" for row in rows])
    return root


def ai2d(root: Path) -> Path:
    asked = {"abcLabel": True, "answerTexts": ["ears", "nose", "mouth", "face"]}
    write(root / "questions" / "0.png.json", {"imageName": "0.png", "questions": {
        "What is A in the diagram?": {**asked, "correctAnswer": 3, "questionId": "0.png-0"},
    }})  # fmt: skip
    write(root / "questions" / "5.png.json", {"imageName": "5.png", "questions": {
        "How many?": {"abcLabel": False, "answerTexts": ["1", "2", "3", "4"], "correctAnswer": 0,
                      "questionId": "5.png-0"},
    }})  # fmt: skip
    write(root / "categories.json", {"0.png": "partsOfA", "5.png": "foodChainsWebs"})
    (root / "ai2d_test_ids.csv").write_text("0\n17\n")
    write_images(root / "images", ["0.png", "5.png"])
    return root


def tallyqa(root: Path) -> Path:
    rows = [
        {"answer": 4, "data_source": "imported_genome", "image": "VG_100K_2/2410408.jpg",
         "image_id": 92410408, "issimple": False, "question": "How many headlights on the black "
         "bus?", "question_id": 30095774},
        {"answer": 0, "data_source": "imported_vqa", "image": "val2014/COCO_val2014_1.jpg",
         "image_id": 1, "issimple": True, "question": "How many dogs?", "question_id": 2},
    ]  # fmt: skip
    write(root / "test.json", rows)
    write_images(root, [row["image"] for row in rows])
    return root


def vsr(root: Path) -> Path:
    folder = root / "splits" / "zeroshot"
    folder.mkdir(parents=True)
    write_jsonl(folder / "test.jsonl", [
        {"image": "000000050403.jpg", "image_link": "http://images.cocodataset.org/…",
         "caption": "The teddy bear is in front of the person.", "label": 1,
         "relation": "in front of", "annotator_id": 31},
        {"image": "000000401552.jpg", "image_link": "…", "label": 0,
         "caption": "The umbrella is far away from the motorcycle.",
         "relation": "far away from", "annotator_id": 2},
    ])  # fmt: skip
    write_images(root / "images", ["000000050403.jpg", "000000401552.jpg"])
    return root


def hateful_memes(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_jsonl(root / "dev_seen.jsonl", [
        {"id": 8291, "img": "img/08291.png", "label": 1, "text": "white people is this"},
        {"id": 46971, "img": "img/46971.png", "label": 0, "text": "bravery at its finest"},
    ])  # fmt: skip
    write_jsonl(root / "test_seen.jsonl", [{"id": 1, "img": "img/46971.png", "text": "a cake"}])
    write_images(root, ["img/08291.png", "img/46971.png"])
    return root


def llava_bench(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_jsonl(root / "questions.jsonl", [
        {"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What is it called?"},
        {"question_id": 1, "image": "001.jpg", "category": "detail", "text": "Describe it."},
    ])  # fmt: skip
    write_images(root / "images", ["001.jpg"])
    return root


def easy_vqa(root: Path) -> Path:
    write(root / "test" / "questions.json", [
        ["what is the red shape?", "triangle", 0], ["is there a circle?", "no", 0],
        ["what color is the shape?", "blue", 1],
    ])  # fmt: skip
    write_images(root / "test" / "images", ["0.png", "1.png"])
    return root


def refcoco(root: Path, rows: Sequence[dict[str, Any]] | None = None) -> Path:
    """Two things in one photograph of 8 by 6 pixels, in two row groups."""
    name = "COCO_train2014_000000581857_{}.jpg"
    rows = rows or [
        {"question_id": "1", "image": {"bytes": jpeg(), "path": None}, "question": "…",
         "answer": ["left thing", "the red one"], "segmentation": [0.0],
         "bbox": [0.0, 0.0, 4.0, 6.0], "iscrowd": 0, "file_name": name.format(16)},
        {"question_id": "2", "image": {"bytes": jpeg((0, 9, 0)), "path": None}, "question": "…",
         "answer": ["right thing"], "segmentation": [0.0], "bbox": [4.0, 3.0, 4.0, 3.0],
         "iscrowd": 0, "file_name": name.format(7)},
    ]  # fmt: skip
    folder = root / "data"
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, folder / "val-00000-of-00001-ab.parquet", row_group_size=1)
    return root


CAPTIONS = {
    "a": ["A dog runs on grass.", "A brown dog runs."],
    "b": ["Two men sit on a bench.", "Men on a bench, outside."],
    "c": ["A cat sleeps.", "The cat's old chair."],
}


def karpathy(root: Path, name: str, folder: str = "", images: str = ".") -> Path:
    """Two images to test on and one to train on."""
    entries = [
        {"filename": f"{key}.jpg", "split": "train" if key == "c" else "test",
         "sentences": [{"raw": text} for text in texts]} | ({"filepath": folder} if folder else {})
        for key, texts in CAPTIONS.items()
    ]  # fmt: skip
    write(root / name, {"images": entries, "dataset": "set"})
    write_images(root / images / folder, [f"{key}.jpg" for key in CAPTIONS])
    return root


def coco_captions(root: Path) -> Path:
    return karpathy(root, "dataset_coco.json", "val2014")


def flickr30k_captions(root: Path) -> Path:
    return karpathy(root, "dataset_flickr30k.json", images="flickr30k-images")


def captioned(root: Path) -> Path:
    write_images(root, [f"{key}.jpg" for key in CAPTIONS])
    return write_csv(root / "captions.csv", [["image", "caption"], *(
        [f"{key}.jpg", text] for key, texts in CAPTIONS.items() for text in texts
    )])  # fmt: skip
