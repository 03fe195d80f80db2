"""A caption column: nothing is asked twice or lost, and the file is the same however it came."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from served_toys import ChatServer, serving
from toys import COLOURS, album, photo

import lateen
from lateen.data import open_dataset
from lateen.encoders import openai_server
from lateen.errors import BusyError, DataError, ModelError, UsageError
from lateen.files import folder_lock
from lateen.mllm import plan_captions
from lateen.mllm.captioner import Asked, picture_of
from lateen.mllm.captioning import COLUMN

pytest.importorskip("openai", reason="openai, the client, is not installed")


def colour(picture: Image.Image) -> str:
    """The name of what a picture has most of."""
    mean = picture.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(mean, tuple)
    return min(
        COLOURS, key=lambda n: sum((a - b) ** 2 for a, b in zip(COLOURS[n], mean, strict=True))
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(openai_server, "_RETRIES", 1)
    with serving(kind=ChatServer) as made:
        made.says = lambda picture: f"It is all {colour(picture)}."
        yield made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty-four pictures."""
    return album(tmp_path / "album") / "images"


def captioned(server: ChatServer, photos: Path, out: Path, **options: Any) -> dict[str, Any]:
    return lateen.caption(photos, server.name(), out, **options)


def rows(out: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(out).to_pylist())


