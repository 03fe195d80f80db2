"""How much a score would differ with other images: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

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
    scores = {str(index): _mean_recall(hits, cutoff) for index, hits in enumerate(models)}
    drawn = drawn_scores(scores, len(models[0].captions), resamples=resamples, seed=seed)
    return np.stack(list(drawn.values()))


class Statistic(Protocol):
    """A score of several images that can be taken again of other draws of them."""

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``.

        Args:
            counts: ``[m, units]`` how often each draw has each unit, an image or an example.
        """
        ...

    def by_unit(self, units: int) -> Array:
        """What each unit contributes ``[units]``: where it is the same, two models are equal."""
        ...


@dataclass(frozen=True, eq=False)
class Tally:
    """A share, or the mean of the shares of several groups: mean IoU, accuracy per class.

    The score is ``scale`` times the mean over groups of Σ hits / Σ tries, over the groups that have
    tries.

    Attributes:
        unit: ``[rows]`` which unit, from 0, each row is of; a unit may have several rows or none.
        hits: ``[rows]``.
        tries: ``[rows]`` of how many these are; 1 if not given.
        group: ``[rows]`` index of the group, from 0; one group if not given.
        scale: what a share of 1 is called.
    """

    unit: Array
    hits: Array
    tries: Array | None = None
    group: Array | None = None
    scale: float = 100.0

    def drawn(self, counts: Array) -> Array:
        """The score of every draw ``[m]``."""
        hits, tries = (self._sums(values, counts.shape[1]) for values in self._columns)
        with np.errstate(invalid="ignore"):
            shares = (hits @ counts.T) / (tries @ counts.T)
        # Of a group that a draw has nothing of, nothing is known.
        score: Array = self.scale * np.nanmean(shares, axis=0)
        return score

    def by_unit(self, units: int) -> Array:
        """Each unit's hits ``[units]``."""
        return np.bincount(self.unit, self._columns[0], units)

    def limits(self, units: int, level: float) -> Interval | None:
        """The exact binomial limits of a score of nothing or of all, which no draw changes."""
        hits, tries = self._columns
        if 0 < hits.sum() < tries.sum():
            return None
        low, high = binomial_limits(units, level)
        return self.scale * (low if hits.sum() else 0), self.scale * (1 if hits.sum() else high)

    @property
    def _columns(self) -> tuple[Array, Array]:
        hits = np.asarray(self.hits, np.float64)
        return hits, np.ones_like(hits) if self.tries is None else np.asarray(self.tries, float)

    def _sums(self, values: Array, units: int) -> Any:
        """Sums ``[groups, units]``, sparse."""
        from scipy.sparse import coo_array

        group = np.zeros(len(values), np.int64) if self.group is None else self.group
        shape = (int(group.max(initial=0)) + 1, units)
        return coo_array((values, (group, self.unit)), shape).tocsr()


@dataclass(frozen=True, eq=False)
class Median:
    """The median of values of which a unit may have several.

    Attributes:
        unit: ``[rows]`` which unit, from 0, each row is of.
        values: ``[rows]``.
    """

    unit: Array
    values: Array

    def drawn(self, counts: Array) -> Array:
        """The median of every draw ``[m]``, of an even number the mean of the middle two."""
        order = np.argsort(self.values, kind="stable")
        ranked, unit = np.asarray(self.values, np.float64)[order], np.asarray(self.unit)[order]
        parts = []
        size = max(1, _BLOCK // 4 // len(unit))
        for start in range(0, len(counts), size):
            upto = counts[start : start + size, unit].cumsum(axis=1)
            total = upto[:, -1:]
            low, high = ((upto < middle).sum(axis=1) for middle in (total / 2, total / 2 + 0.5))
            parts.append((ranked[low] + ranked[high]) / 2)
        return np.concatenate(parts)

    def by_unit(self, units: int) -> Array:
        """The sum of each unit's values ``[units]``."""
        return np.bincount(self.unit, np.asarray(self.values, np.float64), units)


def drawn_scores(
    statistics: Mapping[str, Statistic], units: int, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Array]:
    """Every score in the same draws of the units, ``[resamples]`` each.

    The draws go by ``units`` and ``seed`` alone, so that those of two models are of the same units.

    Args:
        statistics: by name.
        units: how many there are.
        resamples: draws.
        seed: of the draws.
    """
    blocks: dict[str, list[Array]] = {name: [] for name in statistics}
    for counts in draws(units, resamples, seed):
        for name, statistic in statistics.items():
            blocks[name].append(statistic.drawn(counts))
    return {name: np.concatenate(parts) for name, parts in blocks.items()}


def binomial_limits(units: int, level: float) -> Interval:
    """The lowest share of which ``units`` of as many, and the highest of which none, are likely.

    Clopper and Pearson's exact limits of all and of nothing: what is seen happens in no more than
    half of ``1 - level`` of the cases beyond them.
    """
    low = ((1 - level) / 2) ** (1 / units)
    return low, 1 - low


def interval_of(statistic: Statistic, drawn: Array, units: int, level: float) -> Interval:
    """The percentile interval of a score's draws; of nothing or all the exact binomial one.

    Args:
        statistic: the score.
        drawn: its value in every draw.
        units: how many there are.
        level: share of the draws that the interval holds.
    """
    exact = statistic.limits(units, level) if isinstance(statistic, Tally) else None
    return exact or percentile_interval(drawn, level)


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


def _mean_recall(hits: RecallHits, cutoff: int) -> Tally:
    """Mean of both directions' R@K in percent."""
    key, images = f"R@{cutoff}", np.arange(len(hits.captions))
    if key not in hits.text_to_image or key not in hits.image_to_text:
        raise UsageError(
            f"there are no hits for {key}, only for {', '.join(hits.text_to_image)}",
            "Give a cutoff that recall_hits was given.",
        )
    return Tally(
        np.tile(images, 2),
        np.array([*hits.text_to_image[key], *hits.image_to_text[key]]),
        np.array([*hits.captions, *np.ones_like(images)]),
        np.repeat([0, 1], len(images)),
    )
