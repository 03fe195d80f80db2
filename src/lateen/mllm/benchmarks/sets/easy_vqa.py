"""easy-VQA: pictures of one coloured shape and questions about it, 13 answers; needs no download.

``<split>/questions.json`` of https://github.com/vzhou842/easy-VQA, a list of [question, answer,
image number], and ``<split>/images/<number>.png``. The Python package ``easy-vqa`` (MIT) has all of
it. 37 % of the answers are "yes".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries
from lateen.mllm.benchmarks.questions import SHORT

SHAPES = ("circle", "rectangle", "triangle")


def read_easy_vqa(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with what is asked for as group: yes or no, a shape, a colour."""
    path = folder.file(f"{split}/questions.json", f"data/{split}/questions.json")
    numbered = ((source, (at, row)) for at, (source, row) in enumerate(json_entries(path)))
    return drafts(numbered, _draft)


def _draft(entry: Any) -> Draft:
    at, (text, answer, image) = entry
    kind = "yes/no" if answer in ("yes", "no") else "shape" if answer in SHAPES else "colour"
    return Draft(
        str(at), (f"{image}.png",), text, answers=(answer,), groups={"asked for": kind}
    )  # fmt: skip


BENCHMARK = Benchmark(
    read_easy_vqa, "short",
    "Install it with: pip install easy-vqa; or give the folder data of "
    "https://github.com/vzhou842/easy-VQA.",
    SHORT, ("test", "train"), ("{split}/images", "data/{split}/images", "images"),
    package="easy_vqa",
)  # fmt: skip
