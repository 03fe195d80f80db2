"""How alike two frozen feature spaces are, without training, on the same samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lateen.errors import LateenError
from lateen.metrics import Features, cknna, cycle_knn, mutual_knn, nearest_neighbours
from lateen.metrics.cka import LinearKernel, kernel_cka
from lateen.metrics.features import check_rows
from lateen.metrics.moments import Moments, cross_product
from lateen.metrics.svcca import mean_correlation, whitening
from lateen.recipe.assessment import MeasureSection
from lateen.store import TextColumn

Measures = dict[str, float | None]
T = TypeVar("T")

_CHUNK = 8192  # rows read at a time
_HELD = 1 << 26  # values of features that are held in memory instead of read for each comparison
_FEWEST = 4  # rows for which all measures are defined


@dataclass(frozen=True)
class CaptionMeans:
    """For each sample the mean of its captions' features, each L2-normalised first.

    A sample has one place in either space, and its captions are all of it that the text side has.
    """

    column: TextColumn

    def __len__(self) -> int:
        return len(self.column.offsets) - 1

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(len(self))
        offsets = self.column.offsets[start : stop + 1]
        features = self.column.store[self.column.rows[offsets[0] : offsets[-1]]]
        owner = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(offsets)))
        total = torch.zeros(stop - start, features.shape[1])
        total.index_add_(0, owner, torch.nn.functional.normalize(features, dim=-1))
        mean: Tensor = total / torch.bincount(owner, minlength=stop - start)[:, None]
        return mean


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
        if len(features) * features[0:1].shape[1] <= _HELD:
            features = features[0 : len(features)]
        moments = _attempt(lambda: Moments.of(features, _CHUNK))
        return cls(
            features,
            _attempt(lambda: nearest_neighbours(features, settings.k)),
            _attempt(lambda: LinearKernel.of(_found(moments))),
            _attempt(lambda: whitening(_found(moments).product, 0.99, settings.svcca_dim)),
        )


def compare(image: Space, text: Space) -> tuple[Measures, dict[str, str]]:
    """All measures between two spaces, and the reasons for those that are ``None``.

    A measure that these features do not allow (fewer samples than neighbours, features that are all
    the same) must not keep an assessment of a hundred pairs from ending.
    """
    x, y = image.features, text.features
    check_rows(len(x), _FEWEST, "comparing two spaces")
    cross = _attempt(
        lambda: cross_product(x, _found(image.kernel).mean, y, _found(text.kernel).mean, _CHUNK)
    )

    def neighbours() -> tuple[Tensor, Tensor]:
        return _found(image.neighbours), _found(text.neighbours)

    def aligned(unbiased: bool) -> float:
        return kernel_cka(_found(image.kernel), _found(text.kernel), _found(cross), unbiased)

    measures: dict[str, Callable[[], float]] = {
        "cka": lambda: aligned(unbiased=False),
        "cka_unbiased": lambda: aligned(unbiased=True),
        "mutual_knn": lambda: mutual_knn(*neighbours()),
        "cknna": lambda: cknna(x, y, *neighbours()),
        "svcca": lambda: mean_correlation(
            _found(image.components), _found(text.components), _found(cross), len(x)
        ),
        "cycle_knn": lambda: cycle_knn(*neighbours()),
    }
    found = {name: _attempt(measure) for name, measure in measures.items()}
    notes = {name: value.message for name, value in found.items() if isinstance(value, LateenError)}
    return {n: None if isinstance(v, LateenError) else v for n, v in found.items()}, notes


def _attempt(work: Callable[[], T]) -> T | LateenError:
    """What ``work`` gives, or why it cannot be had."""
    try:
        return work()
    except LateenError as error:
        return error


def _found(value: T | LateenError) -> T:
    if isinstance(value, LateenError):
        raise value
    return value
