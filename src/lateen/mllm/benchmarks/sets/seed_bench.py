"""SEED-Bench (arXiv:2307.16125), its images: questions with four choices in nine dimensions.

``SEED-Bench.json`` as https://github.com/AILab-CVC/SEED-Bench (``DATASET.md``, SEED-Bench-1) has
it: ``questions`` with choice_a to choice_d, answer, data_id, data_type and question_type_id, and
``question_type``, the dimensions' numbers. Images of CC3M are called as data_id is, without a
suffix. Questions about videos are not read: no number here is of all twelve dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.data.text import read_json
from lateen.mllm.benchmarks.benchmark import Benchmark, uploaded_as
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, entries_of
from lateen.mllm.benchmarks.questions import LETTER


def read_seed_bench(folder: Folder, split: str) -> Iterable[Draft]:
    """Those about images, with the dimension as group."""
    del split
    path = folder.file("SEED-Bench.json")
    content = read_json(path)
    entries = entries_of(content, path, "questions")
    names = {number: name for name, number in content.get("question_type", {}).items()}

    def make(row: Any) -> Draft:
        number = row["question_id"]
        dimension = row["question_type_id"]
        return Draft(
            str(number), (row["data_id"],), row["question"],
            answers=(row["answer"],) if row.get("answer") else (),
            choices=tuple(row[f"choice_{letter}"] for letter in "abcd"),
            groups={"dimension": names.get(dimension, str(dimension))},
            published={"question_id": number},
        )  # fmt: skip

    return drafts((each for each in entries if not _is_video(each[1])), make)


def _is_video(row: Any) -> bool:
    return isinstance(row, dict) and row.get("data_type") == "video"


BENCHMARK = Benchmark(
    read_seed_bench, "letter",
    "Get SEED-Bench.json and SEED-Bench-image.zip of "
    "https://huggingface.co/datasets/AILab-CVC/SEED-Bench into one folder.",
    LETTER, folders=("SEED-Bench-image", "images", "."), suffixes=("", ".jpg", ".png"),
    upload=uploaded_as("prediction"), upload_suffix=".jsonl",
)  # fmt: skip
