"""The log of a training run: JSON lines that come out the same however often it was interrupted."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lateen.files import disk_full, is_disk_full, jsonl, write_text


class MetricsLog:
    """Appends to ``metrics.jsonl``.

    Args:
        path: the file.
        step: the step that training goes on from; lines of later steps are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        write_text(path, "".join(_lines_until(path, step)))
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one line; numbers keep six digits.

        Raises:
            LateenError: the disk is full.
        """
        with _full_disk_explained(self._path):
            self._file.write(jsonl([{name: _six_digits(value) for name, value in row.items()}]))
            self._file.flush()

    def sync(self) -> None:
        """Bring all lines to the disk, before a checkpoint that counts on them.

        Raises:
            LateenError: the disk is full.
        """
        with _full_disk_explained(self._path):
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _full_disk_explained(self._path):  # closing tries once more what could not be written
            self._file.close()


@contextlib.contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise disk_full(path) from error


def _lines_until(path: Path, step: int) -> list[str]:
    if step == 0 or not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        # Only the last line can be cut short, and it is later than any checkpoint.
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        kept.append(line)
    return kept


def _six_digits(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
