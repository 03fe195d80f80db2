"""Encoding in slices: each is made on its own, anywhere, and all are merged to one store.

A slice is a run of whole shards, which are those of the whole store: what is in a shard follows
from the data alone, whatever the number of slices. Merged, they are the store that one process
makes, to the byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lateen.errors import StoreError
from lateen.features.encode import EncodeInputs, encode_views
from lateen.features.manifest import MANIFEST, PLAN, SLICE, Description, StoredDtype
from lateen.features.shard import shard_name
from lateen.features.shares import Share
from lateen.features.store import Store
from lateen.features.writer import StoreWriter, clear_store, differences
from lateen.files import folder_lock, make_folder, read_json, refuse_foreign, write_json
from lateen.objects import matching, to_path
from lateen.progress import bar, log


@dataclass(frozen=True)
class Slice:
    """What a folder of one slice says of itself.

    Attributes:
        index: which slice, from 0.
        of: how many there are.
        done: whether it is whole.
    """

    index: int
    of: int
    done: bool = False

    @property
    def name(self) -> str:
        """As on the command line, which counts from 1: ``3/16``."""
        return f"{self.index + 1}/{self.of}"

    @classmethod
    def read(cls, folder: Path) -> Slice:
        """Read a folder's.

        Raises:
            StoreError: it is none of a slice.
        """
        path = folder / SLICE
        if not path.is_file():
            what = "does not exist"
            if folder.exists():
                what = f"is {'a whole store' if (folder / MANIFEST).is_file() else 'no slice'}"
            raise StoreError(f"{folder} {what}", "Give folders that `lateen encode --slice` made.")
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise StoreError(f"{path} is damaged ({error})", "Encode the slice again.") from error


def encode_slice(
    inputs: EncodeInputs,
    out: str | Path,
    share: Share,
    *,
    dtype: StoredDtype = "float16",
    batch_size: int | None = None,
    shard_items: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    device: str = "auto",
) -> Slice:
    """Encode one slice of a dataset; one that is there is left as it is, a killed one is finished.

    Args:
        inputs: the data and the encoder.
        out: the folder of this slice alone.
        share: which slice.
        dtype: of the features on disk.
        batch_size: as :func:`~lateen.encode` has it, like all that follow.
        shard_items: of a shard's file.
        workers: threads that decode and prepare.
        overwrite: replace a slice made differently.
        device: one.

    Raises:
        StoreError: ``out`` holds something else, or another slice.
        BusyError: another process writes to ``out``.
        DataError: as :func:`~lateen.encode` raises.
        EncoderError: likewise.
    """
    folder = to_path(out)
    asked = Slice(share.index, share.of)
    there = Slice.read(folder) if (folder / SLICE).is_file() else None
    if there is None:
        refuse_foreign(folder, "a slice of a store", (SLICE,), error=StoreError)
    elif there.name != asked.name and not overwrite:
        raise StoreError(
            f"{folder} holds slice {there.name}, not {asked.name}", "Choose another --out."
        )
    elif there.name != asked.name:
        clear_store(folder)
    dataset, encoder = inputs.open(device)
    if there is None or overwrite:
        write_json(make_folder(folder) / SLICE, asdict(asked))
    encode_views(
        dataset, [encoder], [folder], column=inputs.column, dtype=dtype, batch_size=batch_size,
        shard_items=shard_items, workers=workers, overwrite=overwrite, device=device, share=share,
    )  # fmt: skip
    whole = replace(asked, done=True)
    write_json(folder / SLICE, asdict(whole))
    return whole


def merge(
    parts: Sequence[str | Path], out: str | Path, *, overwrite: bool = False,
    allow_empty: bool = False,
) -> Store:  # fmt: skip
    """Make one store of all slices, the one that a single process makes.

    The slices stay as they are; on one file system their shards are linked, else copied.

    Args:
        parts: the folder of every slice, in any order; one that is given twice counts once. A
            pattern (``s3://bucket/slices/*``) stands for all that fit it.
        out: the store's folder.
        overwrite: replace a store made differently.
        allow_empty: finish the store even if nothing could be encoded.

    Raises:
        StoreError: a folder is no slice, or not whole; slices are missing, or of different data,
            encoders or settings; or ``out`` holds something else.
        BusyError: another process writes to ``out``.
    """
    found = [folder for part in parts for folder in matching(to_path(part))]
    if not found:
        raise StoreError(f"no folder fits {parts[0]}", "Give the folders of all slices.")
    folders = list(dict.fromkeys(folder.resolve() for folder in found))
    slices = {folder: Slice.read(folder) for folder in folders}
    plans = {folder: read_json(folder / PLAN) for folder in folders}
    first = folders[0]
    description = Description(**plans[first]["description"])
    _check_alike(slices, plans, description)
    target, total = to_path(out), plans[first]["items"]
    _tell_conditions([plans[folder]["conditions"] for folder in folders])
    with folder_lock(target):
        writer = StoreWriter(
            target, description, conditions=plans[first]["conditions"], overwrite=overwrite,
            items=total, versions=plans[first].get("versions", {}),
        )  # fmt: skip
        if not writer.finished:
            ordered = sorted(folders, key=lambda folder: slices[folder].index)
            with bar(len(ordered), "merging slices", "slice", stage=True) as progress:
                for folder in ordered:
                    writer.copy(folder)
                    _check_covered(writer, slices[folder], folder, total)
                    progress.update()
            writer.finish(allow_empty=allow_empty)
    return Store.open(target)


def _check_alike(
    slices: Mapping[Path, Slice], plans: Mapping[Path, dict[str, Any]], description: Description
) -> None:
    """See that these are all slices of one store.

    Raises:
        StoreError: one is not whole, is missing, there twice, or of another store.
    """
    first = next(iter(slices))
    of = slices[first].of
    for folder, each in slices.items():
        if not each.done:
            raise StoreError(f"slice {each.name} in {folder} is not whole", _again(each))
        other = Description(**plans[folder]["description"])
        if other.key != description.key or each.of != of:
            what = differences(description, other) or f"it is slice {each.name}, not one of {of}"
            raise StoreError(
                f"{folder} is of another store than {first} ({what})",
                "Merge slices of one encode command.",
            )
    counts = Counter(each.index for each in slices.values())
    if missing := [f"{index + 1}/{of}" for index in range(of) if index not in counts]:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if missing[8:] else "")
        raise StoreError(
            f"{len(missing)} of {of} slices are missing: {shown}",
            "Encode them, or give their folders, too.",
        )
    if twice := [index for index, count in counts.items() if count > 1]:
        both = [folder.name for folder, each in slices.items() if each.index == twice[0]]
        raise StoreError(
            f"{' and '.join(both)} are both slice {twice[0] + 1}/{of}", "Give one of them."
        )


def _check_covered(writer: StoreWriter, each: Slice, folder: Path, total: int) -> None:
    """See that the store goes on to where a slice ends.

    Raises:
        StoreError: a shard of it is missing or damaged.
    """
    stop = Share(each.index, each.of).items(total, writer.description.shard_items).stop
    if writer.done < stop:
        raise StoreError(
            f"slice {each.name} in {folder} lacks {shard_name(len(writer.shards))}, or it is "
            "damaged", _again(each),
        )  # fmt: skip


def _again(each: Slice) -> str:
    return f"Run its encode command, with --slice {each.name}, again: it goes on."


def _tell_conditions(conditions: Sequence[Mapping[str, Any]]) -> None:
    """Warn where slices were computed in different ways, which can change their last bits."""
    names = {
        name for each in conditions for name in each if each[name] != conditions[0].get(name)
    }  # fmt: skip
    if names:
        log.warning(
            "slices differ in %s: the last bits of the store may not be those of one process",
            ", ".join(sorted(names)),
        )
