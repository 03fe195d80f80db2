"""Which data the trainer accepts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lateen.errors import TrainingError
from lateen.features import Pairs, pair
from lateen.training.config import HeadSection, TrainSection
from lateen.training.loop import TrainResult, train

from .conftest import MakePairs, write_store

COUNTS = [3, 1, 2, 5]


def fit(pairs: Pairs, out: Path, validation: Pairs | None = None) -> TrainResult:
    head, settings = HeadSection(dim=4), TrainSection(epochs=2)
    return train(pairs, validation=validation, head=head, settings=settings, out=out)


def test_nothing_is_learned_from_one_image(make_pairs: MakePairs, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="1 image is not enough"):
        fit(make_pairs([3]), tmp_path)


def test_validation_of_other_encoders_is_refused(make_pairs: MakePairs, tmp_path: Path) -> None:
    ids = ["x", "y"]
    other = pair(
        write_store(tmp_path / "i", "image", torch.randn(2, 5), ids, None),
        write_store(tmp_path / "t", "text", torch.randn(2, 8), ids, "c"),
    )
    with pytest.raises(TrainingError, match=r"dims 5 \(image\) and 8 \(text\).* 12 and 8"):
        fit(make_pairs(COUNTS), tmp_path / "out", other)


def test_validation_captions_may_coincide_but_training_ones_may_not(
    make_pairs: MakePairs, tmp_path: Path
) -> None:
    ids = ["x", "y"]
    same = pair(
        write_store(tmp_path / "i", "image", torch.randn(2, 12), ids, None),
        write_store(tmp_path / "t", "text", torch.arange(8.0).expand(2, 8), ids, "c"),
    )
    result = fit(make_pairs(COUNTS), tmp_path / "out", same)
    assert result.best_metrics is not None
    with pytest.raises(TrainingError, match="all 2 rows of"):
        fit(same, tmp_path / "other")
