"""VSR (arXiv:2205.00363): is a sentence about where things are true of the photograph?

``splits/<split>/test.jsonl`` (and ``train.jsonl``: the splits ``train-zeroshot`` and
``train-random``) of https://github.com/cambridgeltl/visual-spatial-reasoning
(``data/README.md``): image, caption, label (1 is true) and relation; images are in ``images``. The
wording of the question is lateen's own: VSR has sentences, and no prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.data.rows import json_lines
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, table_entries, yes_or_no
from lateen.mllm.benchmarks.questions import SHORT


def read_vsr(folder: Folder, split: str) -> Iterable[Draft]:
    """The test sentences of a split, or those to train on, with the relation as group."""
    part = "train" if split.startswith("train-") else "test"
    inside = f"splits/{split.removeprefix('train-')}/{part}.jsonl"
    path = folder.file(inside, f"data/{inside}", f"{part}.jsonl")
    return drafts(table_entries(json_lines(path)), _draft)


def _draft(row: Any) -> Draft:
    return Draft(
        f"{row['image']}: {row['caption']}", (row["image"],),
        f"Is this sentence true of the image: {row['caption']}",
        answers=(yes_or_no(row["label"]),), groups={"relation": row["relation"]},
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_vsr, "yes-no",
    "Get the folder data of https://github.com/cambridgeltl/visual-spatial-reasoning with its "
    "images: it has splits/zeroshot/test.jsonl and images.",
    SHORT, ("zeroshot", "random", "train-zeroshot", "train-random"),
    ("images", "trainval2017", "data/images", "."),
)  # fmt: skip
