"""The encoding pass: a dataset's items are prepared in threads, encoded, and written by shard.

Work is cut into *units* that never cross a shard: a batch of images, or a whole shard of texts
(so that texts of like length can share a batch). Worker threads decode and prepare the next units
while the main thread runs the forward pass on this one. Units depend on the data alone, so a killed
and resumed run computes the very same batches and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch

from lateen.data import Dataset, ImageSource, Sample, Skip, decode_image
from lateen.data.fingerprint import file_hashes
from lateen.data.images import REDUCED, reading_conditions
from lateen.data.samples import FileImage, HashedImage, TarImage
from lateen.encoders import Encoder, FusedEncoder, ViewedEncoder
from lateen.errors import DataError, ImageError
from lateen.features.writer import StoreWriter
from lateen.progress import bar, log

_PREPARE_ERRORS = (ValueError, TypeError, RuntimeError, OSError, ArithmeticError)


@dataclass(frozen=True)
class Item:
    """One thing to encode: an image of a sample, or one of its captions."""

    id: str
    content: ImageSource | str
    source: str


@dataclass
class _Unit:
    """Items that are prepared together; ``prepared[i]`` belongs to ``ids[i]``.

    Attributes:
        items: how many there are, those that were skipped included.
        ends_shard: whether its last item is the last of a shard.
        ids: the sample of each prepared item.
        prepared: what the encoder takes.
        sources: where each prepared item is from.
        skips: items that were left out.
        reduced: how many images were decoded at a part of their size.
        hashes: of the bytes of each prepared image; none of texts.
    """

    items: int
    ends_shard: bool
    ids: list[str] = field(default_factory=list)
    prepared: list[Any] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    reduced: int = 0
    hashes: list[int] = field(default_factory=list)


_Cut = tuple[list[Item | Skip], bool]  # the items of a unit, and whether it ends its shard


class _OpenShard:
    """A store being written, and what has been encoded of its next shard.

    Args:
        writer: of the store.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self.writer = writer
        self._begin()

    def _begin(self) -> None:
        self._features: list[torch.Tensor] = []
        self._ids: list[str] = []
        self._skips: list[dict[str, Any]] = []
        self._items = 0
        self._texts_at_limit = 0
        self._reduced = 0
        self._hashes: list[int] = []

    def add(self, unit: _Unit, features: torch.Tensor, max_tokens: int | None) -> None:
        """Take the features of a unit. Rows that are not finite become skips."""
        finite = torch.isfinite(features).all(dim=1).tolist()
        rows = list(zip(unit.ids, unit.sources, finite, strict=True))
        reason = "the encoder gave NaN or infinity"
        bad = [Skip(sample, reason, source) for sample, source, good in rows if not good]
        self._features.append(features[torch.tensor(finite, dtype=torch.bool)] if bad else features)
        self._ids += [sample for sample, _, good in rows if good]
        self._skips += [skip.as_dict() for skip in [*unit.skips, *bad]]
        self._items += unit.items
        self._reduced += unit.reduced
        if unit.hashes:
            self._hashes += itertools.compress(unit.hashes, finite)
        self._texts_at_limit += sum(_reaches(max_tokens, tokens) for tokens in unit.prepared)

    def write(self) -> None:
        """Write the shard, and begin the next."""
        counts = {
            "texts at the token limit": self._texts_at_limit,
            "images decoded at a part of their size": self._reduced,
        }
        notes = {what: count for what, count in counts.items() if count}
        features = torch.cat(self._features)
        hashes = np.array(self._hashes, dtype=np.uint64) if self._hashes else None
        self.writer.write(features, self._ids, self._skips, self._items, notes, hashes)
        self._begin()


