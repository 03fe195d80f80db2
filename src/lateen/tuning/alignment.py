"""A tower that is tuned, with the loss that pulls it to the target and holds it at its start.

``L = w · A(f, g) + λ · mean_i ‖f(x_i) − f₀(x_i)‖²`` (METHODS §2), where A is the distance of two
kernel matrices (KUEA), or of the target's features from a linear map of the embeddings (the paper's
baseline ``feature``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lateen.errors import TrainingError
from lateen.training.batches import BatchRows
from lateen.training.ranks import ALONE, Ranks
from lateen.training.trainable import Trainable
from lateen.tuning.config import TuneSection
from lateen.tuning.fitting import KernelFit, fit_kernel
from lateen.tuning.kernels import Kernel, default_target_kernel
from lateen.tuning.objective import (
    Diagonal,
    drift_penalty,
    kernel_alignment_loss,
    patch_alignment_loss,
    same_grid,
)
from lateen.tuning.tower import ImageTower

_SMALLEST = 1e-12  # of a kernel term that anything is relative to


@dataclass(frozen=True)
class Widths:
    """How rows of numbers are made up.

    Attributes:
        student: length of an embedding.
        target: of a target's feature.
        target_patch: of a target's feature of one patch; 0 where patches do not count.
    """

    student: int
    target: int
    target_patch: int = 0


class KernelAlignment(nn.Module):
    """``mean_ij (k_f(x_i, x_j) − k_g(x_i, x_j))²``, and the same of patches within each image.

    Args:
        student: k_f.
        target: k_g, fixed.
        diagonal: whether an image is compared with itself.
        patches: k_f and k_g of patch tokens, where these count.
    """

    def __init__(
        self, student: Kernel, target: Kernel, diagonal: Diagonal,
        patches: tuple[Kernel, Kernel] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student, self.target = student, target
        self.patch_student: Kernel | None
        self.patch_target: Kernel | None
        self.patch_student, self.patch_target = patches or (None, None)
        self._diagonal = diagonal

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        """Of embeddings ``[n, d]`` and target features ``[n, e]``, a scalar."""
        return kernel_alignment_loss(
            student, target, self.student, self.target, diagonal=self._diagonal
        )

    def of_patches(self, student: Tensor, target: Tensor) -> Tensor:
        """Of patch embeddings ``[n, p, d]`` and target features ``[n, q, e]``, a scalar."""
        assert self.patch_student is not None and self.patch_target is not None
        return patch_alignment_loss(
            student, target, self.patch_student, self.patch_target, diagonal=self._diagonal
        )

    def learned(self) -> list[nn.Parameter]:
        """The student's kernel parameters, where they are learned."""
        return [p for p in self.parameters() if p.requires_grad]

    def figures(self) -> dict[str, float]:
        """The values of the student's kernel, for the log."""
        numbers = {k: v for k, v in self.student.describe().items() if isinstance(v, float)}
        if {"gamma", "coef0"} <= set(numbers):  # a normalised polynomial depends on this alone
            return {"coef0_over_gamma": numbers["coef0"] / numbers["gamma"]}
        return numbers


class FeatureAlignment(nn.Module):
    """``mean_i ‖W f(x_i) + b − g(x_i)‖² / mean_i ‖g(x_i) − ḡ‖²``: the baseline ``feature``.

    Args:
        student: ``[n, d]`` embeddings of some images.
        target: ``[n, e]`` their target features; W and b are their least-squares map, and learned.
    """

    def __init__(self, student: Tensor, target: Tensor) -> None:
        super().__init__()
        weight, bias = linear_map(student, target)
        self.map = nn.Linear(student.shape[1], target.shape[1])
        with torch.no_grad():
            self.map.weight.copy_(weight)
            self.map.bias.copy_(bias)
        spread = (target - target.mean(0)).square().sum(1).mean()
        self.register_buffer("spread", spread.clamp_min(_SMALLEST))

    def forward(self, student: Tensor, target: Tensor) -> Tensor:
        """Of embeddings ``[n, d]`` and target features ``[n, e]``, a scalar."""
        with torch.autocast(student.device.type, enabled=False):
            distance: Tensor = (self.map(student) - target).square().sum(1).mean() / self.spread
        return distance

    def learned(self) -> list[nn.Parameter]:
        """W and b."""
        return list(self.parameters())

    def figures(self) -> dict[str, float]:
        """Nothing."""
        return {}


