"""Search a folder of photographs with a sentence or an image: exact cosine top-k.

Only what is new is encoded.

Features are cached by the *content* of each image, below lateen's cache folder, one folder per
vision encoder: renamed and moved photographs cost nothing, and all models on the same encoder share
one cache.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from lateen.data import FileImage, ImageFolder, ListDataset, Sample, Skip
from lateen.data.fingerprint import file_hashes
from lateen.data.images import may_be_read_later
from lateen.errors import DataError, StoreError, UsageError
from lateen.features import Store, encode
from lateen.files import cache_folder, content_key, folder_lock
from lateen.model import AlignedModel, open_model
from lateen.model.model import project_rows
from lateen.model.query_bank import chosen_bank

Query = str | Path | Image


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        id: the image's path relative to the searched folder.
        path: where it is.
        score: cosine between the query's and the image's embedding, -1 to 1.
        adjusted: by which the images are ordered with a query bank, the score less the image's
            hubness; ``None`` without one.
    """

    id: str
    path: Path
    score: float
    adjusted: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        adjusted = {} if self.adjusted is None else {"adjusted": self.adjusted}
        return {"id": self.id, "path": str(self.path), "score": self.score, **adjusted}


def search(
    model: AlignedModel | str | Path,
    query: Query | Sequence[Query],
    images: str | Path,
    *,
    k: int = 12,
    bank: str | Path | None = None,
    cache: Path | None = None,
    skipped: list[dict[str, str]] | None = None,
    same: list[str] | None = None,
) -> list[list[Hit]]:
    """The ``k`` images nearest to each query, best first, exactly.

    A query is a sentence (``str``), or an image (a ``Path``, or a PIL image). An image of the
    folder that is the query itself, to the byte, is no hit of it.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        query: one query or several.
        images: a folder of images, with all its subfolders.
        k: hits per query; all images if there are fewer.
        bank: a query bank, which takes the hubness of every image off its score where the query is
            a sentence: the model's own if it carries one; ``none``; or a file of ``lateen bank``.
        cache: where to keep features; lateen's cache folder if not given.
        skipped: receives ``id`` and ``reason`` of every image that could not be read.
        same: receives the id of every image that was left out because it is the query itself.

    Returns:
        One list of hits per query.

    Raises:
        UsageError: an empty query, or k below 1.
        DataError: no readable image in the folder, or a query that cannot be read.
    """
    queries = [query] if isinstance(query, Query) else list(query)
    if k < 1:
        raise UsageError(f"k is {k}", "Ask for at least one hit.")
    if not queries or not all(q.strip() for q in queries if isinstance(q, str)):
        raise UsageError("the query is empty", "Say in a few words what to look for.")
    for each in queries:
        if isinstance(each, Path) and not each.is_file():
            raise DataError(f"there is no image {each}", "Check the path of the query.")
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    known = chosen_bank(ready, bank)
    embedded = [_embedded(ready, each) for each in queries]
    photographs = Photographs.of(ready, images, cache=cache)
    if skipped is not None:
        skipped += photographs.unreadable
    asked = any(isinstance(each, str) for each in queries)
    hubness = known.image_hubness(photographs.embeddings) if known and asked else None
    results = []
    for each, embedding in zip(queries, embedded, strict=True):
        itself = photographs.copies_of(each) if isinstance(each, Path) else set()
        if same is not None:
            same += sorted(itself)
        off = hubness if isinstance(each, str) else None
        [hits] = photographs.nearest(embedding, k + len(itself), off)
        results.append([hit for hit in hits if hit.id not in itself][:k])
    return results


def _embedded(model: AlignedModel, query: Query) -> torch.Tensor:
    return model.encode_text(query) if isinstance(query, str) else model.encode_image(query)


@dataclass(frozen=True)
class Photographs:
    """The images of a folder, embedded by a model.

    Attributes:
        samples: those that can be read.
        embeddings: ``[n, dim]`` of them, L2-normalised unless asked for otherwise.
        unreadable: ``id`` and ``reason`` of the others.
        hashes: of the contents of the samples' files.
    """

    samples: list[Sample]
    embeddings: torch.Tensor
    unreadable: list[dict[str, str]]
    hashes: list[str]

    @classmethod
    def of(
        cls, model: AlignedModel, images: str | Path, *, cache: Path | None = None,
        normalize: bool = True,
    ) -> Photographs:  # fmt: skip
        """Embed the images of a folder; only those that are new to the cache are encoded.

        Args:
            model: an AlignedModel.
            images: a folder of images, with all its subfolders.
            cache: where to keep features; lateen's cache folder if not given.
            normalize: L2-normalise the embeddings.

        Raises:
            DataError: no readable image in the folder.
        """
        items = list(ImageFolder(images))
        samples = [item for item in items if isinstance(item, Sample)]
        if not samples:
            raise DataError(f"{images} has no images", "Give a folder of photographs.")
        hashes = file_hashes([photograph_path(sample) for sample in samples])
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
        unreadable += [{"id": i.id, "reason": i.reason} for i in items if isinstance(i, Skip)]
        project = functools.partial(model.project_image, normalize=normalize)
        return cls(
            [s for s, content in zip(samples, hashes, strict=True) if content in row_of],
            project_rows(project, features, range(len(features))), unreadable,
            [content for content in hashes if content in row_of],
        )  # fmt: skip

    def nearest(
        self, queries: torch.Tensor, k: int, hubness: torch.Tensor | None = None
    ) -> list[list[Hit]]:
        """The ``k`` images nearest to each query, best first.

        Args:
            queries: ``[q, dim]``, L2-normalised.
            k: how many; all if there are fewer.
            hubness: of the images ``[n]``, taken off their cosines.
        """
        cosines = queries @ self.embeddings.T
        scores = cosines if hubness is None else cosines - hubness
        best = scores.topk(min(k, len(self.samples)), dim=1)
        return [
            [
                Hit(
                    self.samples[i].id, photograph_path(self.samples[i]), cosines[row, i].item(),
                    None if hubness is None else score,
                )
                for i, score in zip(images.tolist(), highest.tolist(), strict=True)
            ]
            for row, (images, highest) in enumerate(zip(best.indices, best.values, strict=True))
        ]  # fmt: skip

    def copies_of(self, image: Path) -> set[str]:
        """The ids of the images that have the very bytes of a file."""
        [wanted] = file_hashes([image])
        pairs = zip(self.samples, self.hashes, strict=True)
        return {sample.id for sample, content in pairs if content == wanted}


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


def photograph_path(sample: Sample) -> Path:
    """Where a photograph of a folder lies."""
    assert isinstance(sample.image, FileImage)
    return sample.image.path
