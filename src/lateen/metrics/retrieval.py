"""Cross-modal retrieval, exact, without ever holding or sorting the whole score matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError, LateenError

_WAYS = ("text_to_image", "image_to_text")
_CUTOFFS = (1, 5, 10)

# {"text_to_image": {"R@1", "R@5", "R@10", "median_rank"}, "image_to_text": {the same}}
Retrieval = dict[str, dict[str, float]]


def retrieval_ranks(
    queries: Tensor, targets: Tensor, positives: Tensor, *, chunk: int = 256
) -> Tensor:
    """Rank, from 1, of the best right target of every query.

    A wrong target with exactly the same score counts as ranked before the right one, so that
    embeddings that have collapsed to one point score nothing.

    Args:
        queries: ``[q, d]``, L2-normalised.
        targets: ``[n, d]``, L2-normalised; n below 2²⁴.
        positives: ``[q, k]`` indices of each query's right targets, padded with −1; at least one.
        chunk: queries compared at a time; memory is O(chunk × n).

    Returns:
        ``[q]`` ranks, int64, on the CPU.

    Raises:
        LateenError: an embedding holds NaN or infinity, with which every rank would look like 1.
    """
    _check_finite(queries)
    _check_finite(targets)
    # In bfloat16, whatever an ambient autocast wants, unequal scores would round to ties.
    with torch.autocast(queries.device.type, enabled=False):
        return _ranks(queries.float(), targets.float(), positives, chunk)


def _ranks(queries: Tensor, targets: Tensor, positives: Tensor, chunk: int) -> Tensor:
    ranks = []
    for start in range(0, len(queries), chunk):
        scores = queries[start : start + chunk] @ targets.T
        mine = positives[start : start + chunk].to(scores.device)
        # The right scores come out of the same product: one computed apart could round differently.
        right = scores.gather(1, mine.clamp(min=0)).masked_fill_(mine < 0, -torch.inf)
        best = right.amax(1, keepdim=True)
        at_least = scores.ge_(best).sum(1) - (right >= best).sum(1)
        ranks.append(at_least.long().cpu() + 1)
    return torch.cat(ranks)


def retrieval(image: Tensor, text: Tensor, owner: Tensor, *, chunk: int = 256) -> Retrieval:
    """R@1, R@5, R@10 and median rank of text→image and image→text retrieval.

    Text→image: the rank of the caption's own image among all images. Image→text: the rank of the
    image's best caption among all captions.

    Args:
        image: ``[n, d]`` embeddings, L2-normalised.
        text: ``[m, d]`` embeddings, L2-normalised.
        owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
        chunk: queries compared at a time.

    Returns:
        ``text_to_image`` and ``image_to_text``, each with ``R@1``, ``R@5`` and ``R@10`` in percent
        of the queries, and ``median_rank`` from 1.

    Raises:
        DataError: ``owner`` does not fit, or an image has no text.
        LateenError: an embedding holds NaN or infinity.
    """
    owner = owner.cpu().long()
    captions = captions_by_image(owner, len(image), len(text))
    return {
        "text_to_image": _recall(retrieval_ranks(text, image, owner[:, None], chunk=chunk)),
        "image_to_text": _recall(retrieval_ranks(image, text, captions, chunk=chunk)),
    }


def mean_recall(result: Mapping[str, Any], cutoffs: Sequence[int] = (1, 5, 10)) -> float:
    """Mean over both directions and ``cutoffs`` of R@K, in percent.

    Over all three cutoffs this is the field's rsum divided by six; over 10 alone it is the score of
    alignment probing (METHODS §1.5).
    """
    recalls = [result[way][f"R@{k}"] for way in _WAYS for k in cutoffs]
    return float(sum(recalls) / len(recalls))


def captions_by_image(owner: Tensor, images: int, texts: int) -> Tensor:
    """Indices of every image's texts, ``[images, most texts of one image]``, padded with −1."""
    if owner.shape != (texts,) or texts == 0 or owner.min() < 0 or owner.max() >= images:
        raise DataError(
            f"owner of shape {list(owner.shape)} does not say for each of {texts} texts which of "
            f"{images} images it describes",
            "Give one image index from 0 for every text.",
        )
    counts = torch.bincount(owner, minlength=images)
    if (counts == 0).any():
        lonely = int((counts == 0).nonzero()[0])
        raise DataError(f"image {lonely} has no text to be retrieved", "Leave such images out.")
    order = owner.argsort(stable=True)
    first = counts.cumsum(0) - counts
    table = torch.full((images, int(counts.max())), -1)
    table[owner[order], torch.arange(texts) - first[owner[order]]] = order
    return table


def _recall(ranks: Tensor) -> dict[str, float]:
    within = {f"R@{k}": 100 * int((ranks <= k).sum()) / len(ranks) for k in _CUTOFFS}
    return {**within, "median_rank": float(np.median(ranks.numpy()))}


def _check_finite(embeddings: Tensor) -> None:
    bad = ~embeddings.isfinite().all(1)
    if bad.any():
        raise LateenError(
            f"{int(bad.sum())} of {len(embeddings)} embeddings hold NaN or infinity, the first in "
            f"row {int(bad.nonzero()[0])}",
            "Training may have diverged (lower train.lr), or the features hold such values.",
        )
