"""TextVQA (arXiv:1904.08920): questions about what is written in a photograph, ten answers.

``TextVQA_0.5.1_<split>.json`` of https://textvqa.org/dataset: ``data`` has image_id, question,
question_id and answers; images are ``train_images/<image_id>.jpg``. LLaVA-1.5 also puts the words
that a text recogniser found into the prompt; that is left out here, so numbers are not the same.
No upload file for the test split: the form that its server takes was not looked up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.metrics.answers import normalise_textvqa
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries
from lateen.mllm.benchmarks.questions import SHORT


def read_textvqa(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split."""
    return drafts(json_entries(folder.file(f"TextVQA_0.5.1_{split}.json"), "data"), _draft)


def _draft(row: Any) -> Draft:
    return Draft(
        str(row["question_id"]), (f"{row['image_id']}.jpg",), row["question"],
        answers=tuple(row.get("answers", ())),
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_textvqa, "human",
    "Get TextVQA_0.5.1_val.json and train_val_images.zip of https://textvqa.org/dataset into one "
    "folder: it has the file and train_images.",
    SHORT, ("val", "train", "test"), ("train_images", "test_images", "images", "."),
    normalise=normalise_textvqa,
)  # fmt: skip
