"""Files of embeddings: each is read again by the tool that it is for, and an index is a source."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import call, saved_model
from PIL import Image
from safetensors.numpy import load_file
from toys import photo

import lateen
from lateen import embed, import_features
from lateen.errors import MissingExtraError, UsageError
from lateen.indexing.vector_files import FORMATS

Capture = pytest.CaptureFixture[str]
IDS = ["in/blue.png", "in/green.png", "red.png"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(("in/blue", "in/green", "red")):
        colour = name.rpartition("/")[2]
        photo(tmp_path / "photos" / f"{name}.png", colour, seed=index)
    return tmp_path / "photos"


@pytest.fixture
def table(photos: Path) -> Path:
    file = photos / "t.csv"
    rows = [f"{name},a {i} picture,{i},sunny" for i, name in enumerate(IDS)]
    rows.append(f"{IDS[0]},another caption,0,sunny")
    file.write_text("image,caption,number,weather\n" + "\n".join(rows) + "\n")
    return file


def encoded(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(data, "PNG")
    return data.getvalue()


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def by_usearch(file: Path, query: np.ndarray, k: int) -> list[int]:
    needs("usearch")
    from usearch.index import Index

    return [int(key) for key in Index.restore(str(file)).search(query, k).keys]


def by_hnswlib(file: Path, query: np.ndarray, k: int) -> list[int]:
    needs("hnswlib")
    import hnswlib

    index = hnswlib.Index("ip", len(query))
    index.load_index(str(file))
    return [int(key) for key in index.knn_query(query, k)[0][0]]


@pytest.mark.parametrize(("suffix", "ask"), [(".usearch", by_usearch), (".hnswlib", by_hnswlib)])
def test_an_index_finds_what_the_embeddings_find(
    suffix: str, ask: Callable[[Path, np.ndarray, int], list[int]], model: Path, photos: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    needs(suffix[1:])
    made = embed(model, images=photos)
    file, ids = made.save(tmp_path / f"e{suffix}")
    names = ids.read_text().splitlines()
    assert names == IDS
    for row, query in enumerate(made.values):
        best = np.argsort(-(made.values @ query)).tolist()
        assert ask(file, query, 3) == best and names[best[0]] == IDS[row]


def test_safetensors_has_one_tensor_and_import_reads_it(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    made = embed(model, images=photos)
    file, ids = made.save(tmp_path / "e.safetensors")
    assert list(load_file(file)) == ["embeddings"]
    np.testing.assert_array_equal(load_file(file)["embeddings"], made.values)
    store = import_features(
        file, tmp_path / "store", ids=ids, modality="image", encoder="mine", dtype="float32"
    )
    assert list(store.ids) == IDS
    np.testing.assert_array_equal(store[:].numpy(), made.values)


def test_what_is_known_of_images_is_in_parquet(
    model: Path, photos: Path, table: Path, tmp_path: Path
) -> None:
    embed(model, images=photos).save(tmp_path / "folder.parquet")
    rows = pq.read_table(tmp_path / "folder.parquet").to_pylist()
    assert [row["id"] for row in rows] == IDS
    assert [Path(row["path"]) for row in rows] == [photos / name for name in IDS]
    assert [row["folder"] for row in rows] == ["in", "in", ""]
    assert set(rows[0]) == {"id", "embedding", "path", "folder"}  # no column says nothing
    embed(model, images=table).save(tmp_path / "table.parquet")
    rows = pq.read_table(tmp_path / "table.parquet").to_pylist()
    assert rows[0]["captions"] == "a 0 picture\nanother caption"
    assert [(row["number"], row["weather"]) for row in rows] == [(i, "sunny") for i in range(3)]


def test_an_index_is_written_without_a_model(
    model: Path, photos: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"
    lateen.index(table, model=model, out=place)
    plain = embed(model, images=table)
    monkeypatch.setattr("lateen.model.open_model", None)  # calling it would fail
    model.rename(tmp_path / "moved")
    made = embed(place)
    assert made.ids == plain.ids
    np.testing.assert_allclose(made.values, plain.values, atol=1e-6)
    made.save(tmp_path / "e.parquet", thumbnails=16)
    plain.save(tmp_path / "plain.parquet", thumbnails=16)
    of_index, of_table = (
        pq.read_table(tmp_path / name).to_pylist() for name in ("e.parquet", "plain.parquet")
    )
    for row, other in zip(of_index, of_table, strict=True):
        assert {name: row[name] for name in other if name != "embedding"} == {
            name: value for name, value in other.items() if name != "embedding"
        }
        assert row["width"] > 0
    with pytest.raises(UsageError, match="is an index"):
        embed(place, images=photos)


def test_thumbnails_are_small_and_what_is_gone_is_told(
    model: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (100, 60), "blue").save(photos / IDS[0])
    made = embed(model, images=photos)
    (photos / "red.png").unlink()
    made.save(tmp_path / "e.parquet", thumbnails=20)
    blue, _, red = pq.read_table(tmp_path / "e.parquet")["image"].to_pylist()
    assert red is None and "1 of 3 pictures cannot be read" in caplog.text
    assert blue["path"] == IDS[0]
    picture = Image.open(io.BytesIO(blue["bytes"]))
    assert picture.format == "JPEG" and picture.size == (20, 12)


def test_images_in_a_table_have_thumbnails_and_no_path(model: Path, tmp_path: Path) -> None:
    images = [{"bytes": encoded(colour), "path": f"{colour}.png"} for colour in ("red", "blue")]
    table = pa.table({"image": images, "caption": ["warm", "cold"]})
    pq.write_table(table, tmp_path / "photos.parquet")
    lateen.index(tmp_path / "photos.parquet", model=model, out=tmp_path / "index")
    for number, made in enumerate(
        (embed(model, images=tmp_path / "photos.parquet"), embed(tmp_path / "index"))
    ):
        made.save(tmp_path / f"{number}.parquet", thumbnails=16)
        rows = pq.read_table(tmp_path / f"{number}.parquet").to_pylist()
        shown = {row["captions"]: Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows}
        assert not any("path" in row for row in rows)
        for words, channel in (("warm", 0), ("cold", 2)):
            pixel = shown[words].getpixel((8, 8))
            assert isinstance(pixel, tuple) and pixel[channel] > 200 and sum(pixel) < 300


def test_columns_that_embeddings_have_are_left_out_and_told(
    model: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = photos / "t.csv"
    lines = [f"{name},a picture,x{i},7" for i, name in enumerate(IDS)]
    file.write_text("image,caption,embedding,width\n" + "\n".join(lines) + "\n")
    embed(model, images=file).save(tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert len(table["embedding"][0].as_py()) == 6
    assert table["width"].to_pylist() == [7, 7, 7]
    assert "left out, as embeddings have columns of that name: embedding" in caplog.text


def test_the_command_says_what_opens_the_file(
    model: Path, photos: Path, table: Path, tmp_path: Path, capsys: Capture
) -> None:
    place, file = tmp_path / "index", tmp_path / "my photos.parquet"
    assert call(capsys, "index", table, "--model", model, "--out", place)[0] == 0
    code, out, err = call(capsys, "embed", place, "--out", file, "--thumbnails", 16)
    assert (code, err) == (0, "")
    opens = f"embedding-atlas '{file}' --vector embedding --image image --text captions"
    assert f"to open     {opens}\n" in out
    texts = tmp_path / "t.txt"
    texts.write_text("red\nblue\n")
    out = call(capsys, "embed", model, "--texts", texts, "--out", tmp_path / "t.parquet")[1]
    assert out.endswith("t.parquet --vector embedding --text text\n")
    out = call(capsys, "embed", place, "--out", tmp_path / "e.safetensors", "--json")[1]
    shown = json.loads(out)
    assert len(shown["files"]) == 2 and shown["open"].startswith("safetensors.numpy.load_file(")


def test_wrong_words_are_refused_before_anything_is_written(
    model: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    lateen.index(photos, model=model, out=tmp_path / "index")
    place, out = tmp_path / "index", tmp_path / "o"
    source = ("--images", photos)
    for words, message in [
        ((place, *source, "--out", out / "e.npy"), "is an index"),
        ((place, "--raw", "--out", out / "e.npy"), "is an index"),
        ((place, "--vision.encoder", "x", "--out", out / "e.npy"), "needs no encoder"),
        ((model, *source, "--out", out / "e.npz"), "ends in none of .parquet, .npy"),
        ((model, *source, "--out", out / "e.npy", "--thumbnails", 64), "holds numbers alone"),
        ((model, *source, "--out", out / "e.parquet", "--thumbnails", 1), "Give 16 to"),
        ((model, "--texts", model / "config.json", "--out", out / "e.parquet", "--thumbnails", 64),
         "no pictures of texts"),
    ]:  # fmt: skip
        code, shown, err = call(capsys, "embed", *words)
        assert (code, shown) == (2, "") and message in err, words
    assert not out.exists()
    with pytest.raises(UsageError, match="no pictures of these"):
        embed(model, texts=["red"]).save(out / "e.parquet", thumbnails=64)
    assert not [*tmp_path.rglob("e.*")]


@pytest.mark.parametrize("suffix", [s for s, each in FORMATS.items() if each.package])
def test_a_missing_package_is_told_with_how_to_get_it(
    suffix: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "lateen.indexing.vector_files.importlib.util.find_spec",
        lambda name: None if name == suffix[1:] else found(name),
    )
    with pytest.raises(MissingExtraError, match=f"pip install {suffix[1:]}"):
        embed(model, texts=["red"]).save(tmp_path / f"e{suffix}")
    assert not (tmp_path / f"e{suffix}").exists() and not (tmp_path / "e.ids.txt").exists()


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, ids = embed(model, texts=["red"]).save(tmp_path / "e.npy")
    before = file.read_bytes(), ids.read_text()

    def fails(*_: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(np, "save", fails)
    with pytest.raises(RuntimeError, match="no more"):
        embed(model, texts=["red", "blue"]).save(file)
    assert (file.read_bytes(), ids.read_text()) == before
