from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import age

from lateen.data import fingerprint
from lateen.data.fingerprint import combine, file_hashes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose bytes were read."""
    names: list[str] = []
    original = fingerprint.file_sha256

    def noting(path: Path) -> str:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(fingerprint, "file_sha256", noting)
    return names


def write(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index}.bin" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(b"content %d" % index)
        age(path)
    return paths


def test_hashes_are_sha256_in_the_order_given(tmp_path: Path) -> None:
    paths = write(tmp_path, 200)[::-1]
    expected = [sha256(path.read_bytes()) for path in paths]
    assert file_hashes(paths) == expected
    assert file_hashes(str(path) for path in paths) == expected  # now from the cache


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, hashed: list[str]) -> None:
    paths = write(tmp_path, 3)
    first = file_hashes(paths)
    assert sorted(hashed) == ["0.bin", "1.bin", "2.bin"]
    assert file_hashes(paths) == first
    assert len(hashed) == 3


def test_a_relative_path_is_the_same_file(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, 1)
    monkeypatch.chdir(tmp_path)
    assert file_hashes(["0.bin"]) == file_hashes(paths)
    assert len(hashed) == 1


def test_new_content_is_noticed_by_size_time_and_inode(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    status = path.stat()
    assert file_hashes([path]) == [sha256(b"content 0")]

    path.write_bytes(b"longer content")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert file_hashes([path]) == [sha256(b"longer content")]

    other = tmp_path / "other"
    other.write_bytes(b"CONTENT 0")
    os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
    other.replace(path)
    assert file_hashes([path]) == [sha256(b"CONTENT 0")]

    path.write_bytes(b"CONTENT 1")
    age(path, seconds=30)
    assert file_hashes([path]) == [sha256(b"CONTENT 1")]


def test_a_file_changed_just_now_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    path = tmp_path / "new.bin"
    path.write_bytes(b"first")
    file_hashes([path])
    file_hashes([path])
    assert hashed == ["new.bin", "new.bin"]
    age(path, seconds=-3600)  # a clock that runs ahead
    file_hashes([path])
    file_hashes([path])
    assert len(hashed) == 4


def test_a_file_changed_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write(tmp_path, 1)
    original = fingerprint.file_sha256

    def read_then_change(changed: Path) -> str:
        value = original(changed)
        changed.write_bytes(b"changed 0")
        age(changed)
        return value

    monkeypatch.setattr(fingerprint, "file_sha256", read_then_change)
    file_hashes([path])
    monkeypatch.setattr(fingerprint, "file_sha256", original)
    assert file_hashes([path]) == [sha256(b"changed 0")]


def test_a_file_that_cannot_be_read_has_no_hash(tmp_path: Path) -> None:
    (path,) = write(tmp_path, 1)
    assert file_hashes([tmp_path / "absent", path, tmp_path]) == ["", sha256(b"content 0"), ""]


def test_names_that_are_no_text_are_hashed_too(tmp_path: Path, hashed: list[str]) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.bin")
    name.write_bytes(b"x")
    age(name)
    assert file_hashes([name]) == file_hashes([name]) == [sha256(b"x")]
    assert len(hashed) == 1


def test_without_a_writable_cache_files_are_hashed_anew(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path, 2)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path / "file" / "cache"))
    assert file_hashes(paths) == file_hashes(paths)
    assert len(hashed) == 4


def test_a_damaged_cache_is_replaced(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "fingerprints.sqlite").write_bytes(b"not a database" * 100)
    (path,) = write(tmp_path, 1)
    for _ in range(3):
        assert file_hashes([path]) == [sha256(b"content 0")]
    assert len(hashed) == 2  # without cache, into the new cache, from it


def test_a_cache_locked_for_too_long_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_WAIT_S", 0.05)
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path))
    paths = write(tmp_path, 2)
    file_hashes(paths[:1])
    blocker = sqlite3.connect(tmp_path / "fingerprints.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    assert file_hashes(paths) == [sha256(b"content 0"), sha256(b"content 1")]
    blocker.close()


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"LATEEN_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/lateen"),
        ({}, ".cache/lateen"),
    ],
)
def test_where_the_cache_is(
    variables: dict[str, str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LATEEN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    file_hashes(write(tmp_path, 1))
    assert (tmp_path / folder / "fingerprints.sqlite").is_file()


def test_threads_share_the_cache(tmp_path: Path) -> None:
    paths = write(tmp_path, 300)
    expected = [sha256(path.read_bytes()) for path in paths]

    def run(_: int) -> Sequence[str]:
        return file_hashes(paths)

    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(run, range(8)))


def test_processes_share_the_cache_and_one_may_be_killed(tmp_path: Path, hashed: list[str]) -> None:
    paths = write(tmp_path, 200)
    program = (
        "import sys, time, pathlib; from lateen.data import fingerprint as f\n"
        "f._COMMIT_EVERY = 50; paths = sorted(pathlib.Path(sys.argv[1]).glob('*.bin'))\n"
        "print(flush=True)\n"
        "while True:\n"
        "    f.file_hashes(paths); time.sleep(0.02)\n"
        "    with f._cache() as cache, cache: cache.execute('DELETE FROM files')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    expected = [sha256(path.read_bytes()) for path in paths]
    for _ in range(3):
        assert file_hashes(paths) == expected
        time.sleep(0.05)
    for other in others:
        assert other.poll() is None
        other.kill()
        other.communicate()
    assert file_hashes(paths) == expected
    hashed.clear()
    assert file_hashes(paths) == expected
    assert hashed == []


def test_combine_depends_on_parts_order_and_borders() -> None:
    hashes = {combine(parts) for parts in (["a", "b"], ["b", "a"], ["ab"], ["", "ab"], ["a"], [])}
    assert len(hashes) == 6
    assert combine(iter(["a", "b"])) == combine(["a", "b"])
    assert combine([]) == sha256(b"")
    assert combine(["é"]) == sha256((2).to_bytes(8, "little") + "é".encode())
    assert len(combine(["\udce9"])) == 64
