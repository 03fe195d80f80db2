import contextlib
import importlib.util
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from toys import ColourEncoder, WordEncoder

from lateen.data import open_dataset
from lateen.encoders import Encoder
from lateen.experiment.planning.makespan import Work, expect
from lateen.features import Description, Share, StoreWriter, pipeline
from lateen.features.pipeline import Item, encode_items, items_of

HOUR, MINUTE, DAY = 3600.0, 60.0, 86400.0
CAPTIONS = 23_000_000


@pytest.fixture(scope="module")
def cluster() -> ModuleType:
    """The benchmark, which simulates."""
    path = Path(__file__).parents[2] / "benchmarks" / "cluster.py"
    spec = importlib.util.spec_from_file_location("cluster_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def long_captions(gpus: int, slices: int = 1) -> Work:
    return Work.encoding(CAPTIONS, 25.0, 8192, gpus, slices)


def test_slices_are_whole_shards_and_slow_shards_are_kept_by_the_minute() -> None:
    work = long_captions(64)
    assert work.seconds == CAPTIONS / 25
    assert (work.slices, work.workers) == (64, 64)
    assert work.longest == 44 * 8192 / 25  # of 2,808 shards
    # A shard takes 327.68 s: five parts of a minute and one of 27.68 s.
    assert work.piece == pytest.approx((5 * 60**2 + 27.68**2) / 327.68)
    fast = Work.encoding(CAPTIONS, 830.0, 2048, 64, 4)
    assert fast.piece == pytest.approx(2048 / 830)
    assert (fast.slices, fast.longest) == (256, 44 * 2048 / 830)
    few = Work.encoding(3 * 2048, 830.0, 2048, 64, 1)
    assert (few.slices, few.workers) == (3, 3)


def test_without_failures_the_last_ends_after_a_start_and_its_slices() -> None:
    work = long_captions(64)
    outcome = expect(work, None, 600)
    assert outcome.makespan == 600 + work.longest
    assert outcome.busy == 64 * 600 + work.seconds
    assert (outcome.failures, outcome.lost) == (0, 0)
    several = long_captions(64, 4)
    assert expect(several, None, 0).makespan == 4 * several.longest


def test_hardly_any_failures_are_as_none() -> None:
    for work in (long_captions(64), long_captions(64, 4), long_captions(1)):
        never, hardly = expect(work, None, 600), expect(work, 1e9 * HOUR, 600)
        assert hardly.makespan == pytest.approx(never.makespan, rel=1e-4)
        assert hardly.busy == pytest.approx(never.busy, rel=1e-6)
        assert 0 < hardly.failures < 1e-6


def test_a_failure_costs_a_restart_and_half_a_piece() -> None:
    work = long_captions(1)  # of many hours, so that few failures fall into the first start
    outcome = expect(work, 100 * DAY, 600)
    assert outcome.lost / outcome.failures == pytest.approx(600 + work.piece / 2, rel=0.01)
    assert outcome.failures == pytest.approx(outcome.busy / (100 * DAY))


def test_more_failures_and_longer_restarts_take_longer() -> None:
    for slices in (1, 4):
        work = long_captions(64, slices)
        spans = [expect(work, hours * HOUR, 600).makespan for hours in (100, 24, 4, 1)]
        assert spans == sorted(spans)
        waits = [expect(work, 4 * HOUR, minutes * MINUTE).makespan for minutes in (0, 5, 30)]
        assert waits == sorted(waits)
        for hours in (100, 24, 4, 1):
            outcome = expect(work, hours * HOUR, 600)
            assert outcome.makespan >= outcome.busy / work.workers


# Seconds: GPUs, slices a GPU, mean time to failure, restart.
CLUSTERS = [
    (64, 1, 24 * HOUR, 600.0), (64, 1, HOUR, 600.0), (16, 1, 4 * HOUR, 1800.0),
    (64, 4, 24 * HOUR, 600.0), (64, 4, HOUR, 600.0), (16, 4, 4 * HOUR, 1800.0),
    (1, 1, 4 * HOUR, 600.0), (8, 1, HOUR / 2, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("gpus", "slices", "failure", "restart"), CLUSTERS)
def test_simulated_gpus_take_what_is_expected(
    cluster: ModuleType, gpus: int, slices: int, failure: float, restart: float
) -> None:
    workers = cluster.Workers(gpus, failure, restart, slices)
    chance = np.random.default_rng(0)
    runs = [cluster.simulate(CAPTIONS, 25.0, 8192, 256, workers, chance) for _ in range(60)]
    span, busy, failures = np.mean(runs, axis=0)
    told = expect(long_captions(gpus, slices), failure, restart)
    assert told.makespan == pytest.approx(span, rel=0.025)
    assert told.busy == pytest.approx(busy, rel=0.01)
    assert told.failures == pytest.approx(failures, rel=0.1)


class _Clock:
    """Time that passes only where an encoder lets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class _Killed(Exception):
    """In place of a kill."""


class _Slow:
    """An encoder that takes 12.5 seconds an item, and is killed at a time."""

    def __init__(self, encoder: Encoder, clock: _Clock, killed: float = math.inf) -> None:
        self._encoder, self._clock, self._killed = encoder, clock, killed
        self.info, self.prepare = encoder.info, encoder.prepare
        self.encoded = 0

    def encode(self, prepared: Sequence[object]) -> torch.Tensor:
        self._clock.now += 12.5 * len(prepared)
        if self._clock.now > self._killed:
            raise _Killed
        self.encoded += len(prepared)
        return self._encoder.encode(prepared)


SHARE = Share(1, 2).items(24, 7)  # of 24 items in shards of 7: one whole shard, and a short one


@dataclass
class _Slice:
    """A slice that is really encoded, by a clock of its own; two items are a batch."""

    modality: str
    album: Path
    store: Path
    clock: _Clock

    def encode(self, killed: float = math.inf) -> int:
        """Items encoded."""
        image = self.modality == "image"
        encoder = _Slow(ColourEncoder() if image else WordEncoder(), self.clock, killed)
        description = Description.of(
            encoder.info, source="", fingerprint="", column=None if image else "caption",
            shard_items=7,
        )  # fmt: skip
        writer = StoreWriter(self.store, description, first=SHARE.start // 7, items=24)
        dataset = open_dataset(self.album / "train.jsonl")
        texts = [Item(f"{index:03}", "x" * 512, "") for index in range(24)]
        items = items_of(dataset, "image", None) if image else iter(texts)
        with contextlib.suppress(_Killed):
            encode_items(items, SHARE.stop, [encoder], [writer], 2 if image else 1, 1)
        return encoder.encoded


@pytest.fixture(params=["image", "text"])
def slow_slice(
    request: pytest.FixtureRequest, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> _Slice:
    clock = _Clock()
    monkeypatch.setattr(pipeline, "time", clock)
    return _Slice(request.param, album, tmp_path / "store", clock)


def test_files_are_really_written_when_the_simulation_says(
    slow_slice: _Slice, cluster: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    write = StoreWriter.write

    def spy(self: StoreWriter, *arguments: Any, **named: Any) -> None:
        written.append(slow_slice.clock.now)
        write(self, *arguments, **named)

    monkeypatch.setattr(StoreWriter, "write", spy)
    assert slow_slice.encode() == len(SHARE)
    assert written == list(cluster.files(len(SHARE), 1 / 12.5, 7, 2)) == [75, 87.5, 125]


@pytest.mark.parametrize("killed", [70.0, 80.0, 88.0, 120.0])
def test_a_killed_slice_really_loses_what_the_simulation_says(
    killed: float, slow_slice: _Slice, cluster: ModuleType
) -> None:
    slow_slice.encode(killed)
    saved = cluster.files(len(SHARE), 1 / 12.5, 7, 2)
    on_disk = max((each for each in saved if each <= killed), default=0.0)
    assert slow_slice.encode() == (saved[-1] - on_disk) / 12.5
