"""One shard: features, ids and skips in one safetensors file, so one rename commits all three."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lateen.errors import StoreError
from lateen.files import atomic_path, file_sha256
from lateen.store.manifest import Shard

TENSOR = "features"
# A single metadata key: safetensors does not promise an order among several, and a resumed store
# must end with the same bytes.
METADATA = "lateen"
_NUMPY: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class ShardContent:
    """A shard's rows as they lie on disk.

    Attributes:
        ids: the sample of each row.
        skipped: one dict per skip among the items this shard covers.
        features: memory-mapped ``[rows, dim]``.
        start: first input item covered.
        stop: one past the last input item covered.
        notes: counts worth telling, such as texts that were cut.
    """

    ids: list[str]
    skipped: list[dict[str, Any]]
    features: np.ndarray[Any, Any]
    start: int
    stop: int
    notes: dict[str, int]


def shard_name(index: int) -> str:
    """File name of the shard with this index."""
    return f"shard-{index:05d}.safetensors"


def write_shard(
    path: Path,
    features: torch.Tensor,
    ids: Sequence[str],
    skipped: Sequence[dict[str, Any]],
    span: tuple[int, int],
    notes: dict[str, int],
) -> Shard:
    """Write one shard, whole or not at all, and describe it.

    Args:
        path: the shard's file.
        features: ``[rows, dim]``, in the store's dtype.
        ids: the sample of each row.
        skipped: JSON-ready skips.
        span: first and one past the last input item covered.
        notes: counts worth telling.
    """
    content = {
        "ids": list(ids), "skipped": list(skipped), "start": span[0], "stop": span[1],
        "notes": notes,
    }  # fmt: skip
    metadata = {METADATA: json.dumps(content, ensure_ascii=False, sort_keys=True)}
    with atomic_path(path) as temporary:
        save_file({TENSOR: features.contiguous()}, temporary, metadata=metadata)
    return describe_shard(path, read_shard(path))


def describe_shard(path: Path, content: ShardContent) -> Shard:
    """The manifest entry of a shard that lies on disk."""
    digest = hashlib.sha256("\n".join(content.ids).encode())
    digest.update(np.ascontiguousarray(content.features).tobytes())
    return Shard(
        path.name, len(content.ids), content.start, content.stop, path.stat().st_size,
        file_sha256(path), digest.hexdigest(),
    )  # fmt: skip


def read_shard(path: Path) -> ShardContent:
    """Open a shard, memory-mapping its features.

    Raises:
        StoreError: the file is truncated, or not a shard of lateen's.
    """
    try:
        header, offset, size = _header(path)
        content = json.loads(header["__metadata__"][METADATA])
        entry = header[TENSOR]
        dtype, shape = _NUMPY[entry["dtype"]], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", _AGAIN) from error
    except (KeyError, ValueError, struct.error, SafetensorError) as error:
        raise StoreError(f"{path} is not a whole shard ({error!r})", _AGAIN) from error
    if size < offset + end:
        raise StoreError(f"{path} is truncated: {size} of {offset + end} bytes", _AGAIN)
    rows = shape[0]
    features = (
        np.memmap(path, dtype=dtype, mode="r", offset=offset + begin, shape=shape)
        if rows
        else np.zeros(shape, dtype)  # an empty file part cannot be mapped
    )
    if len(content["ids"]) != rows:
        raise StoreError(f"{path} has {rows} rows but {len(content['ids'])} ids", _AGAIN)
    return ShardContent(features=features, **content)


_AGAIN = "Remove that shard and run the same encode command again: it is made anew."


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """(header, where the data begins, file size)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > size:
            raise ValueError(f"header of {length} bytes in a file of {size}")
        header = json.loads(file.read(length))
    return header, _LENGTH.size + length, size
