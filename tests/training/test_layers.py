from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lateen.device import matmul
from lateen.training.batches import BatchRows
from lateen.training.layers import Dropout, gate, linear


@pytest.mark.parametrize("transposed", [False, True])
def test_products_in_float32_are_those_of_float64(transposed: bool) -> None:
    a, b = torch.randn(33, 70), torch.randn(70, 21)
    if transposed:
        a, b = torch.randn(70, 33).T, torch.randn(21, 70).T
    torch.testing.assert_close(matmul(a, b), (a.double() @ b.double()).float())


def test_products_of_nothing_have_the_right_shape() -> None:
    assert matmul(torch.empty(0, 5), torch.randn(5, 3)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gate_is_its_plain_form_at_and_beyond_its_limits(dtype: torch.dtype) -> None:
    a = torch.tensor([[-1, 0, 3, 6, 7, 2, 2, 2]], dtype=dtype).repeat(3, 1).requires_grad_()
    b = torch.tensor([[2, 2, -2, 2, 2, 1000, 1500, -1500]], dtype=dtype).repeat(3, 1)
    b.requires_grad_()
    gated, plain = gate(a, b), F.relu6(a) * b.clamp(-1000, 1000)
    torch.testing.assert_close(gated, plain)
    upstream = torch.arange(24, dtype=dtype).view(3, 8)
    torch.testing.assert_close(
        torch.autograd.grad(gated, [a, b], upstream), torch.autograd.grad(plain, [a, b], upstream)
    )


def test_linear_is_the_plain_layer_in_value_and_gradients() -> None:
    layer, x = nn.Linear(5, 3).double(), torch.randn(4, 5).double().requires_grad_()
    leaves, upstream = [x, layer.weight, layer.bias], torch.randn(4, 3).double()
    fast, plain = linear(x, layer), layer(x)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(
        torch.autograd.grad(fast, leaves, upstream), torch.autograd.grad(plain, leaves, upstream)
    )


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    dropout, x = Dropout(0.25), torch.ones(300, 401)
    dropped = dropout(x, BatchRows(0, 0, 0, 300))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_without_a_place_draws_from_the_global_generator() -> None:
    x = torch.ones(30, 40)
    torch.manual_seed(0)
    once, other = Dropout(0.5)(x), Dropout(0.5)(x)
    torch.manual_seed(0)
    assert torch.equal(Dropout(0.5)(x), once)
    assert not torch.equal(once, other)


def test_dropout_passes_the_gradient_of_what_it_kept() -> None:
    x = torch.ones(8, 9, requires_grad=True)
    dropped = Dropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


def test_dropout_of_nearly_everything_stays_finite() -> None:
    assert Dropout(0.9999)(torch.ones(100, 100)).isfinite().all()


def test_noise_depends_on_place_and_use_alone() -> None:
    device = torch.device("cpu")

    def noise(first: int = 0, count: int = 600, **values: int) -> torch.Tensor:
        rows = BatchRows(**{"seed": 1, "step": 2, "first": first, "count": count, **values})
        return rows.noise(0, 9, device)

    whole = noise()
    assert torch.equal(noise(), whole)
    assert torch.equal(torch.cat([noise(0, 100), noise(100, 411), noise(511, 89)]), whole)
    for other in ({"seed": 2}, {"step": 3}, {"side": 1}):
        assert not torch.equal(noise(**other), whole)
    assert not torch.equal(BatchRows(1, 2, 0, 600).noise(1, 9, device), whole)
    first, second = noise(columns=2).chunk(2)
    assert torch.equal(first, whole)
    assert not torch.equal(second, whole)


def test_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    BatchRows(0, 0, 0, 5).noise(0, 7, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
