from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.errors import StoreError
from lateen.features import Description, Pairs, Store, StoreWriter
from lateen.training.batches import BatchPlan, Part
from lateen.training.loader import Loader

from .conftest import MakePairs


@pytest.fixture(params=["held", "disk"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "disk":
        monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 0)
    return str(request.param)


def every_part(pairs: Pairs, **options: int) -> list[Part]:
    plan = BatchPlan(pairs, batch=4, epochs=2, captions_per_image=2, seed=0, **options)
    return [part for step in range(plan.steps) for part in plan.parts(step)]


@pytest.mark.parametrize("block", [1, 3])
def test_held_or_read_the_features_are_those_of_the_ids(
    make_pairs: MakePairs, kind: str, block: int
) -> None:
    pairs = make_pairs([3, 1, 2, 5, 1, 2, 2, 3, 1], columns=2).take(np.array([8, 0, 3, 5, 4, 1]))
    parts = every_part(pairs, block=block, micro_batch=3)
    batches = list(Loader(pairs).stream(parts))
    assert len(batches) == len(parts)
    for part, batch in zip(parts, batches, strict=True):
        assert batch.rows == part.rows
        assert torch.equal(batch.image, pairs.image_features(part.samples))
        for text, (column, pick) in zip(batch.texts, part.picks, strict=True):
            assert torch.equal(text, pairs.text_features(column, part.samples, pick))


def test_one_part_is_read_ahead_and_no_more(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 0)
    pairs = make_pairs([2] * 12)
    asked = 0

    def parts() -> Iterator[Part]:
        nonlocal asked
        for part in every_part(pairs):
            asked += 1
            yield part

    stream = Loader(pairs).stream(parts())
    for taken in range(1, 4):
        next(stream)
        assert asked == taken + 1
    stream.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("lateen-loader") for name in names)


def test_a_shard_cut_while_training_is_an_error_in_its_place(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 0)
    pairs = make_pairs([2] * 12)
    parts = every_part(pairs)
    stream = Loader(pairs).stream(parts)
    next(stream)
    [shard] = (pairs.image.path).glob("shard-*")
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 400)
    with pytest.raises(StoreError, match="has become shorter since it was opened"):
        list(stream)


@pytest.mark.parametrize("rows", [[5], [0, 1, 2], [9, 0, 9, 4], [3, 2], []])
def test_rows_come_in_the_order_asked_for(make_pairs: MakePairs, rows: list[int]) -> None:
    store = make_pairs([1] * 10).image
    everything = store[:]
    assert torch.equal(store[rows], everything[rows])
    assert store.read(rows).dtype == np.float32


def test_far_apart_rows_are_read_one_by_one_and_near_ones_together(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_pairs([1] * 60).image
    monkeypatch.setattr("lateen.features.shard._GAP", 3 * 12 * 4)  # three rows
    sizes: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], position: int) -> int:
        sizes.append(sum(len(buffer) for buffer in buffers) // (12 * 4))
        return preadv(descriptor, buffers, position)

    monkeypatch.setattr(os, "preadv", counted)
    rows = [40, 2, 0, 3, 41, 58]
    assert torch.equal(store[rows], Store.open(store.path)[:][rows])
    assert sizes[:3] == [4, 2, 1]


_TRAIN_AND_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from lateen.training.loop import train
from lateen.experiment.recipe import HeadSection, TrainSection
from lateen.features import pair

def kilobytes(what):
    [line] = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(what)]
    return int(line.split()[1])

def run(pairs, out):
    train(
        pairs, head=HeadSection(dim=4, dropout=0.0), out=Path(out),
        settings=TrainSection(batch=2048, epochs=1, micro_batch=64, precision="float32", cca=0.0),
    )

pairs = pair(sys.argv[1], sys.argv[2])
run(pairs.take(np.arange(64)), sys.argv[3] + "-few")  # brings in the libraries
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
run(pairs, sys.argv[3])
print(kilobytes("VmHWM") - before)
"""


def test_training_needs_less_memory_than_its_data(tmp_path: Path) -> None:
    rows, dim = 4096, 24576  # 400 MB in both stores, more than is held in memory
    for modality, column in (("image", None), ("text", "caption")):
        description = Description(
            modality, dim, {"id": "t"}, "0" * 64, "t", "t", column, "float16"
        )  # fmt: skip
        writer = StoreWriter(tmp_path / modality, description)
        generator = torch.Generator().manual_seed(0)
        for start in range(0, rows, 512):
            features = torch.randn(512, dim, generator=generator).half()
            writer.write(features, [str(i) for i in range(start, start + 512)], [], 512)
        writer.finish()
    stored = sum(file.stat().st_size for file in tmp_path.glob("*/shard-*"))
    command = [sys.executable, "-c", _TRAIN_AND_MEASURE, tmp_path / "image", tmp_path / "text",
               tmp_path / "out"]  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 1024 * int(done.stdout) < stored / 2
