"""A slow shard is written in parts, of which the finished store shows nothing; and a batch that
does not fit into memory is halved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_encode import digest
from toys import ColourEncoder, WordEncoder

from lateen.data import open_dataset
from lateen.errors import EncoderError, StoreError
from lateen.features import encode, encode_views, pipeline

KINDS: dict[str, type[Any]] = {"image": ColourEncoder, "text": WordEncoder}
SOURCES = {"image": "images", "text": "train.jsonl"}


def watched(kind: type[Any], before: Callable[[int], None]) -> Any:
    """An encoder that calls ``before`` with the size of each batch, and gives NaN for every item
    that has no red in it."""
    encoder = kind()

    def encode(prepared: Sequence[Any]) -> torch.Tensor:
        before(len(prepared))
        features = kind.encode(encoder, prepared)
        features[features[:, 0] < 0.1] = torch.nan
        return features

    encoder.encode = encode
    return encoder


@pytest.fixture
def folder(album: Path) -> Path:
    """An album with an image that cannot be read, an empty caption, and captions of which three
    fill a batch."""
    (album / "images" / "004.png").write_bytes(b"no picture")
    rows = [json.loads(line) for line in (album / "train.jsonl").read_text().splitlines()]
    for index, row in enumerate(rows):
        row["caption"] = [f"{caption} {'.' * (200 + index)}" for caption in row["caption"]]
    rows[2]["caption"][0] = " "
    (album / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return album


def encoded(folder: Path, modality: str, out: Path, before: Callable[[int], None]) -> None:
    encode(folder / SOURCES[modality], watched(KINDS[modality], before), out,
           batch_size=3 if modality == "image" else 1, workers=1)  # fmt: skip


def slowly(folder: str, modality: str, out: str) -> None:
    """In a process that will be killed: every batch takes a while, and a part."""
    pipeline.PART_SECONDS = 0.0
    encoded(Path(folder), modality, Path(out), lambda _: time.sleep(0.1))


@pytest.mark.parametrize("modality", KINDS)
def test_kill_9_in_a_shard_loses_a_part_and_no_byte(modality: str, folder: Path) -> None:
    words = str(folder), modality, str(folder / "k")
    code = f"import test_parts; test_parts.slowly{words}"
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        deadline = time.monotonic() + 60
        while len(list((folder / "k").glob("shard-*.part-*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "k" / "shard-00000.safetensors").exists()

    again, whole = [], []
    encoded(folder, modality, folder / "k", again.append)
    encoded(folder, modality, folder / "w", whole.append)
    assert 0 < len(again) <= len(whole) - 3
    assert whole[-len(again) :] == again  # the same batches
    assert digest(folder / "k") == digest(folder / "w")
    skipped = (folder / "w" / "skipped.jsonl").read_text()
    assert "NaN" in skipped
    assert ("known format" if modality == "image" else "is empty") in skipped


def stopped(folder: Path, modality: str, out: Path, batches: int) -> None:
    """Encode so many batches, each a part, and fail."""
    sizes: list[int] = []

    def fail(size: int) -> None:
        if len(sizes) == batches:
            raise ValueError("stopped")
        sizes.append(size)

    with pytest.raises(ValueError, match="stopped"):
        encoded(folder, modality, out, fail)


@pytest.mark.parametrize("modality", KINDS)
def test_a_damaged_part_is_encoded_again_with_those_after_it(
    modality: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    stopped(folder, modality, folder / "s", 5)
    parts = sorted((folder / "s").glob("shard-*.part-*"))
    parts[1].write_bytes(parts[1].read_bytes()[:-1])
    sizes: list[int] = []
    encoded(folder, modality, folder / "s", sizes.append)
    whole: list[int] = []
    encoded(folder, modality, folder / "w", whole.append)
    assert sizes == whole[1:]
    assert digest(folder / "s") == digest(folder / "w")
    assert not list((folder / "w").glob("*part*"))


def test_parts_of_another_batch_size_are_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    stopped(folder, "image", folder / "s", 3)
    sizes: list[int] = []
    encode(folder / "images", watched(ColourEncoder, sizes.append), folder / "s", batch_size=4)
    assert sum(sizes) == 23
    assert not list((folder / "s").glob("*part*"))


class Views(ColourEncoder):
    """Two encoders of one network: one of them gives the other's features doubled."""

    def __init__(self, factor: float, before: Callable[[int], None]) -> None:
        super().__init__()
        self.info = type(self.info)(**{**self.info.as_dict(), "weights": f"v{factor}"})
        self._factor, self._before = factor, before

    def view(self, pooling: str | None = None, layer: int | None = None) -> Views:
        raise NotImplementedError

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        self._before(len(prepared))
        return self._factor * super().encode(prepared)

    def encode_views(
        self, prepared: Sequence[torch.Tensor], views: Sequence[Views]
    ) -> list[torch.Tensor]:
        self._before(len(prepared))
        return [view._factor * ColourEncoder.encode(view, prepared) for view in views]


