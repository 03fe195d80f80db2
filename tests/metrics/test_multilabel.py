import pytest
import torch

from lateen.errors import DataError
from lateen.metrics.classification import multilabel


def test_by_hand():
    truth = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0]]).bool()
    found = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0]]).bool()
    result = multilabel(found, truth, ["a", "b", "c"])
    assert result["per_class"] == {"a": 75, "b": 50}  # no row has c
    assert result["macro_recall"] == pytest.approx(62.5)
    assert result["macro_precision"] == pytest.approx((100 + 100 / 3) / 2)


def test_never_yes_has_no_precision():
    truth = torch.ones(3, 2, dtype=torch.bool)
    result = multilabel(~truth, truth, ["a", "b"])
    assert (result["macro_recall"], result["macro_precision"]) == (0, 0)


def test_rows_without_labels_are_an_error():
    with pytest.raises(DataError, match="no row to test has a label"):
        multilabel(torch.ones(2, 2).bool(), torch.zeros(2, 2).bool(), ["a", "b"])
