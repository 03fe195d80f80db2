from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_toys import OnlySlices, normal, related, rotation
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics import svcca


def _plain(x: Tensor, y: Tensor, p: int, q: int) -> float:
    """The plain twin: singular vectors of the features, then of the product of these."""
    bases = []
    for side, kept in ((x, p), (y, q)):
        u = np.linalg.svd((side.double() - side.double().mean(0)).numpy(), full_matrices=False)[0]
        bases.append(u[:, :kept])
    return float(np.linalg.svd(bases[0].T @ bases[1])[1].mean())


def test_one_dimension_is_the_correlation() -> None:
    x, y = torch.tensor([[1.0], [2], [3], [4]]), torch.tensor([[2.0], [1], [4], [3]])
    assert svcca(x, y) == pytest.approx(0.6)
    assert svcca(x, -y) == pytest.approx(0.6)


def test_components_are_kept_up_to_the_share_of_variance() -> None:
    """Orthogonal columns with 90, 9 and 1 % of the variance; y is the second column."""
    columns = np.linalg.qr(np.c_[np.ones(20), normal(20, 3).double().numpy()])[0][:, 1:]
    x = torch.from_numpy(columns * np.sqrt([90, 9, 1]))
    y = x[:, 1:2]
    assert svcca(x, y, variance=0.89) == pytest.approx(0, abs=1e-6)
    assert svcca(x, y, variance=0.91) == pytest.approx(1)
    assert svcca(x, y, dim=1) == pytest.approx(0, abs=1e-6)
    assert svcca(x, y, dim=2) == pytest.approx(1)


@pytest.mark.parametrize("chunk", [1, 13, 200])
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_the_streamed_form_equals_singular_vectors_of_all_rows(chunk: int, kept: int) -> None:
    x, y = related(80, 6, 9)
    a, b = OnlySlices(x), OnlySlices(y.double() + 4)
    assert svcca(a, b, dim=kept, chunk=chunk) == pytest.approx(_plain(x, y, kept, kept), abs=1e-8)
    assert max(a.most, b.most) <= chunk


def test_it_is_invariant_to_rotation_scale_shift_order_and_sides() -> None:
    x, y = related(80, 6, 9)
    value = svcca(x, y, dim=4)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    assert svcca(3 * x @ rotation(6), y - 2, dim=4) == pytest.approx(value, abs=1e-5)
    assert svcca(x[order], y[order], dim=4) == pytest.approx(value)
    assert svcca(y, x, dim=4) == pytest.approx(value)
    # With every component kept, any invertible map changes nothing.
    assert svcca(x, x @ normal(6, 6, 8), variance=1.0) == pytest.approx(1, abs=1e-5)


def test_directions_without_variance_are_not_kept() -> None:
    x, y = related(80, 3, 3)
    doubled = torch.cat([x, x], dim=1)
    assert svcca(doubled, y, variance=1.0) == pytest.approx(svcca(x, y, variance=1.0), abs=1e-6)
    assert svcca(doubled, y, dim=6) == pytest.approx(svcca(x, y, dim=3), abs=1e-6)


def test_unrelated_features_stay_at_the_level_of_chance() -> None:
    assert 0.05 < svcca(normal(500, 20), normal(500, 20, 1), dim=10) < (10 / 499) ** 0.5


def test_too_few_rows_for_the_kept_components_are_refused() -> None:
    x, y = normal(30, 40), normal(30, 20, 1)
    with pytest.raises(DataError, match="30 rows are too few for SVCCA of 8 and 8") as caught:
        svcca(x, y, dim=8)
    assert "at least 32 samples" in caught.value.remedy
    assert svcca(x, y, dim=7) < 1
    with pytest.raises(DataError, match="correlations would be high by chance"):
        svcca(x, y)


@pytest.mark.parametrize("settings", [{"variance": 0.0}, {"variance": 1.1}, {"dim": 0}])
def test_settings_that_keep_nothing_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="are not what can be kept"):
        svcca(normal(30, 4), normal(30, 4), **settings)


def test_faults_are_refused() -> None:
    with pytest.raises(DataError, match="3 rows of features are too few"):
        svcca(normal(3, 1), normal(3, 1))
    with pytest.raises(DataError, match="one side has 30 rows"):
        svcca(normal(30, 2), normal(20, 2))
    with pytest.raises(DataError, match="are the same"):
        svcca(normal(30, 2), torch.full((30, 2), 0.1))