def encode_items(
    items: Iterator[Item | Skip],
    count: int,
    encoders: Sequence[Encoder],
    writers: Sequence[StoreWriter],
    batch: int,
    workers: int | None,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Encode what ``writers`` do not have yet and write it shard by shard.

    Args:
        items: all items in order, also those already done.
        count: how many there are.
        encoders: of the items' modality; several are views of one network, which runs once for all.
        writers: the open store of each, all with shards of one size.
        batch: images, or thousands of tokens, per forward pass.
        workers: threads that prepare.
        on_batch: is told after each forward pass how many items went through it.
    """
    first = encoders[0]
    image = first.info.modality == "image"
    max_tokens = None if image else first.info.preprocessing.get("max_tokens")
    name, noun = ("encoding images", "image") if image else ("encoding texts", "text")

    # Where an earlier run stopped: whole shards on disk are not encoded again.
    done = min(writer.done for writer in writers)
    if done:
        log.info("%s: going on at item %d of %d", writers[0].folder, done, count)
    shards = [_OpenShard(writer) for writer in writers]

    # What is left, cut into units that threads prepare.
    shard_items = writers[0].description.shard_items
    unit_items = batch if image else shard_items
    cuts = _cut(islice(items, done, None), range(done, count), shard_items, unit_items)
    prepare = _prepare_images if image else _prepare_texts

    with bar(count, name, noun, initial=done) as progress:

        def encoded(rows: int) -> None:
            progress.update(rows)
            if on_batch is not None:
                on_batch(rows)

        for unit in _ahead(cuts, lambda cut: prepare(cut, first), workers):
            # The forward pass: features of every view.
            progress.update(len(unit.skips))
            if image:
                features = _encode_images(unit, encoders, encoded)
            else:
                features = _encode_texts(unit, encoders, batch * 1024, encoded)

            # A killed run may have left some of several stores a shard further than others.
            behind = [shard for shard in shards if shard.writer.done <= done]
            for shard, rows in zip(shards, features, strict=True):
                if shard in behind:
                    shard.add(unit, rows, max_tokens)

            # A whole shard is written at once.
            if unit.ends_shard:
                for shard in behind:
                    shard.write()
                done = min(writer.done for writer in writers)


def _reaches(max_tokens: int | None, prepared: Any) -> bool:
    """Whether a prepared text is as long as its encoder allows, where that can be known."""
    return isinstance(prepared, list) and len(prepared) == max_tokens


def default_workers() -> int:
    """Threads that prepare: as many as there are cores, at most 8."""
    return min(8, os.cpu_count() or 1)


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
    start = positions.start
    while start < positions.stop:
        shard_end = min((start // shard_items + 1) * shard_items, positions.stop)
        unit = list(islice(items, min(unit_items, shard_end - start)))
        start += len(unit)
        yield unit, start == shard_end


def _ahead(
    cuts: Iterator[_Cut],
    prepare: Callable[[_Cut], _Unit],
    workers: int | None,
) -> Iterator[_Unit]:
    """Prepared units in order, a few of them made ahead of time by worker threads."""
    threads = workers or default_workers()
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
    side = resized_side(encoder)
    for item in items:
        if isinstance(item, Skip):
            unit.skips.append(item)
            continue
        assert not isinstance(item.content, str)
        source = HashedImage(item.content)
        try:
            image = decode_image(source, short_side=side)
            unit.prepared += encoder.prepare([image])
        except ImageError as error:
            unit.skips.append(Skip(item.id, error.message, item.source))
        except _PREPARE_ERRORS as error:
            unit.skips.append(Skip(item.id, f"preprocessing failed: {error}", item.source))
        else:
            unit.ids.append(item.id)
            unit.sources.append(item.source)
            unit.reduced += REDUCED in image.info
            unit.hashes.append(source.hash)
    return unit


def resized_side(encoder: Encoder) -> int | None:
    """The longest side, in pixels, that images are resized to, where their encoder says so."""
    if isinstance(encoder, FusedEncoder):
        sides = [resized_side(part) for part in encoder.parts]
        return None if None in sides else max(side for side in sides if side is not None)
    size = encoder.info.preprocessing.get("size")
    if not isinstance(size, Mapping) or not encoder.info.preprocessing.get("do_resize", True):
        return None
    edges = [size[name] for name in ("shortest_edge", "height", "width") if size.get(name)]
    return max(edges, default=None)


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


def _encode_images(
    unit: _Unit, encoders: Sequence[Encoder], on_batch: Callable[[int], None]
) -> list[torch.Tensor]:
    """Features ``[n, dim]`` of every encoder, in one batch."""
    if not unit.prepared:
        return [torch.empty(0, encoder.info.dim) for encoder in encoders]
    features = _forward(unit.prepared, encoders)
    on_batch(len(unit.prepared))
    return features


def _encode_texts(
    unit: _Unit, encoders: Sequence[Encoder], budget: int, on_batch: Callable[[int], None]
) -> list[torch.Tensor]:
    """Features ``[n, dim]`` of every encoder, in input order.

    They are computed shortest first, in batches of equal cost.
    """
    features: list[torch.Tensor] = []
    for batch in token_batches([len(tokens) for tokens in unit.prepared], budget):
        encoded = _forward([unit.prepared[i] for i in batch], encoders)
        features = features or [
            part.new_empty(len(unit.prepared), part.shape[1]) for part in encoded
        ]
        for whole, part in zip(features, encoded, strict=True):
            whole[batch] = part
        on_batch(len(batch))
    return features or [torch.empty(0, encoder.info.dim) for encoder in encoders]


def _forward(prepared: Sequence[Any], encoders: Sequence[Encoder]) -> list[torch.Tensor]:
    """Features ``[n, dim]`` of every encoder; of several, which are views, from one pass."""
    first = encoders[0]
    if len(encoders) == 1:
        return [first.encode(prepared)]
    assert isinstance(first, ViewedEncoder)
    return first.encode_views(prepared, encoders)


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


def items_of(dataset: Dataset, modality: str, column: str | None) -> Iterator[Item | Skip]:
    """The dataset as items of one modality, and the skips that concern it, in order."""
    for sample in dataset:
        if isinstance(sample, Skip):
            if sample.sample or (modality == "text" and sample.column in (None, column)):
                yield sample
        elif modality == "image":
            if sample.image is not None:
                yield Item(sample.id, sample.image, sample.image.name)
        else:
            yield from _captions(sample, str(column))


def _captions(sample: Sample, column: str) -> Iterator[Item | Skip]:
    captions = sample.captions.get(column, ())
    for index, caption in enumerate(captions):
        source = f"column {column}, caption {index + 1}"
        if caption.strip():
            yield Item(sample.id, caption, source)
        else:
            yield Skip(sample.id, "empty caption", source, sample=False, column=column)


def fingerprint(dataset: Dataset, modality: str, column: str | None) -> tuple[int, str]:
    """How many items there are, and a content hash of this modality alone.

    Editing a caption must not make the images stale, so the dataset's own fingerprint, which covers
    both, is used only where image bytes cannot be hashed file by file.
    """
    digest, count, files = hashlib.sha256(), 0, []
    whole = False
    for item in items_of(dataset, modality, column):
        count += 1
        parts = [item.id]  # and no path: a dataset that was moved is the same dataset
        if isinstance(item, Skip):
            parts.append(item.reason)
        elif isinstance(item.content, str):
            parts.append(item.content)
        elif isinstance(item.content, FileImage):
            files.append(item.content.path)
        elif isinstance(item.content, TarImage):
            parts += [item.content.member, str(item.content.offset), str(item.content.size)]
            if not files or files[-1] != item.content.tar:
                files.append(item.content.tar)
        else:
            whole = True
        digest.update("\0".join(parts).encode() + b"\n")
    if count == 0:
        raise DataError(
            f"{dataset.name} has no {'images' if modality == 'image' else 'captions'}",
            "Check the path, and the image and caption columns.",
        )
    for file_hash in file_hashes(files):
        digest.update(file_hash.encode())
    if modality == "image":
        for condition in reading_conditions(map(str, files)):
            digest.update(condition.encode())
    if whole:
        digest.update(dataset.fingerprint.encode())
    return count, digest.hexdigest()
