"""LLaVA-Bench in the wild (arXiv:2304.08485): 60 open questions about 24 images, answers to judge.

``questions.jsonl`` of https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild:
question_id, image, category and text; images are in ``images``. What an answer is worth is said by
a GPT-4 of 2023, which is not asked here: the answers are written in the form that LLaVA-1.5's
``eval_gpt_review_bench.py`` reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.data.rows import json_lines
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, table_entries
from lateen.mllm.benchmarks.questions import Question


def read_llava_bench(folder: Folder, split: str) -> Iterable[Draft]:
    """All, with the category as group."""
    del split
    return drafts(table_entries(json_lines(folder.file("questions.jsonl"))), _draft)


def _draft(row: Any) -> Draft:
    return Draft(
        str(row["question_id"]), (row["image"],), row["text"],
        groups={"category": row["category"]}, published={"question_id": row["question_id"]},
    )  # fmt: skip


def _upload(question: Question, answer: str) -> dict[str, object]:
    return {
        **question.published, "prompt": question.text, "text": answer,
        "answer_id": question.id, "model_id": "", "metadata": {},
    }  # fmt: skip


BENCHMARK = Benchmark(
    read_llava_bench, "text",
    "Get https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild: its folder has "
    "questions.jsonl and images.",
    upload=_upload, upload_suffix=".jsonl",
)  # fmt: skip
