"""MMBench (arXiv:2307.06281): questions with two to four choices, asked under every rotation.

``mmbench_<split>.tsv`` of https://github.com/open-compass/MMBench: index, question, hint, A to D,
answer, category, l2-category and the image in base64. A question counts if it is answered rightly
under all rotations of its choices; the file has them as further rows, whose index is larger by a
multiple of a million (its evaluation takes ``index % 1e6``). Of a file without such
rows the rotations are made here, as LLaVA-1.5's ``model_vqa_mmbench.py --all-rounds`` does. The
test split has no answers; its server takes the table of the upload file as ``.xlsx``. MMBench-CN,
whose prompts end in Chinese, is left out.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lateen.data.captions import is_missing
from lateen.data.rows import check_columns, open_rows
from lateen.mllm.benchmarks.benchmark import Benchmark, uploaded_as
from lateen.mllm.benchmarks.files import Base64Image, Draft, Folder, drafts, table_entries
from lateen.mllm.benchmarks.questions import LETTER, ROTATION, rotations

_LARGEST_CELL = 2**30
_NEEDED = ("index", "question", "image", "A", "B")


def read_mmbench(folder: Folder, split: str) -> Iterable[Draft]:
    """Of a split, with the category as group."""
    name = f"mmbench_{split}"
    path = folder.file(f"{name}_[0-9]*.tsv", f"{name}.tsv", f"MMBench_{split.upper()}.tsv")
    rows = open_rows(path)
    check_columns(rows.name, rows.columns, _NEEDED, folder.where)
    with _large_cells():
        found = list(drafts(table_entries(rows.read(rows.columns)), _draft))
    by_id = {each.id: each for each in found if not each.fault}
    found = [_with_image(each, by_id) for each in found]
    has_rotations = any(each.id != each.rotation_of for each in found if not each.fault)
    return found if has_rotations else _rotated(found)


@contextlib.contextmanager
def _large_cells() -> Iterator[None]:
    """Let a cell of CSV be as large as a photograph."""
    before = csv.field_size_limit(_LARGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _with_image(draft: Draft, by_id: Mapping[str, Draft]) -> Draft:
    """A row with its image; in place of one may stand the index of the row that has it."""
    named = [getattr(image, "text", "") for image in draft.images]
    owner = by_id.get(named[0]) if named and named[0].isdecimal() else None
    if owner is None:
        return draft
    return replace(draft, images=owner.images, image_ids=owner.image_ids)


def _draft(row: Any) -> Draft:
    index = int(row["index"])
    choices: list[str] = []
    for letter in "ABCD":
        if _is_none(row.get(letter)):
            break
        choices.append(row[letter].strip())
    hint = row.get("hint")
    text = row["question"] if _is_none(hint) else f"{hint}\n{row['question']}"
    answer = row.get("answer")
    main = str(index % ROTATION)
    return Draft(
        str(index), (Base64Image(f"image of {main}", row["image"].strip()),), text,
        answers=() if _is_none(answer) else (answer.strip().upper(),), choices=tuple(choices),
        groups={} if _is_none(row.get("category")) else {"category": row["category"]},
        rotation_of=main, image_ids=(main,),
        published={
            "index": index, "question": row["question"],
            **{letter: row.get(letter, "") for letter in "ABCD"},
        },
    )  # fmt: skip


def _is_none(value: Any) -> bool:
    return is_missing(value) or str(value).strip().lower() == "none"


def _rotated(found: Iterable[Draft]) -> Iterator[Draft]:
    for draft in found:
        if draft.fault:
            yield draft
            continue
        for each in rotations(draft):
            letters = dict(zip("ABCD", each.choices, strict=False))
            yield replace(each, published={**each.published, "index": int(each.id), **letters})


BENCHMARK = Benchmark(
    read_mmbench, "letter",
    "Get mmbench_dev_20230712.tsv of https://github.com/open-compass/MMBench and give the file or "
    "its folder.",
    LETTER, ("dev", "dev_en", "test", "test_en"),
    upload=uploaded_as("prediction"), upload_suffix=".tsv",
)  # fmt: skip
