from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from kernel_toys import KINDS, Array, cosine, gaussian, polynomial, vectors
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.tuning.kernels import (
    KERNELS,
    Cosine,
    Gaussian,
    Kernel,
    Normalized,
    Polynomial,
    Product,
    Sum,
    build_kernel,
    default_target_kernel,
)

every_kind = pytest.mark.parametrize("kernel", KINDS.values(), ids=KINDS.keys())


def plain(kernel: Kernel, x: Array) -> Array:
    """Any kernel's matrix with NumPy alone."""
    if isinstance(kernel, Polynomial):
        return polynomial(x, kernel.gamma, kernel.coef0, kernel.degree, kernel.normalized)
    if isinstance(kernel, Gaussian):
        return gaussian(x, kernel.sigma)
    if isinstance(kernel, Cosine):
        return cosine(x)
    if isinstance(kernel, Normalized):
        matrix = plain(kernel.kernel, x)
        return matrix / np.sqrt(np.outer(matrix.diagonal(), matrix.diagonal()))
    assert isinstance(kernel, Sum | Product)
    parts = np.stack([plain(part, x) for part in kernel.kernels])  # type: ignore[arg-type]
    combined: Array = parts.sum(0) if isinstance(kernel, Sum) else parts.prod(0)
    return combined


def test_values_worked_by_hand() -> None:
    """u = (1, 0), v = (1, 2): u·u = 1, u·v = 1, v·v = 5, ‖u − v‖² = 4."""
    x = torch.tensor([[1.0, 0], [1, 2]])
    k = Polynomial(0.5, 1.5, 2, normalized=False)(x)
    torch.testing.assert_close(k, torch.tensor([[4.0, 4], [4, 16]]))
    torch.testing.assert_close(Polynomial(0.5, 1.5, 2)(x)[0, 1], torch.tensor(0.5))
    torch.testing.assert_close(Gaussian(2)(x)[0, 1], torch.tensor(-0.5).exp())
    torch.testing.assert_close(Cosine()(x)[0, 1], torch.tensor(5.0).rsqrt())


