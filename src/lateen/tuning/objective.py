"""What tuning minimises: distance of two kernel matrices, and drift from the start (METHODS §2).

All in float32 whatever autocast says; float64 stays float64.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.errors import TrainingError
from lateen.tuning.kernels import Kernel, raised

Diagonal = Literal["include", "exclude"]
Space = Literal["raw", "unit"]


def kernel_alignment_loss(
    student: Tensor,
    target: Tensor,
    student_kernel: Kernel,
    target_kernel: Kernel,
    *,
    diagonal: Diagonal = "include",
) -> Tensor:
    """``mean_ij (k_f(x_i, x_j) − k_g(x_i, x_j))²`` over all pairs of a batch, a scalar.

    Args:
        student: ``[n, d]`` embeddings f(x), not normalised.
        target: ``[n, e]`` features g(x) of the same images.
        student_kernel: k_f.
        target_kernel: k_g.
        diagonal: ``include``, as published; or ``exclude``, the mean over the n (n − 1) pairs of
            different images. On the diagonal a normalised kernel is always right.

    Raises:
        TrainingError: fewer than two images, or sides that differ in their number.
    """
    if student.ndim != 2 or target.ndim != 2 or len(student) != len(target):
        raise _unpaired(student, target, "[n, d] and [n, e]")
    return _distance(student, target, student_kernel, target_kernel, diagonal, "image")


def patch_alignment_loss(
    student: Tensor,
    target: Tensor,
    student_kernel: Kernel,
    target_kernel: Kernel,
    *,
    diagonal: Diagonal = "include",
) -> Tensor:
    """:func:`kernel_alignment_loss` of the patches within each image, averaged over images.

    Where the sides have different numbers of patches, both must be square grids, row by row; the
    finer one is averaged down to the coarser.

    Args:
        student: ``[n, p, d]`` patch tokens, without class and register tokens.
        target: ``[n, q, e]`` patch tokens of the same images.
        student_kernel: k_f.
        target_kernel: k_g.
        diagonal: whether a patch is compared with itself.

    Raises:
        TrainingError: no image, sides that differ in their number, fewer than two patches, or
            different numbers of patches that are not both square.
    """
    if student.ndim != 3 or target.ndim != 3 or len(student) != len(target) or not len(student):
        raise _unpaired(student, target, "[n, p, d] and [n, q, e]")
    student, target = same_grid(student, target)
    return _distance(student, target, student_kernel, target_kernel, diagonal, "patch")


def same_grid(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same number of patches: the finer grid is averaged down to the coarser.

    Args:
        student: ``[n, p, d]``.
        target: ``[n, q, e]``.

    Raises:
        TrainingError: different numbers of patches that are not both square.
    """
    if student.shape[1] == target.shape[1]:
        return student, target
    side = min(_side(tokens.shape[1]) for tokens in (student, target))
    return _pooled(student, side), _pooled(target, side)


def drift_penalty(student: Tensor, start: Tensor, *, space: Space = "raw") -> Tensor:
    """``mean_i ‖f(x_i) − f₀(x_i)‖²``, summed over dims, a scalar.

    Args:
        student: ``[n, d]`` embeddings f(x), not normalised.
        start: ``[n, d]`` embeddings f₀(x) of the same images before tuning.
        space: ``raw``, the embeddings as they are, as published; or ``unit``, L2-normalised, so
            that a weight means the same for models whose norms differ.

    Raises:
        TrainingError: no image, or shapes that differ.
    """
    now, before = _same_space(student, start)
    if space == "unit":
        now, before = F.normalize(now, dim=-1), F.normalize(before, dim=-1)
    drift: Tensor = (now - before).square().sum(-1).mean()
    return drift


def alignment_bound(student: Tensor, start: Tensor) -> Tensor:
    """``2‖f − f₀‖ / max(‖f‖, ‖f₀‖)`` ``[n]``: how far tuning can have moved any text alignment.

    For every text ψ, ``|cos(f, ψ) − cos(f₀, ψ)|`` is at most this (KUEA). 0 where both are zeros.

    Args:
        student: ``[n, d]`` embeddings f(x), not normalised.
        start: ``[n, d]`` embeddings f₀(x) of the same images before tuning.

    Raises:
        TrainingError: no image, or shapes that differ.
    """
    now, before = _same_space(student, start)
    longer = torch.maximum(now.norm(dim=-1), before.norm(dim=-1))
    bound: Tensor = 2 * (now - before).norm(dim=-1) / longer.clamp_min(1e-30)
    return bound


def _distance(
    student: Tensor, target: Tensor, student_kernel: Kernel, target_kernel: Kernel,
    diagonal: Diagonal, what: str,
) -> Tensor:  # fmt: skip
    """Mean squared difference of the kernel matrices of ``[..., n, d]`` and ``[..., n, e]``."""
    count = student.shape[-2]
    if count < 2:
        raise TrainingError(
            f"a kernel matrix of {count} {what} has nothing to compare",
            "Raise the batch size." if what == "image" else "Take a higher resolution.",
        )
    squares: Tensor = (student_kernel(student) - target_kernel(target)).square()
    if diagonal == "include":
        return squares.mean()
    itself = torch.eye(count, dtype=torch.bool, device=squares.device)
    return squares.masked_fill(itself, 0).mean() * (count / (count - 1))


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side * side != patches:
        raise TrainingError(
            f"{patches} patches are no square grid, and the other side has another number of them",
            "Give student and target the same number of patches, or both square images.",
        )
    return side


def _pooled(tokens: Tensor, side: int) -> Tensor:
    """``[n, p, d]`` of a square grid averaged to ``[n, side², d]``."""
    own = math.isqrt(tokens.shape[1])
    if own == side:
        return tokens
    maps = raised(tokens).mT.reshape(len(tokens), -1, own, own)
    return F.adaptive_avg_pool2d(maps, side).flatten(2).mT


def _same_space(student: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 or float64."""
    if student.ndim != 2 or student.shape != start.shape or not len(student):
        raise _unpaired(student, start, "[n, d] twice")
    return raised(student), raised(start)


def _unpaired(student: Tensor, other: Tensor, shapes: str) -> TrainingError:
    return TrainingError(
        f"embeddings of shapes {list(student.shape)} and {list(other.shape)} are not of the same "
        "images",
        f"Give {shapes}, row i of both from the same image.",
    )
