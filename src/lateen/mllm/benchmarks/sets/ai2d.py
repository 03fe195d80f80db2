"""AI2D (arXiv:1603.07396): diagrams of school books, questions with four choices.

``ai2d-all.zip`` of https://allenai.org/data/diagrams: ``questions/<image>.json`` has imageName and
``questions``, by text, with answerTexts, correctAnswer (from 0), questionId and abcLabel; images
are in ``images``, categories in ``categories.json``. The test images are those of
``ai2d_test_ids.csv``, a number a line, which is published beside it. Where abcLabel says that
choices are letters written into the diagram, other code draws these over the texts; here the
diagrams are as they are, and the group tells both kinds apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lateen.data.text import read_json, read_list
from lateen.errors import DataError
from lateen.mllm.benchmarks.benchmark import Benchmark
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, letter_of
from lateen.mllm.benchmarks.questions import LETTER


def read_ai2d(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with the category, and whether choices are letters in the diagram, as groups."""
    paths = sorted((folder.root / "questions").glob("*.json"))
    if not paths:
        raise DataError(f"{folder.root} has no questions/*.json", folder.where)
    if split != "all":
        test = {line.strip() for line in read_list(folder.file("ai2d_test_ids.csv"))}
        paths = [p for p in paths if (p.name.partition(".")[0] in test) == (split == "test")]
    categories = folder.find("categories.json")
    category_of = read_json(categories) if categories else {}

    def make(entry: Any) -> Draft:
        image, text, row = entry
        choices = tuple(map(str, row["answerTexts"]))
        groups = {"letters in the diagram": "yes" if row.get("abcLabel") else "no"}
        if isinstance(category_of.get(image), str):
            groups["category"] = category_of[image]
        return Draft(
            row["questionId"], (image,), text,
            answers=(letter_of(int(row["correctAnswer"]), len(choices)),), choices=choices,
            groups=groups,
        )  # fmt: skip

    return drafts(_entries(paths), make)


def _entries(paths: Iterable[Path]) -> Iterator[tuple[str, Any]]:
    for path in paths:
        content = read_json(path)
        asked = content.get("questions") if isinstance(content, dict) else None
        if not isinstance(asked, dict):
            yield str(path), None
            continue
        for text, row in asked.items():
            yield f"{path}[{text}]", (content.get("imageName"), text, row)


BENCHMARK = Benchmark(
    read_ai2d, "letter",
    "Get ai2d-all.zip of https://allenai.org/data/diagrams, and ai2d_test_ids.csv into its folder: "
    "it has questions, images and the file.",
    LETTER, ("test", "train", "all"),
)  # fmt: skip
