from __future__ import annotations

import gzip
import itertools
import json
import tarfile
from pathlib import Path

import pytest
from builders import is_fixed, jpeg, samples, skips, write_tar

from lateen.data.images import decode_image
from lateen.data.open import open_dataset
from lateen.data.samples import TarImage
from lateen.data.webdataset import WebDataset
from lateen.errors import DataError


def sample(key: str, grey: int) -> list[tuple[str, bytes]]:
    fields = {"caption": "unused", "short": f"s{grey}", "long": [f"l{grey}", f"m{grey}"],
              "width": 3, "url": "http://x", "nested": {"text": "x"}}  # fmt: skip
    return [
        (f"{key}.jpg", jpeg((grey, grey, grey))),
        (f"{key}.txt", f" text {grey}\n".encode()),
        (f"{key}.json", json.dumps(fields).encode()),
    ]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards with two samples each."""
    for shard in range(2):
        files = [file for i in range(2) for file in sample(f"{shard}{i}", 20 * shard + 10 * i)]
        write_tar(tmp_path / f"s-{shard:03}.tar", files)
    return tmp_path


def test_samples_come_in_the_order_of_the_shards(shards: Path) -> None:
    dataset = WebDataset(shards)
    assert dataset.columns == ("caption", "long", "short")
    found = samples(dataset)
    assert [sample.id for sample in found] == ["00", "01", "10", "11"]
    assert found[2].captions == {
        "caption": ("text 20",), "long": ("l20", "m20"), "short": ("s20",),
    }  # fmt: skip
    for index, item in enumerate(found):
        assert isinstance(item.image, TarImage)
        assert decode_image(item.image).getpixel((0, 0)) == (10 * index,) * 3
    assert is_fixed(dataset, lambda: WebDataset(shards))


def test_a_folder_a_pattern_and_a_file_name_the_same_shards(shards: Path) -> None:
    items = list(WebDataset(shards))
    assert list(WebDataset(f"{shards}/s-{{000..001}}.tar")) == items
    assert list(WebDataset(shards / "s-{000..000}.tar")) == items[:2]
    assert list(WebDataset(shards / "s-001.tar")) == items[2:]


def test_chosen_columns(shards: Path) -> None:
    dataset = WebDataset(shards, captions=["short", "url"])
    assert dataset.columns == ("short", "url")
    assert samples(dataset)[0].captions == {"short": ("s0",), "url": ("http://x",)}
    with pytest.raises(DataError, match="no captions 'shrot'") as caught:
        WebDataset(shards, captions=["shrot"])
    assert "Did you mean 'short'?" in caught.value.remedy


def test_names_may_have_folders_upper_case_and_several_dots(tmp_path: Path) -> None:
    files = [
        ("./a/", b""), ("./a/1.cls", b"3"), ("./a/1.JPG", jpeg()), ("./a/1.seg.png", b"x"),
        ("b/1.png", jpeg()), ("._b.jpg", b"x"), ("README", b"x"),
    ]  # fmt: skip
    dataset = WebDataset(write_tar(tmp_path / "a.tar", files))
    assert [(sample.id, sample.image and sample.image.name.split(":")[1]) for sample in
            samples(dataset)] == [("a/1", "./a/1.JPG"), ("b/1", "b/1.png")]  # fmt: skip
    assert dataset.columns == ()
    assert skips(dataset) == []


def test_the_same_image_under_one_name_in_two_shards_is_skipped_naming_both(shards: Path) -> None:
    write_tar(shards / "s-002.tar", sample("01", 10))
    dataset = WebDataset(shards)
    (skip,) = skips(dataset)
    assert (skip.id, skip.sample) == ("01", False)
    assert skip.reason == f"the id was already used at {shards / 's-000.tar'}"
    assert skip.source == str(shards / "s-002.tar")
    assert [sample.id for sample in samples(dataset)] == ["00", "01", "10", "11"]


def test_shards_that_count_anew_have_their_name_in_every_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for shard in range(3):  # the third repeats the first but for its last sample
        keys = [sample(f"{key:02}", 10 * (shard % 2) + key) for key in range(2)]
        more = sample("02", 90) if shard == 2 else []
        write_tar(tmp_path / f"{shard:05}.tar", [*itertools.chain(*keys), *more])
    dataset = WebDataset(tmp_path)
    ids = ["00000/00", "00000/01", "00001/00", "00001/01", "00002/02"]
    assert [sample.id for sample in samples(dataset)] == ids
    assert [skip.id for skip in skips(dataset)] == ["00000/00", "00000/01"]
    assert "2 samples have the name of another one in an earlier shard" in caplog.text


def test_the_files_of_a_sample_may_stand_apart(tmp_path: Path) -> None:
    members = [*sample("a", 1), *sample("b", 2), *sample("c", 3)]
    apart = sorted(members, key=lambda member: member[0].rpartition(".")[2])
    dataset = WebDataset(write_tar(tmp_path / "apart.tar", apart))
    together = WebDataset(write_tar(tmp_path / "together.tar", members))
    assert [s.captions for s in samples(dataset)] == [s.captions for s in samples(together)]
    assert [s.id for s in samples(dataset)] == ["a", "b", "c"]
    assert not skips(dataset)


def test_a_shard_of_files_apart_that_ends_early_says_so_of_what_is_lost(tmp_path: Path) -> None:
    files = [(f"{key}.jpg", jpeg((i, 0, 0))) for i, key in enumerate("abc")]
    files += [(f"{key}.txt", b"text") for key in "abc"]
    path = write_tar(tmp_path / "s.tar", files)
    with tarfile.open(path) as tar:
        last = tar.getmember("c.txt").offset
    path.write_bytes(path.read_bytes()[:last])  # between two files
    dataset = WebDataset(path)
    assert [sample.id for sample in samples(dataset)] == ["a", "b"]
    assert [(skip.id, skip.reason) for skip in skips(dataset)] == [
        ("c", "the shard ends early, within this sample")
    ]


def texts_of(folder: Path, *texts: str, captions: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    files = [
        member for i, text in enumerate(texts)
        for member in ((f"{i}.jpg", jpeg((i, 0, 0))), (f"{i}.txt", text.encode()))
    ]  # fmt: skip
    dataset = WebDataset(write_tar(folder / "t.tar", files), captions=captions)
    return [texts for sample in samples(dataset) for texts in sample.captions.values()]


def test_lines_of_texts_are_captions_where_all_texts_have_several(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert texts_of(tmp_path, "a\nb\n", "c\r\nd") == [("a", "b"), ("c", "d")]
    assert texts_of(tmp_path, "a\nb", "c\nd", captions=("txt",)) == [("a\nb",), ("c\nd",)]
    assert not caplog.text
    assert texts_of(tmp_path, "a\nb", "c") == [("a\nb",), ("c",)]
    assert "1 of 2 .txt files have several lines" in caplog.text
    assert texts_of(tmp_path, "a\nb", "c", captions=("lines",)) == [("a", "b"), ("c",)]


def test_a_sample_without_a_text_file_is_not_called_empty(tmp_path: Path) -> None:
    files = [*sample("a", 1), ("b.jpg", jpeg()), ("b.cls", b"1")]
    (skip,) = skips(WebDataset(write_tar(tmp_path / "s.tar", files), captions=["caption"]))
    assert (skip.id, skip.reason) == ("b", "it has no caption, only: cls, jpg")


def test_faults_within_samples_are_recorded(tmp_path: Path) -> None:
    files = [
        *sample("ok", 1),
        ("no-image.txt", b"x"), ("no-image.json", b"{}"),
        ("empty.jpg", jpeg()), ("empty.txt", b" \n"),
        ("latin.jpg", jpeg()), ("latin.txt", b"caf\xe9"),
        ("broken.jpg", jpeg()), ("broken.json", b"{'a'"),
        ("list.jpg", jpeg()), ("list.json", b"[1]"),
    ]  # fmt: skip
    dataset = WebDataset(write_tar(tmp_path / "a.tar", files), captions=["caption"])
    assert [sample.id for sample in samples(dataset)] == ["ok"]
    assert {skip.id: skip.reason for skip in skips(dataset)} == {
        "no-image": "it has no image, only: json, txt",
        "empty": "the caption is empty",
        "latin": "the caption is not valid Unicode",
        "broken": "its .json is not a JSON object",
        "list": "its .json is not a JSON object",
    }


def test_a_name_that_is_not_utf8_is_skipped(tmp_path: Path) -> None:
    dataset = WebDataset(
        write_tar(tmp_path / "a.tar", [("caf\udce9.jpg", jpeg()), *sample("b", 1)])
    )
    (skip,) = skips(dataset)
    assert (skip.id, skip.reason) == ("caf\\udce9", "the id is not valid Unicode")
    assert [sample.id for sample in samples(dataset)] == ["b"]
    assert len(dataset.fingerprint) == 64


def ends_of_files(path: Path) -> list[tuple[str, int]]:
    with tarfile.open(path) as tar:
        return [(member.name, member.offset_data + member.size) for member in tar]


def test_a_truncated_shard_gives_its_whole_samples_and_one_skip(tmp_path: Path) -> None:
    keys = ["a", "b", "c"]
    path = write_tar(tmp_path / "whole.tar", [f for i, k in enumerate(keys) for f in sample(k, i)])
    data = path.read_bytes()
    stops = dict(ends_of_files(path))
    for size in range(stops["a.json"] + 1024, len(data), 211):
        path.write_bytes(data[:size])
        dataset = WebDataset(path)
        found = samples(dataset)
        assert [sample.id for sample in found] == [k for k in keys if stops[f"{k}.json"] <= size]
        for index, item in enumerate(found):
            assert item.image is not None and item.image.read() == jpeg((index,) * 3)
            assert len(item.captions) == 3
        assert len(skips(dataset)) == (size < stops["c.json"] + 1024)
        assert all("the shard ends early" in skip.reason for skip in skips(dataset))


def test_a_shard_cut_in_its_first_sample_gives_one_skip(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", sample("a", 0))
    data = path.read_bytes()
    for size in range(0, dict(ends_of_files(path))["a.json"], 83):
        path.write_bytes(data[:size])
        (skip,) = list(WebDataset(path))
        assert "the shard" in skip.reason


def test_a_cut_between_samples_is_told_from_one_within(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [f for i, k in enumerate("abc") for f in sample(k, i)])
    data = path.read_bytes()
    stops = dict(ends_of_files(path))
    path.write_bytes(data[: -(-stops["b.json"] // 512) * 512 + 100])  # within the next header
    (between,) = skips(WebDataset(path))
    assert (between.id, between.reason) == (
        "a.tar", "the shard ends early: what should follow is lost",
    )  # fmt: skip
    path.write_bytes(data[: stops["b.txt"]])
    (within,) = skips(WebDataset(path))
    assert (within.id, within.sample) == ("b", True)
    assert within.reason == "the shard ends early, within this sample"


def test_a_shard_that_is_no_tar_is_skipped(shards: Path) -> None:
    (shards / "s-002.tar").write_bytes(b"")
    (shards / "s-003.tar").write_bytes(b"not a tar file" * 100)
    dataset = WebDataset(shards)
    assert len(samples(dataset)) == 4
    assert [skip.id for skip in skips(dataset)] == ["s-002.tar", "s-003.tar"]


def test_a_compressed_shard_is_an_error_that_says_to_unpack(shards: Path) -> None:
    for name in ("s-002.tar", "s-002.tar.gz"):
        packed = shards / name
        packed.write_bytes(gzip.compress((shards / "s-000.tar").read_bytes()))
        with pytest.raises(DataError, match="compressed") as caught:
            WebDataset(packed)
        assert "gunzip" in caught.value.remedy


def test_missing_shards_are_an_error(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no shard .*s-002\.tar"):
        WebDataset(shards / "s-{000..003}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no shards in"):
        WebDataset(tmp_path / "empty")


def test_the_fingerprint_follows_bytes_and_columns_not_the_place(shards: Path) -> None:
    before = WebDataset(shards).fingerprint
    moved = shards.rename(shards.with_name("moved"))
    assert WebDataset(moved).fingerprint == before
    assert WebDataset(moved, captions=["short"]).fingerprint != before
    files = [*sample("10", 20), *sample("11", 31)]
    files[4] = sample("11", 30)[1]
    files[5] = sample("11", 30)[2]  # only the image differs
    write_tar(moved / "s-001.tar", files)
    assert WebDataset(moved).fingerprint != before


def test_a_star_stands_for_shards_of_several_sets_whose_keys_clash(tmp_path: Path) -> None:
    for number, name in enumerate(("cc3m", "yfcc15m")):
        (tmp_path / name).mkdir()
        write_tar(
            tmp_path / name / "00000.tar",
            [("000000000.jpg", jpeg((200 * number, 99, 9))), ("000000000.txt", name.encode())],
        )
    dataset = open_dataset(str(tmp_path / "*" / "*.tar"))
    found = [(sample.id, sample.captions["caption"]) for sample in samples(dataset)]
    assert found == [
        ("cc3m/00000/000000000", ("cc3m",)), ("yfcc15m/00000/000000000", ("yfcc15m",))
    ]  # fmt: skip
    with pytest.raises(DataError, match="there are no shards in"):
        open_dataset(str(tmp_path / "*" / "no-*.tar"))
