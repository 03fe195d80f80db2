"""Joining many image stores with many text stores, so that all pairs have the same samples."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from lateen.errors import PairingError
from lateen.store.ids import only_in_one, unique_rows
from lateen.store.pairs import Pairs, pair
from lateen.store.reader import Store

_JOINED = "Ids join images to captions"


def pair_grid(
    images: Sequence[Store],
    texts: Sequence[Sequence[Store]],
    missing: Literal["error", "drop"] = "error",
) -> list[list[Pairs]]:
    """Pairs of every image store with every text encoder, on the samples that all of them have.

    Numbers of different encoders can only be held against each other on the same samples: what one
    skipped leaves for all, be it an image or one of its captions.

    Args:
        images: image stores of the same images.
        texts: for each text encoder, its stores, one per caption column.
        missing: what to do with ids that only some know: ``error``, or ``drop`` them.

    Returns:
        ``pairs[image store][text encoder]``, all with the same ids in the same order.

    Raises:
        PairingError: ids or numbers of captions that differ (the first are named), a duplicate
            image id, a store of the wrong modality, or nothing in common.
    """
    columns = [store for stores in texts for store in stores]
    base = pair(images[0], *columns, missing=missing)
    places = _image_rows(images, base, missing)
    ends = np.cumsum([0, *(len(stores) for stores in texts)])
    alike = _same_captions(base, [slice(*span) for span in itertools.pairwise(ends)], missing)
    kept = [
        i for i, sample in enumerate(base.ids)
        if alike[i] and all(sample in place for place in places)
    ]  # fmt: skip
    if not kept:
        raise PairingError(
            f"no image is in all of the {len(images)} image stores and has the same captions in "
            "all text stores",
            "Encode all from one dataset, so that they carry the same ids.",
        )
    everything = base.take(np.array(kept, dtype=np.int64))
    dropped = len(set().union(*places, *(store.ids for store in columns))) - len(kept)
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


def _image_rows(images: Sequence[Store], base: Pairs, missing: str) -> list[dict[str, int]]:
    """The row of every id in each image store.

    Raises:
        PairingError: a text store, an id that stands twice, or ids that differ.
    """
    places = [unique_rows(images[0], _JOINED)]
    skipped = {skip["id"] for store in base.stores for skip in store.skipped}
    for other in images[1:]:
        if other.modality != "image":
            raise PairingError(
                f"{other.path} holds {other.modality} features where image features belong",
                "Give image stores on one side and text stores on the other.",
            )
        places.append(unique_rows(other, _JOINED))
        skips = skipped | {skip["id"] for skip in other.skipped}
        differences = only_in_one(images[0], places[0], other, places[-1], skips)
        if differences and missing == "error":
            raise PairingError(
                f"the stores do not describe the same images: {differences}",
                "Encode all from one dataset, or keep the common ids: missing='drop' "
                "(--missing drop).",
            )
    return places


def _same_captions(base: Pairs, encoders: Sequence[slice], missing: str) -> np.ndarray[Any, Any]:
    """Which samples ``[n]`` have the same captions in the stores of every text encoder.

    Args:
        base: pairs with the columns of all text encoders.
        encoders: the columns of each.
        missing: ``error`` to refuse numbers that differ though no caption was skipped.

    Raises:
        PairingError: numbers of captions differ.
    """
    alike = np.ones(len(base), dtype=bool)
    for encoder in encoders[1:]:
        for ours, theirs in zip(base.texts[encoders[0]], base.texts[encoder], strict=False):
            skips = [{(s["id"], s["source"]) for s in c.store.skipped} for c in (ours, theirs)]
            by_one = {sample for sample, _ in skips[0] ^ skips[1]}
            same = ours.counts == theirs.counts
            odd = [i for i in np.flatnonzero(~same) if base.ids[i] not in by_one]
            if odd and missing == "error":
                raise PairingError(
                    f"{len(odd)} images have other numbers of captions in {ours.store.path} than "
                    f"in {theirs.store.path}: {base.ids[odd[0]]!r} has {ours.counts[odd[0]]} and "
                    f"{theirs.counts[odd[0]]}",
                    "Encode the same captions with all, or leave such images out: missing='drop' "
                    "(--missing drop).",
                )
            alike &= same & np.array([sample not in by_one for sample in base.ids])
    return alike
