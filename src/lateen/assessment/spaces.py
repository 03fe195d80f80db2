"""Feature spaces that are compared: of an encoder alone, and of two with the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from lateen.assessment.recipe import MeasureSection
from lateen.errors import DataError, LateenError
from lateen.metrics import Features
from lateen.metrics.cka import LinearKernel, gram, permuted_trace
from lateen.metrics.moments import Moments, cross_product
from lateen.metrics.neighbours import NeighbourKernel
from lateen.metrics.svcca import leading_components

T = TypeVar("T")
_CHUNK = 8192  # rows read at a time
_IN_MEMORY = 1 << 26  # values of features that are not read anew for each comparison
_MOST_PERMUTED = 8192  # rows whose kernels are held for permuting them: 256 MB each


def attempt(work: Callable[[], T]) -> T | LateenError:
    """What ``work`` gives, or why it cannot be had."""
    try:
        return work()
    except LateenError as error:
        return error


@dataclass(frozen=True)
class Space:
    """One encoder's features of the judged samples, and what every comparison needs of them alone.

    Attributes:
        features: ``[n, d]``.
        neighbours: the k nearest other samples by cosine, or why there are none.
        kernel: for CKA, or why there is none.
        components: for SVCCA: the leading principal components ``[n, p]``.
    """

    features: Features
    neighbours: NeighbourKernel | LateenError
    kernel: LinearKernel | LateenError
    components: Tensor | LateenError

    @classmethod
    def of(cls, features: Features, settings: MeasureSection) -> Space:
        """The space of ``features``, as far as they allow."""
        if len(features) * features[0:1].shape[1] <= _IN_MEMORY:
            features = features[0 : len(features)]
        moments = attempt(lambda: Moments.of(features, _CHUNK))
        return cls(
            features,
            attempt(lambda: NeighbourKernel.of(features, settings.k)),
            attempt(lambda: LinearKernel.of(_or_raise(moments))),
            attempt(
                lambda: leading_components(
                    features, _or_raise(moments), 0.99, settings.svcca_dim, _CHUNK
                )
            ),
        )


@dataclass(frozen=True)
class SpacePair:
    """The spaces of an image and of a text encoder, of the same samples, and what is of both.

    What a space does not have raises the reason.
    """

    image: Space
    text: Space

    def __len__(self) -> int:
        return len(self.image.features)

    @property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """``[n, k]`` nearest other samples in either."""
        image, text = self.neighbour_kernels
        return image.indices, text.indices

    @property
    def neighbour_kernels(self) -> tuple[NeighbourKernel, NeighbourKernel]:
        """The same with their cosines."""
        return _or_raise(self.image.neighbours), _or_raise(self.text.neighbours)

    @property
    def kernels(self) -> tuple[LinearKernel, LinearKernel]:
        """The linear kernel of either."""
        return _or_raise(self.image.kernel), _or_raise(self.text.kernel)

    @cached_property
    def trace(self) -> float:
        """Of the product of the linear kernels, ``‖XᵀY‖²``."""
        (x, y), (kx, ky) = self._features, self.kernels
        return float(cross_product(x, kx.mean, y, ky.mean, _CHUNK).square().sum())

    @cached_property
    def components(self) -> Tensor:
        """``[p, q]`` the product of either's leading principal components."""
        return _or_raise(self.image.components).T @ _or_raise(self.text.components)

    def permuted(self, order: Tensor) -> SpacePair:
        """The pair in which row i of the image space is with row ``order[i]`` of the text space."""
        return _PermutedPair(self.image, self.text, self, order)

    @property
    def _features(self) -> tuple[Features, Features]:
        return self.image.features, self.text.features

    @cached_property
    def grams(self) -> tuple[Tensor, Tensor]:
        """The linear kernels ``[n, n]`` themselves."""
        if len(self) > _MOST_PERMUTED:
            raise DataError(
                f"CKA of {len(self):,} rows is not permuted, for its kernels of n × n numbers are "
                f"only made of up to {_MOST_PERMUTED:,}",
                "Give fewer samples to judge on.",
            )
        image, text = (
            gram(x, kernel.mean, _CHUNK)
            for x, kernel in zip(self._features, self.kernels, strict=True)
        )
        return image, text


@dataclass(frozen=True)
class _PermutedPair(SpacePair):
    """A pair with the rows of the text space in another order.

    Nothing is sought or multiplied out again: what the spaces have is indexed by the order.
    """

    given: SpacePair
    order: Tensor

    @property
    def neighbour_kernels(self) -> tuple[NeighbourKernel, NeighbourKernel]:
        image, text = self.given.neighbour_kernels
        return image, text.permuted(self.order)

    @property
    def kernels(self) -> tuple[LinearKernel, LinearKernel]:
        image, text = self.given.kernels
        return image, text.permuted(self.order)

    @cached_property
    def trace(self) -> float:
        return permuted_trace(*self.given.grams, self.order)

    @cached_property
    def components(self) -> Tensor:
        return _or_raise(self.image.components).T @ _or_raise(self.text.components)[self.order]


def _or_raise(value: T | LateenError) -> T:
    if isinstance(value, LateenError):
        raise value
    return value
