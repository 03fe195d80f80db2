from __future__ import annotations

import pytest
import torch
from torch import nn

from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.optim import Lion, build_optimizer, learning_rate


def settings(**values: object) -> TrainSection:
    return TrainSection.model_validate(values)


def test_lion_steps_worked_by_hand() -> None:
    p = nn.Parameter(torch.tensor([2.0]))
    lion = Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p.grad = torch.tensor([4.0])
    lion.step()
    # sign(0.9·0 + 0.1·4) = 1: 2·(1 − 0.1·0.5) − 0.1·1; momentum 0.01·4.
    assert p.item() == pytest.approx(1.8)
    assert lion.state[p]["momentum"].item() == pytest.approx(0.04)
    p.grad = torch.tensor([-0.3])
    lion.step()
    # 0.9·0.04 − 0.1·0.3 = 0.006 > 0, against the sign of the gradient: 1.8·0.95 − 0.1.
    assert p.item() == pytest.approx(1.61)
    assert lion.state[p]["momentum"].item() == pytest.approx(0.99 * 0.04 - 0.01 * 0.3)


def test_lion_leaves_parameters_without_gradient_alone() -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    q.grad = torch.ones(3)
    Lion([p, q], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(p, torch.ones(2))
    torch.testing.assert_close(q, torch.full((3,), 0.85))


def test_lion_does_not_move_on_a_zero_gradient_without_decay() -> None:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.zeros(2)
    Lion([p], lr=0.1).step()
    assert torch.equal(p, torch.ones(2))


@pytest.mark.parametrize(
    ("name", "kind", "betas"),
    [("adamw", torch.optim.AdamW, (0.9, 0.95)), ("lion", Lion, (0.9, 0.99))],
)
def test_weight_decay_is_on_matrices_only(
    name: str, kind: type[torch.optim.Optimizer], betas: tuple[float, float]
) -> None:
    heads = AlignmentHeads(HeadSection(dropout=0.0, name="glu", dim=4), 5, 6)
    optimizer = build_optimizer(heads, settings(optimizer=name, lr=0.2, weight_decay=0.3))
    assert isinstance(optimizer, kind)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for parameter_name, parameter in heads.named_parameters():
        is_matrix = ".network." in parameter_name and parameter_name.endswith("weight")
        assert decay.pop(id(parameter)) == (0.3 if is_matrix else 0.0)
    assert not decay
    assert all(g["lr"] == 0.2 and tuple(g["betas"]) == betas for g in optimizer.param_groups)


def test_betas_can_be_set() -> None:
    heads = AlignmentHeads(HeadSection(dropout=0.0, dim=4), 5, 6)
    optimizer = build_optimizer(heads, settings(betas=(0.5, 0.6)))
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)


def test_learning_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    s = settings(lr=1.0, warmup=0.2)
    rates = [learning_rate(step, 20, s) for step in range(20)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.5)  # half of the 16 steps after warm-up
    assert rates[8] == pytest.approx(0.853553, abs=1e-6)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert learning_rate(20, 20, s) == pytest.approx(0)


def test_learning_rate_without_warmup_starts_at_the_peak() -> None:
    assert learning_rate(0, 3, settings(lr=0.5, warmup=0.0)) == 0.5
    assert learning_rate(0, 1, settings(lr=0.5, warmup=0.1)) == 0.5
