"""Embeddings in files: of what, in which order, and read again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import call, saved_model
from toys import photo

from lateen import embed, import_features
from lateen.errors import DataError, UsageError
from lateen.model import open_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, colour in enumerate(("red", "green", "blue")):
        photo(tmp_path / "photos" / "in" / f"{colour}.png", colour, seed=index)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_rows_are_those_of_the_model(
    name: str, raw: bool, photos: Path, request: pytest.FixtureRequest
) -> None:
    model = open_model(request.getfixturevalue(name))
    images = embed(model, images=photos, raw=raw)
    assert images.ids == ["in/blue.png", "in/green.png", "in/red.png"]
    assert [skip["id"] for skip in images.skipped] == ["bad.png"]
    expected = model.encode_image([photos / i for i in images.ids], normalize=not raw)
    np.testing.assert_allclose(images.values, expected, atol=5e-3)
    texts = embed(model, texts=["a dog", "the cat"], raw=raw)
    assert (texts.ids, texts.texts) == (["1", "2"], ["a dog", "the cat"])
    expected = model.encode_text(["a dog", "the cat"], normalize=not raw)
    np.testing.assert_allclose(texts.values, expected, atol=5e-3)
    unit = np.linalg.norm(images.values, axis=1)
    assert np.allclose(unit, 1, atol=1e-5) is not raw


def test_npy_and_parquet_are_read_by_import(model: Path, photos: Path, tmp_path: Path) -> None:
    made = embed(model, images=photos)
    assert made.save(tmp_path / "e.npy") == [tmp_path / "e.npy", tmp_path / "e.ids.txt"]
    made.save(tmp_path / "e.parquet")
    assert np.load(tmp_path / "e.npy").dtype == np.float32
    for file, ids in (("e.npy", tmp_path / "e.ids.txt"), ("e.parquet", None)):
        store = import_features(
            tmp_path / file, tmp_path / f"store-{file}", ids=ids, modality="image",
            encoder="mine", dtype="float32",
        )  # fmt: skip
        assert list(store.ids) == made.ids
        np.testing.assert_array_equal(store[:].numpy(), made.values)
    embed(model, texts=["a red one", "blue"]).save(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column_names == ["id", "embedding", "text"]
    assert table["text"].to_pylist() == ["a red one", "blue"]


def test_texts_come_from_lines_json_and_tables(model: Path, album: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("red\n\nblue\n")
    (tmp_path / "t.json").write_text('["red", "blue"]')
    lines, listed = (embed(model, texts=tmp_path / name) for name in ("t.txt", "t.json"))
    assert lines.ids == ["1", "3"] and listed.ids == ["1", "2"]
    np.testing.assert_array_equal(lines.values, listed.values)
    for image in (album / "images").iterdir():
        image.unlink()  # captions need no images
    captions = embed(model, texts=album / "train.jsonl")
    assert len(captions.ids) == 48 and captions.ids[:2] == ["000.png", "000.png"]
    assert captions.texts is not None and len(captions.texts) == 48
    lines = (album / "train.jsonl").read_text().splitlines()
    by_id = {json.loads(line)["image"]: line for line in lines}
    assert all(text in by_id[name] for name, text in zip(captions.ids, captions.texts, strict=True))
    assert np.array_equal(
        embed(model, texts=album / "train.jsonl", column="caption").values, captions.values
    )


def test_images_of_a_table(model: Path, album: Path) -> None:
    table, folder = (
        embed(model, images=album / "train.jsonl"),
        embed(model, images=album / "images"),
    )
    assert table.ids == folder.ids
    np.testing.assert_allclose(table.values, folder.values, atol=1e-3)


def test_the_command_tells_what_it_wrote(
    model: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["embed", model, "--images", photos, "--out", tmp_path / "e.npy"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert "3 embeddings of 6 values, unit length" in out
    assert "e.ids.txt" in out and "1 left out, the first: bad.png" in out
    code, _, err = call(capsys, *words)
    assert (code, "e.npy exists" in err) == (2, True)
    (tmp_path / "e.npy").unlink()
    code, _, err = call(capsys, *words)
    assert (code, "e.ids.txt exists" in err) == (2, True)
    code, out, _ = call(capsys, *words, "--overwrite", "--raw", "--json")
    shown = json.loads(out)
    assert (shown["rows"], shown["dim"], shown["unit_length"]) == (3, 6, False)
    assert [skip["id"] for skip in shown["skipped"]] == ["bad.png"]


def test_wrong_input_is_refused(model: Path, photos: Path, tmp_path: Path) -> None:
    for options in ({}, {"images": photos, "texts": ["a"]}):
        with pytest.raises(UsageError, match="Give one of --images and --texts"):
            embed(model, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--column is of captions"):
        embed(model, images=photos, column="caption")
    with pytest.raises(UsageError, match="no column"):
        embed(model, texts=["a"], column="caption")
    with pytest.raises(DataError, match="no texts"):
        embed(model, texts=[" "])
    with pytest.raises(DataError, match="cannot read"):
        embed(model, texts=tmp_path / "none.txt")
    made = embed(model, texts=["red"])
    with pytest.raises(UsageError, match=r"none of \.parquet, \.npy"):
        made.save(tmp_path / "e.npz")
    made.ids[0] = "two\nlines"
    with pytest.raises(UsageError, match="line break"):
        made.save(tmp_path / "e.npy")
    assert not (tmp_path / "e.npy").exists()
    assert isinstance(torch.from_numpy(made.values), torch.Tensor)
