"""Several stores from one pass are, byte for byte, the stores of one pass each."""

from pathlib import Path

import pytest
import torch
from test_encode import digest

from lateen.data import open_dataset
from lateen.encoders import load_views
from lateen.features import StoreWriter, encode, encode_views, passes

VISION = [("cls", None), ("mean", 1), ("cls+mean", 2)]
TEXT = [("mean", None), ("first", 1)]


def test_images(album: Path, vit_folder: Path) -> None:
    views = load_views(str(vit_folder), "image", VISION)
    data = open_dataset(album / "images")
    (album / "images" / "004.png").write_bytes(b"not a picture")
    outs = [album / f"together-{i}" for i in range(3)]
    stores = encode_views(data, views, outs, shard_items=7, batch_size=3)
    for index, (view, store) in enumerate(zip(views, stores, strict=True)):
        assert len(store) == 23
        encode(data, view, album / f"alone-{index}", shard_items=7, batch_size=3)
        assert digest(store.path) == digest(album / f"alone-{index}")


def test_texts(album: Path, bert_folder: Path) -> None:
    views = load_views(str(bert_folder), "text", TEXT)
    data = open_dataset(album / "train.jsonl")
    outs = [album / "together-0", album / "together-1"]
    for index, store in enumerate(encode_views(data, views, outs, shard_items=7)):
        encode(data, views[index], album / f"alone-{index}", shard_items=7)
        assert digest(store.path) == digest(album / f"alone-{index}")


def test_a_further_view_leaves_finished_stores_as_they_are(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = load_views(str(vit_folder), "image", VISION)
    data = open_dataset(album / "images")
    outs = [album / str(i) for i in range(3)]
    encode_views(data, views[:2], outs[:2])
    asked = []
    real = passes._forward
    monkeypatch.setattr(
        passes, "_forward", lambda items, encoders: asked.append(encoders) or real(items, encoders)
    )
    encode_views(data, views, outs)
    assert asked
    assert all(encoders == [views[2]] for encoders in asked)
    encode_views(data, views, outs)
    assert len(asked) == 2  # two batches of 16 and 8 images, and no more


def test_a_run_killed_between_two_stores_ends_with_the_same_bytes(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = load_views(str(vit_folder), "image", VISION)
    data = open_dataset(album / "images")
    whole = encode_views(data, views, [album / f"whole-{i}" for i in range(3)], shard_items=7)
    outs = [album / f"killed-{i}" for i in range(3)]
    written = []
    real = StoreWriter.write

    def stop_after_four(self: StoreWriter, *arguments: object, part: bool) -> None:
        if len(written) == 4:  # three stores have one shard, the first has two
            raise KeyboardInterrupt
        written.append(self.folder)
        real(self, *arguments, part=part)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "write", stop_after_four)
        with pytest.raises(KeyboardInterrupt):
            encode_views(data, views, outs, shard_items=7)
    assert len(list(outs[0].glob("shard-*"))) == 2
    assert len(list(outs[2].glob("shard-*"))) == 1
    for store, expected in zip(encode_views(data, views, outs, shard_items=7), whole, strict=True):
        assert digest(store.path) == digest(expected.path)


def test_a_row_that_is_not_finite_in_one_view_stays_in_the_others(
    album: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = load_views(str(vit_folder), "image", VISION[:2])
    real = type(views[0]).encode_views

    def spoil(self: object, prepared: object, asked: object) -> list[torch.Tensor]:
        first, second = real(self, prepared, asked)  # type: ignore[arg-type]
        first[1] = torch.nan
        return [first, second]

    monkeypatch.setattr(type(views[0]), "encode_views", spoil)
    data = open_dataset(album / "images")
    first, second = encode_views(data, views, [album / "a", album / "b"], batch_size=24)
    assert [skip["id"] for skip in first.skipped] == ["001.png"]
    assert len(first) == 23
    assert len(second) == 24
