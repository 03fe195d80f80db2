"""The encoding pass: prepare ahead in threads, run the forward pass, write shard by shard.

Work is cut into *units* that never cross a shard: a batch of images, or a whole shard of texts
(so that texts of like length can share a batch). Worker threads decode and prepare the next units
while the main thread runs the forward pass on this one. Units depend on the data alone, so a killed
and resumed run computes the very same batches and ends with the same bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from lateen.data import Skip, decode_image
from lateen.encoders import Encoder
from lateen.encoding.items import Item
from lateen.errors import ImageError
from lateen.progress import bar, log
from lateen.store import StoreWriter

_PREPARE_ERRORS = (ValueError, TypeError, RuntimeError, OSError, ArithmeticError)
_Cut = tuple[list[Item | Skip], bool]


@dataclass
class _Unit:
    """Items that are prepared together; ``prepared[i]`` belongs to ``ids[i]``."""

    items: int
    ends_shard: bool
    ids: list[str] = field(default_factory=list)
    prepared: list[Any] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


@dataclass
class _ShardBuffer:
    """What has been encoded of the shard being filled."""

    features: list[torch.Tensor] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    skips: list[dict[str, Any]] = field(default_factory=list)
    items: int = 0
    at_limit: int = 0

    def add(self, unit: _Unit, features: torch.Tensor) -> None:
        self.features.append(features)
        self.ids += unit.ids
        self.skips += [skip.as_dict() for skip in unit.skips]
        self.items += unit.items

    def write(self, writer: StoreWriter) -> None:
        notes = {"texts at the token limit": self.at_limit} if self.at_limit else {}
        writer.write(torch.cat(self.features), self.ids, self.skips, self.items, notes)


def encode_items(
    items: Iterator[Item | Skip],
    count: int,
    encoder: Encoder,
    writer: StoreWriter,
    batch: int,
    workers: int | None,
) -> None:
    """Encode what ``writer`` does not have yet and write it shard by shard.

    Args:
        items: all items in order, also those already done.
        count: how many there are.
        encoder: of the items' modality.
        writer: the open store.
        batch: images, or thousands of tokens, per forward pass.
        workers: threads that prepare.
    """
    image = encoder.info.modality == "image"
    shard_items = writer.description.shard_items
    limit = encoder.info.preprocessing.get("max_tokens")
    todo = islice(items, writer.done, None)
    cuts = _cut(todo, range(writer.done, count), shard_items, batch if image else shard_items)
    prepare = _prepare_images if image else _prepare_texts
    buffer = _ShardBuffer()
    if writer.done:
        log.info("%s: going on at item %d of %d", writer.folder, writer.done, count)
    name, noun = ("encoding images", "image") if image else ("encoding texts", "text")
    with bar(count, name, noun, initial=writer.done) as progress:
        for unit in _ahead(cuts, lambda cut: prepare(cut, encoder), workers):
            if image:
                features = _encode_images(unit, encoder)
                progress.update(unit.items)
            else:
                features = _encode_texts(unit, encoder, batch * 1024, progress.update)
                buffer.at_limit += sum(_reaches(limit, tokens) for tokens in unit.prepared)
            buffer.add(unit, _keep_finite(features, unit))
            if unit.ends_shard:
                buffer.write(writer)
                buffer = _ShardBuffer()


def _reaches(limit: int | None, prepared: Any) -> bool:
    """Whether a prepared text is as long as its encoder allows, where that can be known."""
    return isinstance(prepared, list) and len(prepared) == limit


def default_batch(image: bool) -> int:
    """Images, or thousands of text tokens, per forward pass: what fits the cache or the GPU."""
    gpu = torch.cuda.is_available()
    if image:
        return 256 if gpu else 16
    return 64 if gpu else 4


def _cut(
    items: Iterator[Item | Skip], positions: range, shard_items: int, unit_items: int
) -> Iterator[_Cut]:
    """Lists of items, none across a shard's end, each with whether it ends its shard.

    Args:
        items: the items at ``positions``.
        positions: where they stand among all items; shards are counted from 0.
        shard_items: items of a shard.
        unit_items: items of a list, at most.
    """
    at = positions.start
    while at < positions.stop:
        shard_end = min((at // shard_items + 1) * shard_items, positions.stop)
        unit = list(islice(items, min(unit_items, shard_end - at)))
        at += len(unit)
        yield unit, at == shard_end


def _ahead(
    cuts: Iterator[_Cut],
    prepare: Callable[[_Cut], _Unit],
    workers: int | None,
) -> Iterator[_Unit]:
    """Prepared units in order, a few of them made ahead of time by worker threads."""
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="lateen-prepare") as pool:
        waiting: deque[Future[_Unit]] = deque()
        try:
            for cut in cuts:
                waiting.append(pool.submit(prepare, cut))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _prepare_images(cut: _Cut, encoder: Encoder) -> _Unit:
    items, ends_shard = cut
    unit = _Unit(len(items), ends_shard)
    for item in items:
        if isinstance(item, Skip):
            unit.skips.append(item)
            continue
        assert not isinstance(item.content, str)
        try:
            unit.prepared += encoder.prepare([decode_image(item.content)])
        except ImageError as error:
            unit.skips.append(Skip(item.id, error.message, item.source))
        except _PREPARE_ERRORS as error:
            unit.skips.append(Skip(item.id, f"preprocessing failed: {error}", item.source))
        else:
            unit.ids.append(item.id)
            unit.sources.append(item.source)
    return unit


def _prepare_texts(cut: _Cut, encoder: Encoder) -> _Unit:
    items, ends_shard = cut
    unit = _Unit(len(items), ends_shard)
    texts: list[str] = []
    for item in items:
        if isinstance(item, Skip):
            unit.skips.append(item)
        else:
            texts.append(str(item.content))
            unit.ids.append(item.id)
            unit.sources.append(item.source)
    unit.prepared = list(encoder.prepare(texts)) if texts else []
    return unit


def _encode_images(unit: _Unit, encoder: Encoder) -> torch.Tensor:
    if not unit.prepared:
        return torch.empty(0, encoder.info.dim)
    return encoder.encode(unit.prepared)


def _encode_texts(
    unit: _Unit, encoder: Encoder, budget: int, done: Callable[[int], Any]
) -> torch.Tensor:
    """Features ``[n, dim]`` in input order, computed shortest first in batches of equal cost."""
    features = torch.empty(len(unit.prepared), encoder.info.dim)
    done(len(unit.skips))
    for batch in token_batches([len(tokens) for tokens in unit.prepared], budget):
        features[batch] = encoder.encode([unit.prepared[i] for i in batch])
        done(len(batch))
    return features


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length; a batch's padded size stays within ``budget``.

    Args:
        lengths: tokens of each text.
        budget: tokens per batch, padding included; a longer text is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _keep_finite(features: torch.Tensor, unit: _Unit) -> torch.Tensor:
    """Drop rows with NaN or infinity from ``features`` and ``unit.ids``, recording each."""
    finite = torch.isfinite(features).all(dim=1)
    if bool(finite.all()):
        return features
    for row in torch.nonzero(~finite).flatten().tolist():
        reason = "the encoder gave NaN or infinity"
        unit.skips.append(Skip(unit.ids[row], reason, unit.sources[row]))
    unit.ids = [i for i, good in zip(unit.ids, finite.tolist(), strict=True) if good]
    return features[finite]
