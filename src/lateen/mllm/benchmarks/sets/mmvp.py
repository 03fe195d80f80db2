"""MMVP (arXiv:2401.06209): one question about two images that CLIP takes for alike.

``Questions.csv`` of https://huggingface.co/datasets/MMVP/MMVP has Index, Question, Options (``(a)
Open (b) Closed``) and Correct Answer (``(a)``); image n is ``MMVP Images/n.jpg``, and those of
2k - 1 and 2k are a pair, which counts if both answers are right. Options are asked for by letter,
as LLaVA-1.5 does, where MMVP's own code puts them behind the question and lets GPT-4 judge. Some
published answers are wrong (lmms-eval issue 1018); they are taken as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from lateen.data.rows import open_rows
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, table_entries
from lateen.mllm.benchmarks.questions import LETTER

_OPTION = re.compile(r"\(([a-z])\)")


def read_mmvp(folder: Folder, split: str) -> Iterable[Draft]:
    """All 300."""
    del split
    rows = open_rows(folder.file("Questions.csv"))
    return drafts(table_entries(rows.read(rows.columns)), _draft)


def _draft(row: Any) -> Draft:
    number = int(row["Index"])
    _, *parts = _OPTION.split(row["Options"])
    [right] = _OPTION.findall(row["Correct Answer"])
    return Draft(
        str(number), (f"{number}.jpg",), row["Question"].strip(), answers=(right.upper(),),
        choices=tuple(text.strip() for text in parts[1::2]), pair=str((number + 1) // 2),
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_mmvp, "letter",
    "Get https://huggingface.co/datasets/MMVP/MMVP: its folder has Questions.csv and MMVP Images.",
    LETTER, folders=("MMVP Images", "MMVP Imgaes", "images", "."),
)  # fmt: skip
