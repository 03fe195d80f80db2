"""A finished store, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lateen.errors import PairingError, StoreError, UsageError
from lateen.features.ids import Ids
from lateen.features.manifest import Manifest, Shard
from lateen.features.shard import ShardContent, read_shard
from lateen.files import file_sha256
from lateen.objects import ObjectPath, to_path
from lateen.objects.ranges import range_cache

Array = np.ndarray[Any, Any]
Rows = int | np.integer[Any] | slice | Sequence[int] | np.ndarray[Any, Any] | torch.Tensor
_CHUNK = 2048  # rows that are compared at a time
_REQUESTS = 16  # to an object store at the same time
_AGAIN = "Remove that shard and run the same encode command again: it is made anew."


class Store:
    """A finished feature store. Rows stay on disk until they are asked for.

    >>> store = Store.open("stores/images")        # doctest: +SKIP
    >>> len(store), store.dim, store.ids[:2]       # doctest: +SKIP
    >>> store[[0, 5, 2]].shape                     # doctest: +SKIP
    torch.Size([3, 384])

    Args:
        path: the folder.
        manifest: what it says of itself.
        shards: its rows, in order.

    Attributes:
        path: the folder.
        manifest: what it says of itself.
        ids: the sample id of every row, as a sequence of strings; in a text store an id stands once
            per caption.
        skipped: what was left out when the store was made: ``id``, ``reason``, ``source``,
            ``sample`` and ``column``.
    """

    def __init__(self, path: Path, manifest: Manifest, shards: Sequence[ShardContent]) -> None:
        self.path = path
        self.manifest = manifest
        self.ids = Ids.joined([Ids.of(shard.ids) for shard in shards])
        self.skipped: list[dict[str, Any]] = [skip for shard in shards for skip in shard.skipped]
        self._features = [shard.features for shard in shards]
        self._image_hashes = [shard.image_hashes for shard in shards]
        self._ends = np.cumsum([len(shard.ids) for shard in shards])

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = False) -> Store:
        """Open the store in ``path``.

        Args:
            path: a folder made by ``lateen encode`` or ``lateen import``, which may be one in an
                object store.
            verify: read every byte and compare it with the manifest's SHA-256.

        Raises:
            StoreError: no store there, an unfinished one, or a truncated, changed or missing shard.
            ObjectStoreError: its object store cannot be reached.
        """
        folder = to_path(path)
        manifest = Manifest.read(folder)
        if not isinstance(folder, ObjectPath):
            shards = [_open_shard(folder, shard, verify) for shard in manifest.shards]
            return cls(folder, manifest, shards)
        # A part of a store would only push out what is kept of it, as each epoch reads all.
        keep = sum(shard.bytes for shard in manifest.shards) <= range_cache().limit
        opened = partial(_open_shard, folder, verify=verify, keep=keep)
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return cls(folder, manifest, list(pool.map(opened, manifest.shards)))

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
        shard_of = np.searchsorted(self._ends, index, side="right")
        shards = np.unique(shard_of)
        if len(shards) == 1:
            return self._read_shard(shards[0], index)
        out = np.empty((len(index), self.dim), self.dtype)
        inside = [np.flatnonzero(shard_of == shard) for shard in shards]
        parts = [index[rows] for rows in inside]
        if isinstance(self.path, ObjectPath):
            with ThreadPoolExecutor(min(len(shards), _REQUESTS)) as pool:
                values = list(pool.map(self._read_shard, shards, parts))
            for rows, read in zip(inside, values, strict=True):
                out[rows] = read
            return out
        for shard, rows, part in zip(shards, inside, parts, strict=True):
            out[rows] = self._read_shard(shard, part)
        return out

    def _read_shard(self, shard: int, index: Array) -> Array:
        features = self._features[shard]
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
        shard_of = np.searchsorted(self._ends, index, side="right")
        hashes = np.zeros(len(index), np.uint64)
        for shard, (content, end) in enumerate(zip(self._image_hashes, self._ends, strict=True)):
            inside = np.flatnonzero(shard_of == shard)
            if content is not None and len(inside):
                first = end - content.shape[0]
                hashes[inside] = content.read(index[inside] - first)[:, 0].view(np.uint64)
        return hashes

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """All rows in order, ``size`` at a time, float32."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _open_shard(folder: Path, shard: Shard, verify: bool, keep: bool = True) -> ShardContent:
    """One shard of a store, seen to be what the manifest says."""
    file = folder / shard.file
    content = read_shard(file, keep=keep)
    if file.stat().st_size != shard.bytes or len(content.ids) != shard.rows:
        raise StoreError(f"{file} is not the file its manifest describes", _AGAIN)
    if verify and file_sha256(file) != shard.sha256:
        raise StoreError(f"{file} has changed since it was written", _AGAIN)
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
