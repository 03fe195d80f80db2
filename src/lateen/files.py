"""Files that are whole or absent: atomic writes, hashes, locks, the cache, the hub, versions."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lateen.errors import BusyError, LateenError, UsageError
from lateen.hardware import cache_folder
from lateen.objects import ObjectPath, is_object, to_path

_CHUNK = 1 << 20
LOG = "log.txt"
"""What a command that runs long writes into its folder, beside what it makes."""


def canonical_json(value: Any) -> str:
    """``value`` as JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_key(value: Any) -> str:
    """SHA-256 (64 hex digits) of ``value``'s canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it, unless it is there.

    Raises:
        LateenError: a file is in its place, or it may not be made.
    """
    _refuse_object(path)
    folder = to_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LateenError(
            f"the folder {folder} cannot be made ({error.strerror})", "Give another folder."
        ) from error
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder and all that is in it."""
    if isinstance(folder, ObjectPath):
        folder.remove_all()
    else:
        shutil.rmtree(folder)


def _refuse_object(path: str | Path) -> None:
    """Refuse to write on this disk what is meant for an object store.

    Raises:
        UsageError: the path is one in an object store, by its text alone.
    """
    if is_object(path) and not isinstance(path, ObjectPath):
        raise UsageError(
            f"{to_path(path)} is in an object store, where only feature stores are written",
            "Give a folder on this disk, and copy what is in it.",
        )


def check_writable(folder: Path) -> None:
    """See that a folder can be made, or written to, without making it.

    Raises:
        LateenError: a file is in its place, or permissions forbid it.
        ObjectStoreError: its object store cannot be reached, or has no such bucket.
    """
    _refuse_object(folder)
    if isinstance(folder, ObjectPath):
        folder.check_bucket()
        return
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise LateenError(
            f"the folder {folder} cannot be made: {there} exists, and is a file",
            "Give another folder.",
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise LateenError(f"{there} cannot be written to", "Give another --out.")


def file_sha256(path: Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends well.

    The bytes reach the disk before the name does (fsync, rename, fsync of the folder), so a
    reader, also one after a power cut, sees the old file, no file, or the whole new one. For an
    object store the temporary path is on this disk, and one upload makes the object.

    Raises:
        LateenError: the disk is full; the temporary file is removed.
        ObjectStoreError: the upload fails.
    """
    if isinstance(path, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="lateen-") as folder:
            made = Path(folder) / path.name
            made.touch()
            try:
                yield made
            except BaseException as error:
                if is_disk_full(error):
                    raise disk_full(made) from error
                raise
            path.put(made)
        return
    _refuse_object(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        stale.unlink(missing_ok=True)  # of a killed process
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors puts a file in its place that only its owner can read
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that takes the place of ``path`` when the block ends well.

    The bytes of its files reach the disk before it gets its name. What was in ``path`` is then
    removed; whoever looks in the moment between two renames finds no folder, never half of one.

    Raises:
        LateenError: the disk is full, and the new folder is removed; or a file is in its place.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise LateenError(f"{path} is a file", "Give the name of a folder.")
    made, former = (path.with_name(f".{path.name}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(made, ignore_errors=True)  # of a killed process
    try:
        made.mkdir(parents=True)
        yield made
        for file in (each for each in made.rglob("*") if each.is_file()):
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(former, ignore_errors=True)
        if path.exists():
            path.rename(former)
        made.rename(path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextlib.contextmanager
def staged_files(folder: Path, last: str) -> Iterator[Path]:
    """A new folder whose files are put into ``folder`` when the block ends well; what else is there
    stays.

    Args:
        folder: is made if it is not there.
        last: the file that goes last, as it marks the folder as whole; one of before goes first.

    Raises:
        LateenError: the disk is full.
    """
    with tempfile.TemporaryDirectory(dir=make_folder(folder), prefix=".staged-") as name:
        staged = Path(name)
        try:
            yield staged
            (folder / last).unlink(missing_ok=True)
            files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
            for path in sorted(files, key=lambda path: path == staged / last):
                target = folder / path.relative_to(staged)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(folder) from error
            raise


def is_disk_full(error: BaseException) -> bool:
    """Whether ``error`` says that the disk or quota is full (safetensors says it only in words)."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = ("No space left on device", "not enough space on the disk")  # the latter on Windows
    return any(each in str(error) for each in words)


def disk_full(path: Path) -> LateenError:
    """The error for a file that could not be written because the disk is full."""
    return LateenError(
        f"the disk is full: could not write {path}",
        "Free some space and run the same command again: it goes on where it stopped.",
    )


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``; a file that is not JSON is a :class:`LateenError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LateenError(
            f"{path} is not valid JSON ({error})", "Remove it or write it again."
        ) from error


def jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    """``rows`` as JSON lines, keys in the order given."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def check_file(file: Path | None, overwrite: bool) -> None:
    """See that nothing is lost when a file is written.

    Raises:
        UsageError: there is a folder of that name, or a file that is not to be replaced.
    """
    if file is not None and file.is_dir():
        raise UsageError(f"{file} is a folder", "Give the name of a file.")
    if file is not None and file.exists() and not overwrite:
        raise UsageError(f"{file} exists", "Choose another --out, or replace it with --overwrite.")


def refuse_foreign(
    folder: Path,
    what: str,
    marks: Sequence[str],
    beside: Sequence[str] = (),
    *,
    error: type[LateenError] = LateenError,
) -> None:
    """Refuse to write into a folder of other things; every command asks here before it writes.

    A folder that an earlier call made is accepted, whatever has been put there since; so is one
    that is empty, or holds hidden files, a log and what a killed call may have left.

    Args:
        folder: to write to; it need not be there.
        what: a folder of the command is, with its article: ``a feature store``.
        marks: patterns, relative to the folder, of files that only an earlier call can have made.
        beside: names, or patterns of them, that may be in a folder that has no mark yet.
        error: what to raise.

    Raises:
        LateenError: it holds something else, which is named.
    """
    if not folder.is_dir():
        return
    own = [*(mark.partition("/")[0] for mark in marks), *beside, LOG]
    foreign = sorted(
        path.name for path in folder.iterdir()
        if not path.name.startswith(".") and not any(fnmatch(path.name, name) for name in own)
    )  # fmt: skip
    if foreign and not any(True for mark in marks for _ in folder.glob(mark)):
        raise error(
            f"{folder} is not empty and not {what} (it holds {foreign[0]})", "Choose another --out."
        )


@contextlib.contextmanager
def folder_lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with the process, also when it is killed.

    In an object store nothing can be held: it is a lock among the processes of this machine.

    Args:
        folder: is made if it is not there.
        wait: until another process lets go of it, instead of refusing.

    Raises:
        BusyError: another process holds it.
    """
    beside = folder
    if isinstance(folder, ObjectPath):
        beside = cache_folder() / "locks" / content_key(str(folder))[:24]
    path = make_folder(beside) / ".lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise BusyError(
            f"another lateen process{_holder(path)} is writing to {folder}",
            "Wait for it to end, or choose another --out.",
        ) from error
    try:
        with contextlib.suppress(OSError):  # Windows lets nobody write where the lock is
            path.write_text(f"pid {os.getpid()}", encoding="utf-8")
        yield
    finally:
        lock.release()


def _holder(lock: Path) -> str:
    """Which process holds a lock, in brackets, where the file says so."""
    with contextlib.suppress(OSError):
        return f" ({lock.read_text(encoding='utf-8').strip() or 'unknown'})"
    return ""


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # where a folder cannot be opened, and renames are written at once
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def library_versions() -> dict[str, str]:
    """Versions of the libraries that can influence features."""
    names = ("lateen", "torch", "transformers", "tokenizers", "pillow", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
