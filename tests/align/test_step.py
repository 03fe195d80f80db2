from __future__ import annotations

from typing import Any

import pytest
import torch

from lateen.align.batches import Batch
from lateen.align.heads import AlignmentHeads
from lateen.align.state import TrainState
from lateen.align.step import contrastive_loss, training_step
from lateen.errors import TrainingError
from lateen.recipe import HeadSection, TrainSection


def section(**values: Any) -> TrainSection:
    return TrainSection.model_validate({"lr": 1.0, "warmup": 0.0, **values})


def start(settings: TrainSection) -> TrainState:
    torch.manual_seed(0)
    return TrainState(AlignmentHeads(HeadSection(dropout=0.0, dim=4), 5, 6), settings)


def batch(texts: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(8, 5, generator=generator),
        [torch.randn(8, 6, generator=generator) for _ in range(texts)],
    )


def parameters(state: TrainState) -> list[torch.Tensor]:
    return [p.detach().clone() for p in state.heads.parameters()]


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_step_uses_the_rate_it_is_given(optimizer: str) -> None:
    settings = section(optimizer=optimizer)
    state = start(settings)
    before = parameters(state)
    training_step(state, batch(), 0.0, settings)
    assert all(map(torch.equal, before, parameters(state)))
    training_step(state, batch(), 0.01, settings)
    moved = max((a - b).abs().max().item() for a, b in zip(before, parameters(state), strict=True))
    assert moved == pytest.approx(0.01, rel=0.5)  # both step by about the rate
    assert state.step == 2


@pytest.mark.parametrize("limit", [None, 0.5])
def test_gradients_are_clipped_to_the_limit_and_reported_before_it(limit: float | None) -> None:
    settings = section(clip_norm=limit)
    state = start(settings)
    row = training_step(state, batch(), 0.0, settings)
    gradients = [p.grad for p in state.heads.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    assert row["grad_norm"] > 0.5
    assert norm == pytest.approx(row["grad_norm"] if limit is None else limit, rel=1e-4)


def test_the_scale_never_leaves_a_step_above_one_hundred() -> None:
    settings = section(optimizer="lion")
    state = start(settings)
    state.heads.logit_scale.data.fill_(6.0)
    training_step(state, batch(), 1e-6, settings)
    assert state.heads.scale.item() == pytest.approx(100)


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(poison: str) -> None:
    settings = section()
    state = start(settings)
    if poison == "loss":
        state.heads.logit_bias.data.fill_(torch.nan)
    else:
        state.heads.vision.norm.weight.register_hook(lambda grad: grad * torch.inf)
    before = parameters(state)
    with pytest.raises(TrainingError, match=r"step 1 has loss .* at learning rate 0\.25"):
        training_step(state, batch(), 0.25, settings)
    same = (torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(before, parameters(state), strict=True))  # fmt: skip
    assert all(same)
    assert state.step == 0


@pytest.mark.parametrize("loss", ["sigmoid", "infonce"])
def test_every_text_of_a_batch_is_a_positive_of_its_own(loss: str) -> None:
    settings = section(loss=loss)
    heads, both = start(settings).heads, batch(2)
    together = contrastive_loss(heads, both, settings)
    apart = [contrastive_loss(heads, Batch(both.image, [text]), settings) for text in both.texts]
    torch.testing.assert_close(together, apart[0] + apart[1])
    mean = contrastive_loss(heads, both, section(loss=loss, positives="mean"))
    torch.testing.assert_close(mean, together / 2)


def test_normalization_divides_by_the_batch_or_its_square() -> None:
    heads = start(section()).heads
    by_batch = contrastive_loss(heads, batch(), section(normalization="batch"))
    squared = contrastive_loss(heads, batch(), section(normalization="batch_squared"))
    torch.testing.assert_close(by_batch, 8 * squared)
