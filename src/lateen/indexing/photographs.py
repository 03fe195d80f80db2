"""Search a folder of photographs with a sentence: exact cosine top-k, encoding only what is new.

Features are cached by the *content* of each image, below lateen's cache folder, one folder per
vision encoder: renamed and moved photographs cost nothing, and all models on the same encoder share
one cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lateen.data import FileImage, ImageFolder, ListDataset, Sample
from lateen.data.fingerprint import file_hashes
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
    samples, features, unreadable = photo_features(ready, images, cache=cache)
    if skipped is not None:
        skipped += unreadable
    image = project_rows(ready.project_image, features, range(len(features)))
    scores = ready.encode_text(queries) @ image.T
    best = scores.topk(min(k, len(samples)), dim=1)
    return [
        [Hit(samples[i].id, _path(samples[i]), score)
         for i, score in zip(row.tolist(), values.tolist(), strict=True)]
        for row, values in zip(best.indices, best.values, strict=True)
    ]  # fmt: skip


def photo_features(
    model: AlignedModel, images: str | Path, *, cache: Path | None = None
) -> tuple[list[Sample], torch.Tensor, list[dict[str, str]]]:
    """The folder's readable images, their vision features ``[n, image_dim]``, and the others.

    Args:
        model: whose vision encoder to use.
        images: a folder of images.
        cache: where to keep features; lateen's cache folder if not given.
    """
    samples = [s for s in ImageFolder(images) if isinstance(s, Sample)]
    if not samples:
        raise DataError(f"{images} has no images", "Give a folder of photographs.")
    hashes = file_hashes([_path(sample) for sample in samples])
    dtype = model.config.feature_dtype("vision")
    base = cache or cache_folder() / "photos"
    folder = base / f"{model.vision_encoder.info.key[:24]}-{dtype}"
    stores = _finished(folder)
    if _unseen(stores, hashes):
        with folder_lock(folder, wait=True):  # another search may have encoded them by now
            stores = _finished(folder)
            unseen = _unseen(stores, hashes)
            new = {h: s for h, s in zip(hashes, samples, strict=True) if h in unseen}
            if new:
                stores.append(_encode_new(model, new, folder, dtype))
    rows = {i: (n, row) for n, store in enumerate(stores) for row, i in enumerate(store.ids)}
    kept = [(s, rows[h]) for s, h in zip(samples, hashes, strict=True) if h in rows]
    if not kept:
        raise DataError(f"none of the {len(samples)} images in {images} can be read", "Check them.")
    features = torch.empty(len(kept), model.config.image_dim)
    for number, store in enumerate(stores):
        mine = [i for i, (_, (n, _)) in enumerate(kept) if n == number]
        if mine:
            features[mine] = store[[kept[i][1][1] for i in mine]]
    reasons = {skip["id"]: skip["reason"] for store in stores for skip in store.skipped}
    lost = [
        {"id": sample.id, "reason": reasons.get(content, "it changed while it was read")}
        for sample, content in zip(samples, hashes, strict=True)
        if content not in rows
    ]
    return [sample for sample, _ in kept], features, lost


def _unseen(stores: Sequence[Store], hashes: Sequence[str]) -> set[str]:
    """The content hashes that no part has, neither as a row nor as unreadable."""
    seen = {i for store in stores for i in store.ids}
    seen |= {skip["id"] for store in stores for skip in store.skipped}
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