def test_every_image_has_a_row_by_its_id_in_order(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    # Those that come first take longest.
    server.wait = lambda picture: 0.02 if colour(picture) == "red" else 0.0
    out = tmp_path / "made" / "vlm.parquet"
    summary = captioned(server, photos, out)
    expected = [f"It is all {list(COLOURS)[i % 6]}." for i in range(24)]
    assert [row["id"] for row in rows(out)] == [f"{i:03d}.png" for i in range(24)]
    assert [row[COLUMN] for row in rows(out)] == expected
    assert {(row["finish"], row["model"]) for row in rows(out)} == {("stop", "toy-1")}
    assert (summary["images"], summary["captions"], summary["asked"]) == (24, 24, 24)
    assert summary["tokens"] == {"prompt": 2400, "answer": 24 * 7}
    assert [path.name for path in out.parent.iterdir()] == ["vlm.parquet"]


def test_what_is_done_is_not_asked_again(server: ChatServer, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "vlm.parquet"
    captioned(server, photos, out)
    whole = out.read_bytes()
    server.requests.clear()
    summary = captioned(server, photos, out)
    assert (server.requests, summary["asked"], summary["before"]) == ([], 0, 24)
    assert out.read_bytes() == whole
    # Also under another address, as a server gets another port.
    with serving(kind=ChatServer) as other:
        assert captioned(other, photos, out)["asked"] == 0


@pytest.mark.parametrize("at_once", [1, 8])
def test_one_that_was_stopped_asks_for_what_is_missing_alone(
    server: ChatServer, photos: Path, tmp_path: Path, at_once: int
) -> None:
    whole = tmp_path / "whole.parquet"
    captioned(server, photos, whole)
    out = tmp_path / "vlm.parquet"
    server.requests.clear()
    server.fault = lambda picture: "500" if len(server.requests) > 10 else None
    with pytest.raises(ModelError, match="fails, also when asked again"):
        captioned(server, photos, out, at_once=at_once)
    assert not out.exists()
    server.fault = lambda picture: None
    server.requests.clear()
    summary = captioned(server, photos, out)
    assert summary["before"] == 10
    assert len(server.requests) == summary["asked"] == 14
    assert out.read_bytes() == whole.read_bytes()
    assert not out.with_name("vlm.parquet.parts").exists()


def test_a_line_that_was_cut_by_a_kill_is_asked_again(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vlm.parquet"
    server.fault = lambda picture: "500" if len(server.requests) > 10 else None
    with pytest.raises(ModelError):
        captioned(server, photos, out, at_once=1)
    answers = tmp_path / "vlm.parquet.parts" / "answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-9])
    server.fault = lambda picture: None
    assert captioned(server, photos, out)["asked"] == 15


def test_new_images_alone_are_asked_about(server: ChatServer, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "vlm.parquet"
    captioned(server, photos, out)
    photo(photos / "000a.png", "blue", seed=99)
    (photos / "001.png").rename(photos / "renamed.png")
    shutil.copy(photos / "002.png", photos / "copy.png")
    photo(photos / "003.png", "black", seed=98)  # another image under the same id
    with pytest.raises(UsageError, match=r"captions of 1 images that .* lacks .*'001.png'"):
        captioned(server, photos, out)
    summary = captioned(server, photos, out, overwrite=True)
    assert summary["asked"] == 2
    found = {row["id"]: row[COLUMN] for row in rows(out)}
    assert len(found) == 26
    assert (found["000a.png"], found["003.png"]) == ("It is all blue.", "It is all black.")
    assert (found["renamed.png"], found["copy.png"]) == ("It is all green.", "It is all blue.")


def test_two_copies_are_asked_about_once(server: ChatServer, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / "photos" / name, "red")
    # Also where the first has its answer when the next comes.
    for name, at_once in (("a.parquet", 1), ("b.parquet", 8)):
        server.requests.clear()
        summary = captioned(server, tmp_path / "photos", tmp_path / name, at_once=at_once)
        assert (len(server.requests), summary["asked"], summary["before"]) == (1, 1, 0)
        assert summary["captions"] == 3


@pytest.mark.parametrize(
    ("other", "told"),
    [({"prompt": "Why?"}, "prompt"), ({"max_side": 64}, "max_side 1024, not 64"),
     ({"system": "Be brief."}, "system None, not Be brief."), ({"seed": 1}, "seed")],
)  # fmt: skip
def test_captions_that_are_asked_for_otherwise_are_not_mixed(
    server: ChatServer, photos: Path, tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    out = tmp_path / "vlm.parquet"
    captioned(server, photos, out)
    with pytest.raises(UsageError, match=rf"was made otherwise \({told}.*--overwrite"):
        captioned(server, photos, out, **other)
    assert captioned(server, photos, out, overwrite=True, **other)["asked"] == 24
    assert captioned(server, photos, out, **other)["asked"] == 0


def test_neither_are_those_of_a_half_made_file(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vlm.parquet"
    server.fault = lambda picture: "500" if len(server.requests) > 10 else None
    with pytest.raises(ModelError):
        captioned(server, photos, out)
    server.fault = lambda picture: None
    with pytest.raises(DataError, match=r"of another kind \(prompt .*--overwrite"):
        captioned(server, photos, out, prompt="Why?")
    assert captioned(server, photos, out, prompt="Why?", overwrite=True)["asked"] == 24


def test_another_column_is_another_name_of_the_same(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vlm.parquet"
    captioned(server, photos, out)
    assert captioned(server, photos, out, column="long_caption")["asked"] == 0
    assert "long_caption" in rows(out)[0]
    assert COLUMN not in rows(out)[0]


def test_what_has_no_caption_has_a_reason_and_is_asked_again_on_request(
    server: ChatServer, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (photos / "broken.png").write_bytes((photos / "000.png").read_bytes()[:60])
    faults = {"red": "refusal", "green": "400", "blue": "spent"}
    server.fault = lambda picture: faults.get(colour(picture))
    out = tmp_path / "vlm.parquet"
    summary = captioned(server, photos, out)
    assert summary["captions"] == 12
    assert list(summary["skipped"].values()) == [4, 4, 4, 1]
    assert "13 of 25 images have no caption: 4 × " in caplog.text
    finishes = {row["finish"] for row in rows(out) if row[COLUMN] is None}
    assert finishes == {"refused", "empty", "unreadable"}
    assert all(row["reason"] for row in rows(out) if row[COLUMN] is None)
    server.fault = lambda picture: None
    assert captioned(server, photos, out)["asked"] == 0
    assert captioned(server, photos, out, retry_skipped=True)["asked"] == 12
    assert captioned(server, photos, out)["skipped"] == {"the image is truncated": 1}


def test_a_cut_caption_is_kept_and_counted(
    server: ChatServer, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.fault = lambda picture: "length" if colour(picture) == "red" else None
    summary = captioned(server, photos, tmp_path / "vlm.parquet")
    assert (summary["captions"], summary["cut"]) == (24, 4)
    assert "4 captions are cut" in caplog.text
    assert rows(tmp_path / "vlm.parquet")[0]["finish"] == "length"


def test_a_large_image_is_sent_no_larger_than_asked(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, size in (("wide.jpg", (900, 300)), ("high.png", (90, 400)), ("small.png", (30, 20))):
        Image.new("RGB", size, (255, 0, 0)).save(tmp_path / "photos" / name)
    captioned(server, tmp_path / "photos", tmp_path / "vlm.parquet", max_side=100, at_once=1)
    assert [picture.size for picture in server.pictures] == [(22, 100), (30, 20), (100, 33)]


def test_a_file_of_something_else_stays(server: ChatServer, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "vlm.parquet"
    out.write_text("something dear")
    with pytest.raises(UsageError, match="`lateen caption` has not made it"):
        captioned(server, photos, out, overwrite=True)
    assert out.read_text() == "something dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["album", "vlm.parquet"]
    with pytest.raises(UsageError, match=r"does not end in \.parquet"):
        captioned(server, photos, tmp_path / "vlm.csv")
    with pytest.raises(UsageError, match="cannot be called 'image'"):
        captioned(server, photos, tmp_path / "new.parquet", column="image")


def test_what_failed_at_once_leaves_nothing(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="does not caption with 'other'"):
        lateen.caption(photos, server.name("other"), tmp_path / "vlm.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["album"]


def test_two_processes_do_not_ask_for_the_same(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    with folder_lock(tmp_path / "vlm.parquet.parts"), pytest.raises(BusyError):
        captioned(server, photos, tmp_path / "vlm.parquet")


def test_texts_alone_have_nothing_to_caption(server: ChatServer, tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("id,caption\n1,a dog\n")
    with pytest.raises(DataError, match="has no images"):
        captioned(server, tmp_path / "texts.csv", tmp_path / "vlm.parquet")


def test_a_table_is_captioned_under_its_own_ids(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vlm.parquet"
    captioned(server, photos.parent / "train.jsonl", out)
    assert [row["id"] for row in rows(out)] == [f"{i:03d}.png" for i in range(24)]
    made = open_dataset(out)  # read back by nothing but its names
    assert made.columns == (COLUMN,)
    assert [sample.id for sample in made] == [f"{i:03d}.png" for i in range(24)]


def test_images_in_shards_are_captioned_too(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for path in sorted(photos.iterdir()):
            shard.add(path, path.name)
    out = tmp_path / "vlm.parquet"
    captioned(server, tmp_path / "shard.tar", out)
    assert [row["id"] for row in rows(out)] == [f"{i:03d}" for i in range(24)]
    assert captioned(server, tmp_path / "shard.tar", out)["asked"] == 0


class Local:
    """What makes captions without a server."""

    name, key, at_once = "local", "1", 2

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def caption(self, picture: Image.Image) -> Any:
        from lateen.mllm.captioner import Captioned

        self.seen.append(picture.size)
        return Captioned("a thing", "stop", None, "local", None, None)


def test_a_captioner_of_ones_own_is_taken(photos: Path, tmp_path: Path) -> None:
    own = Local()
    summary = lateen.caption(photos, own, tmp_path / "vlm.parquet")
    assert summary["models"] == {"local": 24}
    assert own.seen == [(16, 12)] * 24


def test_a_plan_asks_about_a_few_keeps_them_and_counts_the_rest(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vlm.parquet"
    server.wait = lambda picture: 0.05
    plan = plan_captions(
        photos, server.name(), out, samples=4, at_once=4, price_in=2.0, price_out=10.0
    )
    assert (plan["images"], plan["to_ask"], len(server.requests)) == (24, 24, 4)
    assert [each["id"] for each in plan["sample"]] == ["000.png", "007.png", "015.png", "023.png"]
    assert plan["tokens"] == {"prompt": 2400, "answer": 24 * 7}
    assert plan["dollars"] == pytest.approx((2400 * 2 + 24 * 7 * 10) / 1e6)
    assert 24 * 0.05 / 4 <= plan["seconds"] < 24 * 0.5 / 4
    sizes = [len(_jpeg(photos / each["id"])) for each in plan["sample"]]
    assert plan["sent_bytes"] == pytest.approx(24 * sum(sizes) / 4 * 4 / 3, rel=0.01)
    assert captioned(server, photos, out)["asked"] == 20
    done = plan_captions(photos, server.name(), out)
    assert (done["to_ask"], done["there"], done["sample"], done["seconds"]) == (0, 24, [], 0.0)


def _jpeg(path: Path) -> bytes:
    from lateen.data.samples import FileImage
    from lateen.mllm.captioner import as_jpeg

    return as_jpeg(picture_of(FileImage(path), Asked().max_side))


def test_a_plan_of_a_server_that_counts_no_tokens_says_so(
    server: ChatServer, photos: Path, tmp_path: Path
) -> None:
    server.fault = lambda picture: "no usage"
    plan = plan_captions(photos, server.name(), tmp_path / "vlm.parquet", price_in=1.0)
    assert (plan["tokens"], plan["dollars"]) == (None, None)