@every_kind
def test_matrices_are_those_of_plain_numpy(kernel: Kernel) -> None:
    x = vectors()
    expected = torch.from_numpy(plain(kernel, x.numpy()))
    torch.testing.assert_close(kernel(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(kernel(x[:4], x[2:]), kernel(x)[:4, 2:])
    torch.testing.assert_close(kernel.diagonal(x), kernel(x).diagonal())
    torch.testing.assert_close(kernel(torch.stack([x, 2 * x]))[1], kernel(2 * x))
    assert kernel(x.float()).dtype == torch.float32
    torch.testing.assert_close(kernel(x.float()).double(), expected, rtol=1e-5, atol=1e-5)


@every_kind
@pytest.mark.parametrize("rows", [4, 30])
def test_no_eigenvalue_is_negative(kernel: Kernel, rows: int) -> None:
    x = vectors(rows, seed=1)
    x[1] = x[0]  # singular
    x[2] = -x[3]
    values = torch.linalg.eigvalsh(kernel(x))
    assert float(values[0]) >= -1e-12 * float(values[-1])
    assert torch.equal(kernel(x).isfinite(), torch.ones(rows, rows, dtype=torch.bool))


@every_kind
def test_gradients_are_those_of_differences(kernel: Kernel) -> None:
    x, y = vectors(4, 3), vectors(3, 3, seed=2)
    exact = build_kernel(kernel.describe()).double().learn()
    logs = [log for log in exact.parameters() if log.requires_grad]

    def both(x: Tensor, y: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        return exact(x, y), exact(x)

    inputs = (x.requires_grad_(), y.requires_grad_(), *logs)
    assert torch.autograd.gradcheck(both, inputs)


@every_kind
def test_a_description_makes_the_same_kernel(kernel: Kernel) -> None:
    again = build_kernel(json.loads(json.dumps(kernel.describe())))
    assert type(again) is type(kernel)
    assert again.describe() == kernel.describe()
    assert torch.equal(again(vectors()), kernel(vectors()))


def test_a_description_says_what_was_given() -> None:
    assert (Polynomial(0.0032, 0.191623) + Gaussian(15.8)).describe() == {
        "name": "sum",
        "kernels": [
            {"name": "polynomial", "gamma": 0.0032, "coef0": 0.191623, "degree": 3,
             "normalized": True},
            {"name": "gaussian", "sigma": 15.8},
        ],
    }  # fmt: skip
    assert set(KERNELS) == {"polynomial", "gaussian", "cosine", "sum", "product", "normalized"}


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kernel", [Polynomial(1.0), Polynomial(1.0, 0, 15), Gaussian(8.7), Cosine()]
)
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_of_large_norm_neither_overflows_nor_loses_digits(
    kernel: Kernel, autocast: bool
) -> None:
    x = torch.nn.functional.normalize(vectors(6, 40), dim=1).mul(1e4).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        matrix, diagonal = kernel(x), kernel.diagonal(x)
    assert matrix.dtype == diagonal.dtype == torch.float32
    expected = torch.from_numpy(plain(kernel, x.detach().double().numpy()))
    torch.testing.assert_close(matrix.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(diagonal, torch.ones(6))
    (gradient,) = torch.autograd.grad(matrix.sum(), x)
    assert bool(gradient.isfinite().all())


def test_near_vectors_far_from_zero_keep_their_distance() -> None:
    x = torch.tensor([[1e4, 1e4], [1e4 + 1, 1e4]])
    torch.testing.assert_close(Gaussian(1)(x)[0, 1], torch.tensor(-0.5).exp())


def test_vectors_of_zeros() -> None:
    x = torch.tensor([[0.0, 0], [1, 1]], requires_grad=True)
    for kernel in (Polynomial(1, 0), Cosine(), Normalized(Polynomial(1, 0, normalized=False))):
        torch.testing.assert_close(kernel(x), torch.tensor([[0.0, 0], [0, 1]]))
        torch.testing.assert_close(kernel.diagonal(x), torch.tensor([0.0, 1]))
        (gradient,) = torch.autograd.grad(kernel(x).sum(), x)
        assert bool(gradient.isfinite().all())
    torch.testing.assert_close(Polynomial(1, 1)(x)[0], torch.tensor([1.0, 3**-1.5]))


# -- parameters -----------------------------------------------------------------------------------


def test_parameters_are_fixed_until_they_are_to_be_learned() -> None:
    kernel = Polynomial(0.3, 0.7) + Gaussian(2)
    assert [log.requires_grad for log in kernel.parameters()] == [False] * 3
    assert kernel.learn() is kernel
    assert [log.requires_grad for log in kernel.parameters()] == [True] * 3
    assert not any(log.requires_grad for log in kernel.learn(False).parameters())


@pytest.mark.parametrize(
    ("kernel", "names"),
    [(Polynomial(0.3, 0.7), ["gamma", "coef0"]), (Gaussian(2), ["sigma"])],
)
def test_learned_parameters_follow_the_optimiser_and_are_saved(
    kernel: Kernel, names: list[str]
) -> None:
    start, x = build_kernel(kernel.describe()), vectors()
    kernel.learn()
    optimizer = torch.optim.AdamW(kernel.parameters(), lr=0.1, weight_decay=0)
    kernel(x).square().mean().backward()
    optimizer.step()
    for name in names:
        change = getattr(kernel, name) / getattr(start, name)
        assert abs(np.log(change)) == pytest.approx(0.1, rel=1e-3)  # Adam's first step is its rate
    assert not torch.allclose(kernel(x), start(x))
    start.load_state_dict(kernel.state_dict())
    assert torch.equal(kernel(x), start(x))
    assert start.describe() == kernel.describe()


def test_a_c_of_zero_stays_zero() -> None:
    kernel, x = Polynomial(0.3, 0, normalized=False).learn(), vectors()
    assert not kernel.log_coef0.requires_grad
    optimizer = torch.optim.AdamW(kernel.parameters(), lr=0.1, weight_decay=0.1)
    kernel(x).mean().backward()
    optimizer.step()
    assert kernel.coef0 == 0
    assert kernel.gamma != 0.3
    again = Polynomial(1, 1)
    again.load_state_dict(kernel.state_dict())
    assert again.coef0 == 0


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 0}, "gamma is 0, .* positive semi-definite. Give a finite number above 0"),
        ({"gamma": -1}, "gamma is -1"),
        ({"gamma": float("nan")}, "gamma is nan"),
        ({"gamma": float("inf")}, "gamma is inf"),
        ({"gamma": "a"}, "gamma is 'a'"),
        ({"gamma": True}, "gamma is True"),
        ({"gamma": 1, "coef0": -0.1}, "coef0 is -0.1, .* Give a finite number from 0"),
        ({"gamma": 1, "degree": 0}, "degree is 0"),
        ({"gamma": 1, "degree": 2.5}, "degree is 2.5"),
        ({"gamma": 1, "degree": True}, "degree is True"),
        ({"gamma": 1, "normalized": "yes"}, "normalized is 'yes'"),
    ],
)
def test_values_that_make_no_kernel_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Polynomial(**arguments)


