from __future__ import annotations

import math

import pytest
import torch
from kernel_toys import vectors
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.tuning import fit_kernel
from lateen.tuning.kernels import Cosine, Gaussian, Kernel, Polynomial


def student_and_target(rows: int = 40, dim: int = 12, norm: float = 10) -> tuple[Tensor, Tensor]:
    """Vectors of about this norm, and the same turned: no kernel knows one from the other."""
    student = vectors(rows, dim, seed=3)
    student = student * (norm / student.norm(dim=1).mean())
    turn, _ = torch.linalg.qr(vectors(dim, dim, seed=4))
    return student.float(), (student @ turn).float()


@pytest.mark.parametrize(
    ("true", "start"),
    [
        (Polynomial(0.0032, 0.191623), Polynomial(0.0032, 5)),
        (Polynomial(0.0032, 0.191623), Polynomial(0.0032, 1e-4)),
        (Polynomial(0.0032, 0.191623, normalized=False), Polynomial(1, 1, normalized=False)),
        (Polynomial(0.02, 0, 2, normalized=False), Polynomial(1, 0, 2, normalized=False)),
        (Gaussian(8.7), Gaussian(1)),
        (Gaussian(8.7), "gaussian"),
    ],
)
def test_known_values_are_found(true: Kernel, start: Kernel | str) -> None:
    student, target = student_and_target()
    fit = fit_kernel(student, target, true, start)
    found, expected = fit.kernel.describe(), true.describe()
    assert found.pop("name") == expected.pop("name")
    assert found == pytest.approx(expected, rel=1e-4)
    assert fit.residual < 1e-10 < 1e-4 < fit.start_residual
    assert fit.count == 40


def test_by_name_a_normalised_polynomial_keeps_gamma_and_finds_c_over_gamma() -> None:
    student, target = student_and_target()
    kernel = fit_kernel(student, target, Polynomial(0.0032, 0.191623)).kernel
    assert isinstance(kernel, Polynomial)
    assert kernel.gamma == pytest.approx(1 / 12)
    assert kernel.coef0 / kernel.gamma == pytest.approx(0.191623 / 0.0032, rel=1e-4)


@pytest.mark.parametrize("degree", [2, 3])
def test_no_value_near_or_far_is_better(degree: int) -> None:
    student, other = vectors(30, 6, seed=5), vectors(30, 9, seed=6)
    other[:, :6] += 3 * student
    target_kernel = Polynomial(1 / 9)
    fit = fit_kernel(student, other, target_kernel, degree=degree)
    assert isinstance(fit.kernel, Polynomial)
    assert fit.kernel.degree == degree

    def residual(c: float) -> float:
        difference = Polynomial(1 / 6, c, degree)(student) - target_kernel(other)
        return float(difference.square().mean())

    assert residual(fit.kernel.coef0) == pytest.approx(fit.residual, rel=1e-6)
    assert residual(1) == pytest.approx(fit.start_residual, rel=1e-6)
    others = [fit.kernel.coef0 * math.exp(step / 20) for step in range(-150, 150) if step]
    assert min(residual(c) for c in others) >= fit.residual


def test_composed_kernels_are_fitted_from_their_values() -> None:
    student, target = student_and_target()
    true = Polynomial(0.0032, 0.191623) * Gaussian(15)
    start = Polynomial(0.0032, 1) * Gaussian(5)
    fit = fit_kernel(student, target, true, start)
    assert fit.residual < 1e-8 < fit.start_residual
    assert start.describe() == (Polynomial(0.0032, 1) * Gaussian(5)).describe()


def test_a_fit_does_not_touch_what_it_is_given_and_repeats() -> None:
    student, target = student_and_target()
    start, target_kernel = Polynomial(0.1).learn(), Gaussian(9).learn()
    with torch.no_grad():
        first = fit_kernel(student, target, target_kernel, start)
    second = fit_kernel(student.bfloat16().float(), target, target_kernel, start)
    third = fit_kernel(student, target, target_kernel, start)
    assert first.kernel.describe() == third.kernel.describe() != second.kernel.describe()
    assert (first.residual, first.start_residual) == (third.residual, third.start_residual)
    assert start.describe() == Polynomial(0.1).describe()
    for kernel in (start, target_kernel):
        assert all(log.requires_grad and log.grad is None for log in kernel.parameters())
        assert {log.dtype for log in kernel.parameters()} == {torch.float32}
    assert {log.dtype for log in first.kernel.parameters()} == {torch.float32}
    assert not any(log.requires_grad for log in first.kernel.parameters())


def test_what_has_no_parameter_has_its_residual_told() -> None:
    student, target = student_and_target()
    fit = fit_kernel(student, 2 * target + 1, Cosine(), "cosine")
    expected = (Cosine()(student.double()) - Cosine()(2 * target.double() + 1)).square().mean()
    assert fit.residual == fit.start_residual == pytest.approx(float(expected))


def test_images_that_cannot_be_fitted_on() -> None:
    student, target = student_and_target()
    kernel = Polynomial(1 / 12)
    with pytest.raises(DataError, match="1 rows of features are too few"):
        fit_kernel(student[:1], target[:1], kernel)
    with pytest.raises(DataError, match="40 rows of features and the other 39"):
        fit_kernel(student, target[1:], kernel)
    with pytest.raises(DataError, match="the student has the same features for all 40 images"):
        fit_kernel(student[:1].expand(40, -1), target, kernel)
    with pytest.raises(DataError, match="the target has the same features for all 40 images"):
        fit_kernel(student, target[:1].expand(40, -1), kernel)
    for value in (math.nan, math.inf):
        bad = student.clone()
        bad[7, 2] = value
        for sides in ((bad, target), (student, bad)):
            with pytest.raises(DataError, match="NaN or infinity, first in row 7"):
                fit_kernel(*sides, kernel)


@pytest.mark.parametrize("kernel", [Gaussian(1e6), Polynomial(1e-12, 1), Polynomial(1e-12, 8)])
def test_a_target_kernel_that_tells_no_image_apart(kernel: Kernel) -> None:
    student, target = student_and_target()
    with pytest.raises(DataError, match="the same value 1 for all pairs"):
        fit_kernel(student, target, kernel)


def test_a_kernel_that_has_no_values_to_start_from() -> None:
    student, target = student_and_target()
    with pytest.raises(UsageError, match=r"'product'\. Choose one of"):
        fit_kernel(student, target, Cosine(), "product")
