"""Several layers and poolings of one encoder, loaded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lateen.encoders.base import Encoder, Modality, ViewedEncoder
from lateen.encoders.load import load_encoder


def load_views(
    name: str,
    modality: Modality | None,
    views: Sequence[tuple[str | None, int | None]],
    **options: Any,
) -> list[Encoder]:
    """One encoder per (pooling, layer) of ``views``; they share one network where it gives several.

    Args:
        name: as for :func:`~lateen.encoders.load_encoder`.
        modality: likewise.
        views: pooling and layer of each, ``None`` for the encoder's own.
        options: of :func:`~lateen.encoders.load_encoder`, for all.

    Raises:
        EncoderError: one cannot be loaded, or has no such pooling or layer.
    """
    poolings = [pooling for pooling, _ in views]
    # An encoder's own pooling can only be had by loading it without one.
    own = None if None in poolings else poolings[0]
    if len(views) > 1:
        base = load_encoder(name, modality, pooling=own, **options)
        if isinstance(base, ViewedEncoder):
            return [base if view == (own, None) else base.view(*view) for view in views]
    return [
        load_encoder(name, modality, pooling=pooling, layer=layer, **options)
        for pooling, layer in views
    ]
