"""Encoding a dataset into a store, or into several stores of one network's views."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lateen.data import Dataset, open_dataset
from lateen.data.samples import AbsentImages, no_captions
from lateen.device import default_workers, resolve_device, split_devices
from lateen.encoders import Encoder, EncoderOptions, Modality, RemoteEncoder, load_with
from lateen.errors import DataError, StoreError, UsageError, choices
from lateen.features.manifest import SLICE, Description, StoredDtype
from lateen.features.passes import batch_of
from lateen.features.pipeline import (
    encode_items,
    fingerprint,
    items_of,
    resized_side,
)
from lateen.features.shares import Share, encode_shares
from lateen.features.store import Store
from lateen.features.writer import StoreWriter, refuse_no_store
from lateen.files import folder_lock
from lateen.objects import is_object, to_path
from lateen.progress import log

_MOST_TOLD = 5  # reasons
# About ten seconds of either on two CPU cores.
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
    texts_only: bool = False,
    dtype: Literal["float16", "float32"] = "float16",
    batch_size: int | None = None,
    shard_items: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    wait: bool = False,
    allow_empty: bool = False,
    pooling: str | None = None,
    layer: int | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    python: str | None = None,
    untrained: bool = False,
    parts: Sequence[Mapping[str, Any]] = (),
    weights: Sequence[float] | None = None,
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
        texts_only: encode the captions of a table or JSON file whose image files are not there:
            none is looked for, and the store is the one that the captions with their images give.
        dtype: of the features on disk.
        batch_size: images, or thousands of text tokens, per forward pass; 16 images, or 1, on
            a CPU (what stays in its cache), 256, or 64, on a GPU.
        shard_items: of a shard's file: 2,048 images or 8,192 captions if not given. What a killed
            run may lose is a shard, or a minute of a slow one.
        workers: threads that decode and prepare; as many as there are cores, at most 8.
        overwrite: replace a store made differently.
        wait: for another process that writes to ``out``, instead of refusing.
        allow_empty: finish the store even if nothing could be encoded.
        pooling: as :func:`~lateen.encoders.load_encoder` has it, like all that follow; without
            effect on a ready encoder.
        layer: hidden layer to take.
        prompt: put before every text, or around it where it has ``{}``.
        max_tokens: longer texts are cut.
        precision: of the forward pass.
        device: several with commas (``cuda:0,cuda:1``) get a process each, for which source and
            encoder must be names, and a script must start below ``if __name__ == "__main__"``.
        revision: hub branch, tag or commit.
        trust_remote_code: allow a model repository to bring its own code.
        python: of another environment, which the encoder runs in.
        untrained: random weights in the same architecture.
        parts: for the name ``fused``: each part's arguments.
        weights: for the name ``fused``: of each part.

    Raises:
        DataError: nothing to encode in the source, or no such caption column.
        EncoderError: the encoder cannot be loaded.
        UsageError: ``texts_only`` with an encoder of images, or with a folder of images.
        StoreError: ``out`` holds something else.
        BusyError: another process writes to ``out``.
    """
    _check_positive(batch_size=batch_size, shard_items=shard_items, workers=workers)
    options = EncoderOptions(
        pooling=pooling, layer=layer, prompt=prompt, max_tokens=max_tokens, revision=revision,
        precision=precision, untrained=untrained, trust_remote_code=trust_remote_code,
        python=python, parts=parts, weights=weights,
    )  # fmt: skip
    inputs = EncodeInputs(
        source, encoder, modality, column, images, image_column, captions, split, texts_only,
        options,
    )  # fmt: skip
    shares: Callable[[], Sequence[Sequence[Path]]] | None = None
    if several := split_devices(device):
        if is_object(out):
            raise UsageError(
                "several devices write beside the store, on this disk, and not to an object store",
                "Encode slices, one a device, or give a folder on this disk.",
            )
        if not (isinstance(source, str | Path) and isinstance(encoder, str)):
            raise UsageError(
                f"{device} are several devices, and a process of its own must open the data and "
                "load the encoder",
                "Give both by name, or one device.",
            )
        divided = max(1, (workers or default_workers()) // len(several))
        share = partial(
            _encode_share, inputs, dtype=dtype, batch_size=batch_size, shard_items=shard_items,
            workers=divided,
        )  # fmt: skip
        shares = partial(_shares_of_one, share, several, Path(out))
        device = several[0]
    dataset, ready = inputs.open(device)
    [store] = encode_views(
        dataset, [ready], [to_path(out)], column=column, dtype=dtype, batch_size=batch_size,
        shard_items=shard_items, workers=workers, overwrite=overwrite, wait=wait,
        allow_empty=allow_empty, device=device, shares=shares,
    )  # fmt: skip
    return store


@dataclass(frozen=True)
class EncodeInputs:
    """The data and the encoder that :func:`encode` is given; what is named there is not open yet.

    A process of its own is given this. Attributes are the arguments of :func:`encode` with the same
    names; ``options`` are those of the encoder.
    """

    source: str | Path | Dataset
    encoder: str | Encoder
    modality: Modality | None = None
    column: str | None = None
    images: str | Path | None = None
    image_column: str | None = None
    captions: Sequence[str] = ()
    split: str | None = None
    texts_only: bool = False
    options: EncoderOptions = field(default_factory=EncoderOptions)  # but for the device

    def open(self, device: str) -> tuple[Dataset, Encoder]:
        """The dataset, and the encoder on a device.

        Raises:
            DataError: there is no such dataset.
            EncoderError: the encoder cannot be loaded.
            UsageError: ``texts_only`` with an encoder of images, or with a folder of images.
        """
        dataset, ready, side = self.source, self.encoder, self.modality
        if self.texts_only:
            _check_texts_only(side if isinstance(ready, str) else ready.info.modality, self.images)
            side = "text"
        if isinstance(dataset, str | Path):
            dataset = open_dataset(
                dataset, images=AbsentImages() if self.texts_only else self.images,
                image_column=self.image_column, split=self.split,
                captions=self.captions or ((self.column,) if self.column else ()),
            )  # fmt: skip
        if isinstance(ready, str):
            ready = load_with(ready, side, replace(self.options, device=device))
        return dataset, ready


def _shares_of_one(
    share: Callable[[str, Path, Share], None], devices: Sequence[str], out: Path
) -> list[list[Path]]:
    return [encode_shares(share, devices, out)]


def _encode_share(
    inputs: EncodeInputs, device: str, folder: Path, share: Share, *, dtype: StoredDtype,
    batch_size: int | None, shard_items: int | None, workers: int,
) -> None:  # fmt: skip
    """Encode one process's part of the shards into a folder of its own."""
    dataset, encoder = inputs.open(device)
    encode_views(
        dataset, [encoder], [folder], column=inputs.column, dtype=dtype, batch_size=batch_size,
        shard_items=shard_items, workers=workers, overwrite=True, wait=True, device=device,
        share=share,
    )  # fmt: skip


def encode_views(
    dataset: Dataset,
    views: Sequence[Encoder],
    outs: Sequence[Path],
    *,
    column: str | None = None,
    dtype: StoredDtype = "float16",
    batch_size: int | None = None,
    shard_items: int | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    wait: bool = False,
    allow_empty: bool = False,
    device: str = "auto",
    share: Share | None = None,
    shares: Callable[[], Sequence[Sequence[Path]]] | None = None,
) -> list[Store]:
    """Encode layers and poolings of one network in one pass, each into a store of its own.

    Every store has the bytes that encoding its view alone gives it, and those that are there
    already are returned as they are.

    Args:
        dataset: what to encode.
        views: one encoder, or several that are views of one network
            (:class:`~lateen.encoders.ViewedEncoder`).
        outs: the folder of each view's store.
        column: the caption column, if the dataset has several.
        dtype: of the features on disk.
        batch_size: as :func:`encode` has it, like all that follow.
        shard_items: of a shard's file.
        workers: threads that decode and prepare.
        overwrite: replace stores made differently.
        wait: for another process that writes to one of ``outs``.
        allow_empty: finish a store even if nothing could be encoded.
        device: that the network is on.
        share: encode this part of the shards alone and leave the stores unfinished.
        shares: encodes such parts elsewhere, and gives for each of ``outs`` the folders that they
            are in.

    Raises:
        DataError: nothing to encode in the dataset, or no such caption column.
        StoreError: one of ``outs`` holds something else.
        BusyError: another process writes to one of ``outs``.
    """
    # What each store will be.
    modality = views[0].info.modality
    chosen = _choose_column(dataset, column) if modality == "text" else None
    count, descriptions = _describe(dataset, views, chosen, dtype, shard_items)

    # Stores that are there are returned. They need no lock to be read.
    stores = [_finished(*both) for both in zip(outs, descriptions, strict=True)]
    missing = [index for index, store in enumerate(stores) if store is None]
    if not missing:
        return [store for store in stores if store is not None]
    for index in missing:
        refuse_no_store(outs[index])
        if share is None and (outs[index] / SLICE).is_file():
            raise StoreError(f"{outs[index]} holds one slice of a store", "Choose another --out.")

    batch = batch_size or batch_of(views[0], device)
    remote = views[0] if isinstance(views[0], RemoteEncoder) else None
    where = remote.where if remote else str(resolve_device(device))
    conditions: dict[str, Any] = {"batch": batch, "device": where}
    if modality == "image" and (side := resized_side(views[0])):
        # Large JPEGs are decoded at a part of their size, never below twice the encoder's.
        conditions["jpeg_decoded_from"] = 2 * side
    with contextlib.ExitStack() as locks:
        # Every process takes its locks in the same order, so that none waits for another for ever.
        for index in sorted(missing, key=lambda index: str(outs[index])):
            locks.enter_context(folder_lock(outs[index], wait=wait))
        items_here = share.items(count, descriptions[0].shard_items) if share else range(count)
        first = -(-items_here.start // descriptions[0].shard_items)  # up, where none is left
        writers = {
            index: StoreWriter(
                outs[index], descriptions[index], conditions=conditions, overwrite=overwrite,
                first=first, items=count, versions=remote.versions if remote else {},
            )
            for index in missing
        }  # fmt: skip
        # Another process may have finished some while this one waited.
        unfinished = {index: writer for index, writer in writers.items() if not writer.finished}
        if unfinished:
            for index, folders in enumerate(shares() if shares is not None else ()):
                for folder in folders if index in unfinished else ():
                    unfinished[index].take(folder)
            items = items_of(dataset, modality, chosen)
            encoders = [views[index] for index in unfinished]
            if items_here:
                encode_items(
                    items, items_here.stop, encoders, list(unfinished.values()), batch, workers
                )
        if share is not None:
            return []
        for writer in unfinished.values():
            writer.finish(allow_empty=allow_empty)
    opened = [store or Store.open(out) for store, out in zip(stores, outs, strict=True)]
    if unfinished:
        _tell_skips(opened[missing[0]], modality)
    return opened


def missing_views(
    dataset: Dataset, views: Sequence[Encoder], outs: Sequence[Path], *, column: str | None,
    dtype: StoredDtype,
) -> list[int]:  # fmt: skip
    """Which of the stores that :func:`encode_views` is asked for are not there yet, or are others.

    Args:
        dataset: as there, like all that follow.
        views: of one network.
        outs: the folder of each view's store.
        column: the caption column, if the dataset has several.
        dtype: of the features on disk.
    """
    chosen = _choose_column(dataset, column) if views[0].info.modality == "text" else None
    _, descriptions = _describe(dataset, views, chosen, dtype, None)
    found = (_finished(*both) for both in zip(outs, descriptions, strict=True))
    return [index for index, store in enumerate(found) if store is None]


def _describe(
    dataset: Dataset, views: Sequence[Encoder], column: str | None, dtype: StoredDtype,
    shard_items: int | None,
) -> tuple[int, list[Description]]:  # fmt: skip
    """How many items there are, and what the store of each view will be."""
    modality = views[0].info.modality
    count, content = fingerprint(dataset, modality, column)
    return count, [
        Description.of(
            view.info, source=dataset.name, fingerprint=content, column=column, dtype=dtype,
            shard_items=shard_items or SHARD_ITEMS[modality],
        )
        for view in views
    ]  # fmt: skip


def _tell_skips(store: Store, modality: Modality) -> None:
    """Say what is left out of a store that was just made, by reason."""
    # What a reason has in brackets is of the one item.
    reasons = Counter(str(skip["reason"]).partition(" (")[0] for skip in store.skipped)
    if reasons:
        log.warning(
            "left out of %s: %s (see %s)",
            "the images" if modality == "image" else f"the captions {store.name!r}",
            ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(_MOST_TOLD)),
            store.path / "skipped.jsonl",
        )  # fmt: skip


def _check_positive(**counts: int | None) -> None:
    for option, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}", "It must be at least 1.")


def _check_texts_only(modality: Modality | None, images: str | Path | None) -> None:
    """Refuse what contradicts encoding the captions alone.

    Raises:
        UsageError: an encoder of images, or a folder of images.
    """
    if modality == "image":
        raise UsageError(
            "texts-only encodes captions, and the encoder is one of images",
            "Give a text encoder, or leave --texts-only out.",
        )
    if images is not None:
        raise UsageError(
            f"texts-only looks for no image, so not in {images}",
            "Leave --images or --texts-only out.",
        )


def _finished(folder: Path, description: Description) -> Store | None:
    """The store in ``folder``, if it is whole and just what is asked for."""
    try:
        store = Store.open(folder)
        _ = store.ids  # every shard is looked into: what is damaged is made anew
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
        raise DataError(no_captions(dataset), "Give a caption file.")
    if len(columns) > 1:
        raise UsageError(
            f"{dataset.name} has several caption columns: {', '.join(columns)}",
            "Choose one with --column; each makes a store of its own.",
        )
    return columns[0]