def test_views_go_on_where_all_of_them_have_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    data, outs = open_dataset(folder / "images"), [folder / "a", folder / "b"]
    count = 0

    def fail(_: int) -> None:
        nonlocal count
        count += 1
        if count > 4:
            raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        encode_views(data, [Views(1, fail), Views(2, fail)], outs, batch_size=3)
    (folder / "b" / "shard-00000.part-00003.safetensors").unlink()  # killed between the two
    sizes: list[int] = []
    both = [Views(factor, sizes.append) for factor in (1, 2)]
    encode_views(data, both, outs, batch_size=3)
    assert sum(sizes) == 23 - (9 - 1)  # three parts, in which is the image that cannot be read
    encode_views(data, both, [folder / "c", folder / "d"], batch_size=3)
    for out, alone in zip(outs, ("c", "d"), strict=True):
        assert digest(out) == digest(folder / alone)


def test_parts_of_a_store_that_is_further_than_another_are_dropped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    data, settings = open_dataset(folder / "images"), {"batch_size": 3, "shard_items": 8}
    for out, most in (("b", 5), ("a", 1)):  # in the second shard, and in the first
        sizes: list[int] = []

        def fail(size: int, sizes: list[int] = sizes, most: int = most) -> None:
            if len(sizes) == most:
                raise ValueError("stopped")
            sizes.append(size)

        with pytest.raises(ValueError, match="stopped"):
            encode_views(data, [Views(1 if out == "a" else 2, fail)], [folder / out], **settings)
    assert list((folder / "b").glob("shard-00001.part-*"))
    for outs in (("a", "b"), ("c", "d")):
        both = [Views(factor, lambda _: None) for factor in (1, 2)]
        encode_views(data, both, [folder / out for out in outs], **settings)
    assert digest(folder / "a") == digest(folder / "c")
    assert digest(folder / "b") == digest(folder / "d")


def test_what_the_store_cannot_hold_is_said_at_the_first_part(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)
    with pytest.raises(StoreError, match="do not fit float16"):
        encode(folder / "images", Views(1e6, lambda _: None), folder / "s", batch_size=3)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
     RuntimeError("MPS backend out of memory (MPS allocated: 9.1 GB)"),
     RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                  "allocate memory: you tried to allocate 8 bytes."),
     RuntimeError("[enforce fail at alloc_cpu.cpp:83] data. DefaultCPUAllocator: not enough "
                  "memory: you tried to allocate 8 bytes."),
     RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
     MemoryError()],
)  # fmt: skip
@pytest.mark.parametrize("modality", KINDS)
def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_after_it(
    modality: str, error: Exception, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []

    def fits_one(size: int) -> None:
        if size > 1:
            raise error
        sizes.append(size)

    encoded(folder, modality, folder / "s", fits_one)
    encoded(folder, modality, folder / "w", lambda _: None)
    assert digest(folder / "s") == digest(folder / "w")  # these encoders round nothing
    said = [r.getMessage() for r in caplog.records if "out of memory" in r.getMessage()]
    first = 3 if modality == "image" else 4
    assert said[0] == f"out of memory with {first} at a time in a forward pass: going on with 2"
    assert 0 < len(said) <= 3  # and not for every batch


def test_one_item_that_does_not_fit_is_a_clear_error(folder: Path) -> None:
    def never(_: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(EncoderError, match=r"not enough memory to encode one image.*--device"):
        encoded(folder, "image", folder / "s", never)


def test_another_fault_is_not_taken_for_want_of_memory(folder: Path) -> None:
    def broken(_: int) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        encoded(folder, "image", folder / "s", broken)
