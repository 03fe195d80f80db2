"""Linear probe: multinomial logistic regression on frozen features, its strength swept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, blocks, check_classes, check_labels
from lateen.progress import log

Array = np.ndarray[Any, Any]
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
_VALIDATION = 5  # every fifth row to learn from validates C
_CHUNK = 8192
_ITERATIONS = 1000
_FOR_THREADS = 1 << 24  # values in a matrix whose product is worth sharing


@dataclass(frozen=True)
class LinearProbe:
    """A linear probe and how its strength was chosen.

    Attributes:
        accuracy: of the rows to test, in percent.
        c: inverse strength of the L2 penalty that did best in validation, of equals the smallest;
            one per fold, or one where the set has a split of its own.
        validation: accuracy in percent of the validation rows, by C; of folds the mean.
        right: which rows to test were classified rightly ``[m]``, bool.
    """

    accuracy: float
    c: list[float]
    validation: dict[float, float]
    right: Array = field(compare=False, repr=False)


def linear_probe(
    train: Features,
    train_labels: Tensor,
    test: Features,
    test_labels: Tensor,
    *,
    cs: Sequence[float] = CS,
    seed: int = 0,
) -> LinearProbe:
    """Accuracy of logistic regression on frozen features.

    Features are standardised by the rows to learn from. C is chosen on a stratified fifth of these,
    never on the rows to test; then the probe is fitted to all of them. All features are held in
    memory in float32.

    Args:
        train: features ``[n, d]`` to learn from.
        train_labels: class index from 0 of each ``[n]``.
        test: features ``[m, d]`` to test.
        test_labels: class index of each ``[m]``.
        cs: inverse strengths of the L2 penalty to try, as scikit-learn counts them.
        seed: of the choice of validation rows.

    Raises:
        DataError: labels that do not fit, a single class, a class with one row to learn from, a
            class to be found that cannot be learned, or NaN or infinity.
        UsageError: no C, or one that is not positive.
    """
    _check_cs(cs)
    labels, right = check_labels(train_labels, len(train)), check_labels(test_labels, len(test))
    check_classes(labels, right)
    _check_counts(labels, 2, "validation of C")
    fits = _Fits()
    x, y = _matrix(train), labels.numpy()
    validation = _validate(fits, x, y, cs, np.random.default_rng(seed))
    c = _best(validation)
    predicted = fits.predict(x, y, _matrix(test), [c])[0]
    fits.report()
    hits = predicted == right.numpy()
    return LinearProbe(_percent(hits), [c], validation, hits)


def linear_probe_folds(
    features: Features,
    labels: Tensor,
    *,
    folds: int = 5,
    cs: Sequence[float] = CS,
    seed: int = 0,
) -> LinearProbe:
    """Accuracy of logistic regression on a set without a split, every row predicted once.

    Each stratified fold is predicted by :func:`linear_probe` on the others: standardised by them,
    C chosen on a fifth of them.

    Args:
        features: ``[n, d]``.
        labels: class index from 0 of each ``[n]``.
        folds: how many, at least 3.
        cs: inverse strengths of the L2 penalty to try, as scikit-learn counts them.
        seed: of the folds and of the choice of validation rows.

    Raises:
        DataError: labels that do not fit, a single class, a class with fewer rows than folds, or
            NaN or infinity.
        UsageError: fewer than 3 folds, no C, or one that is not positive.
    """
    _check_cs(cs)
    if folds < 3:
        raise UsageError(f"{folds} folds leave too little to learn from", "Ask for at least 3.")
    labels = check_labels(labels, len(features))
    check_classes(labels)
    _check_counts(labels, folds, f"{folds} folds")
    fits, generator = _Fits(), np.random.default_rng(seed)
    x, y = _matrix(features), labels.numpy()
    fold = _deal(y, folds, generator)
    predicted, chosen, validations = np.empty_like(y), [], []
    for index in range(folds):
        inside, outside = fold != index, fold == index
        validations.append(_validate(fits, x[inside], y[inside], cs, generator))
        chosen.append(_best(validations[-1]))
        predicted[outside] = fits.predict(x[inside], y[inside], x[outside], chosen[-1:])[0]
    fits.report()
    means = {c: sum(v[c] for v in validations) / folds for c in validations[0]}
    return LinearProbe(_percent(predicted == y), chosen, means, predicted == y)


class _Fits:
    """Fits probes and counts those that did not converge."""

    def __init__(self) -> None:
        self._fits = 0
        self._cut = 0

    def predict(self, x: Array, y: Array, test: Array, cs: Sequence[float]) -> list[Array]:
        """Classes of ``test`` ``[m, d]`` as learned from ``x`` ``[n, d]``, one array per C."""
        # Imported here: it takes a second, and few need it.
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        scaler = StandardScaler()
        x, test = scaler.fit_transform(x), scaler.transform(test)
        predictions = []
        for c in cs:
            # Not started from the last C's weights: it would stop there, and depend on the order.
            model = LogisticRegression(C=c, max_iter=_ITERATIONS)
            # A fit is thousands of small products, between which threads only wait.
            threads = 1 if x.size < _FOR_THREADS else None
            with warnings.catch_warnings(), threadpool_limits(threads):
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x, y)
            self._fits += 1
            self._cut += int(model.n_iter_.max() >= _ITERATIONS)
            predictions.append(model.predict(test))
        return predictions

    def report(self) -> None:
        """One line in the log if there is something to say."""
        if self._cut:
            log.warning(
                "linear probe: %d of %d fits stopped at %d iterations before they converged",
                self._cut, self._fits, _ITERATIONS,
            )  # fmt: skip


def _validate(
    fits: _Fits, x: Array, y: Array, cs: Sequence[float], generator: np.random.Generator
) -> dict[float, float]:
    """Accuracy in percent of a stratified fifth of the rows, learned from the others, by C."""
    validation = _deal(y, _VALIDATION, generator) == 0
    predictions = fits.predict(x[~validation], y[~validation], x[validation], cs)
    return {float(c): _percent(p == y[validation]) for c, p in zip(cs, predictions, strict=True)}


def _best(validation: dict[float, float]) -> float:
    return max(sorted(validation), key=lambda c: validation[c])


def _deal(labels: Array, parts: int, generator: np.random.Generator) -> Array:
    """A part from 0 for every row, so that every class is spread over the parts evenly."""
    shuffled = generator.permutation(len(labels))
    by_class = shuffled[labels[shuffled].argsort(kind="stable")]
    part = np.empty_like(labels)
    part[by_class] = np.arange(len(labels)) % parts
    return part


def _matrix(x: Features) -> Array:
    return torch.cat([rows.float().cpu() for rows in blocks(x, _CHUNK)]).numpy()


def _percent(right: Array) -> float:
    return 100 * float(right.mean())


def _check_cs(cs: Sequence[float]) -> None:
    if not cs or not all(0 < c < float("inf") for c in cs):
        raise UsageError(f"cs {list(cs)} cannot be swept", "Give at least one positive C.")


def _check_counts(labels: Tensor, least: int, purpose: str) -> None:
    classes, counts = np.unique(labels.numpy(), return_counts=True)
    if counts.min() < least:
        rare = counts.argmin()
        raise DataError(
            f"class {classes[rare]} has {counts[rare]} rows, too few for {purpose}",
            f"Give at least {least} rows of every class, or leave that class out.",
        )
