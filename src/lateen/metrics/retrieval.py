"""Cross-modal retrieval, exact, without ever holding or sorting the whole score matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.device import matmul
from lateen.errors import DataError, LateenError
from lateen.metrics.features import Features

_WAYS = ("text_to_image", "image_to_text")
_CUTOFFS = (1, 5, 10)
_READ = 16  # tiles of embeddings that are read at a time
_CHECKED = 8192  # rows


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
        positive = positives[start : start + chunk].to(scores.device)
        # The right scores come out of the same product: one computed apart could round differently.
        right = scores.gather(1, positive.clamp(min=0)).masked_fill_(positive < 0, -torch.inf)
        best = right.amax(1, keepdim=True)
        at_least = scores.ge_(best).sum(1) - (right >= best).sum(1)
        ranks.append(at_least.long().cpu() + 1)
    return torch.cat(ranks)


def cross_ranks(
    image: Features, text: Features, owner: Tensor, *, tile: int = 256
) -> tuple[Tensor, Tensor]:
    """Ranks of both directions, from one pass over the score matrix.

    As in :func:`retrieval_ranks`, wrong ones with the same score as the right one stand before it.

    Args:
        image: ``[n, d]`` embeddings, L2-normalised: a tensor, or rows that are read from disk.
        text: ``[m, d]`` embeddings, L2-normalised. They are read as they are needed where ``owner``
            is in ascending order, else held in memory.
        owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
        tile: texts compared at a time, with four times as many images; memory is O(tile²) beside
            the embeddings.

    Returns:
        The rank, from 1, of every text's image among all images ``[m]``, and of every image's best
        text among all texts ``[n]``: int64, on the CPU.

    Raises:
        DataError: ``owner`` does not fit, or an image has no text.
        LateenError: an embedding holds NaN or infinity.
    """
    owner = owner.cpu().long()
    _check_owner(owner, len(image), len(text))
    _check_finite(image)
    _check_finite(text)
    device = image[:1].device
    # In bfloat16, whatever an ambient autocast wants, unequal scores would round to ties.
    with torch.autocast(device.type, enabled=False):
        if bool((owner[1:] >= owner[:-1]).all()):
            return _cross_ranks(image, text, owner.to(device), tile)
        order = owner.argsort(stable=True)
        ordered = text[:][order.to(device)]
        sorted_ranks, by_image = _cross_ranks(image, ordered, owner[order].to(device), tile)
    by_text = torch.empty_like(sorted_ranks)
    by_text[order] = sorted_ranks
    return by_text, by_image


def _cross_ranks(image: Features, text: Features, own: Tensor, tile: int) -> tuple[Tensor, Tensor]:
    """Ranks of texts that are sorted by their image ``own``, and of the images."""
    images = own.cpu()

    def has_right(row: slice, column: slice) -> bool:
        first, last = int(images[row.start]), int(images[row.stop - 1])
        return bool(column.start <= last and first < column.stop)

    # The right scores come out of the very products they are compared in: others could round
    # differently. Sorted texts have their images in a tile or two.
    right = torch.empty(len(text), device=own.device)
    for row, column, scores in _score_tiles(text, image, tile, has_right):
        inside = ((own[row] >= column.start) & (own[row] < column.stop)).nonzero()[:, 0]
        right[row.start + inside] = scores[inside, own[row][inside] - column.start]
    best = torch.full((len(image),), -torch.inf, device=own.device)
    best.scatter_reduce_(0, own, right, "amax")
    by_text = torch.zeros(len(text), dtype=torch.int64, device=own.device)
    by_image = torch.zeros(len(image), dtype=torch.int64, device=own.device)
    for row, column, scores in _score_tiles(text, image, tile):
        by_text[row] += (scores >= right[row, None]).sum(1, dtype=torch.int32)
        by_image[column] += (scores >= best[column]).sum(0, dtype=torch.int32)
    own_at_least = torch.bincount(own, weights=(right >= best[own]).double(), minlength=len(image))
    return by_text.cpu(), (by_image - own_at_least.long() + 1).cpu()


def _score_tiles(
    text: Features,
    image: Features,
    tile: int,
    needed: Callable[[slice, slice], bool] = lambda *_: True,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Scores of texts with images, by tiles: rows, columns and scores of each.

    Embeddings are read many tiles at a time, so that those of a store are read a few times only.

    Args:
        text: ``[m, d]`` the rows.
        image: ``[n, d]`` the columns.
        tile: rows; columns are four times as many.
        needed: whether the scores of these rows and columns are wanted.
    """
    for rows in _slices(0, len(text), _READ * tile):
        texts = text[rows].float()
        for columns in _slices(0, len(image), _READ * tile):
            if not needed(rows, columns):
                continue
            images = image[columns].float()
            for row in _slices(rows.start, rows.stop, tile):
                part = texts[row.start - rows.start : row.stop - rows.start]
                for column in _slices(columns.start, columns.stop, 4 * tile):
                    if needed(row, column):
                        other = images[column.start - columns.start : column.stop - columns.start]
                        yield row, column, matmul(part, other.T)


