"""Unpaired images and texts of a training: found, checked, and without what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lateen.errors import DataError, PairingError
from lateen.features import Pairs, Store, StoreRows
from lateen.model.trained_on import ImageGroup, TrainedOn, is_anyones
from lateen.progress import log
from lateen.training.config import TrainSection
from lateen.training.unpaired import Unpaired

Array = np.ndarray[Any, Any]
_KEY = "train.unpaired"


def with_unpaired(
    pairs: Pairs, settings: TrainSection, stores: Mapping[str, Store], judged: Mapping[str, Pairs],
    held_out: str,
) -> Unpaired:  # fmt: skip
    """A training on pairs and on what is unpaired.

    Args:
        pairs: what is trained on.
        settings: of the training.
        stores: of ``images``, of ``texts``, or both.
        judged: pairs that choose the step or that are judged on, by name.
        held_out: the name of those that were taken from the training data itself. What is unpaired
            and one of them is left out; of the others it is refused.

    Raises:
        PairingError: a store of other features than the pairs'.
        DataError: an empty store, or one with images or captions of ``judged``.
    """
    sides: dict[str, StoreRows] = {}
    for side, own in (("images", pairs.image), ("texts", pairs.texts[0].store)):
        if side not in stores:
            continue
        store = stores[side]
        _check_like(store, own, side)
        free = np.ones(len(store), bool)
        for name, those in judged.items():
            seen = _of_judged(store, those, side)
            if seen.any() and name != held_out:
                raise DataError(
                    f"{seen.sum()} of the {len(store)} {side} in {store.path} are of the {name} "
                    f"split (the first: {store.ids[int(seen.argmax())]!r})",
                    f"Leave them out of {_KEY}.{side}: results on {name} would be too good.",
                )
            free &= ~seen
        if not free.all():
            log.info(
                "%d of the %d unpaired %s are of pairs that are held out, and are left out",
                (~free).sum(), len(store), side,
            )  # fmt: skip
        if not free.any():
            raise DataError(
                f"{store.path} has no {side} beside those that are held out",
                f"Name others in {_KEY}.{side}.",
            )
        sides[side] = StoreRows(store, np.flatnonzero(free))
    for side, instead in (("images", "images"), ("texts", "captions")):
        if side not in sides:
            log.info("%s: the pairs' own %s stand for unpaired %s", _KEY, instead, side)
    return Unpaired(pairs, settings, sides.get("images"), sides.get("texts"))


def _check_like(store: Store, own: Store, side: str) -> None:
    """See that a store's features are of the encoder of the pairs' and that there are any."""
    if store.modality != own.modality:
        raise PairingError(
            f"{store.path} holds {store.modality} features where {_KEY}.{side} belong",
            "Name image features as images and text features as texts.",
        )
    here, there = store.manifest.description, own.manifest.description
    if here.encoder_key != there.encoder_key or here.dim != there.dim:
        names = [d.encoder["id"] for d in (here, there)]
        how = " with other settings" if names[0] == names[1] else f", the pairs' of {names[1]}"
        raise PairingError(
            f"the unpaired {side} in {store.path} are features of {names[0]}{how}",
            "Encode them as the pairs were: same encoder, layer, pooling and precision.",
        )
    if not len(store):
        raise DataError(f"{store.path} is empty", f"Name another store in {_KEY}.{side}.")


def _of_judged(store: Store, judged: Pairs, side: str) -> Array:
    """Which rows are images, or captions of images, of a split ``[rows]``, bool.

    An image is known by its file's bytes, where both sides have them. An id proves it where not
    anyone's image may have it, as ``17``; else features must be the same, too.
    """
    hashes = judged.image.image_hashes(judged.image_rows)
    group = TrainedOn({"judged": ImageGroup.of(judged.ids, hashes)})
    same = group.find("judged", store.ids, store.image_hashes())
    rows = np.flatnonzero(same.by_id)
    doubtful = rows[[is_anyones(i) for i in store.ids.take(rows)]] if rows.size else rows
    seen = same.by_bytes | same.by_id
    if doubtful.size:
        sources = judged.sources[:1] if side == "images" else judged.sources[1:]
        known = {digest for source in sources for digest in StoreRows(*source).digests()}
        digests = StoreRows(store, doubtful).digests()
        seen[doubtful] = [digest in known for digest in digests]
    return seen