Alignment = KernelAlignment | FeatureAlignment


def linear_map(x: Tensor, y: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """W ``[e, d]`` and b ``[e]`` with the least ``mean ‖W x + b − y‖²``, float32.

    Args:
        x: ``[n, d]``.
        y: ``[n, e]``.
        ridge: of the mean variance of x, added to each; fewer images than dims need one.
    """
    wide_x, wide_y = x.double(), y.double()
    mean_x, mean_y = wide_x.mean(0), wide_y.mean(0)
    centred = wide_x - mean_x
    covariance = centred.T @ centred / len(x)
    covariance += (
        ridge
        * covariance.diagonal().mean().clamp_min(_SMALLEST)
        * torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    )
    weight = torch.linalg.solve(covariance, centred.T @ (wide_y - mean_y) / len(x)).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def fit_alignment(
    student: Tensor, target: Tensor, settings: TuneSection,
    patches: tuple[Tensor, Tensor] | None = None,
) -> tuple[Alignment, KernelFit | None]:  # fmt: skip
    """What is minimised, with its start values, and for kernels how well they fit.

    Args:
        student: ``[n, d]`` embeddings of some images before tuning.
        target: ``[n, e]`` their target features.
        settings: which.
        patches: ``[n, p, d]`` and ``[n, q, e]`` of a few images, where patches count.

    Raises:
        DataError: features that nothing can be fitted to, such as those of identical images.
    """
    if settings.method == "feature":
        return FeatureAlignment(student, target), None
    name, degree = settings.kernel, settings.degree
    wanted = default_target_kernel(name, target, degree=degree)
    fit = fit_kernel(student, target, wanted, name, degree)
    of_patches = None
    if patches is not None:
        some = [tokens.flatten(0, 1) for tokens in same_grid(*patches)]
        step = max(1, len(some[0]) // settings.fit_images)
        patch_target = default_target_kernel(name, some[1][::step], degree=degree)
        of_patches = (
            fit_kernel(some[0][::step], some[1][::step], patch_target, name, degree).kernel,
            patch_target,
        )
    alignment = KernelAlignment(fit.kernel, wanted, settings.diagonal, of_patches)
    fit.kernel.learn(settings.learn_kernel)
    return alignment, fit


class _HandedOn(nn.Module):
    """The side that is not embedded: what target and start give, as the source has it."""

    whole_batch = False


class TunedTower(Trainable):
    """What :func:`~lateen.training.loop.fit` trains: an image tower, held against a reference.

    Args:
        tower: the tower.
        alignment: the distance from the target.
        widths: how the reference is made up.
        settings: weights of the loss, and what moves.
        start_terms: the distance at the start, and that of patches (1 where they do not count).

    Attributes:
        vision: the tower.
        text: hands on the reference.
        alignment: the distance from the target.
    """

    def __init__(
        self, tower: ImageTower, alignment: Alignment, widths: Widths, settings: TuneSection,
        start_terms: tuple[float, float],
    ) -> None:  # fmt: skip
        super().__init__()
        self.vision: ImageTower = tower
        self.text = _HandedOn()
        self.alignment = alignment
        self._widths, self._settings = widths, settings
        self._start_terms = start_terms
        self._chosen = tower.choose(settings)
        self._figures: dict[str, Tensor] = {}

    def embed_image(self, inputs: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Pixels to embeddings ``[n, d]``, those of patches behind each where they count."""
        if self._widths.target_patch:
            return self.vision.with_patches(inputs)
        embeddings: Tensor = self.vision(inputs, rows)
        return embeddings

    def embed_text(self, inputs: Tensor, rows: BatchRows | None = None) -> Tensor:
        """The reference as it is."""
        del rows
        return inputs.float()

    def loss(
        self, image: Tensor, texts: Sequence[Tensor], settings: Any, ranks: Ranks = ALONE
    ) -> Tensor:
        """w · distance from the target + λ · drift from the start, over all pairs of the batch."""
        del settings
        student, reference = self._whole(image, ranks), self._whole(texts[0], ranks)
        widths, ours = self._widths, self._settings
        embeddings = student[:, : widths.student]
        behind = widths.target + widths.student
        target, start = reference[:, : widths.target], reference[:, widths.target : behind]
        with torch.autocast(image.device.type, enabled=False):
            term = self._shared(lambda a, x: a(x, target), embeddings, ranks)
            drift = drift_penalty(embeddings, start, space=ours.space)
            first, first_patches = self._start_terms if ours.pull == "relative" else (1.0, 1.0)
            loss = ours.weight * term / first + ours.drift * drift
            self._figures = {
                "kernel": term.detach(), "drift": drift.detach(),
                "kernel_relative": term.detach() / self._start_terms[0],
            }  # fmt: skip
            if widths.target_patch:
                patches = student[:, widths.student :].view(len(student), -1, widths.student)
                wanted = reference[:, behind:].view(len(student), -1, widths.target_patch)
                of_patches = self._shared(lambda a, x: a.of_patches(x, wanted), patches, ranks)
                loss = loss + ours.weight * of_patches / first_patches
                self._figures["patches"] = of_patches.detach()
        return loss

    def of_the_loss(self) -> list[nn.Parameter]:
        """What the distance itself learns: a kernel's parameters, or a linear map."""
        return self.alignment.learned()

    def rates(self, settings: TuneSection) -> list[tuple[list[nn.Parameter], float]]:
        """The tower's own parameters at ``lr``, those of a kernel at ``kernel_lr``."""
        own = settings.kernel_lr / settings.lr if settings.method == "kernel" else 1.0
        return [(self._chosen, 1.0), (self.of_the_loss(), own)]

    def figures(self) -> Mapping[str, float]:
        """Both parts of the loss, the first also relative to its start, and the kernel's values."""
        terms = {name: value.item() for name, value in self._figures.items()}
        return {**terms, **self.alignment.figures()}

    def _whole(self, rows: Tensor, ranks: Ranks) -> Tensor:
        """The rows of all processes, of which this one's have a gradient."""
        if ranks.size == 1:
            return rows
        counts = ranks.counts(len(rows), rows.device)
        every = ranks.gather(rows.detach(), counts)
        first = sum(counts[: ranks.rank])
        return torch.cat([every[:first], rows, every[first + len(rows) :]])

    def _shared(self, distance: Any, embeddings: Tensor, ranks: Ranks) -> Tensor:
        """The distance of the whole batch. Every process computes all of it: its gradient with
        respect to this process's rows is whole, and that of what the distance learns is divided, as
        those of all processes are added up."""
        if ranks.size == 1 or not self.of_the_loss():
            whole: Tensor = distance(self.alignment, embeddings)
            return whole
        fixed: Tensor = distance(copy.deepcopy(self.alignment).requires_grad_(False), embeddings)
        learned: Tensor = distance(self.alignment, embeddings.detach())
        return fixed + (learned - learned.detach()) / ranks.size


def start_term(distance: Any, student: Tensor, target: Tensor, batch: int) -> float:
    """The mean distance of batches of some images before tuning.

    Raises:
        TrainingError: it is zero: the sides agree already, or all images are the same.
    """
    count = max(1, len(student) // batch)
    parts = zip(student.tensor_split(count), target.tensor_split(count), strict=True)
    with torch.no_grad():
        value = float(torch.stack([distance(x, y) for x, y in parts]).mean())
    if not value > _SMALLEST:
        raise TrainingError(
            f"the distance from the target is {value:.3g} before tuning: there is nothing to learn",
            "Give another target encoder, or look whether the images are all the same.",
        )
    return value
