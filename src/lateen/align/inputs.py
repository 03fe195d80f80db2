"""A look at the features before training on them: better one pass now than a NaN at step 900."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lateen.errors import TrainingError
from lateen.store import Pairs, Store

_CHUNK = 8192
_NAMED = 3

Array = np.ndarray[Any, Any]


def check_features(pairs: Pairs, *, varied: bool = True) -> None:
    """Read every feature once and refuse those that nothing can be learned from.

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
    _check_store(pairs.image, pairs.image_rows, varied)
    for texts in pairs.texts:
        _check_store(texts.store, texts.rows, varied)


def _check_store(store: Store, rows: Array, varied: bool) -> None:
    low = torch.full((store.dim,), torch.inf)
    high = torch.full((store.dim,), -torch.inf)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        features = store[chunk]
        _refuse(store, chunk, ~features.isfinite().all(1), "are not finite")
        _refuse(store, chunk, features.amax(1) == features.amin(1), "have one value in every dim")
        low = torch.minimum(low, features.amin(0))
        high = torch.maximum(high, features.amax(0))
    if varied and len(rows) > 1 and bool((low == high).all()):
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
