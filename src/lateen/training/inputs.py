"""A look at the features before training on them: better one pass now than a NaN at step 900."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lateen.errors import TrainingError
from lateen.features import Pairs, Store
from lateen.progress import bar, log

_CHUNK = 16 * 2**20  # bytes in float32
_NAMED = 3
Array = np.ndarray[Any, Any]


def check_several(pairs: Pairs) -> None:
    """See that there are images to tell apart.

    Raises:
        TrainingError: fewer than two.
    """
    if len(pairs) < 2:
        raise TrainingError(
            f"{len(pairs)} image is not enough to contrast captions with",
            "Train on at least two images, and in earnest on thousands.",
        )


def check_trainable(pairs: Pairs, *, varied: bool = True) -> None:
    """Read every feature once and refuse those that nothing can be learned from.

    Single dims that never vary are told of and kept: the head's norm and weights pass over them.

    Args:
        pairs: the features.
        varied: also ask that a store's rows are not all the same, which those of a small and
            sound validation split can be: two pictures of "a dog".

    Raises:
        TrainingError: NaN or infinite values, rows whose values are all the same, a store whose
            rows are all the same, or caption columns of different dims.
    """
    dims = {texts.name: texts.store.dim for texts in pairs.texts}
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name} {dim}" for name, dim in dims.items())
        raise TrainingError(
            f"the caption columns have features of different dims ({listed})",
            "One text head serves all columns: encode them with the same encoder.",
        )
    for store, rows in pairs.sources:
        check_rows(store, rows, varied=varied)


def check_rows(store: Store, rows: Array, *, varied: bool = True) -> None:
    """:func:`check_trainable` of some rows of one store."""
    low = torch.full((store.dim,), torch.inf)
    high = torch.full((store.dim,), -torch.inf)
    size = max(1, _CHUNK // (4 * store.dim))
    with bar(len(rows), f"checking {store.name} features", "row", stage=False) as progress:
        for start in range(0, len(rows), size):
            chunk = rows[start : start + size]
            features = store[chunk]
            _refuse(store, chunk, ~features.isfinite().all(1), "are not finite")
            alike = features.amax(1) == features.amin(1)
            _refuse(store, chunk, alike, "have one value in every dim")
            low = torch.minimum(low, features.amin(0))
            high = torch.maximum(high, features.amax(0))
            progress.update(len(chunk))
    still = int((low == high).sum())
    if varied and len(rows) > 1 and 0 < still < store.dim:
        log.info("%d of %d dims of %s have one value in all rows", still, store.dim, store.path)
    if varied and len(rows) > 1 and still == store.dim:
        raise TrainingError(
            f"all {len(rows)} rows of {store.path} are the same in all {store.dim} dims",
            "Check the encoder's layer and pooling, then encode again.",
        )


def _refuse(store: Store, rows: Array, bad: torch.Tensor, what: str) -> None:
    found = rows[bad.numpy()]
    if found.size:
        named = ", ".join(f"row {row} (id {store.ids[row]!r})" for row in found[:_NAMED])
        raise TrainingError(
            f"{len(found)} rows of {store.path} {what}, the first: {named}",
            "Check the encoder's precision and these inputs, then encode again.",
        )
