from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import is_fixed, jpeg, samples, skips, write_images

from lateen.data.images import decode_image
from lateen.data.samples import FileImage, MemoryImage
from lateen.data.tables import Table
from lateen.errors import DataError, ImageError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_rows_that_name_files(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    columns = {
        "unused": [0, 1, 2],
        "image_path": ["a.jpg", "b.jpg", "a.jpg"],
        "captions": [["1", "2"], ["3"], None],
        "text": pa.array(["x", None, "z"]),
    }
    path = write(tmp_path / "t.parquet", columns)
    table = Table(path)
    first, second = samples(table)
    assert first.image == FileImage(tmp_path / "a.jpg")
    assert first.captions == {"captions": ("1", "2"), "text": ("x", "z")}
    assert second.captions == {"captions": ("3",), "text": ()}
    assert [skip.source.rsplit(":", 1)[1] for skip in skips(table)] == ["3 captions", "2 text"]
    assert is_fixed(table, lambda: Table(path))


def embedded(folder: Path, count: int = 200, **columns: Any) -> Path:
    images = [{"bytes": jpeg((i, i, i)), "path": f"{i:03}.jpg"} for i in range(count)]
    table = {"image": pa.array(images, IMAGE), "caption": [f"grey {i}" for i in range(count)]}
    return write(folder / "t.parquet", {**table, **columns})


def grey(image: Any) -> int:
    assert isinstance(image, MemoryImage)
    value = decode_image(image).getpixel((0, 0))
    assert isinstance(value, tuple)
    return int(value[0])


def test_embedded_images_keep_to_their_captions(tmp_path: Path) -> None:
    path = embedded(tmp_path)
    table = Table(path)
    found = samples(table)
    assert [sample.id for sample in found] == [f"{i:03}.jpg" for i in range(200)]
    assert all(grey(sample.image) == i for i, sample in enumerate(found))
    assert found[7].captions == {"caption": ("grey 7",)}
    assert found[7].image is not None and found[7].image.name == f"{path}:8"
    assert is_fixed(table, lambda: Table(path))


def test_embedded_images_keep_to_their_captions_where_some_are_left_out(tmp_path: Path) -> None:
    texts = ["zero", "", "two", "three", "four"]
    ids = pa.array(["a", "b", "c", "a", None])
    table = Table(embedded(tmp_path, 5, caption=texts, id=ids))
    found = samples(table)
    assert [(sample.id, grey(sample.image)) for sample in found] == [("a", 0), ("c", 2)]
    assert [(skip.id, skip.sample) for skip in skips(table)] == [
        ("b", True), ("a", False), ("", False),
    ]  # fmt: skip
    assert "already used at" in skips(table)[1].reason


def test_plain_bytes_take_the_row_as_id(tmp_path: Path) -> None:
    images = [jpeg((5, 5, 5)), None]
    path = write(
        tmp_path / "t.parquet", {"image": pa.array(images, pa.binary()), "text": ["5", "-"]}
    )
    first, second = samples(Table(path))
    assert (first.id, second.id) == ("0", "1")
    assert grey(first.image) == 5
    with pytest.raises(ImageError, match="empty"):
        grey(second.image)


def test_images_without_captions(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"image": pa.array([jpeg((5, 5, 5))] * 3, pa.binary())})
    table = Table(path)
    assert table.columns == ()
    assert [(sample.id, grey(sample.image)) for sample in samples(table)] == [
        ("0", 5), ("1", 5), ("2", 5),
    ]  # fmt: skip


def test_the_fingerprint_follows_the_embedded_bytes(tmp_path: Path) -> None:
    before = Table(embedded(tmp_path, 3)).fingerprint
    images = [{"bytes": jpeg((90, 0, 0)), "path": f"{i:03}.jpg"} for i in range(3)]
    assert Table(embedded(tmp_path, 3, image=pa.array(images, IMAGE))).fingerprint != before


def test_a_file_that_is_not_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        Table(tmp_path / "t.parquet")
    path = embedded(tmp_path, 50)
    data = bytearray(path.read_bytes())
    data[200:3000] = bytes(2800)
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        samples(Table(path))


def test_rows_without_an_image_are_not_copies_of_each_other(tmp_path: Path) -> None:
    images = [jpeg((5, 5, 5)), None, None, jpeg((5, 5, 5))]
    path = write(
        tmp_path / "t.parquet", {"image": pa.array(images, pa.binary()), "text": list("abcd")}
    )
    found = {sample.id: sample.captions["text"] for sample in samples(Table(path))}
    assert found == {"0": ("a", "d"), "1": ("b",), "2": ("c",)}
