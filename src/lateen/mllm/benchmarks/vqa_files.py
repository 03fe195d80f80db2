"""The two files of VQA and what follows it: questions, and people's answers to them.

``questions`` have image_id, question and question_id; ``annotations`` the same ids and ten
``answers`` of ``{answer, answer_confidence, answer_id}``, with answer_type and question_type. As
https://visualqa.org/download.html describes them; images are COCO's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lateen.data.text import read_json
from lateen.errors import DataError
from lateen.mllm.benchmarks.files import Draft, Folder, drafts, json_entries

YEARS = {"test-dev2015": "test2015"}
"""The folder of a split's images, and the middle of their names, where that is not the split's."""


def read_vqa(folder: Folder, questions: str, annotations: str, split: str) -> Iterator[Draft]:
    """The questions of a split, with people's answers where these are published.

    Args:
        folder: with both files.
        questions: name of the file of questions.
        annotations: of the file of answers, which need not be there.
        split: such as ``val2014``.
    """
    path = folder.file(questions)
    answered = folder.find(annotations)
    by_id = _by_question(answered) if answered is not None else {}
    subtype = YEARS.get(split, split)

    def make(row: Any) -> Draft:
        number = row["question_id"]
        entry = by_id.get(number, {})
        image = f"COCO_{subtype}_{int(row['image_id']):012d}.jpg"
        kind = {"answer type": entry["answer_type"]} if "answer_type" in entry else {}
        return Draft(
            str(number), (image,), row["question"],
            answers=tuple(each["answer"] for each in entry.get("answers", ())),
            groups=kind, published={"question_id": number},
        )  # fmt: skip

    return drafts(json_entries(path, "questions"), make)


def _by_question(path: Path) -> dict[Any, Any]:
    content = read_json(path)
    try:
        return {entry["question_id"]: entry for entry in content["annotations"]}
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a file of annotations ({error!r})", "Download it again."
        ) from error
