"""One shard: features, ids, hashes and skips in one safetensors file, so one rename commits all."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lateen.errors import StoreError
from lateen.features.ids import Ids
from lateen.features.manifest import Shard
from lateen.files import atomic_path, file_sha256
from lateen.objects import ObjectPath
from lateen.objects.ranges import ObjectReader

TENSOR = "features"
HASHES = "image_hashes"  # beside the features of images; earlier versions read past them

# A single metadata key: safetensors does not promise an order among several, and a resumed store
# must end with the same bytes.
METADATA = "lateen"
_NUMPY: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}  # fmt: skip
_LENGTH = struct.Struct("<Q")
_HEAD = 128 * 1024  # bytes of an object in which a header mostly ends
_GAP = 32 * 1024  # bytes; reading that much for nothing costs less than another read
_RUN = 4 * 1024 * 1024  # bytes of a buffer
Array = np.ndarray[Any, Any]
_AGAIN = "Remove that shard and run the same encode command again: it is made anew."


class Features(Protocol):
    """Features ``[rows, dim]`` that are read when asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, dim)."""

    def read(self, rows: Array) -> Array:
        """The features of ``rows`` ``[n]``, in their order."""


@dataclass(frozen=True)
class ShardFeatures:
    """Features ``[rows, dim]`` in a file, read when asked for.

    Plain reads rather than a memory map: mapped pages count as this process's memory, a map of
    every shard counts against its address space, and a file cut short would kill it.

    Attributes:
        path: the file.
        dtype: of the features.
        shape: (rows, dim).
        offset: of the first feature in the file, in bytes.
        reader: what reads it, where the file is in an object store.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    offset: int
    reader: ObjectReader | None = None

    def read(self, rows: Array) -> Array:
        """The features of ``rows`` ``[n]``, in their order, by as few reads as make sense.

        Raises:
            StoreError: the file is gone or has become shorter.
        """
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        if self.reader is not None:
            try:
                self._fill(self.reader, rows, out)
            except FileNotFoundError as error:
                raise StoreError(f"{self.path} has gone", _AGAIN) from error
            return out
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read ({error.strerror})", _AGAIN) from error
        try:
            self._fill(descriptor, rows, out)
        finally:
            os.close(descriptor)
        return out

    def _fill(self, file: int | ObjectReader, rows: Array, out: Array) -> None:
        if len(rows) and bool((np.diff(rows) == 1).all()):
            self._read_into(file, int(rows[0]), out)
        elif len(rows):
            self._gather(file, rows, out)

    def _gather(self, file: int | ObjectReader, rows: Array, out: Array) -> None:
        """Read scattered rows: in the file's order, those near each other at once."""
        width = self.dtype.itemsize * self.shape[1]
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(ordered) * width > _GAP) + 1)
        for run in runs:
            for part in _parts(ordered, run, max(_RUN // width, 1)):
                first, last = ordered[part[0]], ordered[part[-1]]
                buffer = np.empty((last - first + 1, self.shape[1]), self.dtype)
                self._read_into(file, int(first), buffer)
                out[order[part]] = buffer[ordered[part] - first]

    def _read_into(self, file: int | ObjectReader, first: int, out: Array) -> None:
        view = memoryview(out.data).cast("B")
        position = self.offset + first * self.dtype.itemsize * self.shape[1]
        while view:
            count = _read_at(file, view, position)
            if count == 0:
                raise StoreError(f"{self.path} has become shorter since it was opened", _AGAIN)
            view, position = view[count:], position + count


def _read_at(file: int | ObjectReader, view: memoryview, position: int) -> int:
    """Read from ``position`` into ``view``, and how many bytes that were."""
    if isinstance(file, ObjectReader):
        data = file.read(position, len(view))
    elif hasattr(os, "preadv"):
        return os.preadv(file, [view], position)
    else:  # Windows
        os.lseek(file, position, os.SEEK_SET)
        data = os.read(file, len(view))
    view[: len(data)] = data
    return len(data)


def _parts(ordered: Array, run: Array, rows: int) -> list[Array]:
    """A run of indices into ``ordered``, cut so that each part spans at most ``rows`` rows of the
    file."""
    spans = (ordered[run] - ordered[run[0]]) // rows
    return np.split(run, np.flatnonzero(np.diff(spans)) + 1)


@dataclass(frozen=True)
class ShardContent:
    """What is in a shard.

    Attributes:
        ids: the sample of each row.
        skipped: one dict per skip among the items this shard covers.
        features: ``[rows, dim]``, which stay on disk.
        start: first input item covered.
        stop: one past the last input item covered.
        notes: counts worth telling, such as texts that were cut.
        image_hashes: ``[rows, 1]``, int64, which stay on disk; ``None`` where they were not kept.
    """

    ids: Sequence[str]
    skipped: list[dict[str, Any]]
    features: Features
    start: int
    stop: int
    notes: dict[str, int]
    image_hashes: Features | None = None


def shard_name(index: int) -> str:
    """File name of the shard with this index."""
    return f"shard-{index:05d}.safetensors"


def part_name(shard: int, index: int) -> str:
    """File name of a part of the shard that is being encoded."""
    return f"shard-{shard:05d}.part-{index:05d}.safetensors"


def write_shard(
    path: Path,
    features: torch.Tensor,
    ids: Sequence[str],
    skipped: Sequence[dict[str, Any]],
    span: tuple[int, int],
    notes: dict[str, int],
    image_hashes: Array | None = None,
) -> Shard:
    """Write one shard, whole or not at all, and describe it.

    Args:
        path: the shard's file.
        features: ``[rows, dim]``, in the store's dtype.
        ids: the sample of each row.
        skipped: JSON-ready skips.
        span: first and one past the last input item covered.
        notes: counts worth telling.
        image_hashes: ``[rows]``, uint64: of the bytes of each row's image, 0 where not known.
    """
    content = {
        "ids": list(ids), "skipped": list(skipped), "start": span[0], "stop": span[1],
        "notes": notes,
    }  # fmt: skip
    metadata = {METADATA: json.dumps(content, ensure_ascii=False, sort_keys=True)}
    tensors = {TENSOR: features.contiguous()}
    if image_hashes is not None:
        tensors[HASHES] = torch.from_numpy(image_hashes.view(np.int64))
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        # Described before it is put where it may take a network to read it.
        shard = describe_shard(temporary, read_shard(temporary))
    return replace(shard, file=path.name)


def describe_shard(path: Path, content: ShardContent) -> Shard:
    """The manifest entry of a shard that lies on disk."""
    digest = hashlib.sha256("\n".join(content.ids).encode())
    digest.update(content.features.read(np.arange(len(content.ids))).tobytes())
    return Shard(
        path.name, len(content.ids), content.start, content.stop, path.stat().st_size,
        file_sha256(path), digest.hexdigest(),
    )  # fmt: skip


def read_shard(path: Path, *, keep: bool = True) -> ShardContent:
    """Open a shard; its features stay on disk.

    Args:
        path: the file.
        keep: of one in an object store, whether what is read of it is kept on this disk.

    Raises:
        StoreError: the file is truncated, or not a shard of lateen's.
    """
    try:
        reader = path.reader(keep=keep) if isinstance(path, ObjectPath) else None
        header, offset, size = _header(path, reader)
        content = json.loads(header["__metadata__"][METADATA])
        features = _features(path, header[TENSOR], offset, reader)
        hashes = _features(path, header[HASHES], offset, reader) if HASHES in header else None
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
        expected = offset + max(ends)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", _AGAIN) from error
    except (KeyError, ValueError, struct.error, SafetensorError) as error:
        raise StoreError(f"{path} is not a whole shard ({error!r})", _AGAIN) from error
    if size < expected:
        raise StoreError(f"{path} is truncated: {size} of {expected} bytes", _AGAIN)
    rows = features.shape[0]
    if len(content["ids"]) != rows:
        raise StoreError(f"{path} has {rows} rows but {len(content['ids'])} ids", _AGAIN)
    if hashes is not None and hashes.shape[0] != rows:
        raise StoreError(f"{path} has {rows} rows but {hashes.shape[0]} hashes", _AGAIN)
    content["ids"] = Ids.of(content["ids"])
    return ShardContent(features=features, image_hashes=hashes, **content)


def _features(
    path: Path, entry: dict[str, Any], offset: int, reader: ObjectReader | None
) -> ShardFeatures:
    """A tensor of a shard, one without columns as one of a single column."""
    rows, *columns = entry["shape"]
    (width,) = columns or [1]
    begin = offset + entry["data_offsets"][0]
    return ShardFeatures(path, _NUMPY[entry["dtype"]], (rows, width), begin, reader)


def _header(path: Path, reader: ObjectReader | None) -> tuple[dict[str, Any], int, int]:
    """(header, where the data begins, file size)."""
    if reader is not None:
        (length,) = _LENGTH.unpack(reader.head(_HEAD)[: _LENGTH.size])
        if length > reader.size:
            raise ValueError(f"header of {length} bytes in an object of {reader.size}")
        whole = reader.head(max(_HEAD, _LENGTH.size + length))
        return json.loads(whole[_LENGTH.size :][:length]), _LENGTH.size + length, reader.size
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > size:
            raise ValueError(f"header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
    return header, _LENGTH.size + length, size
