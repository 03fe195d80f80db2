"""POPE (arXiv:2305.10355): is there such a thing in the image? Half of the answers are no.

``coco_pope_<split>.json`` of https://github.com/AoiDragon/POPE, JSON lines of question_id, image,
text and label; the splits differ in how the things that are not there were drawn. Images are
COCO's val2014. Without a split all three files are read; LLaVA-1.5 reports the mean of their F1.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from lateen.data.rows import json_lines
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, table_entries, yes_or_no
from lateen.mllm.benchmarks.questions import SHORT

DRAWN = ("random", "popular", "adversarial")
"""How POPE draws what is not in an image."""


def read_pope(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, or of all three, with how its negatives were drawn as group."""
    parts: tuple[str, ...] = DRAWN if split == "all" else (split,)
    if folder.given is not None and split == "all":
        name = folder.given.stem
        parts = tuple(drawn for drawn in DRAWN if drawn in name) or (name,)
    return chain.from_iterable(_read(folder, drawn) for drawn in parts)


def _read(folder: Folder, drawn: str) -> Iterable[Draft]:
    name = f"coco_pope_{drawn}.json"
    path = folder.file(name, f"coco/{name}", f"output/coco/{name}")

    def make(row: Any) -> Draft:
        return Draft(
            f"{drawn}-{row['question_id']}", (row["image"],), row["text"],
            answers=(yes_or_no(row["label"]),), groups={"negatives": drawn},
        )  # fmt: skip

    return drafts(table_entries(json_lines(path)), make)


BENCHMARK = Benchmark(
    read_pope, "yes-no",
    "Get the three files of https://github.com/AoiDragon/POPE (output/coco) into one folder, and "
    "COCO's images into its subfolder val2014.",
    SHORT, ("all", *DRAWN), ("val2014", "images", "."),
)  # fmt: skip
