"""Positive semi-definite kernels of embeddings (METHODS §2).

A kernel's matrix says which images an encoder holds alike, whatever the dims of its embeddings.
Kernels compose: sums and products of them, and normalised ones, are positive semi-definite too.
They compute in float32 whatever they are given and whatever autocast says; float64 stays float64.
Names and parameters are scikit-learn's.

Parameters are positive. A kernel holds their logarithms, fixed until :meth:`Kernel.learn`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lateen.errors import DataError, UsageError, choices
from lateen.metrics.features import block, check_rows

RELEASED_TARGET_SIGMA = 15.8  # of the released code, for DINOv2-L with registers
_MEDIAN_ROWS = 1024


class VectorPairs:
    """All pairs of two sets of vectors; what several kernels need of them is computed once.

    Args:
        x: ``[..., n, d]``.
        y: ``[..., m, d]``; x itself if not given.
    """

    def __init__(self, x: Tensor, y: Tensor | None = None) -> None:
        others = x if y is None else y
        dtype = torch.promote_types(torch.promote_types(x.dtype, others.dtype), torch.float32)
        self.x = x.to(dtype)
        self.y = self.x if y is None else y.to(dtype)

    @cached_property
    def products(self) -> Tensor:
        """``u·v`` ``[..., n, m]``."""
        return self.x @ self.y.mT

    @cached_property
    def squares(self) -> tuple[Tensor, Tensor]:
        """``u·u`` ``[..., n]`` and ``v·v`` ``[..., m]``."""
        return self.x.square().sum(-1), self.y.square().sum(-1)

    @cached_property
    def cosines(self) -> Tensor:
        """``u·v / ‖u‖‖v‖`` ``[..., n, m]``."""
        return F.normalize(self.x, dim=-1) @ F.normalize(self.y, dim=-1).mT

    @cached_property
    def distances(self) -> Tensor:
        """``‖u − v‖`` ``[..., n, m]``."""
        return torch.cdist(self.x, self.y, compute_mode="donot_use_mm_for_euclid_dist")


class Kernel(nn.Module):
    """A positive semi-definite function of two vectors.

    Attributes:
        name: what :data:`KERNELS` and descriptions call it.
        fields: its arguments, as attributes: what a description holds beside the name.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[str, ...]] = ()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The kernel matrix, ``[..., n, m]``.

        Args:
            x: ``[..., n, d]``; what stands before ``n`` is a batch of sets of vectors.
            y: ``[..., m, d]``; x itself if not given.

        Raises:
            UsageError: x or y is no matrix, or they differ in dims.
        """
        others = x if y is None else y
        if min(x.ndim, others.ndim) < 2 or x.shape[-1] != others.shape[-1]:
            raise UsageError(
                f"a kernel has no matrix for shapes {list(x.shape)} and {list(others.shape)}",
                "Give two sets of vectors of the same length: [n, d] and [m, d].",
            )
        return self.of(VectorPairs(x, y))

    def diagonal(self, x: Tensor) -> Tensor:
        """Every vector's kernel with itself: ``[..., n, d]`` to ``[..., n]``."""
        with torch.autocast(x.device.type, enabled=False):
            return self._diagonal(raised(x))

    def of(self, pairs: VectorPairs) -> Tensor:
        """The kernel matrix ``[..., n, m]`` of pairs of which something may be known already."""
        with torch.autocast(pairs.x.device.type, enabled=False):
            return self._matrix(pairs)

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        raise NotImplementedError

    def _diagonal(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def learn(self, learn: bool = True) -> Self:
        """Let an optimiser change the parameters, or hold them; those that are 0 stay fixed."""
        for log in self.parameters():
            log.requires_grad_(learn and bool(log.isfinite()))
        return self

    def free(self) -> list[nn.Parameter]:
        """The logarithms that a fit changes: those that change the kernel, and are not of 0."""
        logs = [log for child in self.children() for log in _free(child)]
        return list(dict.fromkeys(logs))

    def describe(self) -> dict[str, Any]:
        """Its name and parameters, ready for JSON; :func:`build_kernel` makes the kernel of it."""
        return {"name": self.name} | {field: _plain(getattr(self, field)) for field in self.fields}

    def extra_repr(self) -> str:
        """The parameters, as ``print`` shows them."""
        values = {field: getattr(self, field) for field in self.fields}
        shown = {k: v for k, v in values.items() if not isinstance(v, nn.Module)}
        return ", ".join(f"{key}={value}" for key, value in shown.items())

    def __add__(self, other: Kernel) -> Sum:
        return Sum([self, other])

    def __mul__(self, other: Kernel) -> Product:
        return Product([self, other])


class Polynomial(Kernel):
    """``(γ u·v + c)^p``; normalised, ``k(u, v) / √(k(u, u) k(v, v))``.

    Normalised, the base is divided before the power, so that it lies within ±1 and cannot overflow.
    It then depends on c / γ alone, and a vector of zeros has the kernel 0 if c is 0.
    As it is, ``(γ‖u‖² + c)^p`` must stay below 3e38.

    Args:
        gamma: γ, positive.
        coef0: c, not negative. 0 has no logarithm: it stays 0 and is not learned.
        degree: p, a whole number from 1.
        normalized: divide by the diagonal.

    Raises:
        UsageError: a value with which it would not be positive semi-definite.
    """

    name = "polynomial"
    fields = ("gamma", "coef0", "degree", "normalized")

    def __init__(
        self, gamma: float, coef0: float = 1.0, degree: int = 3, normalized: bool = True
    ) -> None:
        super().__init__()
        self.log_gamma = _log("gamma", gamma)
        self.log_coef0 = _log("coef0", coef0, zero=True)
        if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
            raise UsageError(
                f"degree is {degree!r}, and a polynomial kernel needs a whole number from 1",
                "Give 3, as the paper does.",
            )
        if not isinstance(normalized, bool):
            raise UsageError(f"normalized is {normalized!r}", "Give true or false.")
        self.degree, self.normalized = degree, normalized

    @property
    def gamma(self) -> float:
        """γ as it is now."""
        return _value(self.log_gamma)

    @property
    def coef0(self) -> float:
        """c as it is now."""
        return _value(self.log_coef0)

    def _base(self, products: Tensor) -> Tensor:
        gamma, coef0 = (log.to(products.dtype).exp() for log in (self.log_gamma, self.log_coef0))
        return gamma * products + coef0

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        base = self._base(pairs.products)
        if self.normalized:
            base = _divided(base, *(self._base(squares) for squares in pairs.squares))
        return base**self.degree

    def _diagonal(self, x: Tensor) -> Tensor:
        base = self._base(x.square().sum(-1))
        if self.normalized:
            base = base / _not_zero(base)
        return base**self.degree

    def free(self) -> list[nn.Parameter]:
        """log c, and log γ unless the kernel is normalised and depends on c / γ alone."""
        coef0 = [self.log_coef0] if self.log_coef0.isfinite() else []
        return coef0 if self.normalized else [self.log_gamma, *coef0]


class Gaussian(Kernel):
    """``exp(−‖u − v‖² / 2σ²)``, from differences: near vectors far from 0 lose no digits.

    Args:
        sigma: σ, positive, in the unit of the embeddings.

    Raises:
        UsageError: σ is not positive.
    """

    name = "gaussian"
    fields = ("sigma",)

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.log_sigma = _log("sigma", sigma)

    @property
    def sigma(self) -> float:
        """σ as it is now."""
        return _value(self.log_sigma)

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        return (-0.5 * (pairs.distances / self.log_sigma.to(pairs.x.dtype).exp()).square()).exp()

    def _diagonal(self, x: Tensor) -> Tensor:
        return x.new_ones(x.shape[:-1])

    def free(self) -> list[nn.Parameter]:
        """log σ."""
        return [self.log_sigma]


class Cosine(Kernel):
    """``u·v / ‖u‖‖v‖``, which has no parameter; 0 with a vector of zeros."""

    name = "cosine"

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        return pairs.cosines

    def _diagonal(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1).square().sum(-1)


class _Composed(Kernel):
    """Several kernels as one.

    Args:
        kernels: at least one.

    Raises:
        UsageError: there is none, or one is something else.
    """

    fields = ("kernels",)

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        super().__init__()
        given = list(kernels) if isinstance(kernels, Sequence) else [kernels]
        if not given or not all(isinstance(kernel, Kernel) for kernel in given):
            raise UsageError(f"the kernel {self.name!r} is made of kernels", "Give one or several.")
        self.kernels = nn.ModuleList(given)

    def _parts(self) -> list[Kernel]:
        return [kernel for kernel in self.kernels if isinstance(kernel, Kernel)]


class Sum(_Composed):
    """``Σ k``, also written ``a + b``."""

    name = "sum"

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        first, *others = (kernel._matrix(pairs) for kernel in self._parts())
        return sum(others, first)

    def _diagonal(self, x: Tensor) -> Tensor:
        first, *others = (kernel._diagonal(x) for kernel in self._parts())
        return sum(others, first)


class Product(_Composed):
    """``Π k``, value by value, also written ``a * b``."""

    name = "product"

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        return math.prod(
            (kernel._matrix(pairs) for kernel in self._parts()), start=pairs.x.new_ones(())
        )

    def _diagonal(self, x: Tensor) -> Tensor:
        return math.prod((kernel._diagonal(x) for kernel in self._parts()), start=x.new_ones(()))


class Normalized(Kernel):
    """``k(u, v) / √(k(u, u) k(v, v))`` of any kernel; it overflows where that one does.

    Args:
        kernel: what is normalised.

    Raises:
        UsageError: it is no kernel.
    """

    name = "normalized"
    fields = ("kernel",)

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        if not isinstance(kernel, Kernel):
            raise UsageError("only a kernel can be normalised", "Give one.")
        self.kernel = kernel

    def _matrix(self, pairs: VectorPairs) -> Tensor:
        kernel = self.kernel
        return _divided(kernel._matrix(pairs), kernel._diagonal(pairs.x), kernel._diagonal(pairs.y))

    def _diagonal(self, x: Tensor) -> Tensor:
        diagonal = self.kernel._diagonal(x)
        return diagonal / _not_zero(diagonal)


_KINDS: tuple[type[Kernel], ...] = (Polynomial, Gaussian, Cosine, Sum, Product, Normalized)
KERNELS: dict[str, type[Kernel]] = {kind.name: kind for kind in _KINDS}


def build_kernel(description: Mapping[str, Any]) -> Kernel:
    """The kernel that :meth:`Kernel.describe` describes.

    Args:
        description: ``name``, and the arguments of the kernel of that name; those that have a
            default may be left out.

    Raises:
        UsageError: no such kernel or argument, one is missing, or a value does not fit.
    """
    name = str(description.get("name"))
    if name not in KERNELS:
        raise UsageError(f"there is no kernel {name!r}", choices(name, KERNELS))
    kind = KERNELS[name]
    arguments = {key: _built(value) for key, value in description.items() if key != "name"}
    for key in arguments:
        if key not in kind.fields:
            raise UsageError(f"the kernel {name!r} has no {key!r}", choices(key, kind.fields))
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UsageError(
            f"the description of a kernel {name!r} lacks something",
            f"Give {' and '.join(kind.fields)}.",
        ) from error


def default_target_kernel(
    name: str, features: Tensor | None = None, *, dim: int | None = None, degree: int = 3
) -> Kernel:
    """The kernel of target features that the paper takes.

    ``polynomial`` is ``Polynomial(1/dim, 1, degree)``. ``gaussian`` has the median distance between
    the features of two images as its σ, of at most 1,024 of them; the released σ of 15.8 fits
    DINOv2-L only, and is taken where no features are given. ``cosine`` has no parameter.

    Args:
        name: ``polynomial``, ``gaussian`` or ``cosine``.
        features: ``[n, dim]``, of some images.
        dim: length of the features, where none are given; for ``polynomial`` only.
        degree: p of ``polynomial``.

    Raises:
        UsageError: another name, or ``polynomial`` without features and dim.
        DataError: features that are no rows of finite numbers, or so many equal that the median
            distance is 0.
    """
    if name == Polynomial.name:
        length = features.shape[-1] if features is not None else dim
        if not length:
            raise UsageError("γ is 1/dim, and dim is not known", "Give features, or dim.")
        return Polynomial(1 / length, degree=degree)
    if name == Gaussian.name:
        return Gaussian(RELEASED_TARGET_SIGMA if features is None else _median_distance(features))
    if name == Cosine.name:
        return Cosine()
    simple = (Polynomial.name, Gaussian.name, Cosine.name)
    raise UsageError(f"there are no default values of a kernel {name!r}", choices(name, simple))


def _median_distance(features: Tensor) -> float:
    check_rows(len(features), 2, "a median distance")
    step = math.ceil(len(features) / _MEDIAN_ROWS)
    median = float(F.pdist(block(features[::step], 0, _MEDIAN_ROWS)).median())
    if median == 0:
        raise DataError(
            "most images have the same features, so their median distance is 0",
            "Give different images, or look whether the encoder reads them at all.",
        )
    return median


def raised(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _divided(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """By the roots of both diagonals one after the other: their product could overflow."""
    return matrix / _not_zero(rows).sqrt()[..., :, None] / _not_zero(columns).sqrt()[..., None, :]


def _not_zero(diagonal: Tensor) -> Tensor:
    return diagonal.clamp_min(torch.finfo(diagonal.dtype).tiny)


def _log(name: str, value: float, *, zero: bool = False) -> nn.Parameter:
    """The logarithm of a kernel's parameter, fixed."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        rule = "from 0" if zero else "above 0"
        raise UsageError(
            f"{name} is {value!r}, with which the kernel would not be positive semi-definite",
            f"Give a finite number {rule}.",
        )
    log = math.log(value) if value else -math.inf
    return nn.Parameter(torch.tensor(log, dtype=torch.float32), requires_grad=False)


def _value(log: Tensor) -> float:
    """What it is the logarithm of, with no more digits than it takes to have the same logarithm."""
    log = log.detach().cpu()
    value = math.exp(float(log))
    for digits in range(1, 17):
        short = float(f"{value:.{digits}g}")
        if short and bool(log.new_tensor(math.log(short)) == log):
            return short
    return value


def _free(child: nn.Module) -> list[nn.Parameter]:
    if isinstance(child, Kernel):
        return child.free()
    return [log for each in child.children() for log in _free(each)]


def _plain(value: Any) -> Any:
    """A field of a kernel as JSON has it."""
    if isinstance(value, Kernel):
        return value.describe()
    return [_plain(each) for each in value] if isinstance(value, nn.ModuleList) else value


def _built(value: Any) -> Any:
    """What :func:`_plain` was given, as far as it has kernels."""
    if isinstance(value, Mapping):
        return build_kernel(value)
    return [_built(each) for each in value] if isinstance(value, list | tuple) else value
