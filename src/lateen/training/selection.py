"""Which features to fuse: those that add most, in closed form, judged on pairs held out.

It begins with one feature of the images and one of the captions. Canonical directions
(:mod:`lateen.training.canonical`) of what is chosen so far and one more are fitted on some pairs
and retrieve on others; what adds most joins, on whichever side, until nothing adds more than chance
could (forward selection). Gains get smaller as features join their side, as a rule, so that a
feature whose last gain is below the best found now need not be tried again (Minoux 1978, the
accelerated greedy algorithm).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.encoders import SIDES, Side
from lateen.metrics.retrieval import cross_ranks
from lateen.progress import bar
from lateen.training.canonical import RIDGES, normed, ridged, weights_of

_CUTOFFS = (1, 5, 10)  # those by whose mean a training keeps its step
_DIRECTIONS = 512  # at most; later ones have next to no weight
Place = tuple[Side, int]  # a side, and the position of one of its features
Chosen = Mapping[Side, list[int]]  # positions by side, in the order in which they joined


@dataclass(frozen=True)
class SideFeatures:
    """Some images and their captions, by every feature that may be chosen.

    Attributes:
        vision: ``[n, d]`` of each feature.
        text: ``[m, e]`` of each feature.
        owner: ``[m]`` the image, from 0 to n − 1, of every caption.
    """

    vision: Sequence[Tensor]
    text: Sequence[Tensor]
    owner: Tensor


@dataclass(frozen=True)
class Joined:
    """A feature that joined.

    Attributes:
        joined: which.
        score: of all features chosen so far: mean of R@1/5/10 both ways on the judged pairs, in
            percent.
        gain: over the score before, the mean over images.
        error: standard error of the gain, over images.
        others: the gains of those that did not join, as last tried.
    """

    joined: Place
    score: float
    gain: float
    error: float
    others: Mapping[Place, float]


def select_features(
    fit: SideFeatures, judged: SideFeatures, first: tuple[int, int], *, sides: Sequence[Side],
    errors: float, most: int, longest: int,
) -> tuple[float, list[Joined]]:  # fmt: skip
    """The score of the first features, and those that join them, one after the other.

    Args:
        fit: what canonical directions are fitted on.
        judged: other images and captions, which decide.
        first: positions of the features of images and of captions to begin with.
        sides: those on which features may join.
        errors: how many standard errors a gain must have to be more than chance.
        most: features on a side.
        longest: values of all features on a side; what would make a side longer does not join.
    """
    trial = _Trial(fit, judged)
    chosen: Chosen = {"vision": [first[0]], "text": [first[1]]}
    scores = trial.scores(chosen)
    begun, steps = scores.mean().item(), list[Joined]()
    dims = {"vision": [x.shape[1] for x in fit.vision], "text": [y.shape[1] for y in fit.text]}

    def has_room(place: Place) -> bool:
        side, index = place
        values = sum(dims[side][each] for each in (*chosen[side], index))
        return len(chosen[side]) < most and values <= longest

    places: list[Place] = [(side, index) for side in sides for index in range(len(dims[side]))]
    gains = {
        (side, index): torch.inf
        for side, index in places if index not in chosen[side] and has_room((side, index))
    }  # fmt: skip
    with bar(len(gains), "choosing layers", "trial") as progress:
        while gains:
            best, with_it = _try(trial, chosen, scores, gains, progress.update)
            error = (with_it - scores).std().item() / len(scores) ** 0.5
            if gains[best] <= errors * error:
                break
            gain = gains.pop(best)
            chosen, scores = _joined(chosen, best), with_it
            steps.append(Joined(best, scores.mean().item(), gain, error, dict(gains)))
            # What adds little to one side may add much once the other side has its partner.
            gains = {
                each: gain if each[0] == best[0] else torch.inf
                for each, gain in gains.items() if has_room(each)
            }  # fmt: skip
    return begun, steps


def _try(
    trial: _Trial, chosen: Chosen, scores: Tensor, gains: dict[Place, float],
    tell: Callable[[int], object],
) -> tuple[Place, Tensor]:  # fmt: skip
    """The feature that adds most, and the scores with it.

    Args:
        trial: gives the scores of features.
        chosen: those that have joined.
        scores: theirs.
        gains: of every feature as last tried, infinite if it never was; those that are tried are
            changed. One whose gain was below the best found now is not.
        tell: is called after each trial.
    """
    best: tuple[Place, Tensor] | None = None
    for place in sorted(gains, key=lambda each: -gains[each]):
        if best is not None and gains[place] <= gains[best[0]]:
            break
        with_it = trial.scores(_joined(chosen, place))
        gains[place] = (with_it - scores).mean().item()
        tell(1)
        if best is None or gains[place] > gains[best[0]]:
            best = place, with_it
    assert best is not None, "there is no feature to try"
    return best


def _joined(chosen: Chosen, place: Place) -> Chosen:
    side, index = place
    return {**chosen, side: [*chosen[side], index]}


class _Trial:
    """How well canonical directions of fused features retrieve.

    They are those of :func:`lateen.training.canonical.canonical_maps`: triangular roots, which are
    quicker to have, span the same as symmetric ones. Covariances of two features are kept, since
    every trial needs most of them again.

    Args:
        fit: what directions are fitted on.
        judged: what is retrieved.
    """

    def __init__(self, fit: SideFeatures, judged: SideFeatures) -> None:
        self._owner = judged.owner
        self._sides: dict[Side, tuple[list[Tensor], list[Tensor]]] = {
            "vision": _centred(fit.vision, judged.vision),
            "text": _centred(fit.text, judged.text),
        }
        counts = torch.bincount(fit.owner)
        means = [
            torch.zeros(len(counts), y.shape[1]).index_add_(0, fit.owner, y) / counts[:, None]
            for y in self._sides["text"][0]
        ]  # of each image's captions
        self._means = [y - y.mean(0) for y in means]
        self._within: dict[tuple[Side, int, int], Tensor] = {}
        self._across: dict[tuple[int, int], Tensor] = {}

    def scores(self, chosen: Chosen) -> Tensor:
        """For every judged image ``[n]`` the mean of R@1/5/10 both ways, in percent.

        Args:
            chosen: the features of either side that are fused.
        """
        roots = {
            side: torch.linalg.cholesky(ridged(self._covariance(side, chosen[side]), ridge))
            for side, ridge in zip(SIDES, RIDGES, strict=True)
        }
        left = torch.linalg.solve_triangular(roots["vision"], self._cross(chosen), upper=False)
        both = torch.linalg.solve_triangular(roots["text"], left.T, upper=False).T
        image, correlations, text = _leading(both)
        weights = weights_of(correlations)

        def embedded(side: Side, directions: Tensor) -> Tensor:
            rows = torch.cat([self._sides[side][1][part] for part in chosen[side]], dim=1)
            root = roots[side].T
            back = torch.linalg.solve_triangular(root, directions * weights, upper=True)
            return F.normalize(rows @ back, dim=1)

        by_text, by_image = cross_ranks(
            embedded("vision", image), embedded("text", text), self._owner
        )
        counts = torch.bincount(self._owner, minlength=len(by_image))
        texts = torch.zeros(len(by_image)).index_add_(0, self._owner, _found(by_text)) / counts
        return 50 * (texts + _found(by_image))

    def _covariance(self, side: Side, parts: Sequence[int]) -> Tensor:
        """``[d, d]`` of the fused features of a side."""
        return torch.cat([torch.cat([self._block(side, i, j) for j in parts], 1) for i in parts])

    def _block(self, side: Side, i: int, j: int) -> Tensor:
        if (side, i, j) not in self._within:
            fitted = self._sides[side][0]
            block = fitted[i].T @ fitted[j] / len(fitted[i])
            self._within[side, i, j], self._within[side, j, i] = block, block.T
        return self._within[side, i, j]

    def _cross(self, chosen: Chosen) -> Tensor:
        """``[d, e]`` covariance of images with the mean of their captions."""
        images = self._sides["vision"][0]
        for i in chosen["vision"]:
            for j in chosen["text"]:
                if (i, j) not in self._across:
                    self._across[i, j] = images[i].T @ self._means[j] / len(images[i])
        return torch.cat(
            [torch.cat([self._across[i, j] for j in chosen["text"]], 1) for i in chosen["vision"]]
        )


def _found(ranks: Tensor) -> Tensor:
    """The share of the cutoffs that each rank is within."""
    return (ranks[:, None] <= torch.tensor(_CUTOFFS)).float().mean(1)


def _centred(fit: Sequence[Tensor], judged: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Layer-normalised features, less the means of those that directions are fitted on."""
    fitted, others = [], []
    for x, y in zip(fit, judged, strict=True):
        rows, other = normed(x), normed(y)
        mean = rows.mean(0)
        fitted.append(rows.sub_(mean))
        others.append(other.sub_(mean))
    return fitted, others


def _leading(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors, values and right vectors of the largest singular values.

    From the smaller Gram matrix, which takes a fraction of the time of a decomposition.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    values, vectors = torch.linalg.eigh(gram)
    values = (
        values.clamp_min(torch.finfo(values.dtype).eps * values[-1]).sqrt().flip(0)[:_DIRECTIONS]
    )
    vectors = vectors.flip(1)[:, :_DIRECTIONS]
    others = (matrix.T if wide else matrix) @ vectors / values
    return (vectors, values, others) if wide else (others, values, vectors)
