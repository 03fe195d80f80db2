import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.errors import BusyError, LateenError, StoreError
from lateen.features import Description, Store, StoreWriter
from lateen.features.shard import ShardContent, read_shard
from lateen.files import atomic_path, folder_lock


def describe(dim: int = 4, fingerprint: str = "f", shard_items: int = 3) -> Description:
    return Description(
        modality="image", dim=dim, encoder={"id": "e", "layer": None}, encoder_key="k",
        source="photos", fingerprint=fingerprint, dtype="float32", shard_items=shard_items,
    )  # fmt: skip


def fill(folder: Path, rows: int = 8, **options: object) -> torch.Tensor:
    """A store of ``rows`` rows in shards of three."""
    values = torch.arange(rows * 4.0).view(rows, 4)
    writer = StoreWriter(folder, describe(**options))  # type: ignore[arg-type]
    for start in range(writer.done, rows, 3):
        part = values[start : start + 3]
        writer.write(part, [f"id{start + i}" for i in range(len(part))], [], len(part))
    writer.finish()
    return values


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    values = fill(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert len(store) == 8
    assert store.dim == 4
    assert store.ids == [f"id{i}" for i in range(8)]
    torch.testing.assert_close(store[[7, 0, 3, 3]], values[[7, 0, 3, 3]])
    torch.testing.assert_close(store[2:5], values[2:5])
    torch.testing.assert_close(store[-1], values[7])
    torch.testing.assert_close(store[torch.tensor([True] + [False] * 7)], values[:1])
    torch.testing.assert_close(torch.cat(list(store.batches(5))), values)
    assert store[[]].shape == (0, 4)


def test_rows_outside_the_store_are_an_index_error(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    store = Store.open(tmp_path / "s")
    for rows in ([8], [-9], np.array([True, False])):
        with pytest.raises(IndexError):
            store[rows]


def test_a_store_describes_itself(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["description"]["encoder"]["id"] == "e"
    assert manifest["description"]["fingerprint"] == "f"
    assert [shard["rows"] for shard in manifest["shards"]] == [3, 3, 2]
    assert manifest["versions"]["torch"] == torch.__version__


def test_every_field_that_changes_bytes_changes_the_key() -> None:
    base = describe()
    assert base.key != describe(dim=5).key
    assert base.key != describe(fingerprint="g").key
    assert base.key != describe(shard_items=4).key


def test_a_killed_write_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    values = torch.arange(32.0).view(8, 4)
    writer = StoreWriter(tmp_path / "killed", describe())
    writer.write(values[:3], ["id0", "id1", "id2"], [], 3)
    del writer  # and never finished
    (tmp_path / "killed" / ".shard-00001.safetensors.1.tmp").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"not finished.*goes on"):
        Store.open(tmp_path / "killed")
    assert StoreWriter(tmp_path / "killed", describe()).done == 3
    fill(tmp_path / "killed")
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "killed" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_damaged_store_is_made_whole_again(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    values = fill(folder)
    shard = folder / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(StoreError, match="truncated"):
        Store.open(folder)
    assert StoreWriter(folder, describe()).done == 3
    fill(folder)
    torch.testing.assert_close(Store.open(folder, verify=True)[:], values)


@pytest.mark.parametrize("size", [0, 4, 20, 100])
def test_a_shard_cut_anywhere_is_a_clear_error(tmp_path: Path, size: int) -> None:
    fill(tmp_path / "s")
    shard = tmp_path / "s" / "shard-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(StoreError, match=r"shard-00000.*Remove that shard"):
        Store.open(tmp_path / "s")


def test_a_changed_byte_is_found_by_verify(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    shard = tmp_path / "s" / "shard-00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    Store.open(tmp_path / "s")
    with pytest.raises(StoreError, match="has changed"):
        Store.open(tmp_path / "s", verify=True)


def test_opening_reads_no_shard_and_a_damaged_one_is_named_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = fill(tmp_path / "s")
    shard = tmp_path / "s" / "shard-00001.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:8] + b"?" + data[9:])
    read: list[str] = []

    def counted(path: Path, **options: bool) -> ShardContent:
        read.append(path.name)
        return read_shard(path, **options)

    monkeypatch.setattr("lateen.features.store.read_shard", counted)
    store = Store.open(tmp_path / "s")
    assert (len(store), store.dim, store.skipped, read) == (8, 4, [], [])
    torch.testing.assert_close(store[[7, 0]], values[[7, 0]])
    assert read == ["shard-00000.safetensors", "shard-00002.safetensors"]
    with pytest.raises(StoreError, match=r"shard-00001.safetensors is not a whole shard"):
        store[[4]]
    with pytest.raises(StoreError, match=r"shard-00001.safetensors is not a whole shard"):
        _ = store.ids


def test_a_half_written_store_of_other_conditions_is_begun_anew(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", describe(), conditions={"batch": 16})
    writer.write(torch.zeros(3, 4), ["id0", "id1", "id2"], [], 3)
    assert StoreWriter(tmp_path / "s", describe(), conditions={"batch": 16}).done == 3
    assert StoreWriter(tmp_path / "s", describe(), conditions={"batch": 32}).done == 0


def test_a_removal_that_was_killed_can_be_done_again(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    for shard in (tmp_path / "s").glob("shard-*"):
        shard.unlink()  # as far as the removal got
    assert StoreWriter(tmp_path / "s", describe(fingerprint="g"), overwrite=True).done == 0


def test_content_goes_by_rows_and_ids_not_by_what_was_skipped(tmp_path: Path) -> None:
    contents = []
    for name in ("here", "there"):
        writer = StoreWriter(tmp_path / name, describe())
        skip = {"id": "bad", "reason": "truncated", "source": f"/{name}/bad.jpg", "sample": True}
        writer.write(torch.ones(2, 4), ["a", "b"], [skip], 3)
        writer.finish()
        contents.append(Store.open(tmp_path / name).manifest.content)
    assert contents[0] == contents[1]


def test_another_description_is_refused_by_name_of_what_differs(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    with pytest.raises(StoreError, match=r"fingerprint: f there, other now.*--overwrite"):
        StoreWriter(tmp_path / "s", describe(fingerprint="other"))
    writer = StoreWriter(tmp_path / "s", describe(fingerprint="other"), overwrite=True)
    assert writer.done == 0


def test_overwrite_keeps_a_store_that_is_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    assert StoreWriter(tmp_path / "s", describe(), overwrite=True).finished


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis\.tex"):
        StoreWriter(tmp_path, describe(), overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_wrong_dim_and_overflow_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", describe())
    with pytest.raises(StoreError, match=r"\[1, 5\].*dim 4"):
        writer.write(torch.zeros(1, 5), ["a"], [], 1)
    half = Description(**{**describe().as_dict(), "dtype": "float16"})
    writer = StoreWriter(tmp_path / "h", half)
    with pytest.raises(StoreError, match=r"float16.*--dtype float32"):
        writer.write(torch.full((1, 4), 1e6), ["a"], [], 1)


def test_a_store_of_nothing_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "s", describe())
    skip = {"id": "a", "reason": "truncated", "source": "a.jpg", "sample": True}
    writer.write(torch.zeros(0, 4), [], [skip], 1)
    with pytest.raises(StoreError, match=r"nothing could be encoded.*truncated"):
        writer.finish()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "not a lateen store"),
        ('{"format": "lateen-store"}', "version"),
    ],
)
def test_a_foreign_manifest_is_a_clear_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(LateenError, match=message):
        Store.open(tmp_path)


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="not a feature store"):
        Store.open(tmp_path)


HOLD = """
import sys, pathlib
from lateen.files import folder_lock
with folder_lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_writer_of_a_folder_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"pid {other.pid}"), folder_lock(tmp_path):
            pass
        other.kill()
    with folder_lock(tmp_path):  # the lock went with the process
        pass


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_file(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    path, message = tmp_path / "file", r"disk is full.*same command again"
    with pytest.raises(LateenError, match=message), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise full
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_loses_only_the_shard_it_was_in(tiny_disk: Path) -> None:
    description = describe(dim=1000, shard_items=40)
    writer = StoreWriter(tiny_disk / "s", description)
    rows, ids = torch.ones(40, 1000), [f"id{i}" for i in range(40)]
    writer.write(rows, ids, [], 40)
    with pytest.raises(LateenError, match="disk is full"):
        writer.write(rows, ids, [], 40)
    assert StoreWriter(tiny_disk / "s", description).done == 40
