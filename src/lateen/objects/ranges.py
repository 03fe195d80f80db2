"""Objects read in ranges, which are kept on this machine's disk up to a stated size.

A block is a file of its own with a checksum, so that processes share them without asking each
other; those that were not used for longest go first.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any

from lateen.errors import UsageError
from lateen.hardware import cache_folder
from lateen.objects.client import Key, fetch, is_settled, look, seconds

BLOCK = 2**20  # bytes that are kept in one file
READ_AHEAD = 8 * 2**20  # bytes of one request where an object is read from one end to the other
_LIMIT = 20 * 10**9  # bytes, where nothing is said and a quarter of the free disk is not less
_SETTING = "LATEEN_OBJECT_CACHE"
_CHECK = 4  # bytes of a checksum behind each block
_WAITING = 64  # blocks that are to be written yet
_KEPT = 0.9  # of the limit, after the oldest have gone
_log = logging.getLogger("lateen")


class RangeCache:
    """Blocks of objects in a folder.

    Args:
        folder: where they are; it can be removed at any time.
        limit: bytes that they may take; with 0 nothing is kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._since = limit  # bytes written since the folder was last looked through
        self._waiting = threading.BoundedSemaphore(_WAITING)
        self._writer = ThreadPoolExecutor(1, "lateen-objects")
        self._told = False

    def get(self, name: str, length: int) -> bytes | None:
        """The block of that name, if it is there and whole."""
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body, check = data[:-_CHECK], data[-_CHECK:]
        if len(body) != length or zlib.crc32(body).to_bytes(_CHECK, "little") != check:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return body

    def put(self, name: str, data: bytes) -> None:
        """Keep a block, written in a thread of its own.

        A disk that is full, or slower than the network, does not keep all: nobody waits for it.
        """
        if not (self.limit and self._waiting.acquire(blocking=False)):
            return
        self._tell()
        try:
            written = self._writer.submit(self._write, name, data)
        except RuntimeError:  # the interpreter ends
            self._waiting.release()
            return
        written.add_done_callback(lambda _: self._waiting.release())

    def flush(self) -> None:
        """Wait until what was put is on disk."""
        self._writer.submit(int).result()

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data + zlib.crc32(data).to_bytes(_CHECK, "little"))
            temporary.replace(path)
        except OSError as error:
            _log.info("a block is not kept: %s", error)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        self._since += len(data)
        if self._since > self.limit // 10:
            self._since = 0
            self._make_room()

    def _make_room(self) -> None:
        """Remove the blocks that were not used for longest, where all take more than the limit."""
        files = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):  # another process may remove some, too
                    path = Path(folder) / name
                    stat = path.stat()
                    files.append((stat.st_mtime, stat.st_size, path))
        taken = sum(size for _, size, _ in files)
        if taken <= self.limit:
            return
        for _, size, path in sorted(files):
            with contextlib.suppress(OSError):
                path.unlink()
            taken -= size
            if taken <= _KEPT * self.limit:
                return

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            _log.info("what is read of object stores is kept in %s, up to %.3g GB (%s=0: nothing)",
                      self.folder, self.limit / 1e9, _SETTING)  # fmt: skip


def range_cache() -> RangeCache:
    """The cache of this process, as the environment says.

    Raises:
        UsageError: ``$LATEEN_OBJECT_CACHE`` is no size.
    """
    return _cache(cache_folder() / "objects", os.environ.get(_SETTING))


@lru_cache(8)
def _cache(folder: Path, asked: str | None) -> RangeCache:
    if asked is not None:
        return RangeCache(folder, _bytes(asked))
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return RangeCache(folder, min(_LIMIT, shutil.disk_usage(there).free // 4))


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{_SETTING} is {text!r}", "Give a size, such as 50GB, or 0.")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


class ObjectReader:
    """An object as it is when this is made, read by position. Threads may share one.

    Args:
        key: which object.
        keep: whether what is read is kept on disk.

    Attributes:
        size: bytes.

    Raises:
        FileNotFoundError: there is no such object.
        ObjectStoreError: it cannot be seen.
    """

    def __init__(self, key: Key, *, keep: bool = True) -> None:
        info = look(key)
        if info.type.name != "File":
            raise FileNotFoundError(2, "there is no such object", str(key))
        self._key = key
        self.size = int(info.size)
        self._version = f"{info.size} {seconds(info.mtime_ns)}"
        digest = blake2b(f"{key}\0{self._version}".encode(), digest_size=16).hexdigest()
        self._folder = f"{digest[:2]}/{digest}"
        # What may change without its size and time telling is not kept.
        self.keep = keep and is_settled(info.mtime_ns)

    def read(self, start: int, length: int) -> bytes:
        """``length`` bytes from ``start`` on, fewer at the object's end.

        Raises:
            FileNotFoundError: the object has gone.
            ObjectStoreError: it cannot be read.
        """
        stop = min(start + length, self.size)
        if stop <= start:
            return b""
        cache = range_cache()
        if not (self.keep and cache.limit):
            return fetch(self._key, self._version, start, stop - start)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        blocks = {at: cache.get(self._name(at), self._length(at)) for at in range(first, last + 1)}
        missing = [at for at, block in blocks.items() if block is None]
        # Neighbours among the missing blocks come by one request.
        for _, run in groupby(enumerate(missing), lambda each: each[1] - each[0]):
            blocks.update(self._fetch_blocks([at for _, at in run], cache))
        whole = b"".join(block for block in blocks.values() if block is not None)
        return whole[start - first * BLOCK : stop - first * BLOCK]

    def head(self, length: int) -> bytes:
        """The first bytes, kept apart from the blocks: of many objects only the heads are read."""
        length = min(length, self.size)
        cache, name = range_cache(), f"{self._folder}/head-{length}"
        data = cache.get(name, length) if self.keep else None
        if data is None:
            data = fetch(self._key, self._version, 0, length) if length else b""
            if self.keep:
                cache.put(name, data)
        return data

    def _fetch_blocks(self, run: list[int], cache: RangeCache) -> dict[int, bytes]:
        start = run[0] * BLOCK
        data = fetch(
            self._key, self._version, start, run[-1] * BLOCK + self._length(run[-1]) - start
        )
        blocks = {at: data[at * BLOCK - start : (at + 1) * BLOCK - start] for at in run}
        for at, block in blocks.items():
            cache.put(self._name(at), block)
        return blocks

    def _name(self, at: int) -> str:
        return f"{self._folder}/{at}"

    def _length(self, at: int) -> int:
        return min(BLOCK, self.size - at * BLOCK)


class ObjectFile(io.RawIOBase):
    """An object as a file that is read; errors of the store come as they are."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; nothing is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._reader.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readall(self) -> bytes:
        """Read what is left, at once."""
        data = self._reader.read(self._at, self._reader.size - self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Read what fits."""
        view = memoryview(buffer).cast("B")
        data = self._reader.read(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def open_object(key: Key) -> io.BufferedReader:
    """An object as a file, of which eight megabytes are read at a time."""
    return io.BufferedReader(ObjectFile(ObjectReader(key)), READ_AHEAD)
