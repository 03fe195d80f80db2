"""Several processes make the store that one makes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import toys

import lateen
from lateen.errors import LateenError, UsageError
from lateen.features.shares import Share

ENCODE = sys.modules["lateen.features.encode"]  # the package has the function by that name


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize(("total", "of"), [(10, 3), (9, 3), (1, 2), (0, 2), (25, 4)])
def test_shares_are_whole_shards_and_together_all_items(total: int, of: int) -> None:
    shares = [Share(index, of).items(total, 4) for index in range(of)]
    assert [item for share in shares for item in share] == list(range(total))
    assert all(share.start % 4 == 0 for share in shares if share)


@pytest.mark.parametrize(
    ("source", "encoder"), [("images", "toys:colour_encoder"), ("train.jsonl", "toys:word_encoder")]
)
def test_the_bytes_are_those_of_one_process(album: Path, source: str, encoder: str) -> None:
    (album / "images" / "broken.png").write_bytes(b"no image")
    one = lateen.encode(album / source, encoder, album / "one", shard_items=4)
    three = lateen.encode(
        album / source, encoder, album / "three", shard_items=4, device="cpu,cpu, cpu"
    )
    assert len(one) > 12
    assert content(one.path) == content(three.path)
    assert not list(album.glob("three.device-*"))


def test_what_is_there_is_not_encoded_again(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"shard_items": 4, "device": "cpu,cpu"}
    lateen.encode(album / "images", "toys:colour_encoder", album / "out", **options)
    before = content(album / "out")
    monkeypatch.setattr(ENCODE, "encode_shares", lambda *_: pytest.fail("again"))
    lateen.encode(album / "images", "toys:colour_encoder", album / "out", **options)
    assert content(album / "out") == before


def test_shards_of_a_killed_process_are_taken_and_the_rest_is_encoded(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process has ended after its first shard; the third has done nothing."""
    one = lateen.encode(album / "images", "toys:colour_encoder", album / "one", shard_items=4)
    left = album / "out.device-0"
    left.mkdir()
    for index in (0, 1, 2):
        name = f"shard-{index:05d}.safetensors"
        (left / name).write_bytes((one.path / name).read_bytes())
    monkeypatch.setattr(ENCODE, "encode_shares", lambda *_: [left, album / "none"])
    lateen.encode(
        album / "images", "toys:colour_encoder", album / "out", shard_items=4, device="cpu,cpu"
    )
    assert content(album / "out") == content(one.path)


def test_what_a_process_cannot_do_is_said(album: Path) -> None:
    with pytest.raises(UsageError, match="there is no device 'cuda:7'"):
        lateen.encode(album / "images", "toys:colour_encoder", album / "o", device="cpu,cuda:7")
    with pytest.raises(UsageError, match="process of its own must open the data"):
        lateen.encode(album / "images", toys.colour_encoder(), album / "o", device="cpu,cpu")
    (album / "only").mkdir()
    (album / "only" / "a.png").write_bytes(b"no image")
    with pytest.raises(LateenError, match="nothing could be encoded"):
        lateen.encode(album / "only", "toys:colour_encoder", album / "o", device="cpu,cpu")
