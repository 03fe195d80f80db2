"""How fast an encoder is on this machine, by encoding a few of a recipe's own items."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lateen.data import ImageSource, Sample
from lateen.device import resolve_device
from lateen.encoders import Encoder, EncoderInfo
from lateen.errors import DataError
from lateen.features import Store, encode, token_batches
from lateen.features.manifest import FeatureDtype
from lateen.features.pipeline import Item, default_batch, default_workers

PATIENCE = 20.0  # seconds after which no further round of a measurement is begun
_ROUNDS = 3
_THREADS = default_workers()


@dataclass(frozen=True)
class Rate:
    """Items per second.

    Attributes:
        middle: of the median round: one that something else on the machine held up counts little.
        low: of the slowest round.
        high: of the fastest round.
        tried: how many items were encoded for it.
        skipped: how many of them could not be.
    """

    middle: float
    low: float
    high: float
    tried: int
    skipped: int = 0


def default_samples() -> int:
    """Images whose encoding tells a rate: a batch for each preparing thread in every round."""
    return _ROUNDS * _THREADS * default_batch(True)


def image_rate(encoder: Encoder, items: Sequence[Item], dtype: FeatureDtype) -> Rate:
    """Decode, prepare and encode ``items`` in rounds, as :func:`~lateen.encode` does.

    Args:
        encoder: of images; a first batch is encoded untimed, to warm it up.
        items: spread over the data.
        dtype: of the features on disk.

    Raises:
        DataError: not one of them can be decoded.
        StoreError: features that ``dtype`` cannot hold.
    """
    batch = default_batch(True)
    _encode(items[:batch], encoder, dtype)
    size = _THREADS * batch
    rates: list[float] = []
    skipped: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for start in range(0, len(items), size):
        some = items[start : start + size]
        count, seconds, store = _encode(some, encoder, dtype)
        skipped += store.skipped
        if count:
            rates.append(count / seconds)
        if time.perf_counter() - begin > PATIENCE:
            break
    tried = min(start + size, len(items))
    if not rates:
        raise DataError(
            f"not one of {tried} images drawn from the training split can be encoded; the first, "
            f"{skipped[0]['source']}: {skipped[0]['reason']}",
            "Check the image folder.",
        )
    return Rate(median(rates), min(rates), max(rates), tried, len(skipped))


def text_rate(encoder: Encoder, texts: Sequence[str]) -> Rate:
    """Tokenise ``texts`` and run some of the batches that a shard of such texts is cut into.

    Args:
        encoder: of texts.
        texts: at best as many as a shard has: the fewer, the more of a batch is padding.
    """
    encoder.encode(encoder.prepare(texts[:8]))
    begin = time.perf_counter()
    prepared = list(encoder.prepare(texts))
    preparing = time.perf_counter() - begin
    batches = list(token_batches([len(text) for text in prepared], default_batch(False) * 1024))
    middles = {(2 * i + 1) * len(batches) // (2 * _ROUNDS) for i in range(_ROUNDS)}
    seconds: list[float] = []
    tried = 0
    for index in sorted(middles):
        chosen = [prepared[i] for i in batches[index]]
        begin = time.perf_counter()
        encoder.encode(chosen)
        seconds.append(time.perf_counter() - begin)
        tried += len(chosen)
        if sum(seconds) > PATIENCE:
            break

    def rate(of_a_batch: float) -> float:
        return len(texts) / (preparing + len(batches) * of_a_batch)

    return Rate(rate(median(seconds)), rate(max(seconds)), rate(min(seconds)), tried)


def _encode(
    items: Sequence[Item], encoder: Encoder, dtype: FeatureDtype
) -> tuple[int, float, Store]:
    """Encode items into a store that is thrown away: (items that count, seconds, store).

    On a CPU, preparing and the forward pass share the cores, and the time is that from the first
    byte read to the last feature. Where a GPU encodes, the time up to the first batch is that of
    an empty pipeline, which a run has once.
    """
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="lateen-plan-") as folder:
        store = encode(
            _Drawn(items, clock), _Watched(encoder, clock), Path(folder) / "store",
            dtype=dtype, workers=_THREADS, allow_empty=True,
        )  # fmt: skip
        store.skipped  # noqa: B018 - read while it is there
    batches, count = clock.batches, len(items)
    if not batches:
        return 0, math.nan, store
    begin = clock.begin
    if resolve_device().type == "cuda" and len(batches) > 1:
        begin, first = batches[0]
        count -= first
    return count, batches[-1][0] - begin, store


class _Clock:
    """When the first image was read, and when each batch was done and how many it had."""

    def __init__(self) -> None:
        self.begin = math.inf
        self.batches: list[tuple[float, int]] = []

    def read(self) -> None:
        self.begin = min(self.begin, time.perf_counter())

    def done(self, count: int) -> None:
        self.batches.append((time.perf_counter(), count))


class _Drawn:
    """A dataset of some images."""

    columns: tuple[str, ...] = ()
    name = "the sample"
    fingerprint = ""

    def __init__(self, items: Sequence[Item], clock: _Clock) -> None:
        self._items, self._clock = items, clock

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sample]:
        for item in self._items:
            assert not isinstance(item.content, str)
            yield Sample(item.id, _Source(item.content, self._clock))


class _Source:
    def __init__(self, source: ImageSource, clock: _Clock) -> None:
        self.name, self._source, self._clock = source.name, source, clock

    def read(self) -> bytes:
        self._clock.read()
        return self._source.read()


class _Watched:
    def __init__(self, encoder: Encoder, clock: _Clock) -> None:
        self.info: EncoderInfo = encoder.info
        self.prepare = encoder.prepare
        self._encoder, self._clock = encoder, clock

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        features = self._encoder.encode(prepared)
        self._clock.done(len(prepared))
        return features
