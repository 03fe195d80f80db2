"""Content hashes of many files, remembered between runs.

Hashing is what makes "already done" mean "the same bytes", so it happens at the start of every
run. As in git's index, a file whose size, times and inode are those of last time is taken to have
the content of last time, unless it is so new that a change might not have moved its times.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lateen.files import file_sha256
from lateen.hardware import cache_folder
from lateen.objects import is_object, mapped, to_path
from lateen.objects.client import is_settled
from lateen.progress import bar, log

_RACY_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT) ticks every 2 s
_COMMIT_EVERY = 4096
_PER_TASK = 64
_WAIT_S = 10.0
_TABLE = """
CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, state TEXT, sha256 TEXT) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when looked at.

    Attributes:
        path: absolute.
        state: size, times and inode; another state, another content.
        settled: whether any later change would also move the times in ``state``.
    """

    path: str
    state: str
    settled: bool


def combine(parts: Iterable[str]) -> str:
    """One hash (64 hex digits) of a sequence: other parts, or another order, another hash."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash64(data: bytes) -> int:
    """A 64-bit hash (BLAKE2b), never 0: by it a model remembers the images it was trained on."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


def file_hashes(paths: Iterable[Path | str]) -> list[str]:
    """SHA-256 (64 hex digits) of each file's content, in the order given.

    Hashes are kept in ``fingerprints.sqlite`` under ``$LATEEN_CACHE``, else
    ``$XDG_CACHE_HOME/lateen``, else ``~/.cache/lateen``. Several processes may use it at once, and
    a process that is killed leaves it whole. Where it cannot be written every file is hashed anew.

    Returns:
        One hash per path; an empty string for a file that cannot be read.
    """
    names = [os.fspath(path) for path in paths]
    files = list(mapped(look_at, names, remote=any(map(is_object, names))))
    with _cache() as cache:
        result = _recall(cache, files)
        unknown = [(i, file) for i, file in enumerate(files) if file is not None and not result[i]]
        with bar(len(unknown), "fingerprint", "file", stage=False) as progress:
            for start in range(0, len(unknown), _COMMIT_EVERY):
                batch = unknown[start : start + _COMMIT_EVERY]
                hashes = _hash_all([file.path for _, file in batch])
                _remember(cache, [file for _, file in batch], hashes)
                for (index, _), value in zip(batch, hashes, strict=True):
                    result[index] = value
                progress.update(len(batch))
    return result


def look_at(path: str) -> FileState | None:
    """The state of a file, of which nothing is read; ``None`` where it cannot be looked at.

    Raises:
        ObjectStoreError: it is in an object store that cannot be reached.
    """
    if is_object(path):
        return _look_at_object(path)
    absolute = os.path.abspath(path)  # noqa: PTH100 - pathlib is slow, and there may be millions
    try:
        stat = os.stat(absolute)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    return FileState(absolute, state, stat.st_mtime_ns < time.time_ns() - _RACY_NS)


def _look_at_object(path: str) -> FileState | None:
    try:
        stat = to_path(path).stat()
    except FileNotFoundError:
        return None
    state = f"{stat.st_size} {stat.st_mtime_ns}"
    return FileState(path, state, is_settled(stat.st_mtime_ns))


def _hash_all(paths: Sequence[str]) -> list[str]:
    if any(map(is_object, paths)):
        return list(mapped(_hash, paths, remote=True))
    if len(paths) <= _PER_TASK:
        return _hash_some(paths)
    tasks = [paths[start : start + _PER_TASK] for start in range(0, len(paths), _PER_TASK)]
    with ThreadPoolExecutor(min(len(tasks), os.cpu_count() or 1)) as pool:
        return [value for some in pool.map(_hash_some, tasks) for value in some]


def _hash_some(paths: Sequence[str]) -> list[str]:
    return [_hash(path) for path in paths]


def _hash(path: str) -> str:
    try:
        return file_sha256(to_path(path))
    except OSError:
        return ""


@contextlib.contextmanager
def _cache() -> Iterator[sqlite3.Connection | None]:
    """The cache, or ``None`` where there cannot be one."""
    connection = _connect(cache_folder() / "fingerprints.sqlite")
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection | None:
    connection = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_WAIT_S)
        connection.execute(_TABLE)
        connection.commit()
        return connection
    except (OSError, sqlite3.OperationalError) as error:  # read-only, full, or locked for too long
        log.info("file hashes are not kept: %s: %s", path, error)
    except sqlite3.DatabaseError as error:
        log.warning("removing a damaged cache of file hashes: %s: %s", path, error)
        path.unlink(missing_ok=True)
    if connection is not None:
        connection.close()
    return None


def _recall(cache: sqlite3.Connection | None, files: Sequence[FileState | None]) -> list[str]:
    """Each file's hash as it was kept, empty where it was not."""
    result = [""] * len(files)
    if cache is None:
        return result
    query = "SELECT sha256 FROM files WHERE path = ? AND state = ?"
    try:
        cache.execute("BEGIN")  # one lock for all, not one for each
        for index, file in enumerate(files):
            if file is not None and file.settled:
                row = cache.execute(query, (os.fsencode(file.path), file.state)).fetchone()
                result[index] = str(row[0]) if row else ""
        cache.rollback()
    except sqlite3.Error as error:  # damaged further in, or locked: as good as forgotten
        log.info("file hashes are not remembered: %s", error)
    return result


def _remember(
    cache: sqlite3.Connection | None, files: Sequence[FileState], hashes: Sequence[str]
) -> None:
    if cache is None:
        return
    rows = [
        (os.fsencode(file.path), file.state, value)
        for file, value in zip(files, hashes, strict=True)
        if value and file.settled and _is_unchanged(file)
    ]
    try:
        with cache:
            cache.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
    except sqlite3.Error as error:
        log.info("file hashes are not kept: %s", error)


def _is_unchanged(file: FileState) -> bool:
    now = look_at(file.path)
    return now is not None and now.state == file.state
