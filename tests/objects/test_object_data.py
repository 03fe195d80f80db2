"""Datasets and stores in an object store are those on a disk, to the byte."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import call
from object_toys import copy_in, put

import lateen
from lateen.data.open import open_dataset
from lateen.errors import DataError, ObjectStoreError, StoreError, UsageError
from lateen.features import EncodeInputs, Share, Store, encode_slice, merge, pair
from lateen.features.shard import shard_name
from lateen.objects import ObjectPath, client

IMAGES, TEXTS = "toys:colour_encoder", "toys:word_encoder"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def shards(album: Path) -> Path:
    """The pictures as two tar shards with captions."""
    folder = album / "shards"
    folder.mkdir()
    pictures = sorted((album / "images").iterdir())
    for number in range(2):
        with tarfile.open(folder / f"{number:03}.tar", "w") as tar:
            for path in pictures[number::2]:
                text = f"a picture called {path.stem}".encode()
                for suffix, data in ((path.suffix, path.read_bytes()), (".txt", text)):
                    info = tarfile.TarInfo(path.stem + suffix)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder


def parquet(album: Path) -> Path:
    """The pictures inside a table."""
    pictures = sorted((album / "images").iterdir())
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in pictures]
    path = album / "inside.parquet"
    captions = [f"a picture called {each.stem}" for each in pictures]
    pq.write_table(pa.table({"image": cells, "caption": captions}), path)
    return path


@pytest.mark.parametrize("encoder", [IMAGES, TEXTS])
@pytest.mark.parametrize("source", ["images", "train.jsonl", "shards/{000..001}.tar", "shards",
                                    "inside.parquet"])  # fmt: skip
def test_a_dataset_gives_the_store_that_it_gives_on_a_disk(
    album: Path, bucket: ObjectPath, source: str, encoder: str
) -> None:
    if source == "images" and encoder == TEXTS:
        return
    shards(album)
    parquet(album)
    there = copy_in(album, bucket / "data")
    one = lateen.encode(album / source, encoder, album / "one", shard_items=4)
    two = lateen.encode(f"{there}/{source}", encoder, f"{bucket}/stores/two", shard_items=4)
    # The manifest has the source's name.
    names = [name for name in content(one.path) if name != "manifest.json"]
    assert {name: content(two.path)[name] for name in names} == {
        name: content(one.path)[name] for name in names
    }
    assert two.manifest.description.key == one.manifest.description.key
    assert two.manifest.shards == one.manifest.shards
    assert str(two.path) == f"{bucket}/stores/two"


def test_images_of_a_table_may_lie_elsewhere_and_one_that_does_not_is_skipped(
    album: Path, bucket: ObjectPath
) -> None:
    there = copy_in(album / "images", bucket / "pictures")
    names = sorted(path.name for path in (album / "images").iterdir())
    table = album / "some.csv"
    table.write_text("image,caption\n" + "".join(f"{n},a b\n" for n in [*names, "gone.png"]))
    store = lateen.encode(table, IMAGES, album / "one", images=str(there))
    assert list(store.ids) == names
    [skip] = store.skipped
    assert (skip["id"], "does not exist" in skip["reason"]) == ("gone.png", True)


def test_a_store_half_uploaded_is_said_to_be_and_finished_with_the_same_bytes(
    album: Path, bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=4)
    real, uploaded = client.upload, []

    def failing(file: Path, key: client.Key) -> None:
        uploaded.append(key)
        if len(uploaded) > 3:
            raise ObjectStoreError("the network is gone", "Run it again.")
        real(file, key)

    monkeypatch.setattr("lateen.objects.path.upload", failing)
    with pytest.raises(ObjectStoreError, match="network is gone"):
        lateen.encode(album / "images", IMAGES, f"{bucket}/store", shard_items=4)
    monkeypatch.setattr("lateen.objects.path.upload", real)
    assert (bucket / "store").files() == ["plan.json", shard_name(0), shard_name(1)]
    with pytest.raises(StoreError, match=r"s3://.*/store is not finished.*same encode command"):
        Store.open(bucket / "store")
    before = (bucket / "store" / shard_name(1)).stat().st_mtime_ns
    two = lateen.encode(album / "images", IMAGES, f"{bucket}/store", shard_items=4)
    assert content(two.path) == content(one.path)
    assert (bucket / "store" / shard_name(1)).stat().st_mtime_ns == before


def test_a_shard_that_is_cut_or_gone_is_named(album: Path, bucket: ObjectPath) -> None:
    store = lateen.encode(album / "images", IMAGES, f"{bucket}/store", shard_items=4)
    shard = store.path / shard_name(1)
    whole = shard.read_bytes()
    put(shard, whole[:-5])
    with pytest.raises(StoreError, match=r"s3://.*shard-00001.safetensors is truncated"):
        Store.open(store.path)
    put(shard, whole[:-5] + bytes(5))
    Store.open(store.path)
    with pytest.raises(StoreError, match=r"shard-00001.safetensors has changed since"):
        Store.open(store.path, verify=True)
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00001.safetensors is missing"):
        Store.open(store.path)


def test_keys_that_are_listed_late_are_found_by_their_names(
    album: Path, bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    lateen.encode(album / "train.jsonl", TEXTS, f"{bucket}/store", shard_items=4)
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=8)
    inputs = EncodeInputs(album / "images", IMAGES)
    with monkeypatch.context() as patch:
        patch.setattr("lateen.objects.path.listed", lambda *_, **__: [])
        two = lateen.encode(
            album / "images", IMAGES, f"{bucket}/store", shard_items=8, overwrite=True
        )
        assert two.manifest == one.manifest
        for index in range(2):
            encode_slice(inputs, bucket / f"p{index}", Share(index, 2), shard_items=4)
        merged = merge([bucket / "p0", bucket / "p1"], bucket / "merged")
    # Nothing is left of what was there before.
    assert (bucket / "store").files() == sorted(content(one.path))
    assert len(merged) == len(one)


def test_an_object_store_that_goes_away_is_no_reason_to_skip_an_image(
    album: Path, bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = copy_in(album / "images", bucket / "pictures")
    dataset = open_dataset(str(there))
    _ = dataset.fingerprint

    def gone(*_: object) -> bytes:
        raise ObjectStoreError("the store is gone", "Run it again.")

    with monkeypatch.context() as patch:
        patch.setattr("lateen.objects.ranges.fetch", gone)
        with pytest.raises(ObjectStoreError, match="the store is gone"):
            lateen.encode(dataset, IMAGES, album / "one")
    assert lateen.encode(dataset, IMAGES, album / "one").skipped == []


@pytest.mark.parametrize("limit", ["0", "20kB", "1GB"])
def test_training_reads_what_it_reads_of_a_disk(
    album: Path, bucket: ObjectPath, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATEEN_OBJECT_CACHE", limit)
    monkeypatch.setattr("lateen.objects.client._SETTLED_NS", 0)
    monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 0)
    models = []
    for place in (str(album), str(bucket)):
        images = lateen.encode(album / "images", IMAGES, f"{place}/i", shard_items=4)
        texts = lateen.encode(album / "train.jsonl", TEXTS, f"{place}/t", shard_items=8)
        rows = np.random.default_rng(0).permutation(len(images))
        assert images.read(rows).tobytes() == images.read(slice(None))[rows].tobytes()
        out = album / f"m{len(models)}"
        lateen.train(pair(images, texts), epochs=2, batch=8, out=out)
        models.append((out / "checkpoint.safetensors").read_bytes())
    assert models[0] == models[1]


def test_commands_take_addresses_where_they_take_folders(
    album: Path, bucket: ObjectPath, capsys: pytest.CaptureFixture[str]
) -> None:
    there = copy_in(album, bucket / "data")
    store = f"{bucket}/stores/images"
    code, _, _ = call(capsys, "encode", f"{there}/images", "--encoder", IMAGES, "--out", store)
    assert code == 0
    _, out, _ = call(capsys, "inspect", store, "--json")
    assert json.loads(out)["path"] == store
    code, _, error = call(capsys, "encode", f"{there}/no", "--encoder", IMAGES, "--out", store)
    assert code != 0
    assert f"there is no {there}/no" in error
    code, _, error = call(capsys, "encode", f"{there}/images", "--encoder", IMAGES,
                          "--out", "s3://none/x")  # fmt: skip
    assert code != 0
    assert "there is no bucket s3://none" in error


def test_what_is_no_feature_store_is_not_written_beside_one_on_this_disk(
    album: Path, bucket: ObjectPath, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(album)
    lateen.encode(album / "images", IMAGES, album / "i")
    lateen.encode(album / "train.jsonl", TEXTS, album / "t")
    code, _, error = call(capsys, "train", "--images", "i", "--texts", "t", "--out", f"{bucket}/m")
    assert code != 0
    assert "only feature stores are written" in error
    with pytest.raises(UsageError, match="only feature stores are written"):
        lateen.train(pair("i", "t"), out=f"{bucket}/m", epochs=1)
    assert not (album / "s3:").exists()


def test_a_store_that_another_process_wrote_anew_is_read_as_it_is_now(
    album: Path, bucket: ObjectPath
) -> None:
    encode_slice(EncodeInputs(album / "images", IMAGES), bucket / "p", Share(0, 1))
    mark = bucket / "p" / "slice.json"
    assert [path.name for path in (bucket / "p").iterdir()]  # which looks at all that is there
    text = mark.read_text()
    key = mark.key  # as another process writes, of which this one is told nothing
    with client.file_system(key).open_output_stream(key.within) as stream:
        stream.write((text + " " * 50).encode())
    assert mark.read_text() == text + " " * 50
    client.file_system(key).delete_file(key.within)
    assert not mark.is_file()


def test_a_damaged_store_is_made_anew_and_a_store_goes_to_another_process(
    album: Path, bucket: ObjectPath
) -> None:
    for place in (album, bucket):
        store = lateen.encode(album / "images", IMAGES, place / "store", shard_items=4)
        shard = store.path / shard_name(1)
        whole = shard.read_bytes()
        if isinstance(shard, ObjectPath):
            put(shard, bytes(len(whole)))
        else:
            shard.write_bytes(bytes(len(whole)))
        again = lateen.encode(album / "images", IMAGES, place / "store", shard_items=4)
        assert shard.read_bytes() == whole
        assert pickle.loads(pickle.dumps(again))[[5]].equal(again[[5]])


def test_what_datasets_saved_is_said_to_need_a_disk(bucket: ObjectPath) -> None:
    put(bucket / "saved" / "dataset_info.json", b"{}")
    with pytest.raises(DataError, match=r"saved by datasets.*Copy the folder"):
        open_dataset(str(bucket / "saved"))
