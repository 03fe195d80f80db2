"""GQA (arXiv:1902.09506): compositional questions made from scene graphs, one answer each.

``<split>_questions.json`` of https://cs.stanford.edu/people/dorarad/gqa/download.html: a mapping of
ids to imageId, question, answer and types; images are ``images/<imageId>.jpg``. Exact match after
what LLaVA-1.5's ``convert_gqa_for_eval.py`` does to answers. Consistency, validity and
plausibility, which GQA's own code also gives, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.metrics.answers import normalise_plain
from lateen.mllm.benchmarks.benchmark import Benchmark, uploaded_as
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries
from lateen.mllm.benchmarks.questions import SHORT


def read_gqa(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with the structural type of the question as group."""
    name = f"{split}_questions.json"
    return drafts(json_entries(folder.file(name, f"*/{name}")), _draft)


def _draft(entry: Any) -> Draft:
    number, row = entry
    kind = row.get("types", {}).get("structural")
    return Draft(
        str(number), (f"{row['imageId']}.jpg",), row["question"],
        answers=(row["answer"],) if "answer" in row else (),
        groups={"question type": kind} if kind else {},
        published={"questionId": number},
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_gqa, "short",
    "Get questions1.2.zip and images.zip of "
    "https://cs.stanford.edu/people/dorarad/gqa/download.html into one folder: it has "
    "testdev_balanced_questions.json and images.",
    SHORT, ("testdev_balanced", "testdev_all", "val_balanced", "test_balanced", "submission_all",
     "train_balanced"),
    upload=uploaded_as("prediction", normalise_plain), normalise=normalise_plain,
)  # fmt: skip
