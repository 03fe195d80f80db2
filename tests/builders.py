"""Small datasets for the tests of the readers."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lateen.data.samples import Dataset, Sample, Skip

RED = (255, 0, 0)


def jpeg(color: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 6)) -> bytes:
    """An encoded image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format="JPEG")
    return buffer.getvalue()


def write_images(folder: Path, names: Iterable[str]) -> Path:
    """A small image, each of another grey, under each of ``names``."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg((index, index, index)))
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[str]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """A tar of files of these names and contents, in their order."""
    with tarfile.open(path, "w", errors="surrogateescape") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(dataset: Dataset) -> list[Sample]:
    return [item for item in dataset if isinstance(item, Sample)]


def skips(dataset: Dataset) -> list[Skip]:
    return [item for item in dataset if isinstance(item, Skip)]


def age(path: Path, seconds: float = 60) -> None:
    """Make a file look as if it was last changed a while ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def is_fixed(dataset: Dataset, reopen: Callable[[], Dataset]) -> bool:
    """Whether iterating is repeatable, counted by ``len``, and the same on reopening."""
    first = list(dataset)
    again = reopen()
    return (
        first == list(dataset) == list(again)
        and len(dataset) == len(first)
        and dataset.fingerprint == again.fingerprint
        and len(dataset.fingerprint) == 64
    )
