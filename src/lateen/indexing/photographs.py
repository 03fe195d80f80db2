"""Search a folder of photographs with a sentence: exact cosine top-k, encoding only what is new.

Features are cached by the *content* of each image, below lateen's cache folder, one folder per
vision encoder: renamed and moved photographs cost nothing, and all models on the same encoder share
one cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lateen.data import FileImage, ImageFolder, ListDataset, Sample
from lateen.data.fingerprint import file_hashes
from lateen.data.images import may_be_read_later
from lateen.errors import DataError, StoreError, UsageError
from lateen.features import Store, encode
from lateen.files import cache_folder, content_key, folder_lock
from lateen.model import AlignedModel
from lateen.model.model import project_rows


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        id: the image's path relative to the searched folder.
        path: where it is.
        score: cosine between the query's and the image's embedding, -1 to 1.
    """

    id: str
    path: Path
    score: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"id": self.id, "path": str(self.path), "score": self.score}


def search(
    model: AlignedModel | str | Path,
    query: str | Sequence[str],
    images: str | Path,
    *,
    k: int = 12,
    cache: Path | None = None,
    skipped: list[dict[str, str]] | None = None,
) -> list[list[Hit]]:
    """The ``k`` images nearest to each query, best first, exactly.

    Args:
        model: an AlignedModel or its folder.
        query: one sentence or several.
        images: a folder of images, with all its subfolders.
        k: hits per query; all images if there are fewer.
        cache: where to keep features; lateen's cache folder if not given.
        skipped: receives ``id`` and ``reason`` of every image that could not be read.

    Returns:
        One list of hits per query.

    Raises:
        UsageError: an empty query, or k below 1.
        DataError: no readable image in the folder.
    """
    queries = [query] if isinstance(query, str) else list(query)
    if k < 1:
        raise UsageError(f"k is {k}", "Ask for at least one hit.")
    if not queries or not all(q.strip() for q in queries):
        raise UsageError("the query is empty", "Say in a few words what to look for.")
    ready = model if isinstance(model, AlignedModel) else AlignedModel.from_pretrained(model)
    _ = ready.text_encoder  # what cannot be loaded fails before photographs are encoded
    photographs = Photographs.of(ready, images, cache=cache)
    if skipped is not None:
        skipped += photographs.unreadable
    return photographs.nearest(ready.encode_text(queries), k)


@dataclass(frozen=True)
class Photographs:
    """The images of a folder, embedded by a model.

    Attributes:
        samples: those that can be read.
        embeddings: ``[n, dim]`` of them, L2-normalised.
        unreadable: ``id`` and ``reason`` of the others.
    """

    samples: list[Sample]
    embeddings: torch.Tensor
    unreadable: list[dict[str, str]]

    @classmethod
    def of(
        cls, model: AlignedModel, images: str | Path, *, cache: Path | None = None
    ) -> Photographs:
        """Embed the images of a folder; only those that are new to the cache are encoded.

        Args:
            model: an AlignedModel.
            images: a folder of images, with all its subfolders.
            cache: where to keep features; lateen's cache folder if not given.

        Raises:
            DataError: no readable image in the folder.
        """
        samples = [s for s in ImageFolder(images) if isinstance(s, Sample)]
        if not samples:
            raise DataError(f"{images} has no images", "Give a folder of photographs.")
        hashes = file_hashes([_path(sample) for sample in samples])
        stores = _encoded(model, dict(zip(hashes, samples, strict=True)), cache)

        # Which row of all stores, one after the other, each image's features are in.
        ids = [content for store in stores for content in store.ids]
        row_of = {content: row for row, content in enumerate(ids)}
        rows = [row_of[content] for content in hashes if content in row_of]
        if not rows:
            raise DataError(
                f"none of the {len(samples)} images in {images} can be read", "Check them."
            )
        features = _read_rows(stores, np.array(rows))
        reasons = {skip["id"]: skip["reason"] for store in stores for skip in store.skipped}
        unreadable = [
            {"id": sample.id, "reason": reasons.get(content, "it changed while it was read")}
            for sample, content in zip(samples, hashes, strict=True)
            if content not in row_of
        ]
        return cls(
            [s for s, content in zip(samples, hashes, strict=True) if content in row_of],
            project_rows(model.project_image, features, range(len(features))), unreadable,
        )  # fmt: skip

    def nearest(self, queries: torch.Tensor, k: int) -> list[list[Hit]]:
        """The ``k`` images nearest to each query ``[q, dim]``, L2-normalised, best first."""
        best = (queries @ self.embeddings.T).topk(min(k, len(self.samples)), dim=1)
        return [
            [Hit(self.samples[i].id, _path(self.samples[i]), score)
             for i, score in zip(row.tolist(), scores.tolist(), strict=True)]
            for row, scores in zip(best.indices, best.values, strict=True)
        ]  # fmt: skip


def _encoded(model: AlignedModel, images: dict[str, Sample], cache: Path | None) -> list[Store]:
    """All parts of the vision encoder's cache, with a further one of what is new.

    Args:
        model: whose vision encoder to use.
        images: by the hash of their content.
        cache: where to keep features; lateen's cache folder if not given.
    """
    dtype = model.config.feature_dtype("vision")
    base = cache or cache_folder() / "photos"
    folder = base / f"{model.vision_encoder.info.key[:24]}-{dtype}"
    stores = _finished(folder)
    if not _unseen(stores, images):
        return stores
    with folder_lock(folder, wait=True):
        stores = _finished(folder)  # another search may have encoded them by now
        unseen = _unseen(stores, images)
        if unseen:
            new = {content: image for content, image in images.items() if content in unseen}
            stores.append(_encode_new(model, new, folder, dtype))
    return stores


def _read_rows(stores: Sequence[Store], rows: np.ndarray[Any, Any]) -> torch.Tensor:
    """Features ``[len(rows), dim]``; rows count through all stores, one after the other."""
    ends = np.cumsum([len(store) for store in stores])
    store_of = np.searchsorted(ends, rows, side="right")
    features = torch.empty(len(rows), stores[0].dim)
    for number in np.unique(store_of):
        store, inside = stores[number], np.flatnonzero(store_of == number)
        features[inside] = store[rows[inside] - (ends[number] - len(store))]
    return features


def _unseen(stores: Sequence[Store], hashes: Iterable[str]) -> set[str]:
    """The content hashes that no part has, neither as a row nor as unreadable for good."""
    seen = {i for store in stores for i in store.ids}
    skips = (skip for store in stores for skip in store.skipped)
    seen |= {skip["id"] for skip in skips if not may_be_read_later(skip["reason"])}
    return set(hashes) - seen


def _encode_new(model: AlignedModel, new: dict[str, Sample], folder: Path, dtype: Any) -> Store:
    # Under the names of their contents, so that a photograph that is moved is not new.
    samples = [Sample(content, sample.image) for content, sample in new.items()]
    dataset = ListDataset("new photographs", samples, content_key(sorted(new)))
    part = folder / f"part-{dataset.fingerprint[:24]}"
    # Empty is allowed: that photographs cannot be read is worth remembering, too.
    return encode(dataset, model.vision_encoder, part, dtype=dtype, allow_empty=True)


def _finished(folder: Path) -> list[Store]:
    """The finished, whole parts. The images of any other part count as new."""
    stores = []
    for part in sorted(folder.glob("part-*")):
        with contextlib.suppress(StoreError):
            stores.append(Store.open(part))
    return stores


def _path(sample: Sample) -> Path:
    assert isinstance(sample.image, FileImage)
    return sample.image.path
