"""Features of photographs, kept by content: what one command has encoded, no other encodes again.

One folder for each vision encoder, below lateen's cache folder: photographs that are renamed, moved
or copied cost nothing, and all models on the same encoder share it. Each folder has parts, a
feature store of what was new at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lateen.data import ImageSource, ListDataset, Sample
from lateen.data.images import may_be_read_later
from lateen.errors import StoreError
from lateen.features import Store, encode
from lateen.files import content_key, folder_lock
from lateen.hardware import cache_folder
from lateen.model import AlignedModel

_CHANGED = "it changed while it was read"


@dataclass(frozen=True)
class Cached:
    """Features of some images.

    Attributes:
        contents: hashes of the contents of those that can be read.
        features: ``[n, dim]`` of these.
        unreadable: the reason of every other, by content.
    """

    contents: list[str]
    features: torch.Tensor
    unreadable: dict[str, str]


class FeatureCache:
    """The features of a model's vision encoder by the content of images.

    Args:
        model: whose vision encoder it is of.
        folder: where caches are; lateen's own if not given.
    """

    def __init__(self, model: AlignedModel, folder: Path | None = None) -> None:
        self._encoder = model.vision_encoder
        self._dtype = model.config.feature_dtype("vision")
        base = folder or cache_folder() / "photos"
        self._folder = base / f"{self._encoder.info.key[:24]}-{self._dtype}"
        self._parts: dict[str, Store] = {}
        self._row_of: dict[str, tuple[Store, int]] = {}
        self._reasons: dict[str, str] = {}
        self._look()

    def features(self, images: Mapping[str, ImageSource]) -> Cached:
        """Features of images; only those that are not known are encoded.

        Args:
            images: by the hash of their content.
        """
        if self._unseen(images):
            with folder_lock(self._folder, wait=True):
                self._look()  # another process may have encoded them by now
                if unseen := self._unseen(images):
                    self._encode({content: images[content] for content in unseen})
        known = [content for content in images if content in self._row_of]
        missing = [content for content in images if content not in self._row_of]
        reasons = {content: self._reasons.get(content, _CHANGED) for content in missing}
        return Cached(known, self._read(known), reasons)

    def _unseen(self, contents: Iterable[str]) -> list[str]:
        """Those that no part has, neither as a row nor as unreadable for good."""
        return [
            content for content in contents
            if content not in self._row_of
            and (content not in self._reasons or may_be_read_later(self._reasons[content]))
        ]  # fmt: skip

    def _look(self) -> None:
        """Take in the parts that are new, finished and whole. What any other part has counts as
        unseen."""
        for path in sorted(self._folder.glob("part-*")):
            if path.name not in self._parts:
                with contextlib.suppress(StoreError):
                    self._take(path.name, Store.open(path))

    def _take(self, name: str, store: Store) -> None:
        self._parts[name] = store
        self._row_of |= {content: (store, row) for row, content in enumerate(store.ids)}
        self._reasons |= {str(skip["id"]): str(skip["reason"]) for skip in store.skipped}

    def _encode(self, images: Mapping[str, ImageSource]) -> None:
        # Under the names of their contents, so that a photograph that is moved is not new.
        samples = [Sample(content, image) for content, image in images.items()]
        dataset = ListDataset("new photographs", samples, content_key(sorted(images)))
        part = self._folder / f"part-{dataset.fingerprint[:24]}"
        # Empty is allowed: that photographs cannot be read is worth remembering, too.
        store = encode(dataset, self._encoder, part, dtype=self._dtype, allow_empty=True)
        self._take(part.name, store)

    def _read(self, contents: list[str]) -> torch.Tensor:
        """Features ``[len(contents), dim]``, read part by part."""
        features = torch.empty(len(contents), self._encoder.info.dim)
        places: dict[int, tuple[Store, list[int], list[int]]] = {}
        for place, content in enumerate(contents):
            store, row = self._row_of[content]
            _, inside, rows = places.setdefault(id(store), (store, [], []))
            inside.append(place)
            rows.append(row)
        for store, inside, rows in places.values():
            features[inside] = store[np.array(rows)]
        return features
