"""Scale and bias that make probabilities: found where they are known, judged on other images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lateen.training.calibration import Calibration


def embedded(count: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Images and a text of each, which is near it."""
    random = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(count, 16, generator=random), dim=-1)
    text = F.normalize(image + noise * torch.randn(count, 16, generator=random), dim=-1)
    return image, text, torch.arange(count)


def loss(image: torch.Tensor, text: torch.Tensor, scale: float, bias: float, rarity: int) -> float:
    """The logistic loss of all pairs, the wrong ones weighed as so many."""
    logits = scale * (text @ image.T).double() + bias
    own = torch.eye(len(image), dtype=torch.bool)
    weight = (rarity - 1) / (len(image) - 1)
    right = F.softplus(-logits[own]).sum()
    return float(right + weight * F.softplus(logits[~own]).sum())


def test_no_other_scale_and_bias_have_less_loss() -> None:
    image, text, owner = embedded(60, 0.4)
    found = Calibration.of(image, text, owner, one_in=100)
    best = loss(image, text, found.scale, found.bias, 100)
    for scale, bias in ((1.02, 0), (0.98, 0), (1, 0.1), (1, -0.1)):
        assert loss(image, text, found.scale * scale, found.bias + bias, 100) > best


def test_probabilities_come_true_where_pairs_are_drawn_so() -> None:
    image, text, owner = embedded(400, 0.5)
    found = Calibration.of(image, text, owner, one_in=50, before=(5.0, 0.0))
    assert found.error is not None
    assert found.before is not None
    assert found.error < 10 < found.before
    assert found.images == 400


def test_several_texts_of_an_image_are_all_its_own() -> None:
    image, text, owner = embedded(50, 0.3)
    twice = Calibration.of(image, torch.cat([text, text]), torch.cat([owner, owner]), one_in=50)
    once = Calibration.of(image, text, owner, one_in=50)
    assert twice.scale == pytest.approx(once.scale, rel=0.02)
    assert twice.bias == pytest.approx(once.bias, rel=0.02)


def test_few_images_have_no_error_to_tell() -> None:
    image, text, owner = embedded(8, 0.3)
    found = Calibration.of(image, text, owner, one_in=8, before=(20.0, -10.0))
    assert found.error is None
    assert np.isfinite([found.scale, found.bias]).all()
