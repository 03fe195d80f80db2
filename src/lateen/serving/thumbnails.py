"""Thumbnails: made once, kept in lateen's cache folder."""

from __future__ import annotations

import threading
from pathlib import Path

from lateen.errors import LateenError, UsageError
from lateen.files import atomic_path, content_key
from lateen.hardware import cache_folder
from lateen.progress import log
from lateen.report.thumbnail import jpeg
from lateen.serving.reading import PhotoReader

SIZES = (320, 640)
"""Pixels of the longer edge."""
VIEW = 2048
"""Likewise, of the large view, which is not kept."""
_QUALITY, _VIEW_QUALITY = 80, 86
_FORMAT = 1  # of what is kept
_LOCKS = 64


class Thumbnails:
    """Thumbnails of an index's photographs.

    Args:
        reader: reads them.
        folder: to keep them in; one in lateen's cache folder if not given.

    Attributes:
        made: how many were made.
        kept: how many were there already.
    """

    def __init__(self, reader: PhotoReader, folder: Path | None = None) -> None:
        self._reader = reader
        self._folder = folder or cache_folder() / "thumbnails"
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._keeps = True
        self.made = self.kept = 0

    def version(self, id: str, edge: int) -> str:
        """What changes with the thumbnail; raises as
        :meth:`~lateen.serving.reading.PhotoReader.opened` does, and for an edge that is none of
        :data:`SIZES` or :data:`VIEW`."""
        with self._reader.opened(id) as photo:
            return _key(photo.version, edge)

    def get(self, id: str, edge: int) -> tuple[bytes, str]:
        """A photograph as JPEG, and what changes with it.

        Args:
            id: of the photograph.
            edge: one of :data:`SIZES`, or :data:`VIEW`.

        Raises:
            UsageError: another edge.
            DataError: as :meth:`~lateen.serving.reading.PhotoReader.opened` raises.
            ImageError: it cannot be decoded.
        """
        with self._reader.opened(id) as photo:
            key = _key(photo.version, edge)
            if edge == VIEW:
                return jpeg(photo.read(), edge=edge, quality=_VIEW_QUALITY), key
            path = self._folder / key[:2] / f"{key[2:34]}.jpg"
            # Who asks at the same time waits for the one that is made.
            with self._locks[int(key[:8], 16) % _LOCKS]:
                try:
                    data = path.read_bytes()
                    self.kept += 1
                except OSError:
                    data = jpeg(photo.read(), edge=edge, quality=_QUALITY)
                    self.made += 1
                    self._keep(path, data)
        return data, key

    def _keep(self, path: Path, data: bytes) -> None:
        if not self._keeps:
            return
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        except (OSError, LateenError) as error:
            self._keeps = False
            log.warning("thumbnails are not kept, and made each time: %s", error)


def _key(version: str, edge: int) -> str:
    if edge not in (*SIZES, VIEW):
        raise UsageError(
            f"there are no thumbnails of {edge} pixels", f"Ask for {' or '.join(map(str, SIZES))}."
        )
    return content_key([_FORMAT, version, edge])
