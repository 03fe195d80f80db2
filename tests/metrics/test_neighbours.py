from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from feature_toys import OnlySlices, normal, related, rotation
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics import cknna, cycle_knn, mutual_knn, nearest_neighbours
from lateen.metrics.nearest import top_similar


def _dense_neighbours(x: Tensor, k: int) -> Tensor:
    """The plain twin: all cosines, stably sorted."""
    units = F.normalize(x.double(), dim=1)
    cosines = (units @ units.T).fill_diagonal_(-2)
    return cosines.argsort(dim=1, descending=True, stable=True)[:, :k]


def _dense_cknna(x: Tensor, y: Tensor, nx: Tensor, ny: Tensor) -> float:
    """The plain twin: masked n × n kernels."""
    n = len(x)
    kernels, masks = [], []
    for features, table in ((x, nx), (y, ny)):
        units = F.normalize(features.double(), dim=1)
        kernels.append(units @ units.T)
        masks.append(torch.zeros(n, n, dtype=torch.float64).scatter_(1, table, 1))

    def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        centre = k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l).sum() / (n - 2)
        return ((k * l.T).sum() + centre) / (n * (n - 3))

    both = masks[0] * masks[1]
    own = [hsic(k * m, k * m) for k, m in zip(kernels, masks, strict=True)]
    return float(hsic(kernels[0] * both, kernels[1] * both) / (own[0] * own[1]).sqrt())


def test_neighbours_on_a_circle_worked_by_hand() -> None:
    """Rows at 0°, 10°, 30° and 90°; lengths do not count."""
    angles = torch.tensor([0.0, 10, 30, 90]).deg2rad()
    x = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5], [0.1], [3]])
    assert nearest_neighbours(x, 3).tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]


@pytest.mark.parametrize("chunk", [1, 7, 32, 50, 1000])
@pytest.mark.parametrize("k", [1, 5, 49])
def test_tiles_equal_a_sort_of_all_cosines(chunk: int, k: int) -> None:
    x = normal(50, 16)
    read = OnlySlices(x)
    found = nearest_neighbours(read, k, chunk=chunk)
    assert found.dtype == torch.int64
    assert found.shape == (50, k)
    assert torch.equal(found, _dense_neighbours(x, k))
    assert read.most <= chunk


@pytest.mark.parametrize("chunk", [1, 3, 16, 37, 1000])
@pytest.mark.parametrize("k", [1, 4, 12, 30])
def test_of_duplicates_the_lower_index_comes_first_whatever_the_tiles(chunk: int, k: int) -> None:
    """Seven different rows of an awkward length, in many copies scattered over 60 rows."""
    which = torch.randint(0, 7, (60,), generator=torch.Generator().manual_seed(1))
    distinct = normal(7, 37)
    # Cosines of distinct rows; copies have exactly that of what they copy.
    units = F.normalize(distinct.double(), dim=1)
    cosines = (units @ units.T)[which][:, which].fill_diagonal_(-2)
    expected = cosines.argsort(dim=1, descending=True, stable=True)[:, :k]
    assert torch.equal(nearest_neighbours(distinct[which], k, chunk=chunk), expected)


def test_copies_of_other_length_are_ties_too() -> None:
    x = normal(1, 50).repeat(20, 1) * 2.0 ** torch.arange(20)[:, None]
    assert nearest_neighbours(x, 2, chunk=3)[[0, 1, 9]].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_collapsed_features_have_the_first_rows_as_neighbours() -> None:
    assert nearest_neighbours(torch.ones(9, 4), 2, chunk=4)[[0, 1, 8]].tolist() == [
        [1, 2], [0, 2], [0, 1],
    ]  # fmt: skip


def test_a_row_of_zeros_has_cosine_0_with_every_other() -> None:
    x = torch.tensor([[0.0, 0], [1, 0], [-1, 0], [1, 0.1]])
    assert nearest_neighbours(x, 3)[1].tolist() == [3, 0, 2]


@pytest.mark.parametrize("chunk", [10, 13, 100])
def test_cosines_with_a_gallery_equal_the_plain_product(chunk: int) -> None:
    queries, gallery = normal(30, 8), normal(50, 8, 1)
    cosines, indices = top_similar(OnlySlices(queries), OnlySlices(gallery), 6, chunk)
    expected = (F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T).topk(
        6
    )
    assert torch.equal(indices, expected.indices)
    torch.testing.assert_close(cosines, expected.values, rtol=0, atol=1e-7)


def test_neighbours_are_invariant_to_rotation_and_scale() -> None:
    x = normal(80, 12)
    expected = nearest_neighbours(x, 5)
    assert torch.equal(nearest_neighbours(3 * x @ rotation(12), 5), expected)


def test_too_many_neighbours_are_refused() -> None:
    with pytest.raises(DataError, match="k = 9 neighbours of 8 rows to choose from"):
        nearest_neighbours(normal(9, 3), 9)
    with pytest.raises(DataError, match="k = 1 neighbours of 0 rows"):
        nearest_neighbours(normal(0, 3), 1)
    with pytest.raises(UsageError, match="k is 0"):
        nearest_neighbours(normal(9, 3), 0)
    with pytest.raises(DataError, match="of 3 and of 4 dims"):
        top_similar(normal(9, 3), normal(9, 4), 1, 4)


