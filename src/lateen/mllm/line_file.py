"""Rows on disk as they come, a line for each: a run that was killed goes on behind the last whole
one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lateen.errors import DataError
from lateen.files import disk_full, is_disk_full, jsonl, write_text

_SHOWN = 32  # characters of a value


class LineFile:
    """A file whose first line says what its rows depend on. Several threads may add to it.

    Args:
        path: of the file; it is made with the first row.
        identity: what the rows depend on beside their own key.
        what: a row is, in the plural, for errors.
        remedy: what to do where they depend on something else.

    Attributes:
        rows: those that were there.

    Raises:
        DataError: the rows depend on something else, or it is no such file.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], what: str, remedy: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        lines = read_lines(path, what)
        self.rows = lines[1:]
        if self.rows and (differing := how_differs(lines[0], identity)):
            raise DataError(f"{path} has {what} of another kind ({differing})", remedy)
        self._identity = dict(identity)
        self._file: TextIO | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row.

        Raises:
            LateenError: the disk is full.
        """
        with self._lock:
            try:
                if self._file is None:  # also without the line that was cut short
                    write_text(self._path, jsonl([self._identity, *self.rows]))
                    self._file = self._path.open("a", encoding="utf-8")
                self._file.write(jsonl([row]))
                self._file.flush()
            except OSError as error:
                raise (disk_full(self._path) if is_disk_full(error) else error) from error

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()


def how_differs(before: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """What an identity has otherwise than before, in words; empty if nothing.

    Args:
        before: the identity that was written.
        identity: the one that is asked for.
    """
    return ", ".join(
        f"{name} {_brief(before.get(name))}, not {_brief(value)}"
        for name, value in identity.items() if before.get(name) != value
    )  # fmt: skip


def read_lines(path: Path, what: str) -> list[dict[str, Any]]:
    """The lines of a file but for a last one that was cut short; none where there is no file.

    Args:
        path: of the file.
        what: a row is, in the plural.

    Raises:
        DataError: it holds something else.
    """
    return list(_whole_lines(path, what))


def _whole_lines(path: Path, what: str) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    # Not splitlines: a text may have U+2028 and its like, which JSON leaves as they are.
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    for line in whole:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} is no file of {what} ({error})", "Remove it.") from error
        if not isinstance(row, dict):
            raise DataError(f"{path} is no file of {what}", "Remove it.")
        yield row


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
