"""How far one soft matching of images with texts is from another: entropic optimal transport.

A plan of affinities ``A`` is the matrix ``P`` with rows that sum to 1/n and columns that sum to 1/m
that maximises ``⟨P, A⟩ + ε H(P)`` (Cuturi 2013): every image is matched with texts, every text with
images, softly. SOTAlign (arXiv 2602.23353) holds the plan of what is trained to that of a teacher.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# SOTAlign's values.
TEACHER_EPSILON, EPSILON = 0.005, 0.05
ROUNDS = 100


class Plan(NamedTuple):
    """A transport plan.

    Attributes:
        values: ``[n, m]``, float64; they sum to 1.
        logs: their logarithms.
    """

    values: Tensor
    logs: Tensor


def transport_plan(affinities: Tensor, epsilon: float, rounds: int = ROUNDS) -> Plan:
    """The entropic transport plan of affinities between equally weighted rows and columns.

    Sinkhorn's rounds are matrix–vector products here, several times as fast as in the log domain
    and as exact: the exponents of cosines are at most 2/ε apart and the scalings' no more than
    that, for which float64 has room down to ε = 0.003.

    Args:
        affinities: ``[n, m]``, cosines.
        epsilon: the smaller, the harder the matching.
        rounds: of Sinkhorn's algorithm; each makes the rows' sums right, then the columns'.
    """
    # Apple's GPUs have no float64.
    exact = affinities.detach().to("cpu" if affinities.device.type == "mps" else affinities.device)
    exact = exact.double()
    exponents = (exact - exact.amax(1, keepdim=True)) / epsilon
    kernel = exponents.exp()
    n, m = kernel.shape
    columns = kernel.new_ones(m)
    rows = kernel.new_ones(n)
    for _ in range(rounds):
        rows = (1 / n) / (kernel @ columns)
        columns = (1 / m) / (kernel.T @ rows)
    logs = rows.log()[:, None] + exponents + columns.log()
    return Plan(logs.exp().to(affinities.device), logs.to(affinities.device))


def transport_loss(
    image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, *,
    epsilon: float = EPSILON, teacher_epsilon: float = TEACHER_EPSILON, rounds: int = ROUNDS,
) -> Tensor:  # fmt: skip
    """``KL(P* ‖ P)`` of the plan P of embeddings' cosines and that of a teacher's, P*; a scalar.

    Nothing is taken back through Sinkhorn's rounds: with respect to the cosines the gradient is
    ``(P − P*) / ε``, since P solves a problem whose value has the gradient P.

    Args:
        image: ``[n, d]``, L2-normalised.
        text: ``[m, d]``, L2-normalised; row i need not have to do with image i.
        teacher_image: ``[n, t]``, L2-normalised; no gradient goes there.
        teacher_text: ``[m, t]``, likewise.
        epsilon: of P.
        teacher_epsilon: of P*.
        rounds: of Sinkhorn's algorithm.
    """
    with torch.autocast(image.device.type, enabled=False):  # rounding would be divided by epsilon
        teacher = transport_plan(teacher_image @ teacher_text.T, teacher_epsilon, rounds)
        cosines = image @ text.T
    loss: Tensor = _Transport.apply(cosines, teacher, epsilon, rounds)  # type: ignore[no-untyped-call]
    return loss


class _Transport(torch.autograd.Function):
    """The divergence of two plans, and its gradient."""

    @staticmethod
    def forward(ctx: Any, cosines: Tensor, teacher: Plan, epsilon: float, rounds: int) -> Tensor:
        plan = transport_plan(cosines, epsilon, rounds)
        ctx.save_for_backward(((plan.values - teacher.values) / epsilon).to(cosines.dtype))
        return (teacher.values * (teacher.logs - plan.logs)).sum().to(cosines.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (wrt_cosines,) = ctx.saved_tensors
        return grad * wrt_cosines, None, None, None
