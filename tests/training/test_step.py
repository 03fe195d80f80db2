from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lateen.errors import TrainingError
from lateen.training.batches import Batch, BatchRows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.step import StepParts, TrainState, add_gradients, passes, training_step


def section(**values: Any) -> TrainSection:
    return TrainSection.model_validate({"lr": 1.0, "warmup": 0.0, **values})


def start(settings: TrainSection, **head: Any) -> TrainState:
    torch.manual_seed(0)
    shape = HeadSection.model_validate({"dropout": 0.0, "dim": 4, **head})
    return TrainState(AlignmentHeads(shape, 5, 6), settings)


def batch(texts: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(8, 5, generator=generator),
        [torch.randn(8, 6, generator=generator) for _ in range(texts)],
        BatchRows(0, 0, 0, 8),
    )


def divided(whole: Batch, size: int) -> list[Batch]:
    return [
        Batch(
            whole.image[i : i + size], [text[i : i + size] for text in whole.texts],
            replace(whole.rows, first=i, count=len(whole.image[i : i + size])),
        )
        for i in range(0, len(whole.image), size)
    ]  # fmt: skip


def step(state: TrainState, lr: float, settings: TrainSection) -> Mapping[str, float]:
    return training_step(state, StepParts.of([batch()]), lr, settings)


def parameters(state: TrainState) -> list[torch.Tensor]:
    return [p.detach().clone() for p in state.heads.parameters()]


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_a_step_uses_the_rate_it_is_given(optimizer: str) -> None:
    settings = section(optimizer=optimizer)
    state = start(settings)
    before = parameters(state)
    step(state, 0.0, settings)
    assert all(map(torch.equal, before, parameters(state)))
    step(state, 0.01, settings)
    moved = max((a - b).abs().max().item() for a, b in zip(before, parameters(state), strict=True))
    assert moved == pytest.approx(0.01, rel=0.5)  # both step by about the rate
    assert state.step == 2


@pytest.mark.parametrize("limit", [None, 0.5])
def test_gradients_are_clipped_to_the_limit_and_reported_before_it(limit: float | None) -> None:
    settings = section(clip_norm=limit)
    state = start(settings)
    row = step(state, 0.0, settings)
    gradients = [p.grad for p in state.heads.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).item()
    assert row["grad_norm"] > 0.5
    assert norm == pytest.approx(row["grad_norm"] if limit is None else limit, rel=1e-4)


def test_the_scale_never_leaves_a_step_above_one_hundred() -> None:
    settings = section(optimizer="lion")
    state = start(settings)
    state.heads.logit_scale.data.fill_(6.0)
    step(state, 1e-6, settings)
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
        step(state, 0.25, settings)
    same = (torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(before, parameters(state), strict=True))  # fmt: skip
    assert all(same)
    assert state.step == 0


def gradients(
    state: TrainState, parts: list[Batch], settings: TrainSection
) -> tuple[Tensor, dict[str, Tensor]]:
    batches = iter(parts * passes(len(parts), state.heads))
    loss = add_gradients(state.heads, StepParts([p.rows for p in parts], batches), settings)
    assert next(batches, None) is None
    found = {name: p.grad for name, p in state.heads.named_parameters() if p.grad is not None}
    return loss, found


@pytest.mark.parametrize("loss", ["sigmoid", "infonce"])
def test_every_text_of_a_batch_is_a_positive_of_its_own(loss: str) -> None:
    settings, both = section(loss=loss), batch(2)
    together, _ = gradients(start(settings), [both], settings)
    apart = [
        gradients(start(settings), [Batch(both.image, [text], both.rows)], settings)[0]
        for text in both.texts
    ]
    torch.testing.assert_close(together, apart[0] + apart[1])


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("loss", ["sigmoid", "infonce"])
@pytest.mark.parametrize(
    "head",
    [
        {"name": "linear", "dropout": 0.5},
        {"name": "mlp"},
        {"name": "glu", "depth": 2, "dropout": 0.3},
        {"name": "sharelock", "width": 2, "dim": None, "dropout": 0.3},
        {"name": "glu", "vision": "sharelock", "width": 2},
        {"name": "linear", "vision": "identity", "dim": None},
    ],
)
def test_micro_batches_give_the_gradients_of_the_batch_in_one_piece(
    head: dict[str, Any], loss: str, size: int
) -> None:
    settings = section(loss=loss, precision="float32")
    whole, divided_ = start(settings, **head), start(settings, **head)
    for state in (whole, divided_):
        state.heads.double()
    both = batch(2)
    both = Batch(both.image.double(), [text.double() for text in both.texts], both.rows)
    expected, wanted = gradients(whole, [both], settings)
    found, got = gradients(divided_, divided(both, size), settings)
    torch.testing.assert_close(found, expected)
    assert got.keys() == wanted.keys()
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, wanted[name], msg=lambda m, n=name: f"{n}: {m}")
    buffers = zip(whole.heads.buffers(), divided_.heads.buffers(), strict=True)
    for one, other in buffers:  # batch statistics are counted once
        torch.testing.assert_close(one, other)


def test_heads_that_need_the_batch_whole_read_it_once() -> None:
    heads = start(section(), name="sharelock", width=2, dim=None).heads
    assert passes(5, heads) == 1
    assert passes(5, start(section()).heads) == 2
    assert passes(1, start(section()).heads) == 1
