from __future__ import annotations

import pytest
import torch
from feature_toys import OnlySlices, normal

from lateen.errors import DataError
from lateen.metrics.features import (
    block,
    blocks,
    check_classes,
    check_labels,
    check_paired,
    check_rows,
)


@pytest.mark.parametrize("size", [1, 4, 10, 100])
def test_blocks_are_all_rows_in_order_in_float64(size: int) -> None:
    x = normal(10, 3).half()
    read = list(blocks(OnlySlices(x), size))
    assert max(len(rows) for rows in read) == min(size, 10)
    torch.testing.assert_close(torch.cat(read), x.double(), rtol=0, atol=0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_row(value: float) -> None:
    x = normal(10, 3)
    x[7, 1] = value
    with pytest.raises(DataError, match="NaN or infinity, first in row 7") as caught:
        list(blocks(x, 4))
    assert caught.value.remedy


def test_features_that_are_no_matrix_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \[5, 2, 2\]"):
        block(torch.ones(5, 2, 2), 0, 8)


def test_features_with_a_graph_are_read_without_it() -> None:
    assert not block(normal(4, 2).requires_grad_(), 0, 4).requires_grad


def test_too_few_rows_and_sides_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="3 rows of features are too few: CKA needs at least 4"):
        check_rows(3, 4, "CKA")
    with pytest.raises(DataError, match="one side has 3 rows of features and the other 4"):
        check_paired(normal(3, 2), normal(4, 2))


@pytest.mark.parametrize(
    "labels",
    [torch.tensor([0, 1]), torch.tensor([0, -1, 1]), torch.ones(3), torch.zeros(3, 1).long()],
)
def test_labels_that_do_not_fit_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(DataError, match="do not give each of 3 rows its class"):
        check_labels(labels, 3)


def test_labels_that_cannot_be_learned_are_refused() -> None:
    one, two = torch.tensor([4, 4]), torch.tensor([4, 7])
    with pytest.raises(DataError, match="labels name 1 classes"):
        check_classes(one)
    with pytest.raises(DataError, match="class 5 is to be found"):
        check_classes(two, torch.tensor([4, 5]))
    with pytest.raises(DataError, match="no row to test"):
        check_classes(two, torch.zeros(0).long())
    check_classes(two, one)
