"""Embeddings in files that other tools read: one writer for each ending.

Parquet has everything in one file: ids, embeddings and what is known of each row, small pictures
too if wanted. The other formats hold numbers alone. Their ids stand one a line in ``NAME.ids.txt``
beside them: line 1 is row 0, and row 0 is key 0 in an index of usearch or hnswlib.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import ImageError, MissingExtraError, UsageError
from lateen.files import atomic_path, staged_files, write_text
from lateen.progress import bar, log

if TYPE_CHECKING:
    import pyarrow as pa

    from lateen.data.samples import ImageSource
    from lateen.indexing.embeddings import Embeddings

PARQUET = ".parquet"
ID, EMBEDDING, PICTURE, TEXT, CAPTIONS = "id", "embedding", "image", "text", "captions"
TENSOR = "embeddings"
"""The name of the tensor in a safetensors file."""
SMALLEST, LARGEST = 16, 2048
"""Pixels of the longer edge of the pictures in a Parquet file."""
_QUALITY = 80
_NOTHING = {None, ""}
_ROWS_AT_ONCE = 1024  # whose pictures are in memory
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class VectorFormat:
    """A format of numbers alone.

    Attributes:
        write: writes embeddings ``[n, dim]`` to a path.
        opens: the Python that reads it, of ``path`` and ``dim``.
        package: what writes it, where that is not among what lateen needs anyway.
    """

    write: Callable[[Path, Array], None]
    opens: str
    package: str | None = None


def output_files(path: str | Path) -> list[Path]:
    """The files that :func:`write_vectors` writes for a path.

    Raises:
        UsageError: an ending that is none of the known ones.
        MissingExtraError: what writes the format is not installed.
    """
    file = Path(path)
    if file.suffix == PARQUET:
        return [file]
    if file.suffix not in FORMATS:
        known = ", ".join((PARQUET, *FORMATS))
        raise UsageError(f"{file} ends in none of {known}", "Name the file that way.")
    package = FORMATS[file.suffix].package
    if package is not None and importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, None, f"a {file.suffix} file")
    return [file, file.with_suffix(".ids.txt")]


def check_thumbnails(path: str | Path, edge: int | None) -> None:
    """See that small pictures can be written.

    Args:
        path: of the file.
        edge: pixels of their longer edge; ``None`` for no pictures.

    Raises:
        UsageError: a file that holds numbers alone, or pictures of no size.
    """
    if edge is None:
        return
    if Path(path).suffix != PARQUET:
        raise UsageError(
            f"{path} holds numbers alone, and no thumbnails", f"Write a {PARQUET} file."
        )
    if not SMALLEST <= edge <= LARGEST:
        raise UsageError(f"thumbnails is {edge}", f"Give {SMALLEST} to {LARGEST:,} pixels.")


def write_vectors(
    embeddings: Embeddings, path: str | Path, *, thumbnails: int | None = None
) -> list[Path]:
    """Write embeddings to a file in the format that its ending says, whole or not at all.

    Args:
        embeddings: with ids.
        path: of the file.
        thumbnails: as :meth:`~lateen.indexing.embeddings.Embeddings.save` takes it.

    Returns:
        The files: the embeddings, and the ids if they are beside them.

    Raises:
        UsageError: an unknown ending, an id with a line break, which a line cannot hold, or
            thumbnails of what has no pictures or in a file that cannot hold them.
        MissingExtraError: what writes the format is not installed.
    """
    file, *beside = output_files(path)
    check_thumbnails(file, thumbnails)
    if not beside:
        _write_parquet(embeddings, file, thumbnails)
        return [file]
    broken = next((name for name in embeddings.ids if len(name.splitlines()) > 1), None)
    if broken is not None:
        raise UsageError(f"the id {broken!r} has a line break", f"Write a {PARQUET} file.")
    with staged_files(file.parent, last=file.name) as staged:
        FORMATS[file.suffix].write(staged / file.name, embeddings.values)
        ids = "".join(f"{name}\n" for name in embeddings.ids)
        write_text(staged / beside[0].name, ids)
    return [file, *beside]


def opening(embeddings: Embeddings, path: Path, *, thumbnails: bool) -> str:
    """What opens a file that was written: a command, or a line of Python.

    Args:
        embeddings: what is in it.
        path: of the file.
        thumbnails: whether it has pictures.
    """
    if path.suffix != PARQUET:
        dim = embeddings.values.shape[1]
        return FORMATS[path.suffix].opens.format(path=str(path), dim=dim)
    words = ["embedding-atlas", str(path), "--vector", EMBEDDING]
    if thumbnails:
        words += ["--image", PICTURE]
    named = _columns(embeddings).column_names
    words += next((["--text", name] for name in (TEXT, CAPTIONS) if name in named), [])
    return shlex.join(words)


# -- numbers alone ---------------------------------------------------------------------------------


def _write_npy(path: Path, values: Array) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _write_safetensors(path: Path, values: Array) -> None:
    from safetensors.numpy import save_file

    save_file({TENSOR: np.ascontiguousarray(values)}, path)


def _write_usearch(path: Path, values: Array) -> None:
    # Inner products: they are cosines of what is at unit length, and take hubness along (--bank).
    made = importlib.import_module("usearch.index").Index(
        ndim=values.shape[1], metric="ip", dtype="f32"
    )
    made.add(np.arange(len(values), dtype=np.uint64), values)
    made.save(str(path))


def _write_hnswlib(path: Path, values: Array) -> None:
    made = importlib.import_module("hnswlib").Index(space="ip", dim=values.shape[1])
    made.init_index(max_elements=len(values))
    made.add_items(values, np.arange(len(values)))
    made.save_index(str(path))


FORMATS: dict[str, VectorFormat] = {
    ".npy": VectorFormat(_write_npy, "numpy.load({path!r})"),
    ".safetensors": VectorFormat(
        _write_safetensors, f"safetensors.numpy.load_file({{path!r}})[{TENSOR!r}]"
    ),
    ".usearch": VectorFormat(_write_usearch, "usearch.index.Index.restore({path!r})", "usearch"),
    ".hnswlib": VectorFormat(
        _write_hnswlib, 'index = hnswlib.Index("ip", {dim}); index.load_index({path!r})', "hnswlib"
    ),
}
"""By their ending, the formats that have ids beside them."""


# -- Parquet ---------------------------------------------------------------------------------------


def _write_parquet(embeddings: Embeddings, path: Path, thumbnails: int | None) -> None:
    """A row group of some thousand rows at a time, as pictures of all would be much to hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if thumbnails is not None and embeddings.images is None:
        raise UsageError("there are no pictures of these", "Leave --thumbnails out.")
    table = _columns(embeddings)
    if thumbnails is not None:
        picture = pa.field(PICTURE, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        schema = table.schema.append(picture)
    else:
        schema = table.schema
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        if thumbnails is None:
            writer.write_table(table)
            return
        for start, pictures in _pictures(embeddings, thumbnails):
            rows = table.slice(start, len(pictures))
            writer.write_table(rows.append_column(picture, pa.array(pictures, picture.type)))


def _columns(embeddings: Embeddings) -> pa.Table:
    """Everything but pictures."""
    import pyarrow as pa

    values = embeddings.values
    flat = pa.array(values.reshape(-1), pa.float32())
    columns = {
        ID: pa.array(embeddings.ids, pa.string()),
        EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, values.shape[1]),
    }
    if embeddings.texts is not None:
        columns[TEXT] = pa.array(embeddings.texts, pa.string())
    if embeddings.known is not None:
        columns |= dict(zip(embeddings.known.column_names, embeddings.known.columns, strict=True))
    return pa.table(columns)


