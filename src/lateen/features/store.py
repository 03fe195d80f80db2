"""A finished store, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lateen.errors import PairingError, StoreError, UsageError
from lateen.features.ids import Ids
from lateen.features.manifest import Manifest, Shard
from lateen.features.shard import Features, ShardContent, read_shard
from lateen.files import file_sha256
from lateen.objects import ObjectPath, is_object, mapped, to_path
from lateen.objects.ranges import range_cache

Array = np.ndarray[Any, Any]
Rows = int | np.integer[Any] | slice | Sequence[int] | np.ndarray[Any, Any] | torch.Tensor
_CHUNK = 2048  # rows that are compared at a time
_AGAIN = "Remove that shard and run the same encode command again: it is made anew."


class Store:
    """A finished feature store. Rows and ids stay on disk until they are asked for.

    >>> store = Store.open("stores/images")        # doctest: +SKIP
    >>> len(store), store.dim, store.ids[:2]       # doctest: +SKIP
    >>> store[[0, 5, 2]].shape                     # doctest: +SKIP
    torch.Size([3, 384])

    Args:
        path: the folder.
        manifest: what it says of itself.
        read: opens the shard of a number.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
    """

    def __init__(self, path: Path, manifest: Manifest, read: Callable[[int], ShardContent]) -> None:
        self.path = path
        self.manifest = manifest
        self._read_head = read
        self._opened: list[tuple[Features, Features | None] | None] = [None] * len(manifest.shards)
        self._ends = np.cumsum([shard.rows for shard in manifest.shards])

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> Store:
        """Open the store in ``path``.

        The sizes of its shards are looked at; what they hold is looked at when it is read.

        Args:
            path: a folder made by ``lateen encode`` or ``lateen import``, which may be one in an
                object store.
            verify: read every byte and compare it with the manifest's SHA-256.

        Raises:
            StoreError: no store there, an unfinished one, or a shard that is missing or of another
                size, or, with ``verify``, changed.
            ObjectStoreError: its object store cannot be reached.
        """
        folder = to_path(path)
        manifest = Manifest.read(folder)
        keep = True
        if isinstance(folder, ObjectPath):
            # A part of a store would only push out what is kept of it, as each epoch reads all.
            keep = sum(shard.bytes for shard in manifest.shards) <= range_cache().limit
            folder.files()  # one request tells of a thousand shards
        for shard in manifest.shards:
            _check_file(folder / shard.file, shard, verify)
        return cls(folder, manifest, partial(_open_shard, folder, manifest.shards, keep))

    @cached_property
    def ids(self) -> Ids:
        """The sample id of every row, as a sequence of strings; in a text store an id stands once
        per caption.

        Raises:
            StoreError: a shard is damaged, or has gone since the store was opened.
        """
        return self._heads[0]

    @cached_property
    def skipped(self) -> list[dict[str, Any]]:
        """What was left out when the store was made: ``id``, ``reason``, ``source``, ``sample`` and
        ``column``."""
        return self._heads[1] if self.manifest.skipped else []

    @cached_property
    def _heads(self) -> tuple[Ids, list[dict[str, Any]]]:
        """Ids and skips of all shards, each of which is opened."""
        ids: list[Ids] = []
        skipped: list[dict[str, Any]] = []
        heads = mapped(self._read_head, range(len(self._opened)), remote=is_object(self.path))
        for index, content in enumerate(heads):
            ids.append(Ids.of(content.ids))
            skipped += content.skipped
            self._opened[index] = content.features, content.image_hashes
        return Ids.joined(ids), skipped

    def _shard(self, index: int) -> tuple[Features, Features | None]:
        """The features of a shard, and its images' hashes."""
        opened = self._opened[index]
        if opened is None:
            content = self._read_head(index)
            opened = self._opened[index] = content.features, content.image_hashes
        return opened

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.manifest.description.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the features on disk."""
        return np.dtype(self.manifest.description.dtype)

    @property
    def modality(self) -> str:
        """``image`` or ``text``."""
        return self.manifest.description.modality

    @property
    def name(self) -> str:
        """The caption column of a text store, else the modality."""
        return self.manifest.description.column or self.modality

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, rows={len(self)}, dim={self.dim}, {self.modality})"

    def __getitem__(self, rows: Rows) -> torch.Tensor:
        """Features ``[n, dim]`` (``[dim]`` for one int) as float32, in the order asked for; token
        ids as int32.

        Raises:
            IndexError: a row outside the store.
        """
        if isinstance(rows, int | np.integer):
            return self[[int(rows)]][0]
        values = self.read(rows)
        whole = values.dtype.kind == "i"
        return torch.from_numpy(values if whole else values.astype(np.float32, copy=False))

    def read(self, rows: Rows) -> Array:
        """Features ``[n, dim]`` as stored (token ids are int32), in the order asked for.

        Neighbouring rows are read at once, so that a block of them costs one read.

        Raises:
            IndexError: a row outside the store.
            StoreError: a shard that has gone or been cut since the store was opened.
        """
        index = self._index(rows)
        parts = self._by_shard(index)
        if len(parts) == 1:
            return self._read_shard(parts[0][0], index)
        out = np.empty((len(index), self.dim), self.dtype)

        def read(part: tuple[int, Array]) -> Array:
            shard, inside = part
            return self._read_shard(shard, index[inside])

        values = mapped(read, parts, remote=is_object(self.path))
        for (_, inside), features in zip(parts, values, strict=True):
            out[inside] = features
        return out

    def _by_shard(self, index: Array) -> list[tuple[int, Array]]:
        """Each shard that has some of these rows, and their positions in ``index``, in order."""
        shard_of = np.searchsorted(self._ends, index, side="right")
        order = np.argsort(shard_of, kind="stable")
        starts = np.flatnonzero(np.diff(shard_of[order], prepend=-1))
        inside = np.split(order, starts[1:])
        return (
            list(zip(shard_of[order[starts]].tolist(), inside, strict=True)) if len(index) else []
        )

    def _read_shard(self, shard: int, index: Array) -> Array:
        features, _ = self._shard(shard)
        return features.read(index - (self._ends[shard] - features.shape[0]))

    def _index(self, rows: Rows) -> Array:
        """Row numbers ``[n]``, from 0, that ``rows`` stands for."""
        if isinstance(rows, slice):
            return np.arange(*rows.indices(len(self)))
        values = np.asarray(rows)
        if values.dtype == bool:
            if len(values) != len(self):
                raise IndexError(f"a mask of {len(values)} for a store of {len(self)} rows")
            return np.flatnonzero(values)
        index = values.astype(np.int64, copy=False)
        index = np.where(index < 0, index + len(self), index)
        if index.size and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"row outside a store of {len(self)} rows")
        return index

    def image_hashes(self, rows: Rows = slice(None)) -> Array:
        """A hash of the bytes of each row's image ``[n]``, uint64, in the order asked for.

        0 where it was not kept: in stores of texts, imported ones, and those of earlier versions.

        Raises:
            IndexError: a row outside the store.
            StoreError: a shard that has gone or been cut since the store was opened.
        """
        index = self._index(rows)
        hashes = np.zeros(len(index), np.uint64)
        for shard, inside in self._by_shard(index):
            _, content = self._shard(shard)
            if content is not None:
                first = self._ends[shard] - content.shape[0]
                hashes[inside] = content.read(index[inside] - first)[:, 0].view(np.uint64)
        return hashes

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """All rows in order, ``size`` at a time, float32."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _check_file(file: Path, shard: Shard, verify: bool) -> None:
    """See that a shard's file is there and as long as the manifest says.

    Raises:
        StoreError: it is not; or with ``verify``, its bytes are others.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise StoreError(f"{file} is missing", _AGAIN) from error
    if size < shard.bytes:
        raise StoreError(f"{file} is truncated: {size} of {shard.bytes} bytes", _AGAIN)
    if size != shard.bytes:
        raise StoreError(f"{file} is not the file its manifest describes", _AGAIN)
    if verify and file_sha256(file) != shard.sha256:
        raise StoreError(f"{file} has changed since it was written", _AGAIN)


def _open_shard(folder: Path, shards: Sequence[Shard], keep: bool, index: int) -> ShardContent:
    """One shard of a store, seen to be what the manifest says."""
    shard = shards[index]
    file = folder / shard.file
    content = read_shard(file, keep=keep)
    if len(content.ids) != shard.rows or content.features.shape[0] != shard.rows:
        raise StoreError(f"{file} is not the file its manifest describes", _AGAIN)
    return content


@dataclass(frozen=True)
class StoreRows:
    """Some rows of a store in any order, read from disk as they are asked for.

    Attributes:
        store: where they are.
        rows: ``[n]`` their numbers.
    """

    store: Store
    rows: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Tensor:
        return self.store[self.rows[part]]

    def digests(self) -> Iterator[bytes]:
        """A short hash of each row: equal for equal features."""
        for start in range(0, len(self), 8192):
            for row in self[start : start + 8192]:
                yield blake2b(row.numpy(), digest_size=16).digest()


class Near(NamedTuple):
    """Two samples of like features: an id of each store, and the cosine of their features."""

    id: str
    other: str
    cosine: float


def near_duplicates(store: Store, other: Store | None = None, *, above: float = 0.95) -> list[Near]:
    """Each sample whose nearest one is as good as the same, the nearest pairs first.

    Args:
        store: the samples.
        other: where to look for the nearest, of the same encoder; in ``store`` itself if not given,
            where a pair is listed once.
        above: the least cosine.

    Raises:
        PairingError: the stores are of different encoders.
        DataError: there is nothing to compare with.
        UsageError: no cosine is as high.
    """
    if not -1 <= above <= 1:
        raise UsageError(f"above is {above}", "A cosine is from -1 to 1, such as 0.95.")
    if other is not None and other.manifest.description.encoder_key != (
        store.manifest.description.encoder_key
    ):
        raise PairingError(
            f"{store.path} and {other.path} are of different encoders, so that their features say "
            "nothing of each other",
            "Encode both with the same encoder and settings.",
        )
    from lateen.metrics.nearest import top_similar

    cosines, rows = top_similar(store, other, 1, _CHUNK)
    ids = (store if other is None else other).ids
    nearest = zip(store.ids, rows[:, 0].tolist(), cosines[:, 0].tolist(), strict=True)
    found = [Near(i, ids[row], cosine) for i, row, cosine in nearest if cosine >= above]
    if other is None:
        once = {frozenset((near.id, near.other)): near for near in reversed(found)}
        found = list(reversed(once.values()))
    return sorted(found, key=lambda near: -near.cosine)