def _slices(start: int, stop: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def retrieval(image: Features, text: Features, owner: Tensor, *, chunk: int = 256) -> Retrieval:
    """R@1, R@5, R@10 and median rank of text→image and image→text retrieval.

    Text→image: the rank of the caption's own image among all images. Image→text: the rank of the
    image's best caption among all captions.

    Args:
        image: ``[n, d]`` embeddings, L2-normalised, as :func:`cross_ranks` takes them.
        text: ``[m, d]`` embeddings, L2-normalised.
        owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
        chunk: texts compared at a time.

    Returns:
        ``text_to_image`` and ``image_to_text``, each with ``R@1``, ``R@5`` and ``R@10`` in percent
        of the queries, and ``median_rank`` from 1.

    Raises:
        DataError: ``owner`` does not fit, or an image has no text.
        LateenError: an embedding holds NaN or infinity.
    """
    return retrieval_of_ranks(*cross_ranks(image, text, owner, tile=chunk))


def retrieval_of_ranks(by_text: Tensor, by_image: Tensor) -> Retrieval:
    """What :func:`retrieval` gives, of the ranks that :func:`cross_ranks` gives."""
    return {"text_to_image": _recall(by_text), "image_to_text": _recall(by_image)}


def mean_recall(result: Mapping[str, Any], cutoffs: Sequence[int] = (1, 5, 10)) -> float:
    """Mean over both directions and ``cutoffs`` of R@K, in percent.

    Over all three cutoffs this is the field's rsum divided by six; over 10 alone it is the score of
    alignment probing (METHODS §1.5).
    """
    recalls = [result[way][f"R@{k}"] for way in _WAYS for k in cutoffs]
    return float(sum(recalls) / len(recalls))


def rsum(result: Mapping[str, Any]) -> float:
    """Sum of R@1, R@5 and R@10 of both directions: at most 600."""
    return 6 * mean_recall(result)


def _check_owner(owner: Tensor, images: int, texts: int) -> None:
    """See that every text has an image and every image a text."""
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


def _recall(ranks: Tensor) -> dict[str, float]:
    within = {f"R@{k}": 100 * int((ranks <= k).sum()) / len(ranks) for k in _CUTOFFS}
    return {**within, "median_rank": float(np.median(ranks.numpy()))}


def _check_finite(embeddings: Features) -> None:
    bad = torch.cat(
        [
            ~embeddings[part].isfinite().all(1).cpu()
            for part in _slices(0, len(embeddings), _CHECKED)
        ]
        or [torch.zeros(0, dtype=torch.bool)]
    )
    if bad.any():
        raise LateenError(
            f"{int(bad.sum())} of {len(embeddings)} embeddings hold NaN or infinity, the first in "
            f"row {int(bad.nonzero()[0])}",
            "Training may have diverged (lower train.lr), or the features hold such values.",
        )
