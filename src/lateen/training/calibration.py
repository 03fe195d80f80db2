"""Scale and bias that make probabilities of cosines: how sure is it that a text is an image's own?

The sigmoid loss learns t and b so that σ(t · cosine + b) is the probability of a pair, where one of
the texts in a batch is the image's own. For embeddings that have changed since, as by further
directions, they are fitted again: logistic regression on the cosine (Platt 1999), on pairs that
trained no weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

MOST = 400
"""Images that are enough: with five captions each that is 800,000 cosines."""
_FEWEST = 20  # images whose halves can be judged by each other
_BINS = 15
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Calibration:
    """t and b, and how far from the truth the probabilities are that they give.

    Attributes:
        scale: t.
        bias: b.
        error: expected calibration error (Guo et al. 2017) in percent: how far what is said is from
            what is so, by 15 bins of probability. A bin counts by the own texts in it, as all but a
            few pairs are wrong ones of which anything says so. Of each half of the images by a fit
            on the other; ``None`` where there are too few, or nobody asked.
        before: that of the t and b of before.
        one_in: among how many texts one is the image's own.
        images: how many it was fitted on.
    """

    scale: float
    bias: float
    error: float | None
    before: float | None
    one_in: int
    images: int

    @classmethod
    def of(
        cls, image: Tensor, text: Tensor, owner: Tensor, *, one_in: int,
        before: tuple[float, float] | None = None,
    ) -> Calibration | None:  # fmt: skip
        """Fit t and b to pairs; ``None`` where texts are no nearer to their own image than others.

        Args:
            image: ``[n, dim]``, L2-normalised; :data:`MOST` are enough.
            text: ``[m, dim]``, likewise.
            owner: ``[m]`` the image, from 0 to n − 1, that each text describes.
            one_in: among how many texts one is the image's own.
            before: t and b until now; without them no error is told.
        """
        count = len(image)
        cosine = (text @ image.T).cpu().double().numpy()
        pairs = _Pairs(cosine, owner.cpu().numpy(), one_in)
        if count < 2 or (found := pairs.fitted())[0] <= 0:
            return None
        scale, bias = found
        error = earlier = None
        if before is not None and count >= _FEWEST:
            halves = [pairs.among(slice(first, count, 2)) for first in (0, 1)]
            said = [halves[1 - i].fitted() for i in (0, 1)]
            error = float(np.mean([h.error(*s) for h, s in zip(halves, said, strict=True)]))
            earlier = float(np.mean([half.error(*before) for half in halves]))
        return cls(scale, bias, error, earlier, one_in, count)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return vars(self).copy()


@dataclass(frozen=True)
class _Pairs:
    """Cosines ``[m, n]`` of texts with images, the image of each text, and how rare that one is."""

    cosine: Array
    owner: Array
    one_in: int

    def among(self, images: slice) -> _Pairs:
        """Those of some of the images and their texts."""
        chosen = np.arange(self.cosine.shape[1])[images]
        place = np.full(self.cosine.shape[1], -1)
        place[chosen] = np.arange(len(chosen))
        texts = place[self.owner] >= 0
        return _Pairs(self.cosine[texts][:, chosen], place[self.owner[texts]], self.one_in)

    def labelled(self) -> tuple[Array, Array, Array]:
        """Every pair's cosine, whether the text is the image's own, and its weight: all wrong ones
        together weigh ``one_in - 1`` times as much as the right ones."""
        own = np.zeros(self.cosine.shape, bool)
        own[np.arange(len(self.owner)), self.owner] = True
        wrong = (self.one_in - 1) / max(1, self.cosine.shape[1] - 1)
        return self.cosine.ravel(), own.ravel(), np.where(own, 1.0, wrong).ravel()

    def fitted(self) -> tuple[float, float]:
        """t and b, of least logistic loss."""
        from sklearn.linear_model import LogisticRegression

        cosine, own, weight = self.labelled()
        # In units of its own spread the regression needs a dozen steps, and a penalty that moves
        # t by less than a thousandth keeps it finite where a cosine tells all pairs apart.
        mean, spread = float(cosine.mean()), float(cosine.std()) or 1.0
        fit = LogisticRegression(C=10.0, tol=1e-6, max_iter=1000)
        fit.fit(((cosine - mean) / spread)[:, None], own, weight)
        scale = float(fit.coef_[0, 0]) / spread
        return scale, float(fit.intercept_[0]) - scale * mean

    def error(self, scale: float, bias: float) -> float:
        """The expected calibration error of t and b, in percent."""
        cosine, own, weight = self.labelled()
        said = 1 / (1 + np.exp(-(scale * cosine + bias)))
        place = np.minimum((said * _BINS).astype(int), _BINS - 1)
        total, right, sum_said = (
            np.bincount(place, weights=values, minlength=_BINS)
            for values in (weight, weight * own, weight * said)
        )
        there = total > 0
        gap = np.abs(right[there] - sum_said[there]) / total[there]
        return float(100 * (gap * right[there]).sum() / right.sum())
