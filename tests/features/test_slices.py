"""Slices that are encoded apart and merged are the store of one process."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import toys
from commands import call

import lateen
from lateen.errors import BusyError, StoreError
from lateen.features import EncodeInputs, Share, Store, encode_slice, merge
from lateen.files import folder_lock

IMAGES = "toys:colour_encoder"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def slices(album: Path, of: int, source: str = "images", encoder: str = IMAGES) -> list[Path]:
    folders = [album / f"part-{index}" for index in range(of)]
    for index, folder in enumerate(folders):
        encode_slice(EncodeInputs(album / source, encoder), folder, Share(index, of), shard_items=4)
    return folders


@pytest.mark.parametrize("of", [1, 3, 9])
@pytest.mark.parametrize(
    ("source", "encoder"), [("images", IMAGES), ("train.jsonl", "toys:word_encoder")]
)
def test_the_bytes_are_those_of_one_process(
    album: Path, of: int, source: str, encoder: str
) -> None:
    (album / "images" / "broken.png").write_bytes(b"no image")
    one = lateen.encode(album / source, encoder, album / "one", shard_items=4)
    parts = slices(album, of, source, encoder)
    before = [content(part) for part in parts]
    merged = merge(parts[::-1], album / "merged")
    assert content(merged.path) == content(one.path)
    assert [content(part) for part in parts] == before
    assert Store.open(merged.path, verify=True).manifest == one.manifest
    # Asked for again, it is there.
    assert content(merge(parts, album / "merged").path) == content(one.path)
    again = lateen.encode(album / source, encoder, album / "merged", shard_items=4)
    assert content(again.path) == content(one.path)


def test_a_slice_for_which_no_shard_is_left_encodes_nothing(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=20)
    with monkeypatch.context() as patch:
        patch.setattr(toys.ColourEncoder, "encode", lambda *_: pytest.fail("encoded"))
        third = album / "third"
        inputs = EncodeInputs(album / "images", IMAGES)
        encode_slice(inputs, third, Share(2, 3), shard_items=20)
    assert not list(third.glob("shard-*"))
    for index in range(2):
        encode_slice(inputs, album / f"of-3-{index}", Share(index, 3), shard_items=20)
    merged = merge([third, album / "of-3-0", album / "of-3-1"], album / "merged")
    assert content(merged.path) == content(one.path)


def test_a_slice_that_is_there_is_not_encoded_again(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [_, second] = slices(album, 2)
    before = {path: path.stat().st_mtime_ns for path in second.glob("shard-*")}
    encode_slice(EncodeInputs(album / "images", IMAGES), second, Share(1, 2), shard_items=4)
    assert {path: path.stat().st_mtime_ns for path in second.glob("shard-*")} == before


def test_a_killed_slice_is_said_not_to_be_whole_and_goes_on(album: Path) -> None:
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=4)
    parts = slices(album, 2)
    # As a kill leaves it: the last shard and the mark are not written yet.
    sorted(parts[1].glob("shard-*"))[-1].unlink()
    mark = json.loads((parts[1] / "slice.json").read_text())
    (parts[1] / "slice.json").write_text(json.dumps({**mark, "done": False}))
    with pytest.raises(StoreError, match=r"slice 2/2 in .*part-1 is not whole.*--slice 2/2"):
        merge(parts, album / "merged")
    assert not (album / "merged").exists()
    encode_slice(EncodeInputs(album / "images", IMAGES), parts[1], Share(1, 2), shard_items=4)
    assert content(merge(parts, album / "merged").path) == content(one.path)


def test_a_shard_that_is_lost_or_damaged_on_the_way_is_named(album: Path) -> None:
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=4)
    parts = slices(album, 2)
    shard = sorted(parts[0].glob("shard-*"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(StoreError, match=r"slice 1/2 in .* lacks shard-00001.*or it is damaged"):
        merge(parts, album / "merged")
    with pytest.raises(StoreError, match="is not finished"):
        Store.open(album / "merged")
    shard.write_bytes(whole)
    assert content(merge(parts, album / "merged").path) == content(one.path)


def test_what_are_not_all_slices_of_one_store(album: Path) -> None:
    parts = slices(album, 3)
    with pytest.raises(StoreError, match=r"1 of 3 slices are missing: 2/3"):
        merge([parts[0], parts[2]], album / "merged")
    with pytest.raises(StoreError, match="does not exist"):
        merge([*parts, album / "none"], album / "merged")
    with pytest.raises(StoreError, match=r"holds one slice of a store.*lateen merge"):
        Store.open(parts[0])
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=4)
    with pytest.raises(StoreError, match="is a whole store"):
        merge([*parts[:2], one.path], album / "merged")
    twin = album / "twin"
    encode_slice(EncodeInputs(album / "images", IMAGES), twin, Share(1, 3), shard_items=4)
    with pytest.raises(StoreError, match="part-1 and twin are both slice 2/3"):
        merge([*parts, twin], album / "merged")
    assert len(merge([*parts, parts[0]], album / "merged")) == len(one)  # one folder, given twice
    # The data changed between two slices.
    first = next((album / "images").rglob("*.png"))
    first.unlink()
    other = album / "other"
    encode_slice(EncodeInputs(album / "images", IMAGES), other, Share(1, 3), shard_items=4)
    with pytest.raises(StoreError, match=r"other is of another store than .*\(fingerprint:"):
        merge([parts[0], other, parts[2]], album / "mixed")
    assert not (album / "mixed").exists()


def test_a_folder_keeps_what_it_holds(album: Path) -> None:
    [first, _] = slices(album, 2)
    inputs = EncodeInputs(album / "images", IMAGES)
    with pytest.raises(StoreError, match="holds slice 1/2, not 2/2"):
        encode_slice(inputs, first, Share(1, 2), shard_items=4)
    with pytest.raises(StoreError, match="holds one slice of a store"):
        lateen.encode(album / "images", IMAGES, first, shard_items=4)
    with pytest.raises(StoreError, match="made differently"):
        encode_slice(inputs, first, Share(0, 2), shard_items=8)
    (album / "notes").mkdir()
    (album / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"holds mine\.txt"):
        encode_slice(inputs, album / "notes", Share(0, 2), shard_items=4)
    one = lateen.encode(album / "images", IMAGES, album / "one", shard_items=4)
    with pytest.raises(StoreError, match="not empty and not a slice"):
        encode_slice(inputs, one.path, Share(0, 2), shard_items=4)
    encode_slice(inputs, first, Share(1, 2), shard_items=4, overwrite=True)
    assert json.loads((first / "slice.json").read_text()) == {"index": 1, "of": 2, "done": True}


def test_the_same_slice_twice_at_once(album: Path) -> None:
    inputs = EncodeInputs(album / "images", IMAGES)
    encode_slice(inputs, album / "part", Share(0, 2), shard_items=4)
    held, seen = threading.Event(), threading.Event()

    def hold() -> None:
        with folder_lock(album / "part"):
            held.set()
            seen.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    (album / "part" / "shard-00000.safetensors").unlink()
    try:
        with pytest.raises(BusyError):
            encode_slice(inputs, album / "part", Share(0, 2), shard_items=4)
    finally:
        seen.set()
        thread.join()


def test_the_commands(
    album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(album)
    encode = ("encode", "images", "--encoder", IMAGES, "--shard-items", "4")
    for index in (1, 2):
        code, out, _ = call(capsys, *encode, "--slice", f"{index}/2", "--out", f"p{index}")
        assert code == 0 and f"slice   {index}/2 in p{index}" in out and "lateen merge" in out
    assert call(capsys, "merge", "p1", "p2", "--out", "merged")[0] == 0
    assert call(capsys, *encode, "--out", "one")[0] == 0
    assert content(album / "merged") == content(album / "one")
    for wrong, said in [("0/2", "there is no slice 0/2"), ("3/2", "there is no slice 3/2"),
                        ("two", "--slice is 'two'")]:  # fmt: skip
        code, _, error = call(capsys, *encode, "--slice", wrong, "--out", "p3")
        assert code == 2 and said in error
    code, _, error = call(capsys, "merge", "--out", "merged")
    assert code == 2 and "no slices to merge" in error
