"""``s3://BUCKET/KEY`` as a path."""

from __future__ import annotations

import io
import os
import re
import stat as modes
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, TypeVar

from lateen.errors import DataError, ObjectStoreError, UsageError
from lateen.objects.client import (
    SCHEMES,
    Key,
    forget,
    listed,
    look,
    remove,
    remove_below,
    seconds,
    upload,
)
from lateen.objects.hub import hub_snapshot
from lateen.objects.ranges import ObjectReader, open_object

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())

S = TypeVar("S")
T = TypeVar("T")
_REQUESTS = 16  # at the same time
# A Path makes one slash of two, so that both mean the same here.
_OBJECT = re.compile(rf"({'|'.join(SCHEMES)}):[/\\]+(?=.)", re.IGNORECASE)
_HUB = re.compile(r"hf:/+(datasets/)?([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?")


def is_object(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one in an object store, by what it begins with."""
    text = os.fspath(path)
    return ":" in text[:4] and _OBJECT.match(text) is not None  # asked of millions of files


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one in an object store, or on the hub."""
    return is_object(path) or os.fspath(path).startswith(("hf:/", "hf:\\"))


def to_path(path: str | os.PathLike[str]) -> Path:
    """What a user gave, as a path; every place that takes a path of a user's asks here.

    Args:
        path: of a disk; ``s3://…`` or ``gs://…``; or ``hf://datasets/OWNER/NAME[@REVISION]/PATH``,
            whose files the hub's client downloads into its own cache.

    Raises:
        UsageError: a URL of another kind.
    """
    text = path.as_posix() if isinstance(path, PurePath) else os.fspath(path)
    if isinstance(path, Path) and not is_remote(text):
        return path
    if is_object(text):
        return ObjectPath(text)
    if match := _HUB.fullmatch(text):
        return _of_hub(*match.groups())
    if other := re.match(r"([a-z][a-z0-9+.]+)://", text):
        raise UsageError(
            f"{text} is of a kind that is not read here ({other[1]}://)",
            "Give a path, s3://BUCKET/KEY, gs://BUCKET/KEY or hf://datasets/OWNER/NAME/PATH.",
        )
    return Path(text)


def mapped(function: Callable[[S], T], items: Iterable[S], *, remote: bool) -> Iterator[T]:
    """What a function makes of each item, in order; several at once where each is a request.

    Args:
        function: may be called in threads.
        items: of which all are taken at once where they are ``remote``.
        remote: whether they are in an object store.
    """
    if not remote:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        yield from pool.map(function, items)


def matching(path: Path) -> list[Path]:
    """What a path with ``*`` in it stands for, sorted; a path without is itself."""
    wild = next((at for at, part in enumerate(path.parts) if "*" in part), None)
    if wild is None:
        return [path]
    root = type(path)(*path.parts[:wild])
    return sorted(root.glob("/".join(path.parts[wild:])))


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the parts of a path are those of a pattern."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_fits(parts[skip:], wanted[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], wanted[0]) and _fits(parts[1:], wanted[1:])


def _of_hub(kind: str | None, repository: str, revision: str | None, inside: str | None) -> Path:
    """The files of a repository, downloaded."""
    inside = (inside or "").strip("/")
    pattern = re.sub(r"\{\d+\.\.\d+\}", "*", inside)  # of shards
    try:
        folder = hub_snapshot(
            repository, dataset=kind is not None, revision=revision,
            files=[pattern, f"{pattern}/*"] if inside else None,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise DataError(
            f"{repository} cannot be had from the hub ({str(error).splitlines()[0]})",
            "Check its name; for a private one, log in: hf auth login.",
        ) from error
    return folder / inside


class ObjectPath(_Path):
    """A path in an object store.

    It is read as a path of a disk is. Folders are what keys have in common, so that none has to be
    made. It is written whole, by :func:`lateen.files.atomic_path` and what builds on it. A store
    that cannot be reached is an :class:`~lateen.errors.ObjectStoreError`, never a file that is not
    there.
    """

    def __str__(self) -> str:
        first, *rest = self.parts or ("",)
        if not first.endswith(":"):
            return "/".join(self.parts)  # relative to another one
        return f"{first.lower()}//{'/'.join(rest)}"

    def __fspath__(self) -> str:
        return str(self)

    @property
    def key(self) -> Key:
        """As the client takes it."""
        return Key(str(self))

    def is_absolute(self) -> bool:
        """It is."""
        return True

    def absolute(self) -> ObjectPath:
        """Itself, as :meth:`resolve` and :meth:`expanduser` give it, too."""
        return self

    def resolve(self, strict: bool = False) -> ObjectPath:  # noqa: D102 - see absolute
        del strict
        return self

    def expanduser(self) -> ObjectPath:  # noqa: D102 - see absolute
        return self

    def _type(self) -> str:
        forget(self.key)
        return str(look(self.key).type.name)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object, or a key that begins so."""
        del follow_symlinks
        return self._type() != "NotFound"

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is an object."""
        del follow_symlinks
        return self._type() == "File"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether keys begin so."""
        del follow_symlinks
        return self._type() == "Directory"

    def is_symlink(self) -> bool:
        """It is none."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of the object; a folder has neither.

        Raises:
            FileNotFoundError: there is nothing.
        """
        del follow_symlinks
        info = look(self.key)
        if info.type.name == "NotFound":
            raise FileNotFoundError(2, "there is no such object", str(self))
        mode = modes.S_IFREG | 0o644 if info.type.name == "File" else modes.S_IFDIR | 0o755
        time_s = seconds(info.mtime_ns)
        time_ns = time_s * 10**9
        values = (mode, 0, 0, 1, 0, 0, info.size or 0, time_s, time_s, time_s)
        return os.stat_result(values, {"st_mtime_ns": time_ns, "st_ctime_ns": time_ns})

    def open(  # type: ignore[override]
        self, mode: str = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None,
    ) -> IO[Any]:  # fmt: skip
        """The object as a file to read.

        Raises:
            FileNotFoundError: there is no such object.
            io.UnsupportedOperation: it is opened to be written.
        """
        del buffering
        forget(self.key)
        if mode not in ("r", "rt", "rb"):
            raise io.UnsupportedOperation(f"{self} is written whole, not opened with {mode!r}")
        binary = open_object(self.key)
        if mode == "rb":
            return binary
        return io.TextIOWrapper(binary, encoding, errors, newline)

    def reader(self, *, keep: bool = True) -> ObjectReader:
        """The object, to be read by position.

        Args:
            keep: whether what is read is kept on disk.
        """
        return ObjectReader(self.key, keep=keep)

    def read_bytes(self) -> bytes:
        """The object's bytes, as they are now."""
        forget(self.key)
        reader = self.reader()
        return reader.read(0, reader.size)

    def iterdir(self) -> Iterator[ObjectPath]:  # type: ignore[override]
        """What lies right below."""
        return (self / name for name, _ in listed(self.key))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:  # type: ignore[override]
        """What lies below and fits the pattern, part by part; ``**`` is any number of parts."""
        wanted = pattern.split("/")
        for name, _ in listed(self.key, recursive=len(wanted) > 1 or "**" in wanted):
            if _fits(name.split("/"), wanted):
                yield self / name

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:  # type: ignore[override]
        """What lies below and fits the pattern from any depth on."""
        return self.glob(f"**/{pattern}")

    def files(self) -> list[str]:
        """The names of all objects below, relative to this, sorted."""
        return [name for name, info in listed(self.key, recursive=True)
                if info.type.name == "File"]  # fmt: skip

    def remove_all(self) -> None:
        """Remove all that lies below."""
        remove_below(self.key)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: folders need not be made."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: there is none.
        """
        try:
            remove(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def check_bucket(self) -> None:
        """See that the bucket is there.

        Raises:
            ObjectStoreError: it is not, or cannot be reached.
        """
        bucket = ObjectPath(*self.parts[:2])
        if not bucket.exists():
            raise ObjectStoreError(f"there is no bucket {bucket}", "Make it, or check its name.")

    def put(self, file: Path) -> None:
        """Put a file's bytes here, seen whole or not at all; what was here is replaced."""
        upload(file, self.key)
