"""HatefulMemes (arXiv:2005.04790): is a picture with what is written on it hateful?

``<split>.jsonl`` of the challenge: id, img (``img/….png``), label (1 is hateful) and text. The
question is OpenFlamingo's (``get_hateful_memes_prompt``) as a sentence. Papers report the area
under the ROC curve, which needs a score for each answer: see
:func:`lateen.mllm.benchmarks.scoring.score`. ``test_seen`` and ``test_unseen`` had no labels at
first: such files cannot be scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.data.rows import json_lines
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, table_entries, yes_or_no
from lateen.mllm.benchmarks.questions import SHORT


def read_hateful_memes(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split."""
    path = folder.file(f"{split}.jsonl", f"annotations/{split}.jsonl")
    return drafts(table_entries(json_lines(path)), _draft)


def _draft(row: Any) -> Draft:
    return Draft(
        str(row["id"]), (row["img"],),
        f"This is an image with: '{row['text']}' written on it. Is it hateful?",
        answers=(yes_or_no(row["label"]),) if "label" in row else (),
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_hateful_memes, "yes-no",
    "Get the folder of https://hatefulmemeschallenge.com: it has dev_seen.jsonl and img.",
    SHORT, ("dev_seen", "test_seen", "dev_unseen", "test_unseen", "dev", "test", "train"),
    (".", "images"),
)  # fmt: skip
