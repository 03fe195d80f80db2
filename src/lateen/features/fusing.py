"""Several features of the same samples as one: each normalised and weighted, then concatenated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lateen.encoders.fused import fuse_features, fused_info, fusing_weights
from lateen.errors import PairingError, UsageError
from lateen.features.manifest import Description, FeatureDtype
from lateen.features.pairs import only_in_one, unique_ids
from lateen.features.store import Store
from lateen.features.writer import StoreWriter, refuse_no_store
from lateen.files import canonical_json, content_key, folder_lock
from lateen.objects import to_path
from lateen.progress import bar

SHARD_ROWS = 4096


def fuse(
    stores: Sequence[Store | str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    dtype: FeatureDtype = "float16",
    overwrite: bool = False,
) -> Store:
    """Join stores of one modality by id into one store of fused features.

    A store that is already there and was made of the same parts is returned as it is; a half-
    written one is finished. What a part skipped leaves, with its record.

    Args:
        stores: two or more stores or their paths; rows come in the order of the first. Text stores
            must be of the same captions, and are joined row by row.
        out: the fused store's folder.
        weights: of each part, above 0; 1 if not given. See :func:`fuse_features`.
        dtype: of the features on disk.
        overwrite: replace a store made differently.

    Raises:
        PairingError: ids that differ (the first are named) or stand twice, two modalities, or texts
            that are not the same captions.
        StoreError: a part cannot be read, or ``out`` holds something else.
        UsageError: fewer than two parts, weights that do not fit, a part that is itself fused, or
            ``out`` is one of the parts.
        BusyError: another process writes to ``out``.
    """
    folder = to_path(out)
    parts = [store if isinstance(store, Store) else Store.open(store) for store in stores]
    checked = fusing_weights(len(parts), weights)
    if any(part.path.resolve() == folder.resolve() for part in parts):
        raise UsageError(f"{folder} is one of the stores to fuse", "Choose another --out.")
    rows = _join(parts)
    description = _describe(parts, checked, dtype)
    refuse_no_store(folder)
    with folder_lock(folder):
        writer = StoreWriter(folder, description, overwrite=overwrite)
        if not writer.finished:
            _write(parts, rows, checked, writer)
    return Store.open(folder)


def _describe(parts: Sequence[Store], weights: Sequence[float], dtype: FeatureDtype) -> Description:
    described = [part.manifest.description for part in parts]
    info = fused_info([{**d.encoder, "dim": d.dim} for d in described], weights)
    made_of = [
        {"encoder": d.encoder["id"], "key": d.key, "content": part.manifest.content}
        for part, d in zip(parts, described, strict=True)
    ]
    return Description(
        modality=described[0].modality, dim=info["dim"], encoder={**info, "stores": made_of},
        encoder_key=content_key([[d.encoder_key for d in described], list(weights)]),
        source=described[0].source,
        fingerprint=content_key([[part["key"], part["content"]] for part in made_of]),
        column=described[0].column, dtype=dtype, shard_items=SHARD_ROWS,
    )  # fmt: skip


def _join(parts: Sequence[Store]) -> list[np.ndarray[Any, Any]]:
    """The rows of each part that belong together, in the order of the first part."""
    first, *others = parts
    for other in others:
        if other.modality != first.modality:
            raise PairingError(
                f"{first.path} holds {first.modality} features, {other.path} {other.modality} "
                "features",
                "Fuse stores of one modality; join images and texts with lateen.pair.",
            )
    if first.modality == "text":
        for other in others:
            _check_captions(first, other)
        return [np.arange(len(first))] * len(parts)
    finders = [unique_ids(part, "Parts are joined by id") for part in parts]
    skipped = {skip["id"] for part in parts for skip in part.skipped}
    for other, finder in zip(others, finders[1:], strict=True):
        differences = only_in_one(
            first, finder.lacking(first.ids), other, finders[0].lacking(other.ids), skipped
        )
        if differences:
            raise PairingError(
                f"the stores do not describe the same images: {differences}",
                "Encode all parts from one dataset.",
            )
    rows = [finder.find(first.ids) for finder in finders]
    common = np.logical_and.reduce([there >= 0 for there in rows])
    if not common.any():
        raise PairingError(
            f"no image is in all of the {len(parts)} stores: each was skipped by one of them",
            f"See {first.path / 'skipped.jsonl'}.",
        )
    return [there[common].astype(np.int64) for there in rows]


def _check_captions(first: Store, other: Store) -> None:
    """See that two text stores have the same captions in the same order: their ids repeat.

    Raises:
        PairingError: they have not.
    """
    remedy = "Encode all parts from one caption column."
    one, two = first.manifest.description, other.manifest.description
    imported = "imported" in one.encoder or "imported" in two.encoder
    if one.column != two.column or not (imported or one.fingerprint == two.fingerprint):
        raise PairingError(
            f"{first.path} (column {one.column}) and {other.path} (column {two.column}) are "
            "not of the same captions",
            remedy,
        )
    if first.ids == other.ids:
        return
    pairs = zip(first.ids, other.ids, strict=False)
    row = next((row for row, (a, b) in enumerate(pairs) if a != b), min(len(first), len(other)))
    raise PairingError(
        f"from row {row} on, {first.path} and {other.path} have captions of different samples "
        f"({len(first)} and {len(other)} rows)",
        remedy,
    )


def _write(
    parts: Sequence[Store],
    rows: Sequence[np.ndarray[Any, Any]],
    weights: Sequence[float],
    writer: StoreWriter,
) -> None:
    # All that a part left out, once, with the first shard.
    skips = {canonical_json(skip): skip for part in parts for skip in part.skipped}
    size = writer.description.shard_items
    with bar(len(rows[0]), "fusing", "row", initial=writer.done) as progress:
        for start in range(writer.done, len(rows[0]), size):
            block = [part_rows[start : start + size] for part_rows in rows]
            features = [part[part_rows] for part, part_rows in zip(parts, block, strict=True)]
            ids = parts[0].ids.take(block[0])
            skipped = list(skips.values()) if start == 0 else []
            hashes = _image_hashes(parts, block)
            writer.write(
                fuse_features(features, weights), ids, skipped, len(ids), image_hashes=hashes
            )
            progress.update(len(ids))
    writer.finish()


def _image_hashes(
    parts: Sequence[Store], block: Sequence[np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any] | None:
    """Of each row's image, from the first part that has it; ``None`` where none has any."""
    hashes = np.zeros(len(block[0]), np.uint64)
    for part, rows in zip(parts, block, strict=True):
        hashes = np.where(hashes, hashes, part.image_hashes(rows))
    return hashes if hashes.any() else None