def known_columns(columns: Mapping[str, Any]) -> pa.Table:
    """Columns as a table that can stand beside embeddings: without those that say nothing, and
    those with the name of one that a file of embeddings has anyway, which is told."""
    import pyarrow as pa

    taken = [name for name in columns if name in (ID, EMBEDDING, PICTURE)]
    if taken:
        log.warning("left out, as embeddings have columns of that name: %s", ", ".join(taken))
    table = pa.table({name: each for name, each in columns.items() if name not in taken})
    said = [name for name in table.column_names if set(table[name].unique().to_pylist()) - _NOTHING]
    return table.select(said)


def _pictures(embeddings: Embeddings, edge: int) -> Iterator[tuple[int, list[Any]]]:
    """Of some rows at a time the first, and their pictures: JPEG without metadata, as Hugging
    Face's ``{bytes, path}``; ``None`` for what can no longer be read."""
    from lateen.device import default_workers  # which loads torch
    from lateen.report.thumbnail import jpeg

    assert embeddings.images is not None
    lost: list[str] = []

    def picture(item: tuple[str, ImageSource]) -> dict[str, Any] | None:
        name, image = item
        try:
            return {"bytes": jpeg(image, edge=edge, quality=_QUALITY), "path": name}
        except ImageError:
            lost.append(name)
            return None

    items = zip(embeddings.ids, embeddings.images(), strict=True)
    count = len(embeddings.ids)
    with bar(count, "thumbnails", "picture") as progress, ThreadPoolExecutor(
        default_workers()
    ) as pool:  # fmt: skip
        for start in range(0, count, _ROWS_AT_ONCE):
            made = list(pool.map(picture, islice(items, _ROWS_AT_ONCE)))
            progress.update(len(made))
            yield start, made
    if lost:
        log.warning(
            "%d of %d pictures cannot be read and are empty, the first: %s",
            len(lost), count, min(lost),
        )  # fmt: skip
