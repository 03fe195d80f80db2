"""The rows of an index, in LanceDB: one for each photograph, one for each that cannot be read.

Every write is one commit: whoever reads, and a process that is killed, sees it whole or not at all.
Here are all names of columns, and all that is asked of LanceDB.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lateen.errors import LateenError, StoreError, UsageError, choices, reason
from lateen.files import disk_full, is_disk_full
from lateen.indexing.filters import quoted

PHOTOS, SKIPPED, ABOUT = "photos", "skipped", "about"
ID, CONTENT, STATE, VECTOR, PREVIEW = "id", "content", "state", "vector", "preview"
FACTS = ("width", "height", "bytes", "taken", "latitude", "longitude", "rating")
_AT_ONCE = 512  # ids in one condition
_KEEP = timedelta(hours=1)  # versions that readers may have open
_KEEP_NONE = timedelta(milliseconds=1)  # of 0, LanceDB warns
Array = np.ndarray[Any, np.dtype[np.float32]]


def photo_schema(width: int, columns: Iterable[pa.Field] = ()) -> pa.Schema:
    """The columns of photographs.

    Args:
        width: length of a vector.
        columns: of a table that the photographs came in, which can be filtered by.
    """
    return pa.schema(
        [
            pa.field(ID, pa.string(), nullable=False),
            pa.field(CONTENT, pa.string()),  # hash of the bytes
            pa.field(STATE, pa.string()),  # another state, perhaps another content
            pa.field("path", pa.string()),  # of the file, relative to the index's root
            pa.field("member", pa.string()),  # of a tar shard, with where it is
            pa.field("offset", pa.int64()),
            pa.field("folder", pa.string()),
            pa.field("captions", pa.list_(pa.string())),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("bytes", pa.int64()),
            pa.field("taken", pa.timestamp("us")),
            pa.field("latitude", pa.float64()),
            pa.field("longitude", pa.float64()),
            pa.field("rating", pa.int32()),
            *columns,
            pa.field(PREVIEW, pa.binary()),  # of an image that is in no file
            pa.field(VECTOR, pa.list_(pa.float32(), width), nullable=False),
        ]
    )


SKIP_SCHEMA = pa.schema([(ID, pa.string()), (STATE, pa.string()), ("reason", pa.string())])
_ABOUT_SCHEMA = pa.schema([("json", pa.string())])


class PhotoTable:
    """The tables of an index.

    Args:
        place: a folder, or the address of an object store (``s3://bucket/index``).
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        os.environ.setdefault("LANCEDB_LOG", "error")  # every new table is a warning
        import lancedb  # which takes a second

        with _said(self.place):
            self._base = lancedb.connect(self.place)
        self._open: dict[str, Any] = {}

    # -- what it is about --------------------------------------------------------------------------

    def about(self) -> str | None:
        """What was written of the index as JSON; ``None`` where there is no index."""
        with _said(self.place):
            if ABOUT not in self._names():
                return None
            return str(self._table(ABOUT).to_arrow()["json"][0].as_py())

    def write_about(self, text: str) -> None:
        """Replace what is written of the index."""
        with _said(self.place):
            self._open[ABOUT] = self._base.create_table(
                ABOUT, pa.table({"json": [text]}, schema=_ABOUT_SCHEMA), mode="overwrite"
            )

    def create(self, schema: pa.Schema) -> None:
        """Begin anew, without rows."""
        with _said(self.place):
            for name, columns in ((PHOTOS, schema), (SKIPPED, SKIP_SCHEMA)):
                self._open[name] = self._base.create_table(name, schema=columns, mode="overwrite")

    def refresh(self) -> None:
        """Look at what others have written since."""
        with _said(self.place):
            for table in self._open.values():
                table.checkout_latest()

    @property
    def version(self) -> int:
        """Which number grows with every write to the photographs."""
        with _said(self.place):
            return int(self._table(PHOTOS).version)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the photographs."""
        with _said(self.place):
            return self._table(PHOTOS).schema

    @property
    def width(self) -> int:
        """Length of the vectors."""
        return int(self.schema.field(VECTOR).type.list_size)

    # -- reading -----------------------------------------------------------------------------------

    def count(self, where: str | None = None) -> int:
        """How many photographs there are, or of how many a condition is true."""
        with _said(self.place), self._condition(where):
            return int(self._table(PHOTOS).count_rows(where))

    def rows(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """Columns of all photographs, or of those of which a condition is true, in any order.

        Raises:
            UsageError: the condition is no SQL over the columns.
        """
        with _said(self.place), self._condition(where):
            found = self._table(PHOTOS).search().select(list(columns))
            return (found if where is None else found.where(where)).to_arrow()

    def rows_of(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Columns of the photographs that have one of some values in another column."""
        parts = [
            self.rows(columns, _among(column, values[start : start + _AT_ONCE]))
            for start in range(0, len(values), _AT_ONCE)
        ]
        return pa.concat_tables(parts) if parts else self.rows(columns, "false")

    def skipped(self) -> pa.Table:
        """What cannot be read, and why."""
        with _said(self.place):
            return self._table(SKIPPED).to_arrow()

    def nearest(
        self, query: Array, k: int, columns: Sequence[str], *, where: str | None = None,
        probes: int | None = None, refine: int = 1,
    ) -> pa.Table:  # fmt: skip
        """Columns of the ``k`` photographs whose vectors have the largest inner product with one.

        Args:
            query: ``[width]``.
            k: how many.
            columns: which.
            where: a condition in SQL; all photographs that it is true of are looked among.
            probes: parts of the ANN index to look in; ``None`` looks at every photograph.
            refine: how many times ``k`` are compared exactly.

        Raises:
            UsageError: the condition is no SQL over the columns.
        """
        with _said(self.place), self._condition(where):
            search = self._table(PHOTOS).search(query, vector_column_name=VECTOR).limit(k)
            search = search.select([*columns, "_distance"])
            if where is not None:
                search = search.where(where, prefilter=True)
            if probes is None:
                return search.distance_type("dot").bypass_vector_index().to_arrow()
            # All vectors are equally long, so that the nearest have the largest product.
            return search.distance_type("l2").nprobes(probes).refine_factor(refine).to_arrow()

    # -- writing -----------------------------------------------------------------------------------

    def write(self, rows: pa.Table) -> None:
        """Put rows in the place of those with the same ids, or add them: one commit."""
        with _said(self.place):
            self._upsert(PHOTOS, rows)

    def write_skipped(self, rows: pa.Table) -> None:
        """The same of what cannot be read."""
        with _said(self.place):
            self._upsert(SKIPPED, rows)

    def remove(self, name: str, ids: Sequence[str]) -> None:
        """Remove rows of :data:`PHOTOS` or :data:`SKIPPED`."""
        with _said(self.place):
            for start in range(0, len(ids), _AT_ONCE):
                self._table(name).delete(_among(ID, ids[start : start + _AT_ONCE]))

    def tidy(self, *, new: bool) -> None:
        """Put the many small files of the writes together, add what is new to an ANN index, and
        remove what nobody reads.

        Args:
            new: nobody can have opened it yet.
        """
        with _said(self.place):
            for name in (PHOTOS, SKIPPED, ABOUT):
                self._table(name).optimize(cleanup_older_than=_KEEP_NONE if new else _KEEP)

    def build_ann(self, parts: int) -> None:
        """Make an index of the vectors: inverted lists, with a byte for each value.

        Args:
            parts: lists.
        """
        from lancedb.index import IvfSq

        # Product quantisation is an eighth as large, takes ten times as long to make, and finds
        # neither more nor sooner (benchmarks/index_vectors.py).
        lists = IvfSq(distance_type="l2", num_partitions=parts, max_iterations=20, sample_rate=128)
        with _said(self.place):
            self._table(PHOTOS).create_index(VECTOR, config=lists, replace=True)

    def _upsert(self, name: str, rows: pa.Table) -> None:
        if len(rows):
            merge = self._table(name).merge_insert(ID)
            merge.when_matched_update_all().when_not_matched_insert_all().execute(rows)

    def _table(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = self._base.open_table(name)
        return self._open[name]

    def _names(self) -> list[str]:
        return list(self._base.list_tables().tables)

    @contextlib.contextmanager
    def _condition(self, where: str | None) -> Iterator[None]:
        """What LanceDB says of a condition, if there is one, as an error of the user's.

        Raises:
            UsageError: a column that is not there, or no SQL.
        """
        try:
            yield
        except (ValueError, RuntimeError) as error:
            if where is None or is_disk_full(error):
                raise
            columns = [f.name for f in self._table(PHOTOS).schema if f.name not in _INNER]
            raise UsageError(
                f"the condition cannot be used: {_short(reason(error))}",
                choices("", columns).replace("Choose one of", "The columns are"),
            ) from error


_INNER = (VECTOR, PREVIEW, CONTENT, STATE, "offset", "member")


def _among(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(map(quoted, values))})"


def _short(text: str) -> str:
    for tail in (". Valid fields are", ", rust/", ", /"):
        text = text.partition(tail)[0]
    return text.removeprefix("Invalid input, ").rstrip(".")


@contextlib.contextmanager
def _said(place: str) -> Iterator[None]:
    """LanceDB's failures as errors of ours: a full disk, a damaged or unreachable index."""
    try:
        yield
    except LateenError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        if is_disk_full(error):
            raise disk_full(Path(place)) from error
        raise StoreError(
            f"the index {place} cannot be used: {_short(reason(error))}",
            "Check the place and its permissions; `lateen index ... --overwrite` makes it anew.",
        ) from error
