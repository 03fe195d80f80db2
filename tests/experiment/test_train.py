"""From pairs to a model: settings by any of their names, and data that can be held out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lateen.errors import DataError, RecipeError, UsageError
from lateen.experiment.training import train
from lateen.features import Description, Pairs, Store, StoreWriter, pair
from lateen.model import AlignedModel

QUICK: dict[str, Any] = {"dim": 4, "epochs": 2, "batch": 4}


def write_store(folder: Path, modality: Any, dtype: Any, count: int) -> Store:
    column = "caption" if modality == "text" else None
    encoder = {"id": "test", "modality": modality}
    description = Description(modality, 3, encoder, "0" * 64, "test", "test", column, dtype)
    writer = StoreWriter(folder, description)
    writer.write(torch.randn(count, 3), [f"{i:02d}" for i in range(count)], [], count)
    writer.finish()
    return Store.open(folder)


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    torch.manual_seed(0)
    return pair(
        write_store(tmp_path / "image", "image", "float32", 12),
        write_store(tmp_path / "text", "text", "float16", 12),
    )


def test_the_model_remembers_what_its_features_were(pairs: Pairs) -> None:
    model = train(pairs, holdout=0.2, **QUICK)
    assert model.config.vision == {
        "id": "test", "modality": "image", "dim": 3, "dtype": "float32",
    }  # fmt: skip
    assert model.config.text["dtype"] == "float16"
    assert model.config.training["pairs"] == 10


@pytest.mark.parametrize(
    ("head", "settings"),
    [
        ("mlp", {"width": 2, "lr": 0.01}),
        (None, {"name": "mlp", "width": 2, "lr": 0.01}),
        (None, {"head.name": "mlp", "head.width": 2, "train.lr": 0.01}),
    ],
)
def test_settings_go_by_their_name_with_and_without_the_section(
    pairs: Pairs, head: str | None, settings: dict[str, Any]
) -> None:
    model = train(pairs, head=head, holdout=0.2, **QUICK, **settings)
    assert model.config.head["name"] == "mlp"
    assert model.config.head["width"] == 2
    same = train(pairs, head="mlp", width=2, lr=0.01, holdout=0.2, **QUICK)
    other = train(pairs, head="mlp", width=2, lr=0.02, holdout=0.2, **QUICK)
    assert _equal(model, same)
    assert not _equal(model, other)


def _equal(a: AlignedModel, b: AlignedModel) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "glu", "name": "mlp"}, "head.name is given twice, as 'glu' and 'mlp'"),
        ({"head": "glu", "head.name": "glu"}, "head.name is given twice"),
        ({"lr": 1e-3, "train.lr": 1e-4}, r"train.lr is given twice, as 0.001 and 0.0001"),
    ],
)
def test_a_key_given_twice_is_refused(pairs: Pairs, settings: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(pairs, **settings)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("epoch", r"'train\.epoch'\. Did you mean 'train\.epochs'"),
        ("drpout", r"Did you mean 'head\.dropout'"),
        ("train.batchs", r"'train\.batchs'\. Did you mean 'train\.batch'"),
        ("train.dim", r"'train\.dim'\. Did you mean 'head\.dim'"),
        ("train.out", r"'train\.out'.*head \(name, vision.*train \(optimizer"),
        ("data.train", r"'data\.train'"),
        ("train", r"keys here are those of head"),
    ],
)
def test_an_unknown_key_names_the_nearest(pairs: Pairs, key: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train(pairs, **{key: 1})


@pytest.mark.parametrize("share", [0, 1, -0.1, 2.5, float("nan")])
def test_a_holdout_that_is_no_share_is_refused(pairs: Pairs, share: float) -> None:
    with pytest.raises(UsageError, match=f"holdout cannot be {share}"):
        train(pairs, holdout=share, **QUICK)


def test_with_validation_nothing_is_held_out(pairs: Pairs) -> None:
    model = train(pairs, validation=pairs, holdout=0, **QUICK)
    assert model.config.training["pairs"] == 12


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_to_hold_any_out(pairs: Pairs, count: int) -> None:
    with pytest.raises(DataError, match=f"{count} paired images are too few"):
        train(pairs.take(np.arange(count)), **QUICK)


def test_three_pairs_are_enough(pairs: Pairs) -> None:
    assert train(pairs.take(np.arange(3)), **QUICK).config.training["pairs"] == 2
