from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.errors import TrainingError
from lateen.features import Store, pair
from lateen.training import inputs
from lateen.training.inputs import check_trainable

from .conftest import MakePairs, write_store


def texts(tmp_path: Path, features: torch.Tensor, column: str = "c") -> Store:
    ids = [str(i) for i in range(len(features))]
    return write_store(tmp_path / f"text-{column}", "text", features, ids, column)


def images(tmp_path: Path, features: torch.Tensor) -> Store:
    ids = [str(i) for i in range(len(features))]
    return write_store(tmp_path / "image", "image", features, ids, None)


def test_sound_features_pass(make_pairs: MakePairs) -> None:
    check_trainable(make_pairs([2, 1, 3], columns=2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named_by_store_row_and_id(
    tmp_path: Path, value: float
) -> None:
    store = images(tmp_path, torch.randn(5, 3))
    shard = next(store.path.glob("shard-*"))
    data = shard.read_bytes()
    # The last value of the last row; a store's writer would have refused it.
    shard.write_bytes(data[:-4] + np.float32(value).tobytes())
    pairs = pair(Store.open(store.path), texts(tmp_path, torch.randn(5, 3)))
    with pytest.raises(TrainingError, match=r"1 rows of .*image are not finite.*row 4 \(id '4'\)"):
        check_trainable(pairs)


def test_rows_of_one_value_are_named(tmp_path: Path) -> None:
    features = torch.randn(9, 3)
    features[[2, 3, 5, 7]] = 0
    pairs = pair(images(tmp_path, torch.randn(9, 3)), texts(tmp_path, features))
    with pytest.raises(TrainingError, match=r"4 rows of .*text-c have one value.*row 2.*row 3"):
        check_trainable(pairs)


def test_a_store_whose_rows_are_all_the_same_is_refused(tmp_path: Path) -> None:
    same = torch.tensor([[1.0, 2.0, 3.0]]).expand(6, 3)
    pairs = pair(images(tmp_path, same), texts(tmp_path, torch.randn(6, 3)))
    with pytest.raises(TrainingError, match=r"all 6 rows of .*image are the same in all 3 dims"):
        check_trainable(pairs)


def test_a_validation_split_may_have_one_caption_but_no_faults(tmp_path: Path) -> None:
    same = torch.tensor([[1.0, 2.0, 3.0]]).expand(2, 3)
    check_trainable(pair(images(tmp_path, torch.randn(2, 3)), texts(tmp_path, same)), varied=False)
    store = images(tmp_path / "bad", torch.randn(2, 3))
    shard = next(store.path.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[:-4] + np.float32(np.nan).tobytes())
    pairs = pair(Store.open(store.path), texts(tmp_path, same))
    with pytest.raises(TrainingError, match="are not finite"):
        check_trainable(pairs, varied=False)


def test_one_constant_dim_among_others_is_no_fault(tmp_path: Path) -> None:
    features = torch.randn(6, 3)
    features[:, 1] = 0
    check_trainable(pair(images(tmp_path, features), texts(tmp_path, torch.randn(6, 3))))


@pytest.mark.parametrize("difference", [-1.0, 1.0])
def test_stores_are_judged_as_a_whole_and_not_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(inputs, "_CHUNK", 2)
    features = torch.randn(1, 3).repeat(5, 1)
    features[0] += difference
    check_trainable(pair(images(tmp_path, features), texts(tmp_path, torch.randn(5, 3))))


def test_rows_that_are_not_used_are_not_judged(tmp_path: Path) -> None:
    features = torch.randn(6, 3)
    features[5] = 0
    pairs = pair(images(tmp_path, features), texts(tmp_path, torch.randn(6, 3)))
    check_trainable(pairs.take(np.arange(5)))


def test_caption_columns_of_different_dims_are_refused(tmp_path: Path) -> None:
    pairs = pair(
        images(tmp_path, torch.randn(4, 3)),
        texts(tmp_path, torch.randn(4, 3), "short"),
        texts(tmp_path, torch.randn(4, 5), "long"),
    )
    with pytest.raises(TrainingError, match=r"different dims \(short 3, long 5\)"):
        check_trainable(pairs)
