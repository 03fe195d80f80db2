"""Paths in object stores do what paths of a disk do."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import pytest
from object_toys import put

from lateen.errors import BusyError, LateenError, ObjectStoreError, UsageError
from lateen.files import (
    atomic_path,
    check_writable,
    file_sha256,
    folder_lock,
    read_json,
    refuse_foreign,
    remove_folder,
    write_json,
)
from lateen.objects import ObjectPath, is_object, to_path
from lateen.objects.client import fetch
from lateen.objects.ranges import BLOCK, READ_AHEAD, range_cache

MB = 10**6


def test_a_path_is_the_same_with_one_slash_and_with_two() -> None:
    path = to_path("s3://bucket/a/b.tar")
    assert isinstance(path, ObjectPath)
    assert path == to_path(Path("s3://bucket/a/b.tar"))  # as options of commands come
    assert str(path) == f"{path}" == os.fspath(path) == "s3://bucket/a/b.tar"
    assert (path.name, path.suffix, str(path.parent)) == ("b.tar", ".tar", "s3://bucket/a")
    assert str(path.with_name("c")) == "s3://bucket/a/c"
    assert str(path.relative_to(path.parent.parent)) == "a/b.tar"
    assert str(path.parent / "x" / "y") == "s3://bucket/a/x/y"
    assert path.resolve() == path.absolute() == path.expanduser() == path
    assert pickle.loads(pickle.dumps(path)) == path
    assert to_path("plain/s3.tar") == Path("plain/s3.tar")
    assert to_path(PureWindowsPath("s3://bucket/a/b.tar")) == path  # as Windows makes of it
    assert is_object("gs://b/x")
    assert not is_object("/data/s3://b")


@pytest.mark.parametrize("url", ["http://host/x.csv", "azure://c/x"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"of a kind that is not read here.*s3://BUCKET/KEY"):
        to_path(url)


def test_objects_are_read_as_files_are(bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(*arguments: object) -> bytes:
        asked.append(1)
        return fetch(*arguments)  # type: ignore[arg-type]

    data = os.urandom(READ_AHEAD + 3 * BLOCK + 17)
    path = bucket / "a" / "b.bin"
    put(path, data)
    assert path.read_bytes() == data
    assert (path.stat().st_size, path.is_file(), path.is_dir()) == (len(data), True, False)
    assert path.stat().st_mtime_ns > 0
    assert path.parent.is_dir()
    with path.open("rb") as file:
        assert file.read(5) == data[:5]
        assert file.seek(READ_AHEAD - 2) == READ_AHEAD - 2
        assert file.read(9) == data[READ_AHEAD - 2 :][:9]
        file.seek(-4, io.SEEK_END)
        assert file.read() == data[-4:]
    assert file_sha256(path) == __import__("hashlib").sha256(data).hexdigest()
    put(bucket / "t.txt", "grün\n".encode())
    assert (bucket / "t.txt").read_text(encoding="utf-8") == "grün\n"
    with monkeypatch.context() as patch:
        patch.setattr("lateen.objects.ranges.fetch", counting)
        assert (bucket / "a" / "b.bin").open("rb").read() == data
    assert len(asked) == 1
    put(bucket / "empty", b"")
    assert (bucket / "empty").read_bytes() == b""
    with pytest.raises(FileNotFoundError, match="no such object"):
        (bucket / "none").read_bytes()
    with pytest.raises(FileNotFoundError):
        (bucket / "none").stat()
    with pytest.raises(io.UnsupportedOperation, match="written whole"):
        path.open("wb")


def test_folders_are_what_keys_have_in_common(bucket: ObjectPath) -> None:
    for name in ("f/a.tar", "f/b.tar", "f/c/d.jpg", "g"):
        put(bucket / name, b"x")
    folder = bucket / "f"
    assert [path.name for path in folder.iterdir()] == ["a.tar", "b.tar", "c"]
    assert [path.name for path in folder.glob("*.tar")] == ["a.tar", "b.tar"]
    assert [str(path.relative_to(folder)) for path in folder.glob("*/d.jpg")] == ["c/d.jpg"]
    assert [path.name for path in bucket.rglob("*.jpg")] == ["d.jpg"]
    assert folder.files() == ["a.tar", "b.tar", "c/d.jpg"]
    put(folder / "c" / "e" / "f.tar", b"x")  # as on a disk, a star is one name
    assert [str(path.relative_to(bucket)) for path in bucket.glob("*/*.tar")] == [
        "f/a.tar", "f/b.tar"
    ]  # fmt: skip
    assert len(list(bucket.glob("**/*.tar"))) == 3
    (folder / "c" / "e" / "f.tar").unlink()
    with pytest.raises(LateenError, match=r"not a feature store \(it holds a\.tar\)"):
        refuse_foreign(folder, "a feature store", ("manifest.json",))
    remove_folder(folder)
    assert folder.files() == []
    assert not folder.exists()
    assert (bucket / "g").is_file()
    (bucket / "g").unlink()
    assert not (bucket / "g").exists()
    (bucket / "g").unlink(missing_ok=True)


def test_what_is_written_is_there_whole_or_not_at_all(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bucket / "made.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.memory_map", lambda _: fail())
        with pytest.raises(KeyError):
            write_json(path, {"a": 3})
    assert read_json(path) == {"a": 1}
    write_json(path, {"a": 2})  # seen at once, although the one before was looked at
    assert read_json(path) == {"a": 2}


def test_two_processes_of_a_machine_do_not_write_to_one_folder(bucket: ObjectPath) -> None:
    def take_again() -> None:
        with folder_lock(bucket / "store"):
            raise AssertionError

    with folder_lock(bucket / "store"), pytest.raises(BusyError, match=r"s3://.*/store"):
        take_again()
    assert bucket.files() == []


def test_what_is_kept_stays_below_the_stated_size(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATEEN_OBJECT_CACHE", "3MB")
    monkeypatch.setattr("lateen.objects.client._SETTLED_NS", 0)
    data = os.urandom(8 * MB)
    put(bucket / "x", data)
    reader = (bucket / "x").reader()
    cache = range_cache()
    for start in range(0, len(data), BLOCK):
        assert reader.read(start, BLOCK) == data[start : start + BLOCK]
        cache.flush()
    kept = [path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()]
    assert 0 < sum(kept) <= 3 * MB


def test_what_is_kept_is_read_from_this_disk_and_only_while_it_is_whole(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lateen.objects.client._SETTLED_NS", 0)
    data = os.urandom(3 * BLOCK)
    put(bucket / "x", data)
    asked: list[int] = []

    def counting(*arguments: object) -> bytes:
        asked.append(1)
        return fetch(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("lateen.objects.ranges.fetch", counting)
    reader = (bucket / "x").reader()
    assert reader.read(10, len(data)) == data[10:]
    assert len(asked) == 1
    range_cache().flush()
    assert reader.read(BLOCK - 5, 10) == data[BLOCK - 5 : BLOCK + 5]
    assert len(asked) == 1
    block = next(path for path in range_cache().folder.rglob("1") if path.is_file())
    block.write_bytes(bytes(BLOCK + 4))
    assert reader.read(0, len(data)) == data
    assert len(asked) == 2
    # Another object of that name has blocks of its own.
    put(bucket / "x", data[::-1] + b"!")
    assert (bucket / "x").read_bytes() == data[::-1] + b"!"


@pytest.mark.parametrize("size", ["", "many", "-3GB"])
def test_a_size_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATEEN_OBJECT_CACHE", size)
    with pytest.raises(UsageError, match=r"LATEEN_OBJECT_CACHE is .*such as 50GB"):
        range_cache()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "denies access .*AWS_PROFILE.*AWS_SKIP_SIGNATURE"),
        (403, "InvalidAccessKeyId", "denies access"),
        (403, "ExpiredToken", "denies access"),
        (403, "RequestTimeTooSkewed", "clock differs from its own.*Set the clock"),
        (400, "Odd", "failed .*Run the same command again"),
    ],
)
def test_what_a_store_refuses_is_one_line_with_a_remedy(
    refusing: Callable[[int, str], None], status: int, code: str, said: str
) -> None:
    refusing(status, code)
    with pytest.raises(ObjectStoreError, match=f"object store of s3://b .*{said}"):
        list(to_path("s3://b").iterdir())


def test_a_store_that_cannot_be_reached_is_no_file_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lateen.objects.client._TRIES", 1)
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ACCESS_KEY_ID", "a"),
                        ("SECRET_ACCESS_KEY", "b"), ("REGION", "r")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(ObjectStoreError, match=r"cannot be reached.*Check the network"):
        to_path("s3://b/x").is_file()


def test_a_bucket_that_is_not_there_is_named(bucket: ObjectPath) -> None:
    with pytest.raises(ObjectStoreError, match="no bucket s3://nothere"):
        check_writable(to_path("s3://nothere/store"))
    check_writable(bucket / "store")
