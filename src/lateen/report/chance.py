"""What a model that guesses would score: the level every result stands beside."""

from __future__ import annotations

import math


def recall_at_k(k: int, candidates: int, relevant: float = 1.0) -> float:
    """Expected recall@k, in percent, of a random ranking.

    A query is found if any of its relevant candidates is among the first k, so the chance is
    ``1 − C(n − r, k) / C(n, k)`` for ``r`` relevant among ``n`` candidates; the ratio is taken as
    a product so that ``r`` may be an average such as 4.9 captions per image.
    """
    missed = 1.0
    for drawn in range(min(k, candidates)):
        missed *= max(0.0, candidates - relevant - drawn) / (candidates - drawn)
    return 100.0 * (1.0 - missed)


def median_rank(candidates: int, relevant: float = 1.0) -> int:
    """The rank (from 1) by which a random ranking has found at least half of the queries."""
    missed = 1.0
    for drawn in range(candidates):
        missed *= max(0.0, candidates - relevant - drawn) / (candidates - drawn)
        if missed <= 0.5 + 1e-9:  # the product of fractions is a hair off at exactly one half
            return drawn + 1
    return candidates


def top_k(k: int, classes: int) -> float:
    """Expected top-k accuracy, in percent, of guessing among ``classes`` equally likely classes."""
    return 100.0 * min(k, classes) / classes


def most_by_chance(expected: float) -> float:
    """The most of rare events that chance explains, where so many are expected.

    Four standard deviations of a Poisson number above its mean, and two more for small ones: less
    than one set in ten thousand has more.
    """
    return expected + 4 * math.sqrt(expected) + 2 if expected else 0
