"""Samples to a feature store: the public function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lateen.data import Dataset, open_dataset
from lateen.encoders import Encoder, Modality, load_encoder
from lateen.encoders.runtime import resolve_device
from lateen.encoding.items import fingerprint, items_of
from lateen.encoding.pipeline import default_batch, encode_items
from lateen.errors import DataError, StoreError, UsageError, choices
from lateen.files import folder_lock
from lateen.store import Description, Store, StoreWriter

# What a killed run may lose: about ten seconds of either on two CPU cores.
SHARD_ITEMS = {"image": 2048, "text": 8192}


def encode(
    source: str | Path | Dataset,
    encoder: str | Encoder,
    out: str | Path,
    *,
    modality: Modality | None = None,
    column: str | None = None,
    images: str | Path | None = None,
    image_column: str | None = None,
    captions: Sequence[str] = (),
    split: str | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    batch_size: int | None = None,
    shard_items: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    wait: bool = False,
    allow_empty: bool = False,
    **encoder_options: Any,
) -> Store:
    """Encode one modality of a dataset into a feature store.

    A store that is already there and would have the same bytes is returned as it is; a half-written
    one is finished. Unreadable images, empty captions and non-finite features are left out and
    recorded in ``skipped.jsonl``.

    Args:
        source: a folder, a caption file, tar shards, a datasets name, or a Dataset.
        encoder: a name for :func:`~lateen.encoders.load_encoder`, or a ready encoder.
        out: the store's folder.
        modality: needed only for an encoder with a tower for each modality.
        column: the caption column, if the dataset has several.
        images: folder of the images that a caption file names.
        image_column: the caption file's image column (guessed by default).
        captions: the caption file's caption columns (guessed by default).
        split: of a dataset that has splits.
        dtype: of the features on disk.
        batch_size: images, or thousands of text tokens (4), per forward pass; 16 images on a CPU
            (what stays in its cache), 256 on a GPU.
        shard_items: what a killed run may lose: 2,048 images or 8,192 captions if not given.
        workers: threads that decode and prepare; as many as there are cores, at most 8.
        overwrite: replace a store made differently.
        wait: for another process that writes to ``out``, instead of refusing.
        allow_empty: finish the store even if nothing could be encoded.
        encoder_options: pooling, layer, prompt, … for :func:`~lateen.encoders.load_encoder`.

    Raises:
        DataError: nothing to encode in the source, or no such caption column.
        EncoderError: the encoder cannot be loaded.
        StoreError: ``out`` holds something else.
        BusyError: another process writes to ``out``.
    """
    _check_positive(batch_size=batch_size, shard_items=shard_items, workers=workers)
    folder, dataset, ready = Path(out), source, encoder
    if isinstance(dataset, str | Path):
        dataset = open_dataset(
            dataset, images=images, image_column=image_column, split=split,
            captions=captions or ((column,) if column else ()),
        )  # fmt: skip
    if isinstance(ready, str):
        ready = load_encoder(ready, modality, **encoder_options)
    chosen = _choose_column(dataset, column) if ready.info.modality == "text" else None
    count, content = fingerprint(dataset, ready.info.modality, chosen)
    description = Description(
        modality=ready.info.modality, dim=ready.info.dim, encoder=ready.info.as_dict(),
        encoder_key=ready.info.key, source=dataset.name, fingerprint=content,
        column=chosen, dtype=dtype,
        shard_items=shard_items or SHARD_ITEMS[ready.info.modality],
    )  # fmt: skip
    found = _finished(folder, description)
    if found is not None:
        return found  # readers need no lock
    batch = batch_size or default_batch(ready.info.modality == "image")
    device = resolve_device(encoder_options.get("device", "auto"))
    conditions = {"batch": batch, "device": str(device)}
    with folder_lock(folder, wait=wait):
        writer = StoreWriter(folder, description, conditions=conditions, overwrite=overwrite)
        if not writer.finished:
            items = items_of(dataset, ready.info.modality, chosen)
            encode_items(items, count, ready, writer, batch, workers)
            writer.finish(allow_empty=allow_empty)
    return Store.open(folder)


def _check_positive(**counts: int | None) -> None:
    for option, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}", "It must be at least 1.")


def _finished(folder: Path, description: Description) -> Store | None:
    """The store in ``folder``, if it is whole and just what is asked for."""
    try:
        store = Store.open(folder)
    except StoreError:
        return None
    return store if store.manifest.description.key == description.key else None


def _choose_column(dataset: Dataset, column: str | None) -> str:
    columns = dataset.columns
    if column is not None:
        if column not in columns:
            raise DataError(
                f"{dataset.name} has no caption column {column!r}", choices(column, columns)
            )
        return column
    if not columns:
        raise DataError(f"{dataset.name} has no captions", "Give a caption file.")
    if len(columns) > 1:
        raise UsageError(
            f"{dataset.name} has several caption columns: {', '.join(columns)}",
            "Choose one with --column; each makes a store of its own.",
        )
    return columns[0]
