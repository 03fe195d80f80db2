from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lateen.errors import TrainingError
from lateen.training import canonical
from lateen.training.canonical import (
    add_canonical,
    canonical_maps,
    canonical_share,
    ridges_of,
)
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loop import train

from .conftest import MakePairs

COUNTS = [3, 1, 2, 5, 1, 2, 2, 3, 1, 4, 2, 1, 2, 3, 2, 1]


@pytest.mark.parametrize("chunk", [100, 2**20])
def test_without_ridge_directions_are_uncorrelated_but_for_their_partner(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    # What defines canonical correlation: each side's directions are white, and across the sides
    # only partners correlate, the earlier the more. One caption per image is its own mean.
    monkeypatch.setattr(canonical, "_POWER", 0.0)
    monkeypatch.setattr(canonical, "_CHUNK", chunk)
    pairs = make_pairs([1] * 60)
    image, text = canonical_maps(pairs, 5, (1e-5, 1e-5))
    x, y = image(pairs.image_features(np.arange(60))), text(pairs.all_texts()[0])
    for rows in (x, y):
        torch.testing.assert_close(rows.mean(0), torch.zeros(5), atol=1e-3, rtol=0)
        torch.testing.assert_close(rows.T @ rows / 60, torch.eye(5), atol=2e-2, rtol=0)
    across = x.T @ y / 60
    partners = across.diagonal()
    torch.testing.assert_close(across, torch.diag(partners), atol=2e-2, rtol=0)
    assert partners.sort(descending=True).values.tolist() == partners.tolist()
    assert 0.5 < partners[0] <= 1.01


def test_ridges_are_those_of_many_pairs_where_none_are_given(make_pairs: MakePairs) -> None:
    pairs = make_pairs([2] * 30)
    usual, wider = (
        canonical_maps(pairs, 4)[0].weight,
        canonical_maps(pairs, 4, (3.0, 0.2))[0].weight,
    )
    assert not torch.allclose(usual, wider, rtol=0.05)
    torch.testing.assert_close(usual, canonical_maps(pairs, 4, canonical.RIDGES)[0].weight)


def test_ridges_grow_with_fewer_pairs_where_much_is_unpaired_and_nowhere_else() -> None:
    unpaired = {"unpaired": {"images": "here"}}
    assert ridges_of(TrainSection(), 250) is None
    assert ridges_of(TrainSection.model_validate(unpaired), 250) == pytest.approx((24.0, 1.44))
    assert ridges_of(TrainSection.model_validate(unpaired), 100_000) == canonical.RIDGES
    given = {"cca_ridge": (2.0, 0.1)}
    assert ridges_of(TrainSection.model_validate({**unpaired, **given}), 250) == (2.0, 0.1)
    assert ridges_of(TrainSection.model_validate(given), 250) == (2.0, 0.1)


def test_training_takes_the_ridges_that_it_is_given(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs([2] * 30)
    plain, wide = (
        train(
            pairs, head=HeadSection(dim=4),
            settings=TrainSection.model_validate({"epochs": 0, **more}), out=tmp_path,
        ).heads.vision.state_dict()["network.weight"]
        for more in ({}, {"cca_ridge": (5.0, 0.3)})
    )  # fmt: skip
    assert not torch.allclose(plain, wide, rtol=0.05)
    torch.testing.assert_close(wide, canonical_maps(pairs, 4, (5.0, 0.3))[0].weight)


def test_captions_of_all_columns_count_alike(make_pairs: MakePairs) -> None:
    pairs = make_pairs(COUNTS, columns=2)
    features, means = canonical._captions(pairs, np.array([3, 0]))
    per_column = [
        [F.layer_norm(c.store[c.rows[c.offsets[i] : c.offsets[i + 1]]], (8,)) for i in (3, 0)]
        for c in pairs.texts
    ]
    assert len(features) == 2 * (COUNTS[3] + COUNTS[0])
    for row in range(2):
        expected = (per_column[0][row].mean(0) + per_column[1][row].mean(0)) / 2
        torch.testing.assert_close(means[row], expected)


def test_the_joined_head_is_linear_and_mixes_both_similarities(make_pairs: MakePairs) -> None:
    pairs = make_pairs(COUNTS)
    torch.manual_seed(0)
    heads = AlignmentHeads(HeadSection(dim=5, dropout=0.0), 12, 8).eval()
    for head in (heads.vision, heads.text):
        torch.nn.init.uniform_(head.norm.weight, 0.5, 2)
        torch.nn.init.uniform_(head.norm.bias)
    joined = add_canonical(heads, pairs, 0.5, alone=False)
    assert joined.settings.name == "linear"
    assert joined.settings.dim == 10
    assert not any(p.requires_grad for p in joined.parameters())
    assert joined.scale.item() == pytest.approx(20)
    features = pairs.image_features(np.arange(len(pairs)))
    both, trained = joined.vision(features), heads.vision(features)
    ratio = both[:, :5] / trained  # the same up to one factor
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert both[:, :5].norm(dim=1).mean().item() == pytest.approx(1, rel=1e-4)
    assert both[:, 5:].norm(dim=1).mean().item() == pytest.approx(0.5, rel=1e-4)


def test_canonical_directions_alone_need_no_training(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(COUNTS)
    result = train(
        pairs, validation=pairs, head=HeadSection(dim=5), settings=TrainSection(epochs=0),
        out=tmp_path,
    )  # fmt: skip
    assert (result.steps, result.best_step) == (0, 0)
    assert result.heads.settings.dim == 5
    assert result.best_metrics is not None
    assert result.best_metrics["text_to_image"]["R@5"] > 80  # chance: 31


def test_training_puts_them_beside_what_it_learned(make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(COUNTS)
    settings = TrainSection(epochs=2, batch=8)
    first, again = (
        train(pairs, validation=pairs, head=HeadSection(dim=5), settings=settings, out=tmp_path)
        for _ in range(2)
    )
    assert again.skipped
    assert first.heads.settings.dim == 10
    for one, other in zip(first.heads.parameters(), again.heads.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.best_metrics == first.best_metrics


@pytest.mark.parametrize(
    ("head", "values", "share"),
    [
        ({}, {}, 0.8),
        ({}, {"cca": 0.3}, 0.3),
        ({}, {"cca": 0.0}, 0.0),
        ({"name": "glu"}, {}, 0.0),
        ({"vision": "identity"}, {}, 0.0),
    ],
)
def test_where_it_is_not_given_linear_heads_alone_get_a_share(
    head: dict[str, Any], values: dict[str, Any], share: float
) -> None:
    settings = TrainSection.model_validate(values)
    assert canonical_share(settings, HeadSection.model_validate(head), 12, 4096) == share


def test_long_features_have_to_ask_for_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lateen"):
        assert canonical_share(TrainSection(), HeadSection(), 12, 4097) == 0
    assert "features of 4097 values" in caplog.text and "train.cca" in caplog.text
    caplog.clear()
    assert canonical_share(TrainSection(cca=0.0), HeadSection(), 12, 4097) == 0
    assert canonical_share(TrainSection(cca=0.5), HeadSection(), 12, 4097) == 0.5
    assert not caplog.messages


@pytest.mark.parametrize(
    ("head", "values", "dims", "message"),
    [
        ("glu", {"cca": 0.5}, [12, 8], "cannot stand beside a glu head"),
        ("linear", {"cca": 0.5}, [12], "cannot stand beside a trained text encoder"),
        ("linear", {"cca": 0.0, "epochs": 0}, [12, 8], "leave the heads as they were drawn"),
        ("glu", {"epochs": 0}, [12, 8], "leave the heads as they were drawn"),
    ],
)
def test_what_cannot_be_is_refused(
    head: Any, values: dict[str, Any], dims: list[int], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        canonical_share(TrainSection.model_validate(values), HeadSection(name=head), *dims)
