"""What chance gives is told from what two spaces share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_toys import normal, related

from lateen.errors import DataError, UsageError
from lateen.metrics import (
    calibrate,
    cka,
    cknna,
    cycle_knn,
    mutual_knn,
    nearest_neighbours,
    row_permutations,
    svcca,
)
from lateen.metrics.cka import LinearKernel, gram, kernel_cka, permuted_trace
from lateen.metrics.moments import Moments
from lateen.metrics.neighbours import NeighbourKernel, kernel_cknna
from lateen.metrics.permutation import Calibrated
from lateen.metrics.svcca import leading_components, mean_correlation


def test_threshold_p_and_score_worked_by_hand() -> None:
    """Of 19 permutations the 19th, and of 39 the 38th, is the threshold at α = 0.05."""
    null = [i / 100 for i in range(19)]
    assert calibrate(0.59, null) == Calibrated(
        score=pytest.approx((0.59 - 0.18) / 0.82), p=1 / 20, threshold=0.18
    )
    assert calibrate(0.17, null) == Calibrated(score=0.0, p=3 / 20, threshold=0.18)
    assert calibrate(0.5, [i / 100 for i in range(39)]).threshold == 0.37
    assert calibrate(0.5, null[::-1], alpha=0.5).threshold == 0.09
    assert calibrate(1.0, null).score == 1
    # Equal to one of them is as high as it.
    assert calibrate(0.18, null).p == 2 / 20
    assert calibrate(1.0, [1.0] * 19) == Calibrated(score=0.0, p=1.0, threshold=1.0)


def test_permutations_are_the_same_for_the_same_rows_and_more_begin_with_fewer() -> None:
    few, more = row_permutations(30, 20), row_permutations(30, 50)
    assert torch.equal(more[:20], few)
    assert torch.equal(few.sort(1).values, torch.arange(30).expand(20, 30))
    assert not torch.equal(row_permutations(30, 20, seed=1), few)


def test_what_cannot_be_calibrated_is_said() -> None:
    with pytest.raises(DataError, match="5 rows have no more than 120 orders, too few for 200"):
        row_permutations(5, 200)
    assert len(row_permutations(5, 19)) == 19
    for alpha in (0, 1, -0.1, 2, float("nan")):
        with pytest.raises(UsageError, match="alpha is"):
            row_permutations(30, 200, alpha=alpha)
        with pytest.raises(UsageError, match="alpha is"):
            calibrate(0.5, [0.1] * 99, alpha=alpha)
    with pytest.raises(UsageError, match=r"18 permutations are too few for alpha 0.05.*least 19"):
        row_permutations(30, 18)
    with pytest.raises(UsageError, match=r"19 permutations are too few for alpha 0.01.*least 99"):
        calibrate(0.5, [0.1] * 19, alpha=0.01)
    for count in (0, -3):
        with pytest.raises(UsageError, match=f"{count} permutations are too few"):
            row_permutations(30, count)
    with pytest.raises(DataError, match="NaN or infinite"):
        calibrate(float("nan"), [0.1] * 19)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("size", [7, 64, 256])
def test_indexed_kernels_give_the_cka_of_permuted_features(unbiased: bool, size: int) -> None:
    x, y = related(60, 8, 5)
    k, l = (LinearKernel.of(Moments.of(side, 32)) for side in (x, y))  # noqa: E741
    grams = gram(x, k.mean, 32), gram(y, l.mean, 32)
    for order in row_permutations(60, 19):
        found = kernel_cka(k, l.permuted(order), permuted_trace(*grams, order, size), unbiased)
        assert found == pytest.approx(cka(x, y[order], unbiased=unbiased), abs=1e-6)


def test_indexed_components_give_the_svcca_of_permuted_features() -> None:
    x, y = related(60, 8, 5)
    a, b = (leading_components(side, Moments.of(side, 32), 0.99, 3, 32) for side in (x, y))
    assert mean_correlation(a.T @ b, 60) == pytest.approx(svcca(x, y, dim=3))
    for order in row_permutations(60, 19):
        assert mean_correlation(a.T @ b[order], 60) == pytest.approx(svcca(x, y[order], dim=3))


def test_indexed_neighbours_are_those_of_permuted_features() -> None:
    x, y = related(60, 8, 5)
    of_x, of_y = NeighbourKernel.of(x, 4), NeighbourKernel.of(y, 4)
    for order in row_permutations(60, 19):
        indexed, sought = of_y.permuted(order), nearest_neighbours(y[order], 4)
        assert torch.equal(indexed.indices, sought)
        assert mutual_knn(of_x.indices, indexed.indices) == mutual_knn(of_x.indices, sought)
        assert cycle_knn(of_x.indices, indexed.indices) == cycle_knn(of_x.indices, sought)
        expected = cknna(x, y[order], of_x.indices, sought)
        assert kernel_cknna(of_x, indexed) == pytest.approx(expected, abs=1e-12)


def _trials(count: int = 60) -> tuple[list[Calibrated], list[float]]:
    """Mutual kNN and CKA of spaces that share nothing, of as many dims as rows: calibrated CKA,
    and what it is uncalibrated."""
    found, raw = [], []
    orders = row_permutations(40, 39)
    for seed in range(count):
        x, y = normal(40, 40, 2 * seed), normal(40, 40, 2 * seed + 1)
        k, l = (LinearKernel.of(Moments.of(side, 64)) for side in (x, y))  # noqa: E741
        grams = gram(x, k.mean, 64), gram(y, l.mean, 64)
        null = [permuted_trace(*grams, order) / (k.norm * l.norm) for order in orders]
        raw.append(cka(x, y))
        found.append(calibrate(raw[-1], null))
    return found, raw


def test_unrelated_spaces_are_no_more_alike_than_chance() -> None:
    """CKA of 40 rows and 40 dims is high; calibrated it is about 0, and p is uniform."""
    found, raw = _trials()
    assert min(raw) > 0.4
    assert np.mean([one.score for one in found]) < 0.005
    ps = np.sort([one.p for one in found])
    # Kolmogorov and Smirnov's distance; 1.63 / √60 is what one of a hundred is above.
    distance = np.abs(ps - (np.arange(60) + 0.5) / 60).max()
    assert distance < 1.63 / 60**0.5
    assert 0 <= np.mean(ps <= 0.05) < 0.15


def test_a_maximum_over_layers_is_held_against_maxima() -> None:
    """The best of 30 unrelated layers is above its own threshold in most cases, and not above that
    of the best."""
    orders, alone, best = row_permutations(30, 39), [], []
    for trial in range(12):
        y = NeighbourKernel.of(normal(30, 6, 1000 + trial), 3).indices
        layers = [NeighbourKernel.of(normal(30, 6, 100 * trial + i), 3) for i in range(30)]
        values = [mutual_knn(layer.indices, y) for layer in layers]
        nulls = np.array(
            [[mutual_knn(layer.permuted(o).indices, y) for o in orders] for layer in layers]
        )
        top = int(np.argmax(values))
        alone.append(calibrate(values[top], nulls[top]).p)
        best.append(calibrate(values[top], nulls.max(0)).p)
    assert np.median(alone) <= 0.05
    assert np.median(best) > 0.2


def test_a_space_with_itself_is_1_and_related_spaces_lie_between() -> None:
    x, y = related(80, 8, 5)
    orders = row_permutations(80, 39)
    for other in (x, y):
        k, l = (LinearKernel.of(Moments.of(side, 64)) for side in (x, other))  # noqa: E741
        grams = gram(x, k.mean, 64), gram(other, l.mean, 64)
        null = [permuted_trace(*grams, order) / (k.norm * l.norm) for order in orders]
        found = calibrate(cka(x, other), null)
        assert found.p == 1 / 40
        assert found.score == pytest.approx(1) if other is x else 0.1 < found.score < 0.95
