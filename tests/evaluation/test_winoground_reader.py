from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_toys import winoground_images, winoground_row, write
from builders import is_fixed, samples, skips

from lateen.errors import DataError, UsageError
from lateen.evaluation.cases import CaseSet
from lateen.evaluation.tasks.winoground import read_winoground

ROWS = [
    winoground_row(0, "red", "blue"),
    winoground_row(1, "green on white", "black on white", tag="Verb", secondary="Series"),
]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def _filled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with images as Hugging Face's Parquet has them."""
    images = winoground_images(rows)
    cells = {
        (index, f"image_{side}"): {"bytes": images[name], "path": f"{name}.png"}
        for index, row in enumerate(rows)
        for side in (0, 1)
        for name in [row[f"image_{side}"]]
    }
    return [
        {key: cells.get((index, key), value) for key, value in row.items()}
        for index, row in enumerate(rows)
    ]


def as_parquet(root: Path, rows: list[dict[str, Any]]) -> Path:
    (root / "data").mkdir(parents=True)
    table = pa.Table.from_pylist(_filled(rows))
    pq.write_table(table, root / "data" / "test-00000-of-00001.parquet")
    return root


def as_saved(root: Path, rows: list[dict[str, Any]]) -> Path:
    table = datasets.Dataset.from_list(_filled(rows))
    for column in ("image_0", "image_1"):
        table = table.cast_column(column, datasets.Image())
    datasets.DatasetDict({"test": table}).save_to_disk(root)
    return root


def as_folder(root: Path, rows: list[dict[str, Any]]) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write(root / "data" / "examples.jsonl", lines)
    for name, data in winoground_images(rows).items():
        write(root / "data" / "images" / f"{name}.png", data)
    return root


def as_zip(root: Path, rows: list[dict[str, Any]]) -> Path:
    write(root / "examples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for name, data in winoground_images(rows).items():
            archive.writestr(f"images/{name}.png", data)
    return root


def contents(found: CaseSet) -> dict[str, bytes]:
    return {sample.id: sample.image.read() for sample in samples(found.images) if sample.image}


Layout = Callable[[Path, list[dict[str, Any]]], Path]


@pytest.mark.parametrize("layout", [as_parquet, as_saved, as_folder, as_zip])
def test_every_published_layout_gives_the_same_examples(layout: Layout, tmp_path: Path) -> None:
    root = layout(tmp_path / "winoground", ROWS)
    found = read_winoground(root)
    assert [case.id for case in found.cases] == ["0", "1"]
    assert found.cases[1].captions == ("green on white", "black on white")
    assert found.cases[0].groups == {
        "tag": "Noun", "collapsed_tag": "Object", "num_main_preds": "1",
    }  # fmt: skip
    assert found.cases[1].groups["secondary_tag"] == "Series"
    assert contents(found) == {
        f"{index}/{side}": winoground_images(ROWS)[f"ex_{index}_img_{side}"]
        for index in (0, 1)
        for side in (0, 1)
    }
    assert is_fixed(found.images, lambda: read_winoground(root).images)


@pytest.mark.parametrize("layout", [as_parquet, as_saved, as_folder, as_zip])
def test_the_fingerprint_changes_with_an_image(layout: Layout, tmp_path: Path) -> None:
    first = read_winoground(layout(tmp_path / "a", ROWS)).images.fingerprint
    changed = [winoground_row(0, "red", "yellow"), ROWS[1]]
    assert read_winoground(layout(tmp_path / "b", changed)).images.fingerprint != first


def test_the_hub_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = datasets.load_from_disk(str(as_saved(tmp_path / "saved", ROWS)))
    asked: list[Any] = []

    def load(name: str, **options: Any) -> Any:
        asked.append((name, options["split"]))
        return saved if options["split"] is None else saved[options["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(read_winoground("facebook/winoground").cases) == 2
    assert len(read_winoground("facebook/winoground", split="test").cases) == 2
    assert asked == [("facebook/winoground", None), ("facebook/winoground", "test")]


def test_without_access_it_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **_: Any) -> Any:
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' is a gated dataset")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"gated dataset.*datasets/facebook/winoground and run `hf auth login`"
    ):
        read_winoground("facebook/winoground")


def test_a_single_file_of_either_kind(tmp_path: Path) -> None:
    parquet = as_parquet(tmp_path / "a", ROWS) / "data" / "test-00000-of-00001.parquet"
    lines = as_folder(tmp_path / "b", ROWS) / "data" / "examples.jsonl"
    assert contents(read_winoground(parquet)) == contents(read_winoground(lines))


def test_images_elsewhere_and_images_that_are_missing(tmp_path: Path) -> None:
    root = as_folder(tmp_path / "w", ROWS)
    (root / "data" / "images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match=r"not one of the 4 images .*--images"):
        read_winoground(root)
    (tmp_path / "pictures" / "ex_1_img_0.png").unlink()
    found = read_winoground(root, images=tmp_path / "pictures")
    assert len(found.cases) == 2
    assert [(skip.id, "ex_1_img_0.png" in skip.reason) for skip in skips(found.images)] == [
        ("1/0", True)
    ]


def test_rows_that_cannot_be_used_are_recorded_and_the_others_keep_their_images(
    tmp_path: Path,
) -> None:
    rows = [
        winoground_row(0, "red", "blue", caption_0=" "),
        winoground_row(1, "green", "black"),
        winoground_row(1, "white", "yellow", image_0="again_0", image_1="again_1"),
        winoground_row(3, "yellow", "white"),
    ]
    for layout in (as_parquet, as_folder):
        found = read_winoground(layout(tmp_path / layout.__name__, rows))
        assert [case.id for case in found.cases] == ["1", "3"]
        assert [(skip.id, skip.reason) for skip in found.skips] == [
            ("0", "a caption is missing"), ("1", "the id was already used"),
        ]  # fmt: skip
        shown = winoground_images(rows)
        assert contents(found) == {
            f"{index}/{side}": shown[f"ex_{index}_img_{side}"]
            for index in (1, 3)
            for side in (0, 1)
        }


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "caption_1"} for row in ROWS]
    write(tmp_path / "examples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no column 'caption_1'; its columns are id, image_0"):
        read_winoground(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "no/such/folder"])
def test_nothing_there_says_where_to_get_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"there is no .*huggingface.co/datasets/facebook"):
        read_winoground(tmp_path / name)


def test_an_empty_folder_an_empty_table_and_an_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no file that ends in"):
        read_winoground(tmp_path)
    write(tmp_path / "examples.jsonl", "\n")
    with pytest.raises(DataError, match="no column 'image_0'"):
        read_winoground(tmp_path)
    root = as_parquet(tmp_path / "w", ROWS)
    with pytest.raises(DataError, match="has no file of split 'train'"):
        read_winoground(root, split="train")
    assert len(read_winoground(root, split="test").cases) == 2
    with pytest.raises(UsageError, match="no split 'train'"):
        read_winoground(as_saved(tmp_path / "s", ROWS), split="train")


def test_a_damaged_zip_stops(tmp_path: Path) -> None:
    root = as_zip(tmp_path / "w", ROWS)
    (root / "images.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot be read as zip"):
        read_winoground(root)


@pytest.mark.parametrize("where", ["", "data/examples.jsonl"])
def test_files_have_no_splits(tmp_path: Path, where: str) -> None:
    root = as_folder(tmp_path, ROWS)
    with pytest.raises(UsageError, match=r"has no splits, so no 'train'\. Leave"):
        read_winoground(root / where, split="train")
