"""Choosing among few captions or images: Winoground, MMVP-VLM, SugarCrepe and ARO (METHODS §1.6).

All comparisons are strict: a tie counts against the model, so that embeddings that have collapsed
to one point score nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lateen.errors import DataError, LateenError

PAIR_CHANCE = {"text": 25.0, "image": 25.0, "group": 100 / 6}
"""What independent random scores get, in percent: all four of a pair are as often in each order."""


class PairHits(NamedTuple):
    """For each of n pairs whether it was solved ``[n]``, bool.

    Attributes:
        text: each image picks its own caption (Winoground's text score, MMVP-VLM's pairs).
        image: each caption picks its own image (Winoground's image score).
        group: both.
    """

    text: Tensor
    image: Tensor
    group: Tensor


def pair_hits(scores: Tensor) -> PairHits:
    """Which pairs of images with their captions are told apart.

    Winoground (arXiv:2204.03162, equations 1 to 3).

    Args:
        scores: ``[n, 2, 2]`` of image i with caption j; those with i = j belong together.

    Raises:
        DataError: there is no pair, or the shape is another.
        LateenError: a score is NaN.
    """
    _check(scores, scores.ndim == 3 and scores.shape[1:] == (2, 2), "[n, 2, 2]")
    right = scores.diagonal(dim1=1, dim2=2)
    text = (right > scores.flip(2).diagonal(dim1=1, dim2=2)).all(1)
    image = (right > scores.flip(1).diagonal(dim1=1, dim2=2)).all(1)
    return PairHits(text, image, text & image)


def pair_scores(hits: PairHits) -> dict[str, float]:
    """``text``, ``image`` and ``group`` score in percent."""
    return {name: percent(solved) for name, solved in hits._asdict().items()}


def choice_hits(scores: Tensor) -> Tensor:
    """For each image whether its right caption, the first, beats all others ``[n]``, bool.

    Args:
        scores: ``[n, captions]``, −∞ where an image has fewer captions than others.

    Raises:
        DataError: there is no image, or only one caption to choose from.
        LateenError: a score is NaN.
    """
    _check(scores, scores.ndim == 2 and scores.shape[1] >= 2, "[n, at least 2]")
    return scores[:, 0] > scores[:, 1:].amax(1)


def percent(hits: Tensor) -> float:
    """The share of true values, in percent."""
    return 100.0 * int(hits.sum()) / len(hits)


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of each row of ``first`` with that row of ``second``, both ``[n, dim]``: ``[n]``."""
    return torch.nn.functional.cosine_similarity(first.float(), second.float(), dim=-1)


def five_numbers(values: Tensor) -> dict[str, float]:
    """``min``, ``q25``, ``median``, ``q75``, ``max`` and ``mean`` of ``[n]`` values.

    Raises:
        DataError: there are none.
    """
    if len(values) == 0:
        raise DataError("there are no values to summarise", "Give at least one pair.")
    shares = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    found = torch.quantile(values.double(), shares).tolist()
    names = ("min", "q25", "median", "q75", "max")
    return {**dict(zip(names, found, strict=True)), "mean": values.double().mean().item()}


def _check(scores: Tensor, fits: bool, shape: str) -> None:
    if not fits or len(scores) == 0:
        raise DataError(
            f"scores of shape {list(scores.shape)} are not {shape} with n of at least 1",
            "Give the scores of at least one example.",
        )
    if scores.isnan().any():
        raise LateenError(
            f"{int(scores.isnan().flatten(1).any(1).sum())} of {len(scores)} examples have NaN "
            "among their scores",
            "Training may have diverged (lower train.lr), or the features hold such values.",
        )
