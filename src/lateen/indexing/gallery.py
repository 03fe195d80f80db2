"""The photographs of an index in memory, for exact search among a few ten thousand.

A copy of them lies beside a local index (``snapshot/``), as arrays that are read in milliseconds,
so that a search need not load LanceDB. It is as good as the index as long as that has the versions
of which it was made; else it is made anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import LateenError
from lateen.files import atomic_folder, write_text
from lateen.indexing.table import ABOUT, ID, PHOTOS, PREVIEW, VECTOR, PhotoTable

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 50_000
"""Photographs that are searched exactly, in memory; of more there is an ANN index."""
_FOLDER, _ROWS, _VECTORS, _JSON = "snapshot", "rows.arrow", "vectors.npy", "about.json"
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Gallery:
    """Photographs, sorted by their ids.

    Attributes:
        rows: their columns, but for the vectors.
        vectors: ``[n, width]``.
    """

    rows: pa.Table
    vectors: Array

    @classmethod
    def of(cls, table: PhotoTable) -> Gallery:
        """All photographs of an index."""
        columns = [field.name for field in table.schema if field.name != PREVIEW]
        rows = table.rows(columns).sort_by(ID)
        return cls(rows.drop_columns([VECTOR]), vectors_of(rows))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Where each id is."""
        return {name: place for place, name in enumerate(self.rows[ID].to_pylist())}

    def nearest(
        self, query: Array, k: int, offset: int = 0, among: Sequence[int] | Array | None = None
    ) -> list[int]:
        """Where those are whose vectors have the largest inner product with a query, best first.

        Args:
            query: ``[width]``.
            k: how many.
            offset: how many that are better are left out.
            among: places to look among; all if not given.
        """
        places = np.arange(len(self)) if among is None else np.asarray(among, np.int64)
        vectors = self.vectors if among is None else self.vectors[places]
        products = vectors @ query
        end = min(offset + k, len(places))
        # Of equals the first by id comes first, on whatever page.
        best = np.argsort(-products, kind="stable")[offset:end]
        return [int(place) for place in places[best]]


def vectors_of(rows: pa.Table) -> Array:
    """The vectors ``[n, width]`` of rows."""
    column = rows[VECTOR].combine_chunks()
    width = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(len(column), width)


@dataclass(frozen=True)
class Snapshot:
    """What a local index has, beside it.

    Attributes:
        about: what is written of the index, JSON in one line.
        gallery: its photographs.
        skipped: ``id``, ``state`` and ``reason`` of what cannot be read.
    """

    about: str
    gallery: Gallery
    skipped: list[dict[str, str]]

    @classmethod
    def read(cls, index: Path) -> Snapshot | None:
        """That of an index; ``None`` if there is none, or the index has changed since."""
        import pyarrow as pa

        folder = index / _FOLDER
        with contextlib.suppress(OSError, ValueError, LateenError, pa.ArrowInvalid):
            stamp, about, skipped = (folder / _JSON).read_text(encoding="utf-8").split("\n")
            if stamp != _stamp(index):
                return None
            with pa.memory_map(str(folder / _ROWS)) as file:
                rows = pa.ipc.open_file(file).read_all()
            vectors = np.load(folder / _VECTORS, mmap_mode="r")
            if len(rows) == len(vectors):
                return cls(about, Gallery(rows, vectors), json.loads(skipped))
        return None

    def write(self, index: Path, stamp: str) -> None:
        """Put it beside an index, unless that has changed since it was read.

        Args:
            index: its folder.
            stamp: :func:`stamp_of` the index before that.
        """
        import pyarrow as pa

        if _stamp(index) != stamp:
            return
        with atomic_folder(index / _FOLDER) as folder:
            with pa.OSFile(str(folder / _ROWS), "wb") as sink, pa.ipc.new_file(
                sink, self.gallery.rows.schema
            ) as writer:  # fmt: skip
                writer.write_table(self.gallery.rows)
            np.save(folder / _VECTORS, self.gallery.vectors)
            lines = (stamp, self.about, json.dumps(self.skipped))
            write_text(folder / _JSON, "\n".join(lines))


def stamp_of(place: str | Path) -> str:
    """What changes with every write to an index; empty where it is no local one."""
    return "" if "://" in str(place) else _stamp(Path(place))


def _stamp(index: Path) -> str:
    names = [
        f"{name}/{entry.name}"
        for name in (ABOUT, PHOTOS)
        for entry in (index / f"{name}.lance" / "_versions").iterdir()
    ]
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()
