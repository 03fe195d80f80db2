"""Phrases that describe one thing in a photograph, and the box of it: RefCOCO and its kin.

Their Parquet files at https://huggingface.co/lmms-lab have question_id, image, answer (the phrases
for one thing), bbox (left, top, width and height in pixels) and file_name, a file or several a
split; lmms-eval's ``utils_rec.py`` reads them so, and asks each phrase on its own. The original
``refs(*).p`` are pickles, which run code when they are read, so they are not.

The right box is in fractions of the photograph's own sides. A model that was trained on boxes in
the square that a photograph was padded to answers in those of the square: its answers have to be
converted first.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from lateen.data.rows import check_columns
from lateen.data.samples import image_bytes
from lateen.errors import DataError
from lateen.metrics.boxes import as_fractions
from lateen.mllm.benchmarks.files import Draft, Folder, ParquetImage

ASKED = "Please provide the bounding box coordinate of the region this sentence describes:"
"""As lmms-eval and others ask models of LLaVA's kind."""

_COLUMNS = ("question_id", "image", "answer", "bbox")
_PHOTOGRAPH = re.compile(r"COCO_[a-z]+\d+_\d{12}")


def read_phrases(folder: Folder, split: str) -> Iterator[Draft]:
    """A question for each phrase of a split.

    Raises:
        DataError: there is no such file, or a column is missing.
    """
    paths = [folder.file(f"data/{split}-*.parquet", f"{split}-*.parquet")]
    if paths[0] != folder.given:
        paths = sorted(paths[0].parent.glob(f"{split}-*.parquet"))
    for path in paths:
        yield from _in_file(path, folder.where)


def _in_file(path: Path, where: str) -> Iterator[Draft]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            check_columns(str(path), columns, _COLUMNS, where)
            wanted = [name for name in (*_COLUMNS, "file_name") if name in columns]
            number = 0
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=wanted).to_pylist()
                for at, row in enumerate(rows):
                    number += 1
                    yield from _phrases(row, ParquetImage(path, "image", group, at), number)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})", where) from error


def _phrases(row: Any, image: ParquetImage, number: int) -> Iterator[Draft]:
    """The questions of a row; of one that cannot be used, a draft with the fault."""
    source, name = f"{image.path}:{number}", str(row["question_id"])
    draft = Draft(name, (image,), "", source=source)
    try:
        width, height = Image.open(io.BytesIO(image_bytes(row["image"]))).size
        left, top, w, h = row["bbox"]
    except (OSError, TypeError, ValueError) as error:
        yield replace(draft, fault=f"its image or box cannot be used ({error})")
        return
    box = as_fractions((left, top, left + w, top + h), width, height)
    found = _PHOTOGRAPH.match(str(row.get("file_name")))
    photograph = found[0] if found else str(row.get("file_name") or image.name)
    phrases = [row["answer"]] if isinstance(row["answer"], str) else list(row["answer"] or ())
    for at, phrase in enumerate(phrases):
        yield replace(
            draft, id=f"{name}-{at}", text=f"{ASKED} {phrase}", box=box, image_ids=(photograph,),
            published={"width": width, "height": height},
        )  # fmt: skip
