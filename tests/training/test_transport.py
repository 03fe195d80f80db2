from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.training.transport import transport_loss, transport_plan


def unit(rows: int, seed: int, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return F.normalize(raw, dim=1)


def plain_log_plan(affinities: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Sinkhorn in the log domain, differentiable."""
    n, m = affinities.shape
    of_rows, of_columns = affinities.new_zeros(n), affinities.new_zeros(m)
    for _ in range(rounds):
        of_rows = -math.log(n) - ((affinities / epsilon) + of_columns).logsumexp(1)
        of_columns = -math.log(m) - ((affinities / epsilon) + of_rows[:, None]).logsumexp(0)
    return of_rows[:, None] + affinities / epsilon + of_columns


@pytest.mark.parametrize("epsilon", [0.005, 0.05, 1.0])
@pytest.mark.parametrize("rounds", [1, 100])
def test_a_plan_is_that_of_sinkhorn_in_the_log_domain(epsilon: float, rounds: int) -> None:
    affinities = unit(9, 0) @ unit(7, 1).T
    plan = transport_plan(affinities, epsilon, rounds)
    expected = plain_log_plan(affinities, epsilon, rounds)
    torch.testing.assert_close(plan.logs, expected)
    torch.testing.assert_close(plan.values, expected.exp())
    torch.testing.assert_close(plan.values.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64))


def test_a_plan_is_exact_where_cosines_are_as_far_apart_as_they_can_be() -> None:
    ends = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    plan = transport_plan(ends, 0.005)
    torch.testing.assert_close(plan.logs, plain_log_plan(ends.double(), 0.005, 100))


def test_value_and_gradient_are_those_of_autograd_through_a_converged_sinkhorn() -> None:
    image, text = unit(9, 2).requires_grad_(), unit(7, 3).requires_grad_()
    teacher = unit(9, 4), unit(7, 5)
    loss = transport_loss(image, text, *teacher, teacher_epsilon=0.2, epsilon=0.1, rounds=400)
    target = plain_log_plan(teacher[0] @ teacher[1].T, 0.2, 400)
    plain = (target.exp() * (target - plain_log_plan(image @ text.T, 0.1, 400))).sum()
    torch.testing.assert_close(loss, plain)
    # A factor, so that a backward that ignored its argument would show.
    got = torch.autograd.grad(3 * loss, [image, text])
    torch.testing.assert_close(got, torch.autograd.grad(3 * plain, [image, text]))


def test_a_student_with_its_teachers_plan_costs_nothing_and_is_left_alone() -> None:
    image, text = unit(9, 2).requires_grad_(), unit(7, 3)
    loss = transport_loss(image, text, image, text, epsilon=0.05, teacher_epsilon=0.05)
    (gradient,) = torch.autograd.grad(loss, [image])
    assert abs(loss.item()) < 1e-12
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_autocast_does_not_round_what_is_divided_by_a_small_epsilon() -> None:
    image, text = unit(9, 2).float(), unit(7, 3).float()
    teacher = unit(9, 4).float(), unit(7, 5).float()
    exact = transport_loss(image, text, *teacher)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(transport_loss(image, text, *teacher), exact)
