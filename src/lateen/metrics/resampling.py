"""How much a retrieval score would differ with other images: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.retrieval import cross_ranks

Array = np.ndarray[Any, Any]
Interval = tuple[float, float]
_BLOCK = 2**24  # counts held at a time


@dataclass(frozen=True)
class RecallHits:
    """What every image contributes to R@K, as whole numbers that a file can keep.

    Attributes:
        captions: number of captions of every image.
        text_to_image: by ``R@1`` and so on, how many of these captions found the image.
        image_to_text: by ``R@1`` and so on, 1 where the image found a caption of its own, else 0.
    """

    captions: list[int]
    text_to_image: dict[str, list[int]]
    image_to_text: dict[str, list[int]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; ``RecallHits(**as_dict)`` is the same again."""
        return asdict(self)


def recall_hits(
    image: Tensor, text: Tensor, owner: Tensor, cutoffs: Sequence[int] = (1, 5, 10)
) -> RecallHits:
    """Hits of every image, from which :func:`lateen.metrics.retrieval` takes the mean.

    Args:
        image: ``[n, d]`` embeddings, L2-normalised.
        text: ``[m, d]`` embeddings, L2-normalised.
        owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
        cutoffs: the K of R@K.

    Raises:
        DataError: ``owner`` does not fit, or an image has no text.
        LateenError: an embedding holds NaN or infinity.
    """
    return rank_hits(*cross_ranks(image, text, owner), owner, cutoffs)


def rank_hits(
    by_text: Tensor, by_image: Tensor, owner: Tensor, cutoffs: Sequence[int] = (1, 5, 10)
) -> RecallHits:
    """:func:`recall_hits` of ranks that are known.

    Args:
        by_text: ``[m]`` ranks from 1, as :func:`lateen.metrics.cross_ranks` gives them.
        by_image: ``[n]`` likewise.
        owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
        cutoffs: the K of R@K.
    """
    owner, images = owner.cpu().long(), len(by_image)
    return RecallHits(
        torch.bincount(owner, minlength=images).tolist(),
        {f"R@{k}": torch.bincount(owner[by_text <= k], minlength=images).tolist() for k in cutoffs},
        {f"R@{k}": (by_image <= k).long().tolist() for k in cutoffs},
    )


def bootstrap_recall(
    hits: RecallHits,
    *,
    cutoff: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of both directions' R@K, in percent.

    Images are drawn with replacement, with all their captions; what they are retrieved among stays
    as it is. Training and its seed are not drawn again.

    Args:
        hits: of a model.
        cutoff: K; 10 is the score of alignment probing (METHODS §1.5).
        resamples: draws.
        level: share of the draws that the interval holds.
        seed: of the draws.

    Raises:
        UsageError: hits without that K, or a level that is not between 0 and 1.
    """
    [scores] = bootstrap_scores([hits], cutoff=cutoff, resamples=resamples, seed=seed)
    return percentile_interval(scores, level)


def bootstrap_difference(
    a: RecallHits,
    b: RecallHits,
    *,
    cutoff: int = 10,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of how much a's mean R@K is above b's, in points of percent.

    Paired: both models see the same draws of :func:`bootstrap_recall`, so that what makes an image
    hard for both cancels.

    Args:
        a: hits of one model.
        b: hits of the other, on the same images and captions.
        cutoff: K.
        resamples: draws.
        level: share of the draws that the interval holds.
        seed: of the draws.

    Raises:
        DataError: hits on images whose numbers of captions differ.
        UsageError: hits without that K, or a level that is not between 0 and 1.
    """
    first, second = bootstrap_scores([a, b], cutoff=cutoff, resamples=resamples, seed=seed)
    return percentile_interval(first - second, level)


def bootstrap_scores(
    models: Sequence[RecallHits], *, cutoff: int = 10, resamples: int = 2000, seed: int = 0
) -> Array:
    """Mean of both directions' R@K in percent of every model in the same draws of images.

    Args:
        models: hits of each, on the same images and captions.
        cutoff: K.
        resamples: draws.
        seed: of the draws.

    Returns:
        ``[models, resamples]``.

    Raises:
        DataError: hits on images whose numbers of captions differ.
        UsageError: hits without that K.
    """
    for other in models[1:]:
        if other.captions != models[0].captions:
            raise DataError(
                f"hits on {len(models[0].captions)} and on {len(other.captions)} images are not of "
                "the same images and captions",
                "Evaluate all models on the same data.",
            )
    tables = [_table(hits, cutoff) for hits in models]
    blocks = [
        np.stack([_scores(counts, table) for table in tables])
        for counts in draws(len(tables[0]), resamples, seed)
    ]
    return np.concatenate(blocks, axis=1)


def draws(units: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each unit is drawn when as many are drawn with replacement.

    Args:
        units: how many there are.
        resamples: how many draws.
        seed: of the draws.

    Yields:
        Blocks ``[m, units]`` in float64 that together have ``resamples`` rows.
    """
    generator = np.random.default_rng(seed)
    size = max(1, _BLOCK // units)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        yield generator.multinomial(units, np.full(units, 1 / units), count).astype(np.float64)


def percentile_interval(values: Array, level: float) -> Interval:
    """The middle ``level`` of values ``[n]``.

    Raises:
        UsageError: a level that is not between 0 and 1.
    """
    check_level(level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def check_level(level: float) -> None:
    """Refuse a level of confidence that is none.

    Raises:
        UsageError: it is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise UsageError(f"level {level} is no level of confidence", "Give one such as 0.95.")


def _table(hits: RecallHits, cutoff: int) -> Array:
    """Captions, captions that hit, images that hit: ``[images, 3]``."""
    key = f"R@{cutoff}"
    if key not in hits.text_to_image or key not in hits.image_to_text:
        raise UsageError(
            f"there are no hits for {key}, only for {', '.join(hits.text_to_image)}",
            "Give a cutoff that recall_hits was given.",
        )
    columns = [hits.captions, hits.text_to_image[key], hits.image_to_text[key]]
    return np.asarray(columns, np.float64).T


def _scores(counts: Array, table: Array) -> Array:
    """Mean of both directions' recall in percent, one per draw."""
    captions, by_text, by_image = (counts @ table).T
    scores: Array = 50 * (by_text / captions + by_image / counts.sum(1))
    return scores
