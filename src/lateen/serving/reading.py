"""Photographs' bytes, by their ids alone, and only from the folders that may be read.

What is read is a file that was opened first and looked at then: that it is an ordinary file, and
that the place it has, with every link followed, is inside the index's folder or one that was
allowed. A link that is put in its place in between is seen, for the file that is open is compared
with the one that is there.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lateen.data.samples import FileImage, MemoryImage, TarImage
from lateen.errors import DataError
from lateen.files import content_key

if TYPE_CHECKING:
    from lateen.indexing.hits import Hit
    from lateen.indexing.photo_index import Index

_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class UnknownPhotoError(DataError):
    """There is no such photograph in the index."""


class OutsideError(DataError):
    """A photograph lies, or leads, outside the folders that may be read."""


class GoneError(DataError):
    """A photograph has vanished or changed since it was indexed."""


@dataclass(frozen=True)
class PhotoBytes:
    """A photograph that may be read.

    Attributes:
        name: its id.
        data: the encoded bytes.
        version: changes whenever the bytes may have.
    """

    name: str
    data: bytes
    version: str

    def read(self) -> bytes:
        """The bytes, as an image source gives them."""
        return self.data


class PhotoReader:
    """Reads the photographs of an index.

    Args:
        index: the index.
        allow: folders, beside the index's own, that may be read.
    """

    def __init__(self, index: Index, allow: Iterable[Path] = ()) -> None:
        self._index = index
        root = index.about.root
        own = [Path(root)] if root else []
        self._folders = [os.path.realpath(folder) for folder in (*own, *allow)]

    def photo(self, id: str) -> Hit:
        """A photograph of the index.

        Raises:
            UnknownPhotoError: there is none of that id.
        """
        try:
            return self._index.photo(id)
        except DataError as error:
            raise UnknownPhotoError(error.message, error.remedy) from error

    @contextlib.contextmanager
    def opened(self, id: str) -> Iterator[OpenPhoto]:
        """A photograph, open, and not yet read.

        Raises:
            UnknownPhotoError: there is none of that id.
            OutsideError: it is in no folder that may be read.
            GoneError: it is not there any more, or another one is.
        """
        hit = self.photo(id)
        source = self._index.image(id)
        if isinstance(source, MemoryImage):
            yield OpenPhoto(id, content_key([id, len(source.data)]), data=source.data)
            return
        if not isinstance(source, FileImage | TarImage):
            raise OutsideError(f"{id} is in no file that can be read", "Ask for another one.")
        tar = isinstance(source, TarImage)
        path = source.tar if isinstance(source, TarImage) else source.path
        with self._file(path, id) as file:
            seen = os.fstat(file.fileno())
            size = hit.about.get("bytes")
            if not tar and size is not None and seen.st_size != size:
                raise _changed(id)
            state = [str(path), seen.st_size, seen.st_mtime_ns]
            if isinstance(source, TarImage):
                state += [source.member, source.offset]
                yield OpenPhoto(
                    id, content_key(state), file=file, start=source.offset, size=source.size
                )
            else:
                yield OpenPhoto(id, content_key(state), file=file, start=0, size=seen.st_size)

    def bytes_of(self, id: str) -> PhotoBytes:
        """A photograph's bytes; raises as :meth:`opened` does."""
        with self.opened(id) as photo:
            return photo.read()

    def shown_path(self, hit: Hit) -> str:
        """Where a photograph is, relative to the index's folder: outside, this machine's folders
        are nobody's business."""
        root, path = self._index.about.root, str(hit.path)
        if not root:
            return hit.id
        if path.startswith(root + os.sep):  # as nearly always
            return path[len(root) + 1 :].replace(os.sep, "/")
        return os.path.relpath(path, root).replace(os.sep, "/")

    @contextlib.contextmanager
    def _file(self, path: Path, id: str) -> Iterator[IO[bytes]]:
        try:
            file = open(path, "rb", opener=_open)  # noqa: SIM115 - by the opener
        except OSError as error:
            # Whether something outside is there at all is not told, either.
            if not self._inside(os.path.realpath(path)):
                raise _outside(id) from error
            raise _vanished(id) from error
        except ValueError as error:  # a null byte
            raise _vanished(id) from error
        with file:
            self._check(file, path, id)
            yield file

    def _check(self, file: IO[bytes], path: Path, id: str) -> None:
        seen = os.fstat(file.fileno())
        place = os.path.realpath(path)
        if not self._inside(place):
            raise _outside(id)
        try:
            same = os.path.samestat(seen, os.stat(place, follow_symlinks=False))  # noqa: PTH116
        except OSError as error:
            raise _vanished(id) from error
        if not same or not stat.S_ISREG(seen.st_mode):
            raise _changed(id)

    def _inside(self, place: str) -> bool:
        for folder in self._folders:
            with contextlib.suppress(ValueError):  # another drive
                if os.path.commonpath((folder, place)) == folder:
                    return True
        return False


@dataclass(frozen=True)
class OpenPhoto:
    """A photograph that may be read.

    Attributes:
        name: its id.
        version: changes whenever the bytes may have.
        file: that it is in; ``None`` for one in memory.
        start: where in the file.
        size: in bytes.
        data: of one in memory.
    """

    name: str
    version: str
    file: IO[bytes] | None = None
    start: int = 0
    size: int = 0
    data: bytes = b""

    def read(self) -> PhotoBytes:
        """Its bytes.

        Raises:
            GoneError: the file has become shorter.
        """
        if self.file is None:
            return PhotoBytes(self.name, self.data, self.version)
        try:
            self.file.seek(self.start)
            data = self.file.read(self.size)
        except OSError as error:
            raise _vanished(self.name) from error
        if len(data) < self.size:
            raise _changed(self.name)
        return PhotoBytes(self.name, data, self.version)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAIT)


def _outside(id: str) -> OutsideError:
    return OutsideError(
        f"{id} lies outside the indexed folder", "Allow its folder: lateen serve ... --allow DIR."
    )


def _vanished(id: str) -> GoneError:
    return GoneError(
        f"{id} is not there any more", "Bring the index up to date: lateen index, as it was made."
    )


def _changed(id: str) -> GoneError:
    return GoneError(
        f"{id} has changed since it was indexed",
        "Bring the index up to date: lateen index, as it was made.",
    )
