"""The encoding pass: a dataset's items are prepared in threads, encoded, and written by shard.

Work is cut into *units* that never cross a shard: a batch of images, or a whole shard of texts
(so that texts of like length can share a batch). Worker threads decode and prepare the next units
while the main thread runs the forward pass on this one. Units depend on the data alone, so a killed
and resumed run computes the very same batches and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
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
from lateen.device import default_workers
from lateen.encoders import Encoder, FusedEncoder, RemoteEncoder
from lateen.errors import DataError, ImageError
from lateen.features.passes import ForwardPasses, token_batches
from lateen.features.shard import ShardContent
from lateen.features.writer import StoreWriter
from lateen.progress import bar, log

PART_SECONDS = 60.0  # what a killed run may lose
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


@dataclass
class _Piece:
    """What one unit, or a part on disk, holds of a shard."""

    features: torch.Tensor
    ids: Sequence[str]
    skips: list[dict[str, Any]]
    items: int
    notes: dict[str, int]
    hashes: np.ndarray[Any, Any] | None = None  # [rows], uint64: of images' bytes

    @classmethod
    def read(cls, part: ShardContent) -> _Piece:
        """What a part holds."""
        features, kept = _features(part), part.image_hashes
        hashes = None
        if kept is not None:
            hashes = kept.read(np.arange(len(part.ids)))[:, 0].view(np.uint64)
        return cls(features, part.ids, part.skipped, part.stop - part.start, part.notes, hashes)

    @classmethod
    def joined(cls, pieces: Sequence[_Piece]) -> _Piece:
        """Several, one after the other."""
        notes: Counter[str] = Counter()
        for piece in pieces:
            notes.update(piece.notes)
        known = [piece.hashes for piece in pieces if piece.hashes is not None]
        hashes = np.concatenate(known) if known else None  # of a unit without rows there are none
        return cls(
            torch.cat([piece.features for piece in pieces]),
            [sample for piece in pieces for sample in piece.ids],
            [skip for piece in pieces for skip in piece.skips],
            sum(piece.items for piece in pieces), {k: n for k, n in notes.items() if n}, hashes,
        )  # fmt: skip


class _OpenShard:
    """A store being written, and what has been encoded of its next shard.

    Args:
        writer: of the store.
        encoder: of its features.
    """

    def __init__(self, writer: StoreWriter, encoder: Encoder) -> None:
        self.writer = writer
        self.encoder = encoder
        self._pieces: list[_Piece] = []
        self._saved = 0  # pieces that are in a part on disk

    def take_parts(self) -> None:
        """Go on from the parts that an earlier run left."""
        self._pieces = [_Piece.read(part) for part in self.writer.parts]
        self._saved = len(self._pieces)

    def add(self, unit: _Unit, features: torch.Tensor, max_tokens: int | None) -> None:
        """Take the features of a unit. Rows that are not finite become skips."""
        finite = torch.isfinite(features).all(dim=1).tolist()
        rows = list(zip(unit.ids, unit.sources, unit.prepared, finite, strict=True))
        bad = [
            Skip(sample, _why_not_finite(self.encoder, prepared), source)
            for sample, source, prepared, good in rows
            if not good
        ]
        notes = {
            "texts at the token limit": sum(_reaches(max_tokens, each) for each in unit.prepared),
            "images decoded at a part of their size": unit.reduced,
        }
        piece = _Piece(
            features[torch.tensor(finite, dtype=torch.bool)] if bad else features,
            [sample for sample, _, _, good in rows if good],
            [skip.as_dict() for skip in [*unit.skips, *bad]], unit.items, notes,
            np.array(unit.hashes, np.uint64)[finite] if unit.hashes else None,
        )  # fmt: skip
        self._pieces.append(piece)

    def write(self, *, part: bool = False) -> None:
        """Write the shard and begin the next; or a part of it: what was added since the last."""
        new = _Piece.joined(self._pieces[self._saved if part else 0 :])
        self.writer.write(
            new.features, new.ids, new.skips, new.items, new.notes, new.hashes, part=part
        )
        self._pieces = self._pieces if part else []
        self._saved = len(self._pieces)


class _Clock:
    """When a part is due: a minute after the last file was written."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A file has been written."""
        self._since = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for a part."""
        return time.monotonic() - self._since >= PART_SECONDS


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

    # Where an earlier run stopped: whole shards on disk are not encoded again, nor are the parts
    # of the next one. A killed run may have left some of several stores further than others.
    shards = [_OpenShard(*both) for both in zip(writers, encoders, strict=True)]
    done = min(writer.done for writer in writers)
    behind = [shard for shard in shards if shard.writer.done <= done]
    for shard in shards:
        if shard not in behind:
            shard.writer.drop_parts()  # the others have none of that shard
    partly = _agree_on_parts([shard.writer for shard in behind], done)
    if image:
        for shard in behind:
            shard.take_parts()
    begin = partly if image else done
    if partly:
        log.info("%s: going on at item %d of %d", writers[0].folder, partly, count)

    # What is left, cut into units that threads prepare.
    shard_items = writers[0].description.shard_items
    unit_items = batch if image else shard_items
    cuts = _cut(islice(items, begin, None), range(begin, count), shard_items, unit_items)
    prepare = _prepare_images if image else _prepare_texts
    passes, clock = ForwardPasses(), _Clock()

    with bar(count, name, noun, initial=begin) as progress:

        def encoded(rows: int) -> None:
            progress.update(rows)
            if on_batch is not None:
                on_batch(rows)

        for unit in _ahead(cuts, lambda cut: prepare(cut, first), workers):
            # The forward pass: features of every view.
            progress.update(len(unit.skips))
            behind = [shard for shard in shards if shard.writer.done <= done]
            if image:
                features = _encode_images(unit, behind, passes, encoded)
            else:
                features = _encode_texts(unit, behind, passes, batch * 1024, encoded, clock)
            for shard, rows in zip(behind, features, strict=True):
                shard.add(unit, rows, max_tokens)

            # A whole shard is written at once, and what there is of a slow one as a part.
            if unit.ends_shard:
                for shard in behind:
                    shard.write()
                done = min(writer.done for writer in writers)
                clock.restart()
            elif clock.due:
                for shard in behind:
                    shard.write(part=True)
                clock.restart()


def _agree_on_parts(writers: Sequence[StoreWriter], done: int) -> int:
    """Where the parts of the next shard end that all ``writers`` have; other parts are dropped.

    Args:
        writers: those that have the same whole shards.
        done: items of these.
    """
    ends = [{part.stop for part in writer.parts} for writer in writers]
    end = max(set.intersection(*ends), default=done)
    for writer in writers:
        writer.drop_parts(sum(part.stop <= end for part in writer.parts))
    return end


def _features(part: ShardContent) -> torch.Tensor:
    """All rows of a part ``[rows, dim]``; its numbers are those that the store will have."""
    return torch.from_numpy(part.features.read(np.arange(len(part.ids))))


def _encode_images(
    unit: _Unit, shards: Sequence[_OpenShard], passes: ForwardPasses,
    on_batch: Callable[[int], None],
) -> list[torch.Tensor]:  # fmt: skip
    """Features ``[n, dim]`` for every store, in one batch."""
    encoders = [shard.encoder for shard in shards]
    if not unit.prepared:
        return [torch.empty(0, encoder.info.dim) for encoder in encoders]
    features = passes(unit.prepared, encoders)
    on_batch(len(unit.prepared))
    return features


def _encode_texts(
    unit: _Unit, shards: Sequence[_OpenShard], passes: ForwardPasses, budget: int,
    on_batch: Callable[[int], None], clock: _Clock,
) -> list[torch.Tensor]:  # fmt: skip
    """Features ``[n, dim]`` for every store, in input order.

    They are computed shortest first, in batches of equal cost, and a part on disk holds rows in
    that order: it begins and ends where batches do.
    """
    encoders = [shard.encoder for shard in shards]
    batches = list(token_batches([len(tokens) for tokens in unit.prepared], budget))
    order = [row for batch in batches for row in batch]
    on_disk = [torch.cat([_features(part) for part in shard.writer.parts])
               for shard in shards if shard.writer.parts]  # fmt: skip
    written = saved = len(on_disk[0]) if on_disk else 0
    features: list[torch.Tensor] = []

    def room(like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [part.new_empty(len(unit.prepared), part.shape[1]) for part in like]

    stop = 0
    for batch in batches:
        stop += len(batch)
        if stop <= saved:
            on_batch(len(batch))
            continue
        encoded = passes([unit.prepared[i] for i in batch], encoders)
        features = features or room(encoded)
        for whole, part in zip(features, encoded, strict=True):
            whole[batch] = part
        on_batch(len(batch))
        if clock.due and stop < len(order):
            fresh, written = order[written:stop], stop
            for shard, whole in zip(shards, features, strict=True):
                ids = [unit.ids[row] for row in fresh]
                shard.writer.write(whole[fresh], ids, [], len(fresh), part=True)
            clock.restart()
    features = features or room(on_disk) or [torch.empty(0, e.info.dim) for e in encoders]
    for whole, rows in zip(features, on_disk, strict=False):
        whole[order[:saved]] = rows.to(whole.dtype)
    return features


def _why_not_finite(encoder: Encoder, prepared: Any) -> str:
    """Why an item's features are not finite."""
    if isinstance(encoder, RemoteEncoder):
        return encoder.refusal(prepared)
    return "the encoder gave NaN or infinity"


def _reaches(max_tokens: int | None, prepared: Any) -> bool:
    """Whether a prepared text is as long as its encoder allows, where that can be known."""
    return isinstance(prepared, list) and len(prepared) == max_tokens


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
