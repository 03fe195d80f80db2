from __future__ import annotations

import importlib
import logging

import numpy as np
import pytest
import torch
from feature_toys import OnlySlices, normal, rotation
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics import linear_probe, linear_probe_folds
from lateen.metrics.linear_probe import CS, _deal


def _classes(n: int, seed: int = 0, spread: float = 1.2) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 4
    return normal(n, 6, seed) + spread * normal(4, 6, 99)[labels], labels


def test_separate_classes_are_all_found() -> None:
    train, labels = _classes(60, spread=20)
    test, right = _classes(40, 1, spread=20)
    probe = linear_probe(OnlySlices(train), labels, OnlySlices(test), right)
    assert probe.accuracy == 100
    assert set(probe.validation) == set(CS)
    assert probe.c == [min(c for c, accuracy in probe.validation.items() if accuracy == 100)]
    assert linear_probe(train, labels, test, right, cs=(10.0, 1.0)).c == [1.0]
    assert linear_probe_folds(train, labels).accuracy == 100


def test_it_is_logistic_regression_on_standardised_features() -> None:
    train, labels = _classes(80)
    test, right = _classes(50, 1)
    mean, spread = train.mean(0), train.std(0, correction=0)
    plain = LogisticRegression(C=0.1, max_iter=1000)
    plain.fit(((train - mean) / spread).numpy(), labels.numpy())
    expected = 100 * plain.score(((test - mean) / spread).numpy(), right.numpy())
    probe = linear_probe(train, labels, test, right, cs=(0.1,))
    assert probe.accuracy == pytest.approx(expected)
    assert 40 < probe.accuracy < 100


def test_scale_and_shift_of_a_feature_do_not_count() -> None:
    train, labels = _classes(80)
    test, right = _classes(50, 1)
    scale, shift = torch.tensor([1e-4, 1, 10, 1e4, 1, 2]), 3.0
    moved = linear_probe(train * scale + shift * scale, labels, (test + shift) * scale, right)
    assert moved.accuracy == linear_probe(train, labels, test, right).accuracy


def test_a_constant_feature_changes_nothing() -> None:
    train, labels = _classes(80)
    test, right = _classes(50, 1)
    wider = [torch.cat([x, torch.full((len(x), 1), 0.1)], dim=1) for x in (train, test)]
    assert linear_probe(wider[0], labels, wider[1], right) == linear_probe(
        train, labels, test, right
    )


def test_rows_to_test_choose_nothing() -> None:
    train, labels = _classes(80)
    test, right = _classes(50, 1)
    one = linear_probe(train, labels, test, right)
    other = linear_probe(train, labels, 5 * test.flip(0), right)
    assert (one.c, one.validation) == (other.c, other.validation)


def test_every_row_is_predicted_by_folds_that_do_not_hold_it() -> None:
    """Labels by chance: a probe that had seen the row would do much better than chance."""
    x = normal(80, 100)
    labels = torch.arange(80) % 4
    probe = linear_probe_folds(x, labels, cs=(1e2,))
    assert probe.accuracy < 45
    assert linear_probe(x, labels, x, labels, cs=(1e2,)).accuracy == 100
    assert len(probe.c) == 5


def test_folds_can_be_repeated_and_differ_by_seed() -> None:
    x, labels = _classes(80)
    first = linear_probe_folds(x, labels, folds=4, seed=1)
    assert first == linear_probe_folds(OnlySlices(x), labels, folds=4, seed=1)
    assert first.validation != linear_probe_folds(x, labels, folds=4, seed=2).validation


def test_the_numbers_of_classes_do_not_count_nor_do_more_dims_than_rows_matter() -> None:
    x, labels = _classes(80)
    wide = torch.cat([x, normal(80, 200, 5)], dim=1) @ rotation(206)
    renamed = torch.tensor([0, 3, 40, 41])[labels]
    assert linear_probe_folds(wide, renamed) == linear_probe_folds(wide, labels)


@pytest.mark.parametrize("parts", [3, 5])
def test_every_class_is_dealt_evenly(parts: int) -> None:
    labels = np.repeat([0, 1, 2], [30, 7, 5])
    part = _deal(labels, parts, np.random.default_rng(0))
    for label in range(3):
        counts = np.bincount(part[labels == label], minlength=parts)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(part, _deal(labels, parts, np.random.default_rng(1)))


def test_fits_that_are_cut_short_are_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A string would name the function, which has the name of its module.
    module = importlib.import_module("lateen.metrics.linear_probe")
    monkeypatch.setattr(module, "_ITERATIONS", 1)
    x, labels = _classes(80)
    with caplog.at_level(logging.INFO, logger="lateen"):
        linear_probe_folds(x, labels, folds=3, cs=(1.0, 10.0))
    assert [r.getMessage() for r in caplog.records] == [
        "linear probe: 9 of 9 fits stopped at 1 iterations before they converged"
    ]


def test_fits_that_converge_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lateen"):
        linear_probe_folds(*_classes(80), folds=3)
    assert not caplog.records


def test_faults_are_refused() -> None:
    x, labels = _classes(40)
    with pytest.raises(DataError, match="1 classes"):
        linear_probe_folds(x, torch.zeros(40).long())
    with pytest.raises(DataError, match="1 classes"):
        linear_probe(x, torch.zeros(40).long(), x, torch.zeros(40).long())
    rare = labels.clone()
    rare[:4] = 7
    with pytest.raises(DataError, match="class 7 has 4 rows, too few for 5 folds"):
        linear_probe_folds(x, rare)
    rare = labels.clone()
    rare[0] = 7
    with pytest.raises(DataError, match="class 7 has 1 rows, too few for validation"):
        linear_probe(x, rare, x, labels)
    with pytest.raises(DataError, match="class 7 is to be found"):
        linear_probe(x, labels, x, rare)
    with pytest.raises(UsageError, match="2 folds leave too little"):
        linear_probe_folds(x, labels, folds=2)
    for cs in ((), (0.0,), (1.0, -1.0)):
        with pytest.raises(UsageError, match="cannot be swept"):
            linear_probe_folds(x, labels, cs=cs)
    bad = x.clone()
    bad[5, 1] = torch.inf
    with pytest.raises(DataError, match="first in row 5"):
        linear_probe_folds(bad, labels)


def test_two_rows_of_each_class_are_enough_to_learn_from() -> None:
    x, labels = _classes(8, spread=20)
    assert linear_probe(x, labels, x, labels).accuracy == 100
    assert linear_probe_folds(*_classes(12, spread=20), folds=3).accuracy == 100
