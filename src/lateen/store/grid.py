"""Joining many image stores with many text stores, so that all pairs have the same samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from lateen.errors import PairingError
from lateen.store.ids import only_in_one, unique_rows
from lateen.store.pairs import Pairs, pair
from lateen.store.reader import Store


def pair_grid(
    images: Sequence[Store],
    texts: Sequence[Sequence[Store]],
    missing: Literal["error", "drop"] = "error",
) -> list[list[Pairs]]:
    """Pairs of every image store with every text encoder, on the samples that all of them have.

    Numbers of different encoders can only be held against each other on the same samples: what one
    skipped leaves for all.

    Args:
        images: image stores of the same images.
        texts: for each text encoder, its stores, one per caption column.
        missing: what to do with ids that only some know: ``error``, or ``drop`` them.

    Returns:
        ``pairs[image store][text encoder]``, all with the same ids in the same order.

    Raises:
        PairingError: ids that differ (the first are named), a duplicate image id, a store of the
            wrong modality, or nothing in common.
    """
    first, *others = images
    base = pair(first, *(store for stores in texts for store in stores), missing=missing)
    for store in others:
        if store.modality != "image":
            raise PairingError(
                f"{store.path} holds {store.modality} features where image features belong",
                "Give image stores on one side and text stores on the other.",
            )
    places = [unique_rows(store, "Ids join images to captions") for store in images]
    if missing == "error":
        skipped = {skip["id"] for store in base.stores for skip in store.skipped}
        for other, place in zip(others, places[1:], strict=True):
            skips = skipped | {skip["id"] for skip in other.skipped}
            differences = only_in_one(first, places[0], other, place, skips)
            if differences:
                raise PairingError(
                    f"the stores do not describe the same images: {differences}",
                    "Encode all from one dataset, or keep the common ids: missing='drop' "
                    "(--missing drop).",
                )
    kept = [i for i, sample in enumerate(base.ids) if all(sample in place for place in places)]
    if not kept:
        raise PairingError(
            f"no image is in all of the {len(images)} image stores and has captions in all text "
            "stores",
            "Encode all from one dataset, so that they carry the same ids.",
        )
    everything = base.take(np.array(kept, dtype=np.int64))
    ends = np.cumsum([0, *(len(stores) for stores in texts)])
    dropped = base.dropped + len(base) - len(kept)
    return [
        [
            replace(
                everything, image=store, dropped=dropped,
                image_rows=np.array([place[i] for i in everything.ids], dtype=np.int64),
                texts=everything.texts[start:stop],
            )
            for start, stop in itertools.pairwise(ends)
        ]
        for store, place in zip(images, places, strict=True)
    ]  # fmt: skip
