"""A million vectors in an index: how long it takes to make, how large it is, how fast and how well
it finds, beside comparing everything and beside usearch.

    python benchmarks/index_vectors.py --rows 1000000

The vectors are synthetic, with the structure of embeddings: 96 directions carry most of them, in
3,000 clusters. Queries lie beside the photographs, as texts do. Recall is at 10, against comparing
everything. Single queries, one after the other, each timed; ours through
:meth:`lateen.indexing.table.PhotoTable.nearest` with the probes that making the index found.
usearch: HNSW in float16 with its defaults, its ids alone, in memory.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from lateen.indexing.about import IndexAbout
from lateen.indexing.ann import fitted_ann
from lateen.indexing.given_model import GivenModel, query_vector
from lateen.indexing.table import ID, VECTOR, PhotoTable, photo_schema
from lateen.report.tables import Column, TableData

DIRECTIONS, CLUSTERS, CHUNK, K = 96, 3000, 20_000, 10


class World:
    """Vectors of length 1."""

    def __init__(self, dim: int) -> None:
        self.random = np.random.default_rng(0)
        self.basis = self.random.normal(size=(DIRECTIONS, dim)).astype("f4") / dim**0.5
        self.centres = self.random.normal(size=(CLUSTERS, DIRECTIONS)).astype("f4")
        self.dim = dim

    def vectors(self, count: int, apart: float = 0.0) -> np.ndarray:
        clusters = self.centres[self.random.integers(0, CLUSTERS, count)]
        inside = 0.8 * clusters + 0.6 * self.random.normal(size=clusters.shape)
        x = inside.astype("f4") @ self.basis
        x += (1.5 + apart) * self.random.normal(size=x.shape).astype("f4") / self.dim**0.5
        return x / np.linalg.norm(x, axis=1, keepdims=True)


def timed(queries: np.ndarray, find: Callable[[np.ndarray], list[int]]) -> tuple[list[set], list]:
    found, took = [], []
    for query in queries:
        begun = time.perf_counter()
        ids = find(query)
        took.append(1000 * (time.perf_counter() - begun))
        found.append(set(ids))
    return found, took


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--without", choices=["usearch"])
    given = parser.parse_args()
    world = World(given.dim)
    about = IndexAbout("synthetic", "", "", "", "", given.dim, 1.0)
    schema = photo_schema(about.width)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "index"
        everything = np.empty((given.rows, given.dim), "f4")
        table = PhotoTable(place)
        table.create(schema)
        begun = time.perf_counter()
        for start in range(0, given.rows, CHUNK):
            x = world.vectors(min(CHUNK, given.rows - start))
            everything[start : start + len(x)] = x
            table.write(_rows(schema, about, start, x))
        table.write_about(about.as_json())
        table.tidy(new=True)
        written = time.perf_counter() - begun
        begun = time.perf_counter()
        ann = fitted_ann(table, about, GivenModel(""))
        built = time.perf_counter() - begun
        begun = time.perf_counter()
        opened = PhotoTable(place)
        opened.about()
        opened.count()
        opening = time.perf_counter() - begun
        queries = world.vectors(given.queries, apart=1.0)
        exact, took = timed(queries, lambda q: np.argpartition(-(everything @ q), K)[:K].tolist())
        rows.append(["everything, numpy", "", everything.nbytes / 1e9, 1.0, *_times(took)])

        def ours(q: np.ndarray) -> list[int]:
            vector = query_vector(q, about, 0.0)
            found = opened.nearest(vector, K, [ID], probes=ann["probes"], refine=ann["refine"])
            return [int(i) for i in found[ID].to_pylist()]

        found, took = timed(queries, ours)
        rows.append(["lateen (LanceDB)", built, size(place), _recall(found, exact), *_times(took)])
        if given.without != "usearch":
            rows.append(_usearch(everything, queries, exact))
        print(f"writing {written:.0f} s; opening {opening:.3f} s; {ann}")
    columns = [Column(""), Column("build (s)", 0), Column("GB", 2), Column("recall@10", 3),
               Column("p50 (ms)", 1), Column("p99 (ms)", 1)]  # fmt: skip
    print(TableData(f"{given.rows:,} vectors of {given.dim} values", columns, rows).markdown())


def _rows(schema: pa.Schema, about: IndexAbout, start: int, x: np.ndarray) -> pa.Table:
    count = len(x)
    vectors = np.zeros((count, about.width), "f4")
    vectors[:, : about.dim] = x
    ids = [str(start + i) for i in range(count)]
    known = {
        ID: pa.array(ids), "content": pa.array(ids), "path": pa.array([f"{i}.jpg" for i in ids]),
        "folder": pa.array([f"{i % 100:02d}" for i in range(count)]),
        "width": pa.array([4000] * count, pa.int32()),
        VECTOR: pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), about.width),
    }  # fmt: skip
    columns = [known.get(field.name, pa.nulls(count, field.type)) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _usearch(everything: np.ndarray, queries: np.ndarray, exact: list[set]) -> list[object]:
    from usearch.index import Index

    index = Index(ndim=everything.shape[1], metric="ip", dtype="f16")
    begun = time.perf_counter()
    for start in range(0, len(everything), CHUNK):
        part = everything[start : start + CHUNK]
        index.add(np.arange(start, start + len(part)), part)
    built = time.perf_counter() - begun
    found, took = timed(queries, lambda q: index.search(q, K).keys.tolist())
    gigabytes = index.serialized_length / 1e9
    return ["usearch (HNSW, f16)", built, gigabytes, _recall(found, exact), *_times(took)]


def _recall(found: list[set], exact: list[set]) -> float:
    return statistics.mean(len(a & b) / len(b) for a, b in zip(found, exact, strict=True))


def _times(took: list[float]) -> tuple[float, float]:
    return float(np.median(took)), float(np.quantile(took, 0.99))


if __name__ == "__main__":
    main()