@pytest.mark.parametrize("sigma", [0, -2.0, float("nan")])
def test_a_sigma_that_is_not_positive_is_refused(sigma: float) -> None:
    with pytest.raises(UsageError, match=f"sigma is {sigma}.*above 0"):
        Gaussian(sigma)


def test_only_kernels_compose() -> None:
    with pytest.raises(UsageError, match="'sum' is made of kernels"):
        Sum([])
    with pytest.raises(UsageError, match="'product' is made of kernels"):
        Cosine() * 2  # type: ignore[operator]
    with pytest.raises(UsageError, match="only a kernel"):
        build_kernel({"name": "normalized", "kernel": 2})


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"name": "polynomal", "gamma": 1}, "no kernel 'polynomal'. Did you mean 'polynomial'"),
        ({}, "no kernel"),
        ({"name": "gaussian", "sigm": 1}, "'gaussian' has no 'sigm'. Did you mean 'sigma'"),
        ({"name": "gaussian"}, "'gaussian' lacks something. Give sigma"),
        ({"name": "gaussian", "sigma": 0}, "sigma is 0"),
        ({"name": "sum", "kernels": [{"name": "x"}]}, "no kernel 'x'"),
        ({"name": "sum", "kernels": 3}, "made of kernels"),
    ],
)
def test_descriptions_that_describe_nothing(description: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_kernel(description)


def test_shapes_that_have_no_matrix() -> None:
    with pytest.raises(UsageError, match=r"shapes \[9, 5\] and \[9, 4\]"):
        Cosine()(vectors(), vectors(9, 4))
    with pytest.raises(UsageError, match=r"shapes \[5\] and \[5\]"):
        Cosine()(vectors()[0])


# -- the target's ---------------------------------------------------------------------------------


def test_the_target_s_kernel_by_name() -> None:
    x = vectors(7, 4)
    assert default_target_kernel("polynomial", x).describe() == Polynomial(0.25, 1, 3).describe()
    assert default_target_kernel("polynomial", dim=8, degree=2).describe()["gamma"] == 0.125
    distances = [float((x[i] - x[j]).norm()) for i in range(7) for j in range(i)]
    sigma = default_target_kernel("gaussian", x).describe()["sigma"]
    assert sigma == pytest.approx(np.median(distances), rel=1e-6)  # of 21: the eleventh
    assert default_target_kernel("gaussian").describe() == Gaussian(15.8).describe()
    assert isinstance(default_target_kernel("cosine", x), Cosine)


def test_a_target_s_kernel_that_cannot_be_known() -> None:
    with pytest.raises(UsageError, match="γ is 1/dim"):
        default_target_kernel("polynomial")
    with pytest.raises(UsageError, match=r"'sum'\. Choose one of: polynomial, gaussian, cosine"):
        default_target_kernel("sum", vectors())
    with pytest.raises(DataError, match="median distance is 0"):
        default_target_kernel("gaussian", torch.tensor([[1.0], [1], [1], [2]]))
    with pytest.raises(DataError, match="NaN or infinity"):
        default_target_kernel("gaussian", torch.tensor([[1.0], [torch.nan]]))