def test_mutual_knn_and_cycle_knn_worked_by_hand() -> None:
    """Shared: 1 of 2 in row 0, both in row 1, none in row 2, 1 in row 3.

    Cycles, by ny and then nx: row 0 goes to 1 or 3, and nx of 1 holds 0; row 1 goes to 0 or 2, and
    nx of 0 holds 1; row 2 goes to 0 or 1, and nx of 1 holds 2; row 3 goes to 0 or 1, whose nx hold
    no 3.
    """
    nx = torch.tensor([[1, 2], [2, 0], [3, 4], [0, 2], [3, 0]])
    ny = torch.tensor([[1, 3], [0, 2], [0, 1], [0, 1], [0, 3]])
    assert mutual_knn(nx, ny) == pytest.approx((1 + 2 + 0 + 1 + 2) / 10)
    # Row 4 goes to 0 or 3, whose nx hold no 4.
    assert cycle_knn(nx, ny) == pytest.approx(3 / 5)
    assert mutual_knn(nx, nx) == 1
    assert mutual_knn(nx, ny) == mutual_knn(ny, nx.flip(1))


def test_mutual_and_cycle_knn_equal_masks_of_all_pairs() -> None:
    x, y = related(60, 8, 5)
    nx, ny = nearest_neighbours(x, 6), nearest_neighbours(y, 6)
    masks = [torch.zeros(60, 60).scatter_(1, t, 1) for t in (nx, ny)]
    assert mutual_knn(nx, ny) == pytest.approx(float((masks[0] * masks[1]).sum() / 360))
    assert 0.1 < mutual_knn(nx, ny) < 0.9
    reached = (masks[1] @ masks[0]).diag() > 0
    assert cycle_knn(nx, ny) == pytest.approx(reached.double().mean().item())


@pytest.mark.parametrize("chunk", [1, 17, 1000])
@pytest.mark.parametrize("k", [2, 5, 20])
def test_cknna_equals_masked_kernels_of_all_rows(chunk: int, k: int) -> None:
    x, y = related(60, 8, 5)
    nx, ny = nearest_neighbours(x, k), nearest_neighbours(y, k)
    tables = nx.clone(), ny.clone()
    a, b = OnlySlices(x), OnlySlices(y)
    expected = _dense_cknna(x, y, nx, ny)
    assert cknna(a, b, nx, ny, chunk=chunk) == pytest.approx(expected, abs=1e-6)
    assert max(a.most, b.most) <= chunk
    assert torch.equal(nx, tables[0])
    assert torch.equal(ny, tables[1])


def test_cknna_worked_by_hand() -> None:
    """Four rows in two pairs of copies, at right angles, of which each knows its copy and a third.

    Only the two copies have a cosine that is not 0, namely 1, so that K is [[0, 1], [1, 0]] twice:
    HSIC(K, K) = [4 + 16/6 − 2 · 4/2] / 4 = 2/3. In y only the pair (0, 1) are copies, the others
    at right angles: ΣL = 2, HSIC(L, L) = [2 + 4/6 − 2 · 2/2] / 4 = 1/6 and HSIC(K, L), with
    everything masked alike, = [2 + 8/6 − 2 · 2/2] / 4 = 1/3, which makes 1/3 / √(2/3 · 1/6) = 1.
    """
    x = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]])
    y = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    table = torch.tensor([[1, 2], [0, 2], [3, 0], [2, 0]])
    assert cknna(x, y, table, table) == pytest.approx(1)
    # Where y does not know the pair (2, 3), K is masked to what L holds.
    other = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1]])
    # HSIC(masked K, masked L): both only hold (0, 1): 1/6.
    assert cknna(x, y, table, other) == pytest.approx((1 / 6) / (2 / 3 * 1 / 6) ** 0.5)


def test_cknna_is_1_of_a_space_with_itself_and_invariant() -> None:
    x, y = related(80, 8, 5)
    nx, ny = nearest_neighbours(x, 10), nearest_neighbours(y, 10)
    value = cknna(x, y, nx, ny)
    assert cknna(x, x @ rotation(8), nx, nx) == pytest.approx(1, abs=1e-6)
    # As being a neighbour is not mutual, the sum of KL is not that of LK.
    assert cknna(y, x, ny, nx) != value
    assert cknna(y, x, ny, nx) == pytest.approx(_dense_cknna(y, x, ny, nx), abs=1e-6)
    assert cknna(2 * x @ rotation(8), y, nx, ny) == pytest.approx(value, abs=1e-6)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    moved = nearest_neighbours(x[order], 10), nearest_neighbours(y[order], 10)
    assert cknna(x[order], y[order], *moved) == pytest.approx(value, abs=1e-9)
    assert mutual_knn(*moved) == pytest.approx(mutual_knn(nx, ny))
    assert 0 < value < 1


def test_tables_that_do_not_fit_are_refused() -> None:
    x = normal(9, 3)
    table = nearest_neighbours(x, 3)
    for measure in (mutual_knn, cycle_knn):
        with pytest.raises(DataError, match=r"shapes \[9, 3\] and \[9, 2\] do not fit"):
            measure(table, table[:, :2])
    with pytest.raises(DataError, match="neighbours of 8 rows do not fit 9 rows"):
        cknna(x, x, table[:8], table[:8])
    with pytest.raises(DataError, match="neighbours of 9 rows do not fit 9"):
        cknna(x, x, table + 1, table)
    with pytest.raises(UsageError, match="CKNNA of 1 neighbour"):
        cknna(x, x, table[:, :1], table[:, :1])
    with pytest.raises(DataError, match="one side has 9"):
        cknna(x, x[:8], table, table)
    with pytest.raises(DataError, match="too few: CKNNA"):
        cknna(x[:3], x[:3], table[:3], table[:3])


def test_neighbourhoods_without_a_positive_hsic_are_refused() -> None:
    x = torch.eye(6)  # every cosine between rows is 0
    table = nearest_neighbours(x, 2)
    with pytest.raises(DataError, match="too scattered for CKNNA"):
        cknna(x, x, table, table)
