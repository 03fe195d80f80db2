from __future__ import annotations

from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from feature_toys import OnlySlices, normal
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics import knn_accuracy


def _classes(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 4
    return normal(n, 6, seed) + 1.2 * normal(4, 6, 99)[labels], labels


def _plain(train: Tensor, labels: Tensor, test: Tensor | None, right: Tensor, k: int) -> float:
    """The plain twin: one row at a time."""
    units = F.normalize(train.double(), dim=1)
    queries = units if test is None else F.normalize(test.double(), dim=1)
    hits = 0
    for index, query in enumerate(queries):
        cosines = units @ query
        if test is None:
            cosines[index] = -2
        votes: dict[int, float] = defaultdict(float)
        for row in cosines.argsort(descending=True)[:k].tolist():
            votes[int(labels[row])] += float((cosines[row] / 0.07).exp())
        hits += max(votes, key=lambda c: votes[c]) == int(right[index])
    return 100 * hits / len(queries)


def test_near_votes_count_more_worked_by_hand() -> None:
    """The query is a copy of the one row of class 1; two of class 0 stand at 60° and at 90°.

    In exp(cos / 0.07): e^14.3 against e^7.1 + 1; in exp(cos / 10): 1.105 against 1.051 + 1.
    """
    train = torch.tensor([[1.0, 0], [0.5, 0.75**0.5], [0, 1]])
    labels, test, right = torch.tensor([1, 0, 0]), torch.tensor([[2.0, 0]]), torch.tensor([1])
    assert knn_accuracy(train, labels, test, right, ks=(1, 3)) == {1: 100, 3: 100}
    cold = knn_accuracy(train, labels, test, right, ks=(3,), temperature=1e-4)
    assert cold == {3: 100}
    warm = knn_accuracy(train, labels, test, right, ks=(1, 2, 3), temperature=10)
    assert warm == {1: 100, 2: 100, 3: 0}


@pytest.mark.parametrize("chunk", [1, 9, 1000])
def test_it_equals_one_row_at_a_time(chunk: int) -> None:
    train, labels = _classes(60)
    test, right = _classes(40, 1)
    read = OnlySlices(train), OnlySlices(test)
    found = knn_accuracy(read[0], labels, read[1], right, ks=(1, 7, 60), chunk=chunk)
    assert found == {k: pytest.approx(_plain(train, labels, test, right, k)) for k in (1, 7, 60)}
    assert 30 < found[7] < 100
    assert max(side.most for side in read) <= chunk


@pytest.mark.parametrize("chunk", [1, 9, 1000])
def test_without_test_rows_each_is_classified_by_all_others(chunk: int) -> None:
    train, labels = _classes(60)
    found = knn_accuracy(OnlySlices(train), labels, ks=(1, 5, 59), chunk=chunk)
    assert found == {k: pytest.approx(_plain(train, labels, None, labels, k)) for k in (1, 5, 59)}
    assert found[1] < 100  # of itself each row would be sure


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_of_equal_votes_the_lowest_class_wins(chunk: int) -> None:
    """Three classes have the same rows, in orders that add their votes up in other ways."""
    rows = F.normalize(normal(3, 11), dim=1)
    train = torch.cat([rows, rows[[2, 0, 1]], rows[[1, 2, 0]]])
    labels = torch.tensor([2, 2, 2, 0, 0, 0, 1, 1, 1])
    test = normal(20, 11, 1)
    for right, expected in ((0, 100), (1, 0), (2, 0)):
        answer = torch.full((20,), right)
        assert knn_accuracy(train, labels, test, answer, ks=(9,), chunk=chunk) == {9: expected}


def test_collapsed_features_score_no_more_than_one_class_alone() -> None:
    found = knn_accuracy(torch.ones(40, 3), torch.arange(40) % 4, ks=(4, 20))
    assert all(value <= 25 for value in found.values())


def test_a_k_above_the_rows_that_vote_is_refused() -> None:
    train, labels = _classes(12)
    with pytest.raises(DataError, match="k = 20 is more than the 12 rows that can vote"):
        knn_accuracy(train, labels, train, labels, ks=(5, 20))
    with pytest.raises(DataError, match="k = 12 is more than the 11 rows"):
        knn_accuracy(train, labels, ks=(12,))
    assert set(knn_accuracy(train, labels, ks=(11,))) == {11}


def test_faults_are_refused() -> None:
    train, labels = _classes(12)
    with pytest.raises(DataError, match="1 classes"):
        knn_accuracy(train, torch.zeros(12).long(), ks=(2,))
    with pytest.raises(DataError, match="class 6 is to be found"):
        knn_accuracy(train, labels, train, labels + 6, ks=(2,))
    with pytest.raises(DataError, match="do not give each of 12 rows its class"):
        knn_accuracy(train, labels[:11], ks=(2,))
    with pytest.raises(UsageError, match="come with their labels"):
        knn_accuracy(train, labels, train, ks=(2,))
    for wrong in ({"ks": ()}, {"ks": (0,)}, {"ks": (2,), "temperature": 0.0}):
        with pytest.raises(UsageError, match="make no vote"):
            knn_accuracy(train, labels, **wrong)
    train[3, 2] = torch.nan
    with pytest.raises(DataError, match="first in row 3"):
        knn_accuracy(train, labels, ks=(2,))
