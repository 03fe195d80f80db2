"""How fast encoders take images and captions on this machine, and what that comes to."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lateen.device import default_batch, default_workers, resolve_device
from lateen.encoders import Encoder
from lateen.errors import DataError, UsageError
from lateen.features.manifest import Description, FeatureDtype
from lateen.features.passes import batch_of, token_batches
from lateen.features.pipeline import Item, encode_items
from lateen.features.writer import StoreWriter

PATIENCE = 20.0  # seconds after which no further round of a measurement is begun
STAGES = ("load", "encode", "train", "evaluate")
_ROUNDS = 3


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
    return _ROUNDS * default_workers() * default_batch(True)


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
    size = default_workers() * batch
    rates: list[float] = []
    skipped: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for start in range(0, len(items), size):
        count, seconds, skips = _encode(items[start : start + size], encoder, dtype)
        skipped += skips
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


def _encode(
    items: Sequence[Item], encoder: Encoder, dtype: FeatureDtype
) -> tuple[int, float, list[dict[str, Any]]]:
    """Encode items into a store that is thrown away: (items that count, seconds, skips).

    On a CPU, preparing and the forward pass share the cores, and the time is that from the first
    byte read to the last feature. Where a GPU encodes, the time up to the first batch is that of
    an empty pipeline, which a run has once.
    """
    batches: list[tuple[float, int]] = []  # when each was done, and how many images it had
    description = Description.of(encoder.info, source="the sample", fingerprint="", dtype=dtype)
    with tempfile.TemporaryDirectory(prefix="lateen-plan-") as folder:
        writer = StoreWriter(Path(folder), description)
        begin = time.perf_counter()
        encode_items(
            iter(items), len(items), [encoder], [writer], default_batch(True), default_workers(),
            on_batch=lambda images: batches.append((time.perf_counter(), images)),
        )  # fmt: skip
    count = len(items)
    if not batches:
        return 0, math.nan, writer.skipped
    if resolve_device().type == "cuda" and len(batches) > 1:
        begin, first = batches[0]
        count -= first
    return count, batches[-1][0] - begin, writer.skipped


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
    batches = list(token_batches([len(text) for text in prepared], batch_of(encoder) * 1024))
    # One batch from the middle of each third, which are the short, the usual and the long texts.
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


@dataclass(frozen=True)
class Cost:
    """One item of a plan.

    Attributes:
        item: what is done.
        stage: that it belongs to: ``load``, ``encode``, ``train`` or ``evaluate``.
        seconds: predicted, by the median round of the measurement.
        low: by its fastest round.
        high: by its slowest.
        count: of what there is to do.
        unit: what is counted, in the singular.
        bytes: that it adds to the disk.
        encoder: that it runs, if it does.
    """

    item: str
    stage: str
    seconds: float
    low: float
    high: float
    count: int
    unit: str
    bytes: int = 0
    encoder: str | None = None

    @classmethod
    def of(
        cls, item: str, stage: str, count: int, unit: str, rate: Rate, *, bytes: int = 0,
        encoder: str | None = None,
    ) -> Cost:  # fmt: skip
        """The cost of ``count`` items at a rate."""
        seconds, low, high = (count / each for each in (rate.middle, rate.high, rate.low))
        return cls(item, stage, seconds, low, high, count, unit, bytes, encoder)

    @classmethod
    def timed(
        cls, item: str, stage: str, count: int, unit: str, each: float, *, bytes: int = 0
    ) -> Cost:
        """The cost of ``count`` items of which one took ``each`` seconds."""
        seconds = count * each
        return cls(item, stage, seconds, seconds, seconds, count, unit, bytes)


def sums(costs: Sequence[Cost]) -> dict[str, Any]:
    """The items, their sums by stage, and the largest."""
    stages = {stage: sum(cost.seconds for cost in costs if cost.stage == stage) for stage in STAGES}
    ends = {end: sum(getattr(cost, end) for cost in costs) for end in ("low", "high")}
    return {
        "items": [asdict(cost) for cost in costs],
        "seconds": {**stages, "total": sum(stages.values()), **ends},
        "largest": asdict(max(costs, key=lambda cost: cost.seconds)),
    }


def check_positive(**values: float | None) -> None:
    """See that numbers are above 0, where they are given.

    Raises:
        UsageError: one is not.
    """
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"{name} is {value}", "It must be above 0.")
