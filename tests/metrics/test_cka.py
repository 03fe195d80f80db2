from __future__ import annotations

import pytest
import torch
from feature_toys import OnlySlices, normal, related, rotation
from torch import Tensor

from lateen.errors import DataError
from lateen.metrics import cka


def _dense(x: Tensor, y: Tensor, unbiased: bool) -> float:
    """The plain twin: n × n kernels."""
    k, l = x.double() @ x.double().T, y.double() @ y.double().T  # noqa: E741
    hsic = _dense_hsic_1 if unbiased else _dense_hsic
    return float(hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt())


def _dense_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    n = len(k)
    centre = torch.eye(n, dtype=k.dtype) - 1 / n
    return (k @ centre @ l @ centre).trace()


def _dense_hsic_1(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    n = len(k)
    k, l = k - k.diag().diag(), l - l.diag().diag()  # noqa: E741
    last = (k @ l).sum() * 2 / (n - 2)
    return ((k @ l).trace() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - last) / (n * (n - 3))


def test_biased_cka_worked_by_hand() -> None:
    """x = (−1, 0, 1) and y = (1, −2, 1), centred: XᵀY = 0. With z = (−1, 1, 0): XᵀZ = 1, XᵀX = 2,
    ZᵀZ = 2, so that CKA is 1 / (2 · 2)."""
    x, y, z = (torch.tensor(v)[:, None] for v in ([-1.0, 0, 1], [1.0, -2, 1], [-1.0, 1, 0]))
    assert cka(x, y) == 0
    assert cka(x, z) == pytest.approx(0.25)
    assert cka(x + 5, 3 * z) == pytest.approx(0.25)


def test_unbiased_cka_worked_by_hand() -> None:
    """Four points, x = (−1, −1, 1, 1) and y = (−1, 1, −1, 1), both centred with squares k = l = 1.

    n (n−3) HSIC₁: (x, x): 16 − 4·4/2 + 16/6 = 32/3, the same for y. (x, y): 0 − 8 + 8/3 = −16/3.
    """
    x, y = torch.tensor([[-1.0], [-1], [1], [1]]), torch.tensor([[-1.0], [1], [-1], [1]])
    assert cka(x, y, unbiased=True) == pytest.approx(-0.5)
    assert cka(x, y) == 0


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
@pytest.mark.parametrize("n", [5, 40])
def test_the_streamed_form_equals_kernels_of_all_rows(unbiased: bool, chunk: int, n: int) -> None:
    x, y = related(n, 6, 60)
    a, b = OnlySlices(x + 3), OnlySlices(y)
    expected = _dense(x + 3, y, unbiased)
    assert cka(a, b, unbiased=unbiased, chunk=chunk) == pytest.approx(expected, abs=1e-9)
    assert max(a.most, b.most) <= chunk


@pytest.mark.parametrize("unbiased", [False, True])
def test_it_is_invariant_to_rotation_scale_shift_order_and_sides(unbiased: bool) -> None:
    x, y = related(60, 6, 9)
    value = cka(x, y, unbiased=unbiased)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    assert cka(x @ rotation(6), 7 * y, unbiased=unbiased) == pytest.approx(value, abs=1e-6)
    assert cka(x + 2, y[:, :] - 1, unbiased=unbiased) == pytest.approx(value, abs=1e-6)
    assert cka(x[order], y[order], unbiased=unbiased) == pytest.approx(value)
    assert cka(y, x, unbiased=unbiased) == pytest.approx(value)
    assert cka(x, x @ rotation(6), unbiased=unbiased) == pytest.approx(1)


def test_between_unrelated_features_only_the_biased_form_is_far_from_0() -> None:
    values = [
        [cka(normal(50, 200, 2 * s), normal(50, 200, 2 * s + 1), unbiased=u) for s in range(20)]
        for u in (False, True)
    ]
    assert min(values[0]) > 0.7
    assert abs(sum(values[1]) / 20) < 0.02
    assert min(values[1]) < 0


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_large_mean_costs_no_precision(unbiased: bool) -> None:
    x, y = related(50, 4, 4)
    expected = cka(x.double(), y, unbiased=unbiased)
    assert cka(x.double() + 1e5, y, unbiased=unbiased) == pytest.approx(expected, abs=1e-8)


def test_autocast_changes_nothing() -> None:
    x, y = related(50, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cka(x, y)
    assert inside == cka(x, y)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_constant_features_are_refused(unbiased: bool, constant: float) -> None:
    with pytest.raises(DataError, match="all rows of features on one side are the same"):
        cka(normal(10, 3), torch.full((10, 2), constant), unbiased=unbiased, chunk=3)


def test_unbiased_of_rows_equally_far_apart_is_refused() -> None:
    with pytest.raises(DataError, match="equally far apart"):
        cka(torch.eye(6), normal(6, 3), unbiased=True)
    assert 0 < cka(torch.eye(6), normal(6, 3)) <= 1


def test_faults_are_refused() -> None:
    with pytest.raises(DataError, match="2 rows of features are too few: CKA"):
        cka(normal(2, 3), normal(2, 3))
    with pytest.raises(DataError, match="3 rows of features are too few: unbiased CKA"):
        cka(normal(3, 3), normal(3, 3), unbiased=True)
    with pytest.raises(DataError, match="one side has 9 rows"):
        cka(normal(9, 3), normal(8, 3))
    bad = normal(9, 3)
    bad[4, 0] = torch.nan
    with pytest.raises(DataError, match="first in row 4"):
        cka(normal(9, 3), bad)
