"""Classification by weighted nearest neighbours: how well a feature space separates classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, check_classes, check_labels
from lateen.metrics.nearest import top_similar


def knn_accuracy(
    train: Features,
    train_labels: Tensor,
    test: Features | None = None,
    test_labels: Tensor | None = None,
    *,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    chunk: int = 2048,
) -> dict[int, float]:
    """Accuracy in percent of a vote among the k nearest rows (Caron et al. 2021, DINO).

    A row votes for its class with the weight ``exp(cosine / temperature)``. Among classes with
    equal votes the lowest index wins. Neighbours are those of
    :func:`~lateen.metrics.nearest_neighbours`. Memory is O(chunk² + chunk · d + n · max(ks)).

    Args:
        train: features ``[n, d]`` of the rows that vote.
        train_labels: class index from 0 of each ``[n]``.
        test: features ``[m, d]`` of the rows to classify; without, each row of ``train`` is
            classified by all the others.
        test_labels: class index of each ``[m]``.
        ks: numbers of neighbours.
        temperature: of the votes; small ones let the nearest decide.
        chunk: rows and columns of a tile of cosines.

    Returns:
        Accuracy by k.

    Raises:
        DataError, UsageError: as :func:`knn_hits`.
    """
    hits = knn_hits(
        train, train_labels, test, test_labels, ks=ks, temperature=temperature, chunk=chunk
    )
    return {k: 100 * int(right.sum()) / len(right) for k, right in hits.items()}


def knn_hits(
    train: Features,
    train_labels: Tensor,
    test: Features | None = None,
    test_labels: Tensor | None = None,
    *,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    chunk: int = 2048,
) -> dict[int, Tensor]:
    """Which rows the vote of :func:`knn_accuracy` classifies rightly: bool ``[m]`` by k.

    Raises:
        DataError: a k above the rows that can vote, labels that do not fit, a single class, a class
            to be found that no row of ``train`` has, or NaN or infinity.
        UsageError: no k, one below 1, a temperature that is not positive, or one of ``test`` and
            its labels without the other.
    """
    _check_vote(ks, temperature)
    if (test is None) != (test_labels is None):
        raise UsageError("rows to test come with their labels", "Give both, or neither.")
    train_labels = check_labels(train_labels, len(train))
    if test is None or test_labels is None:
        check_classes(train_labels)
        right, voters = train_labels, len(train) - 1
    else:
        right, voters = check_labels(test_labels, len(test)), len(train)
        check_classes(train_labels, right)
    if max(ks) > voters:
        raise DataError(
            f"k = {max(ks)} is more than the {voters} rows that can vote",
            "Leave that k out, or give more labelled rows.",
        )
    if test is None:
        cosines, indices = top_similar(train, None, max(ks), chunk)
    else:
        cosines, indices = top_similar(test, train, max(ks), chunk)
    hits = {k: torch.zeros(len(right), dtype=torch.bool) for k in ks}
    for start in range(0, len(right), chunk):
        part = slice(start, start + chunk)
        # Relative to the nearest row's vote, which no temperature makes infinite.
        weights = ((cosines[part] - cosines[part, :1]) / temperature).exp()
        classes = train_labels[indices[part]]
        for k in hits:
            hits[k][part] = (_elected(weights[:, :k], classes[:, :k]) == right[part]).cpu()
    return hits


def _elected(weights: Tensor, classes: Tensor) -> Tensor:
    """The class with most votes ``[m]``; of equals the lowest."""
    # Every class adds its votes up from the nearest on, so that equal votes have equal sums.
    votes = weights.new_zeros(len(weights), int(classes.max()) + 1)
    return votes.scatter_add_(1, classes, weights).argmax(dim=1)


def _check_vote(ks: Sequence[int], temperature: float) -> None:
    if not ks or min(ks) < 1 or temperature <= 0:
        raise UsageError(
            f"ks {list(ks)} and temperature {temperature} make no vote",
            "Give at least one k of 1 or more, and a positive temperature.",
        )
