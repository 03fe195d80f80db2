"""Writing a store shard by shard, and slow shards in parts, so that a killed run loses little.

A part is a file beside the shards that holds what was encoded of the next one since the part before
it. Once the whole shard is written its parts are removed: the finished store has none.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from lateen.errors import StoreError
from lateen.features.manifest import MANIFEST, PLAN, SKIPPED, SLICE, Description, Manifest, Shard
from lateen.features.shard import (
    ShardContent,
    describe_shard,
    part_name,
    read_shard,
    shard_name,
    write_shard,
)
from lateen.files import (
    atomic_path,
    jsonl,
    library_versions,
    read_json,
    refuse_foreign,
    write_json,
    write_text,
)
from lateen.objects import is_object

_TORCH = {"float16": torch.float16, "float32": torch.float32, "int32": torch.int32}


class StoreWriter:
    """Writes one store; on a half-written store of the same key it goes on.

    Args:
        folder: the store.
        description: what will be in it.
        conditions: what can change bytes without changing what they mean (batch, device, library
            versions). A half-written store of other conditions is begun anew.
        overwrite: replace a store that was made differently instead of refusing.
        first: number of the first shard that is written here; those before it are elsewhere.
        items: how many input items the whole store covers; kept with the plan.
        versions: of what computes features elsewhere, beside those of the libraries here.

    Attributes:
        finished: whether the store is complete and of this description.
        parts: of the next shard, as far as they are on disk, one behind the other.

    Raises:
        StoreError: the folder holds another store, or files that are not lateen's.
    """

    def __init__(
        self,
        folder: Path,
        description: Description,
        *,
        conditions: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        first: int = 0,
        items: int | None = None,
        versions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self._items = items
        self._first = first
        self.description = description
        self._versions = dict(versions)
        self._conditions = {**library_versions(), **versions, **(conditions or {})}
        self.shards: list[Shard] = []
        self.skipped: list[dict[str, Any]] = []
        self.notes: dict[str, int] = {}
        self.finished = False
        present = _find_description(folder)
        if present is not None and present.key != description.key:
            if not overwrite:
                raise _different(folder, present, description)
            clear_store(folder)
        self._adopt()
        self.parts = self._adopt_parts()

    @property
    def _next(self) -> int:
        """The number of the next shard."""
        return self._first + len(self.shards)

    @property
    def done(self) -> int:
        """Input items covered by the whole shards on disk, and by those before the first here."""
        return self.shards[-1].stop if self.shards else self._first * self.description.shard_items

    def take(self, folder: Path) -> None:
        """Move in the shards that were written for this store elsewhere; the folder is removed."""
        for path in sorted(folder.glob("shard-*.safetensors")):
            if ".part-" not in path.name:
                path.replace(self.folder / path.name)
        shutil.rmtree(folder, ignore_errors=True)
        self._adopt_shards()
        self.parts = self._adopt_parts()

    def copy(self, folder: Path) -> None:
        """Take in the shards that were written for this store elsewhere, and leave them there."""
        numbers = itertools.count(self._next)  # by name, as an object store may list keys late
        files = (folder / shard_name(number) for number in numbers)
        for path in itertools.takewhile(lambda path: path.is_file(), files):
            _link(path, self.folder / path.name)
        self._adopt_shards()

    def _adopt(self) -> None:
        """Take over what an earlier run of the same description left."""
        folder = self.folder
        if (folder / MANIFEST).is_file():
            manifest = Manifest.read(folder)
            if all(_whole(folder / shard.file) for shard in manifest.shards):
                self.shards = list(manifest.shards)
                self.finished = True
                return
            (folder / MANIFEST).unlink()  # damaged since: whole shards stay, the rest is redone
        elif not (folder / PLAN).is_file():
            refuse_no_store(folder)
        elif read_json(folder / PLAN)["conditions"] != self._conditions:
            clear_store(folder)
        plan = {
            "description": self.description.as_dict(), "conditions": self._conditions,
            "items": self._items, "versions": self._versions,
        }  # fmt: skip
        write_json(folder / PLAN, plan)
        self._adopt_shards()

    def _adopt_shards(self) -> None:
        """Take over the whole shards on disk, from the first one to the first that is not there."""
        while True:
            path = self.folder / shard_name(self._next)
            content = _whole(path)
            if content is None or content.start != self.done:
                path.unlink(missing_ok=True)
                return
            self.shards.append(describe_shard(path, content))
            self._note(content.skipped, content.notes)

    def _adopt_parts(self) -> list[ShardContent]:
        """The whole parts of the next shard on disk, up to the first that is not there; any other
        part is removed."""
        parts: list[ShardContent] = []
        names = set()
        while True:
            name = part_name(self._next, len(parts))
            content = _whole(self.folder / name)
            if content is None or content.start != (parts[-1].stop if parts else self.done):
                break
            parts.append(content)
            names.add(name)
        for path in self.folder.glob("shard-*.part-*.safetensors"):
            if path.name not in names:
                path.unlink()
        return parts

    def drop_parts(self, first: int = 0) -> None:
        """Remove the parts of the next shard from the one with this index on."""
        for index in range(first, len(self.parts)):
            (self.folder / part_name(self._next, index)).unlink(missing_ok=True)
        del self.parts[first:]

    def write(
        self,
        features: torch.Tensor,
        ids: Sequence[str],
        skipped: Sequence[dict[str, Any]],
        items: int,
        notes: dict[str, int] | None = None,
        image_hashes: np.ndarray[Any, Any] | None = None,
        *,
        part: bool = False,
    ) -> None:
        """Write the next shard; or as a part of it, which a killed run goes on from, what was
        encoded since its last part.

        Args:
            features: ``[rows, dim]``, finite; in a part, values that are not finite stay so.
            ids: the sample of each row.
            skipped: JSON-ready skips among the items covered.
            items: how many input items this covers, rows and skips together; of a part it may be
                rows in the order they are computed.
            notes: counts worth telling, summed over shards.
            image_hashes: ``[rows]``, uint64: of the bytes of each row's image, 0 where not known.
            part: whether this is a part; a whole shard is written with all rows of its parts.

        Raises:
            StoreError: wrong dim, or finite values that the store's dtype cannot hold.
        """
        start = self.parts[-1].stop if part and self.parts else self.done
        name = part_name(self._next, len(self.parts)) if part else shard_name(self._next)
        stored = self._to_dtype(features, finite=not part)
        shard = write_shard(
            self.folder / name, stored, ids, skipped, (start, start + items), notes or {},
            image_hashes,
        )  # fmt: skip
        if part:
            self.parts.append(read_shard(self.folder / name))
            return
        self.drop_parts()
        self.shards.append(shard)
        self._note(skipped, notes or {})

    def _to_dtype(self, features: torch.Tensor, *, finite: bool = True) -> torch.Tensor:
        expected = self.description.dim
        if features.ndim != 2 or features.shape[1] != expected:
            raise StoreError(
                f"features of shape {list(features.shape)} do not fit a store of dim {expected}",
                "Check the encoder's dim.",
            )
        stored = features.to(_TORCH[self.description.dtype])
        lost = ~torch.isfinite(stored)
        if not finite:
            lost &= torch.isfinite(features)
        if lost.any():
            largest = features[lost].abs().max().item()
            raise StoreError(
                f"values up to {largest:.3g} do not fit {self.description.dtype}",
                "Use dtype float32 (--dtype float32).",
            )
        return stored

    def _note(self, skipped: Sequence[dict[str, Any]], notes: dict[str, int]) -> None:
        self.skipped.extend(skipped)
        for name, count in notes.items():
            self.notes[name] = self.notes.get(name, 0) + count

    def finish(self, *, allow_empty: bool = False) -> None:
        """Write ``skipped.jsonl`` and, last, the manifest that makes the store complete.

        Args:
            allow_empty: also finish a store in which nothing could be encoded.

        Raises:
            StoreError: not one item could be encoded.
        """
        rows = sum(shard.rows for shard in self.shards)
        # Adopted skips have sorted keys: a resumed store must end with the same bytes.
        write_text(self.folder / SKIPPED, jsonl([dict(sorted(s.items())) for s in self.skipped]))
        if rows == 0 and not allow_empty:
            first = f"; the first: {self.skipped[0]['reason']}" if self.skipped else ""
            raise StoreError(
                f"nothing could be encoded from {self.description.source}: "
                f"{len(self.skipped)} items skipped{first}",
                f"See {self.folder / SKIPPED}.",
            )
        manifest = Manifest(
            self.description, rows, tuple(self.shards), len(self.skipped),
            self.notes,
            {name: self._conditions[name] for name in (*library_versions(), *self._versions)},
        )  # fmt: skip
        write_json(self.folder / MANIFEST, manifest.as_dict())
        (self.folder / PLAN).unlink(missing_ok=True)
        self.finished = True


def _link(path: Path, target: Path) -> None:
    """Put a file in a second place: as a link to the same bytes, or as a copy."""
    target.unlink(missing_ok=True)
    if not (is_object(path) or is_object(target)):
        with contextlib.suppress(OSError):  # another file system, or one without links
            os.link(path, target)
            return
    with atomic_path(target) as temporary, path.open("rb") as source, temporary.open(
        "wb"
    ) as copy:  # fmt: skip
        shutil.copyfileobj(source, copy)


def refuse_no_store(folder: Path) -> None:
    """Refuse to make a store in a folder of other things.

    Raises:
        StoreError: it holds some, and no store, finished or half-written.
    """
    refuse_foreign(folder, "a feature store", (MANIFEST, PLAN), (SLICE,), error=StoreError)


def _find_description(folder: Path) -> Description | None:
    """What the finished or half-written store in ``folder`` is, if there is one."""
    if (folder / MANIFEST).is_file():
        return Manifest.read(folder).description
    if (folder / PLAN).is_file():
        return Description(**read_json(folder / PLAN)["description"])
    return None


def _whole(path: Path) -> ShardContent | None:
    """The shard in ``path``, unless it is missing or damaged."""
    try:
        return read_shard(path)
    except StoreError:
        return None


def clear_store(folder: Path) -> None:
    """Remove a store's own files and nothing else in the folder.

    What makes the folder known as a store goes last, so that a killed removal can be done again.
    """
    for path in (*folder.glob("shard-*.safetensors"), folder / SKIPPED):
        path.unlink(missing_ok=True)
    # An object store may list a key late: what is not listed is asked for by its name.
    late = (folder / shard_name(index) for index in itertools.count())
    for path in itertools.takewhile(lambda path: path.is_file(), late):
        path.unlink(missing_ok=True)
    for path in (folder / MANIFEST, folder / PLAN):
        path.unlink(missing_ok=True)


def _different(folder: Path, present: Description, asked: Description) -> StoreError:
    """The refusal to mix two descriptions in one folder, naming what differs."""
    return StoreError(
        f"{folder} holds features made differently ({differences(present, asked)})",
        "Choose another --out, or pass --overwrite to replace them.",
    )


def differences(present: Description, asked: Description) -> str:
    """In what two descriptions differ, the first three; empty if only in names."""
    there, now = present.as_dict(), asked.as_dict()
    names = [
        f"encoder.{name}"
        for name in now["encoder"]
        if name not in ("id", "load") and now["encoder"][name] != there["encoder"].get(name)
    ]
    names += [
        n for n in now if n not in ("encoder", "encoder_key", "source") and now[n] != there[n]
    ]
    return "; ".join(_difference(name, there, now) for name in names[:3])


def _difference(name: str, there: dict[str, Any], now: dict[str, Any]) -> str:
    for part in name.split("."):
        there, now = there.get(part, "nothing"), now[part]
    return f"{name}: {_short(there)} there, {_short(now)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
