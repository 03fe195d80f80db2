from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import jpeg, write_csv, write_jsonl

from lateen.data.rows import TABLE_SUFFIXES, open_rows
from lateen.errors import DataError

ENTRIES = [{"name": "a", "text": "1"}, {"name": "b", "text": "2"}]


def test_every_kind_of_file_has_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(ENTRIES))
    cells = [list(ENTRIES[0]), *(list(entry.values()) for entry in ENTRIES)]
    pq.write_table(pa.Table.from_pylist(ENTRIES), tmp_path / "t.parquet")
    for path in (
        write_csv(tmp_path / "t.csv", cells), write_csv(tmp_path / "t.tsv", cells, "\t"),
        write_jsonl(tmp_path / "t.jsonl", ENTRIES), tmp_path / "t.json", tmp_path / "t.parquet",
    ):  # fmt: skip
        rows = open_rows(path, suffixes=(".json", *TABLE_SUFFIXES))
        assert rows.columns == ["name", "text"]
        assert [row.cells for row in rows.read(["name", "text"])] == ENTRIES
        assert (rows.name, rows.embedded("name")) == (str(path), None)
    with pytest.raises(DataError, match=r"t.json is not a table.*Give one of: \.csv, "):
        open_rows(tmp_path / "t.json")


def test_json_lines_in_two_files_are_one_table(tmp_path: Path) -> None:
    paths = [
        write_jsonl(tmp_path / f"{name}.jsonl", [entry])
        for name, entry in zip("ab", ENTRIES, strict=True)
    ]
    rows = open_rows(*paths)
    assert [(row.source, row.cells) for row in rows.read([])] == [
        (f"{path}:1", entry) for path, entry in zip(paths, ENTRIES, strict=True)
    ]
    assert (rows.name, len(rows.hashes())) == (str(tmp_path), 2)


def test_images_in_two_parquet_files_are_numbered_through(tmp_path: Path) -> None:
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for start, path in zip((0, 3), paths, strict=True):
        greys = range(start, start + 3)
        table = pa.table({"image": [jpeg((i, i, i)) for i in greys], "text": list(map(str, greys))})
        pq.write_table(table, path)
    rows = open_rows(*paths)
    assert [row.cells for row in rows.read(["text"])] == [{"text": str(i)} for i in range(6)]
    images = rows.embedded("image", " image")
    assert images is not None
    assert [(image.name, image.read()) for image in images.sources([1, 3, 5]) if image] == [
        (f"{paths[0]}:2 image", jpeg((1, 1, 1))),
        (f"{paths[1]}:1 image", jpeg((3, 3, 3))),
        (f"{paths[1]}:3 image", jpeg((5, 5, 5))),
    ]
