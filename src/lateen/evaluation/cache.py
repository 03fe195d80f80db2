"""Features of evaluation data, encoded once per encoder and content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lateen.data import Dataset
from lateen.data.fingerprint import cache_folder
from lateen.encoders import Encoder
from lateen.encoding import encode
from lateen.files import content_key
from lateen.store import Store


def cached_features(
    dataset: Dataset,
    encoder: Encoder,
    column: str | None = None,
    folder: Path | None = None,
    dtype: Literal["float16", "float32"] = "float16",
) -> Store:
    """The dataset's features, from the cache where they were computed before.

    The cache goes by the encoder's weights and settings and by the data's content.

    Args:
        dataset: what to encode.
        encoder: with what.
        column: the caption column, for a text encoder.
        folder: where to keep the store, replacing an older one; in lateen's cache if not given.
        dtype: of the features on disk.
    """
    if folder is None:
        name = content_key([encoder.info.key, dataset.fingerprint, column, dtype])[:24]
        folder = cache_folder() / "features" / name
    return encode(dataset, encoder, folder, column=column, dtype=dtype, overwrite=True, wait=True)
