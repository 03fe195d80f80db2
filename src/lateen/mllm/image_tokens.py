"""The tokens of images, as a frozen tower gives them: made once and stored, or in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from lateen.data import decode_image
from lateen.data.fingerprint import combine
from lateen.data.samples import ImageSource, ListDataset, Sample, bytes_hash, content_hashes
from lateen.encoders import EncoderInfo
from lateen.encoders.vision import describe_processing
from lateen.encoders.weights import tensors_hash
from lateen.errors import ImageError
from lateen.features import Store
from lateen.features.encode import encode_views
from lateen.files import content_key
from lateen.progress import bar

Array = np.ndarray[Any, Any]
_BYTES = 2  # of a stored number


class ImageTokens(Protocol):
    """What stands for images in a batch."""

    def of(self, images: Sequence[str]) -> Tensor:
        """Of images by id, what Llava takes as ``pixel_values``: tokens ``[n, tokens, width]`` made
        before, or pixels ``[n, 3, H, W]``."""

    def hashes(self, images: Sequence[str]) -> Array:
        """Of each image's bytes, uint64 ``[n]``; 0 where they cannot be read."""

    def readable(self, images: Sequence[str]) -> bool:
        """Whether all of these can be read."""


class LiveImages:
    """Images that are decoded and prepared when they are needed.

    Args:
        sources: by id.
        image_processor: of the tower.
    """

    def __init__(self, sources: Mapping[str, ImageSource], image_processor: Any) -> None:
        self._sources, self._processor = sources, image_processor

    def of(self, images: Sequence[str]) -> Tensor:
        """Pixels ``[n, 3, H, W]``.

        Raises:
            ImageError: one cannot be read.
        """
        pictures = [decode_image(self._sources[name]) for name in images]
        pixels: Tensor = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
        return pixels

    def readable(self, images: Sequence[str]) -> bool:
        """Whether all of these can be read."""
        try:
            for name in images:
                decode_image(self._sources[name])
        except ImageError:
            return False
        return True

    def hashes(self, images: Sequence[str]) -> Array:
        """Of each image's bytes, uint64 ``[n]``; 0 where they cannot be read."""
        with bar(len(images), "hashes of images", "image", stage=False) as progress:
            found = []
            for name in images:
                found.append(bytes_hash(self._sources[name]))
                progress.update()
        return np.array(found, np.uint64)


class StoredTokens:
    """Tokens in a feature store, a row for each image.

    Args:
        store: as :func:`store_tokens` makes it.
        tokens: of an image.
    """

    def __init__(self, store: Store, tokens: int) -> None:
        self._store, self._tokens = store, tokens
        self._rows = {name: row for row, name in enumerate(store.ids)}

    def readable(self, images: Sequence[str]) -> bool:
        """Whether all of these are in the store."""
        return all(name in self._rows for name in images)

    def of(self, images: Sequence[str]) -> Tensor:
        """Tokens ``[n, tokens, width]``."""
        rows = self._store[[self._rows[name] for name in images]]
        return rows.view(len(images), self._tokens, -1)

    def hashes(self, images: Sequence[str]) -> Array:
        """Of each image's bytes, uint64 ``[n]``."""
        return self._store.image_hashes([self._rows[name] for name in images])


def bytes_of(images: int, tokens: int, width: int) -> int:
    """What a store of so many images takes on disk."""
    return images * tokens * width * _BYTES


def store_tokens(
    tower: Any, image_processor: Any, sources: Mapping[str, ImageSource], out: Path, *, device: str
) -> Store:
    """Have the tokens of images in a store; an image that cannot be read is a skip of it.

    A store that was made of the same tower and images is given back; one that was killed goes on.

    Args:
        tower: of a multimodal model, in evaluation mode.
        image_processor: of it.
        sources: images by id.
        out: folder of the store.
        device: that the tower is on.

    Raises:
        StoreError: the folder holds something else.
        DataError: not one image can be read.
    """
    samples = [Sample(name, source) for name, source in sources.items()]
    content = combine([content_key(list(sources)), *content_hashes(sources.values())])
    dataset = ListDataset("images", samples, content)
    encoder = TowerEncoder(tower, image_processor)
    tower.to(memory_format=torch.channels_last)  # in which convolutions are faster on a CPU
    try:
        [store] = encode_views(dataset, [encoder], [out], dtype="float16", device=device)
    finally:
        tower.to(memory_format=torch.contiguous_format)  # in which it is when it is loaded
    return store


class TowerEncoder:
    """A tower as an image encoder, whose feature is all tokens one behind the other."""

    def __init__(self, tower: Any, image_processor: Any) -> None:
        config = tower.config
        self._tower, self._processor = tower, image_processor
        self.info = EncoderInfo(
            id=config.model_type, modality="image", dim=config.num_tokens * config.hidden_size,
            pooling="tokens", weights=content_key([tensors_hash(tower), config.to_dict()]),
            preprocessing=describe_processing(image_processor),
            precision=str(tower.dtype).removeprefix("torch."),
        )  # fmt: skip

    def prepare(self, items: Sequence[Image]) -> list[Tensor]:
        """RGB images to pixels ``[3, H, W]`` each."""
        return list(self._processor(images=list(items), return_tensors="pt")["pixel_values"])

    @torch.no_grad()
    def encode(self, prepared: Sequence[Tensor]) -> Tensor:
        """Tokens ``[n, tokens · width]``, float32, on the CPU."""
        device = next(self._tower.parameters()).device
        pixels = torch.stack(list(prepared)).to(device, memory_format=torch.channels_last)
        tokens: Tensor = self._tower(pixels).hidden_states[-1]
        return tokens.flatten(1).float().cpu()
