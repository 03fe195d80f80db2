"""Start values of the student's kernel: those with which its matrix is nearest to the target's."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lateen.errors import DataError
from lateen.metrics.features import block, check_paired, check_rows
from lateen.tuning.kernels import (
    Gaussian,
    Kernel,
    Polynomial,
    VectorPairs,
    default_target_kernel,
)

_CONSTANT = 1e-6  # of the largest value: a smaller spread is float32's rounding
_SPAN = math.log(1e4)  # the fit looks this far to both sides of a parameter's own scale
_STEPS = {1: 41, 2: 17}  # grid points per parameter: by how many parameters there are
_REFINED = 3  # grid points from which the fit goes on


@dataclass(frozen=True)
class KernelFit:
    """What :func:`fit_kernel` found.

    Attributes:
        kernel: the student's kernel with its start values.
        residual: mean squared difference of the two kernel matrices with it.
        start_residual: the same with the values that the fit started from.
        count: images fitted on.
    """

    kernel: Kernel
    residual: float
    start_residual: float
    count: int


def fit_kernel(
    student: Tensor,
    target: Tensor,
    target_kernel: Kernel,
    kernel: str | Kernel = "polynomial",
    degree: int = 3,
) -> KernelFit:
    """Values of the student's kernel with which its matrix is nearest to the target's.

    It minimises ``mean_ij (k_f(x_i, x_j) − k_g(x_i, x_j))²``, over a grid of logarithms and from
    its best points by L-BFGS, in float64; the same input gives the same values. A normalised
    polynomial depends on c / γ alone: c is fitted and γ stays as given. A c of 0 stays 0. Values
    are looked for up to 10,000 times above and below the scale of the embeddings. A kernel without
    parameters has its residual told. Memory is O(n²): a few hundred images are enough.

    Args:
        student: ``[n, d]`` embeddings of the student, not normalised.
        target: ``[n, e]`` features of the same images.
        target_kernel: of the target; it stays as it is.
        kernel: of the student: a name, whose values start as :func:`default_target_kernel` has
            them, or a kernel, of which a copy is fitted.
        degree: p of ``polynomial`` by name.

    Raises:
        DataError: fewer than 2 images, sides that differ in their number, NaN or infinity, images
            with the same embedding all, or a target kernel that is the same for all pairs.
        UsageError: a kernel of another name, or bad values.
    """
    check_rows(len(student), 2, "a fit of a kernel")
    check_paired(student, target)
    x, wanted = _images(student, "student"), _images(target, "target")
    with torch.no_grad():
        wanted = copy.deepcopy(target_kernel).to(x)(wanted)
        if float(wanted.max() - wanted.min()) <= _CONSTANT * float(wanted.abs().max()):
            raise DataError(
                f"the target kernel has the same value {float(wanted[0, 0]):.6g} for all pairs of "
                "images, so it tells none apart",
                "Give it values of the scale of the features, such as default_target_kernel.",
            )
    start = default_target_kernel(kernel, x, degree=degree) if isinstance(kernel, str) else kernel
    fitted, pairs = copy.deepcopy(start).to(x).learn(False), VectorPairs(x)
    start_residual = _residual(fitted, pairs, wanted)
    if fitted.free():
        _minimise(fitted, pairs, wanted)
    residual = _residual(fitted.float(), pairs, wanted)
    return KernelFit(fitted, residual, start_residual, len(x))


def _minimise(kernel: Kernel, pairs: VectorPairs, wanted: Tensor) -> None:
    """Give the free parameters the values that minimise the residual."""
    from scipy.optimize import minimize  # takes a while to import

    logs = kernel.free()
    unit = float(wanted.square().mean())

    def evaluate(values: Sequence[float]) -> tuple[float, list[float]]:
        _assign(logs, values)
        with torch.enable_grad():
            loss = (kernel.of(pairs) - wanted).square().mean() / unit
            gradients = torch.autograd.grad(loss, logs)
        return loss.item(), [gradient.item() for gradient in gradients]

    grid = _grid(kernel, pairs, wanted)
    for log in logs:
        log.requires_grad_(True)
    losses = [evaluate(point)[0] for point in grid]
    # A base of large values may overflow at the far ends of the grid.
    order = sorted(range(len(grid)), key=lambda i: losses[i] if losses[i] < math.inf else math.inf)
    bounds = [(min(axis), max(axis)) for axis in zip(*grid, strict=True)]
    found = [
        minimize(
            evaluate, grid[i], jac=True, method="L-BFGS-B", bounds=bounds,
            options={"ftol": 1e-16, "gtol": 1e-12, "maxiter": 500},
        )
        for i in order[:_REFINED]
    ]  # fmt: skip
    _assign(logs, min(found, key=lambda each: each.fun).x)
    kernel.learn(False)


def _grid(kernel: Kernel, pairs: VectorPairs, wanted: Tensor) -> list[tuple[float, ...]]:
    """Logarithms of the free parameters: those it has first, then others around their scale."""
    start = tuple(float(log) for log in kernel.free())
    centres = _scales(kernel, pairs, wanted)
    steps = torch.linspace(-_SPAN, _SPAN, _STEPS.get(len(centres), _STEPS[1])).tolist()
    if len(centres) == 1:
        return [start, *((centres[0] + step,) for step in steps)]
    if len(centres) == 2:
        return [start, *((centres[0] + a, centres[1] + b) for a in steps for b in steps)]
    # Of many, one at a time.
    moved = [
        (*centres[:i], centre + step, *centres[i + 1 :])
        for i, centre in enumerate(centres)
        for step in steps
    ]
    return [start, *moved]


def _scales(kernel: Kernel, pairs: VectorPairs, wanted: Tensor) -> tuple[float, ...]:
    """Logarithms of values of the free parameters at which the kernel tells images apart."""
    square = float(pairs.squares[0].mean())
    if isinstance(kernel, Polynomial) and kernel.normalized:
        return (math.log(kernel.gamma * square),)
    if isinstance(kernel, Polynomial):
        base = float(wanted.diagonal().mean()) ** (1 / kernel.degree)
        return (math.log(base / square), math.log(base))[: len(kernel.free())]
    if isinstance(kernel, Gaussian):
        return (math.log(float(pairs.distances.square().mean())) / 2,)
    return tuple(float(log) for log in kernel.free())


def _assign(logs: Sequence[Tensor], values: Sequence[float]) -> None:
    with torch.no_grad():
        for log, value in zip(logs, values, strict=True):
            log.fill_(float(value))


def _residual(kernel: Kernel, pairs: VectorPairs, wanted: Tensor) -> float:
    with torch.no_grad():
        return float((kernel.of(pairs) - wanted).square().mean())


def _images(features: Tensor, side: str) -> Tensor:
    """``[n, d]`` in float64."""
    rows = block(features, 0, len(features))
    if bool((rows == rows[0]).all()):
        raise DataError(
            f"the {side} has the same features for all {len(rows)} images",
            "Give different images, or look whether the encoder reads them at all.",
        )
    return rows
