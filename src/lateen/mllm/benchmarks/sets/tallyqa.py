"""TallyQA (arXiv:1810.12440): how many there are, simple and complex questions apart.

``test.json`` of https://github.com/manoja328/TallyQA_dataset: a list of image (``VG_100K_2/….jpg``
or COCO's), question, question_id, answer, issimple and data_source. An answer counts by the first
number in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries
from lateen.mllm.benchmarks.questions import SHORT


def read_tallyqa(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with its difficulty as group."""
    return drafts(json_entries(folder.file(f"{split}.json")), _draft)


def _draft(row: Any) -> Draft:
    groups = {"question": "simple" if row["issimple"] else "complex"} if "issimple" in row else {}
    return Draft(
        str(row["question_id"]), (row["image"],), row["question"],
        answers=(str(int(row["answer"])),), groups=groups,
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_tallyqa, "count",
    "Get tallyqa.zip of https://github.com/manoja328/TallyQA_dataset and the images of Visual "
    "Genome (VG_100K, VG_100K_2) and COCO (train2014, val2014) into one folder.",
    SHORT, ("test", "train"), (".", "images"),
)  # fmt: skip
