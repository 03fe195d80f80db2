"""Feature spaces that are compared: of an encoder alone, and of two with the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from torch import Tensor

from lateen.assessment.recipe import MeasureSection
from lateen.errors import LateenError
from lateen.metrics import Features, nearest_neighbours
from lateen.metrics.cka import LinearKernel
from lateen.metrics.moments import Moments, cross_product
from lateen.metrics.svcca import whitening

T = TypeVar("T")
_CHUNK = 8192  # rows read at a time
_IN_MEMORY = 1 << 26  # values of features that are not read anew for each comparison


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
        neighbours: ``[n, k]`` nearest other samples by cosine, or why there are none.
        kernel: for CKA, or why there is none.
        components: for SVCCA: the leading principal components' whitening ``[d, p]``.
    """

    features: Features
    neighbours: Tensor | LateenError
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
            attempt(lambda: nearest_neighbours(features, settings.k)),
            attempt(lambda: LinearKernel.of(_or_raise(moments))),
            attempt(lambda: whitening(_or_raise(moments).product, 0.99, settings.svcca_dim)),
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
    def features(self) -> tuple[Features, Features]:
        """``[n, dx]`` and ``[n, dy]``."""
        return self.image.features, self.text.features

    @property
    def neighbours(self) -> tuple[Tensor, Tensor]:
        """``[n, k]`` nearest other samples in either."""
        return _or_raise(self.image.neighbours), _or_raise(self.text.neighbours)

    @property
    def kernels(self) -> tuple[LinearKernel, LinearKernel]:
        """The linear kernel of either."""
        return _or_raise(self.image.kernel), _or_raise(self.text.kernel)

    @property
    def components(self) -> tuple[Tensor, Tensor]:
        """The whitening of either's leading principal components."""
        return _or_raise(self.image.components), _or_raise(self.text.components)

    @cached_property
    def cross(self) -> Tensor:
        """``XᵀY`` ``[dx, dy]`` of the centred features, read once for all measures."""
        (x, y), (kx, ky) = self.features, self.kernels
        return cross_product(x, kx.mean, y, ky.mean, _CHUNK)


def _or_raise(value: T | LateenError) -> T:
    if isinstance(value, LateenError):
        raise value
    return value
