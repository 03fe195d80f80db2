"""Singular vector canonical correlation analysis of two feature spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics.features import Features, blocks, check_paired, check_rows
from lateen.metrics.moments import Moments, cross_product

_RANK = 1e-12  # of the largest eigenvalue: less is rounding of features in float32


def svcca(
    x: Features,
    y: Features,
    *,
    variance: float = 0.99,
    dim: int | None = None,
    chunk: int = 8192,
) -> float:
    """Mean canonical correlation between the leading principal components (Raghu et al. 2017).

    Of either side the leading components are kept that hold ``variance`` of the variance; then the
    min(p, q) canonical correlations between the p and q kept ones are averaged. Computed exactly
    from covariances in float64; memory is O(d² + chunk · d + n).

    Between unrelated features of n rows the root of the mean squared correlation is still about
    √(max(p, q) / (n − 1)), and p + q − (n − 1) correlations are 1 by construction. Fewer than
    2 (p + q) rows, where chance alone may reach 0.7, are therefore refused; ``dim=10`` (as Huh et
    al. 2024 use) needs few rows. Huh et al. also scale each feature to unit variance first; here,
    as in Raghu et al., features keep their scale.

    Args:
        x: features ``[n, dx]``: a tensor, or a store read from disk.
        y: features ``[n, dy]`` of the same samples.
        variance: share of the variance to keep, above 0 and at most 1.
        dim: keep this many components instead, or all there are where there are fewer.
        chunk: rows read at a time.

    Raises:
        DataError: fewer rows than twice the kept components, numbers of rows that differ, NaN or
            infinity, constant features.
        UsageError: a ``variance`` or ``dim`` that keeps nothing.
    """
    if not 0 < variance <= 1 or (dim is not None and dim < 1):
        raise UsageError(
            f"variance {variance} and dim {dim} are not what can be kept",
            "Give a variance above 0 and at most 1, or a dim of at least 1.",
        )
    check_rows(len(x), 4, "SVCCA")
    check_paired(x, y)
    sides = [Moments.of(side, chunk) for side in (x, y)]
    left, right = (whitening(side.product, variance, dim) for side in sides)
    cross = cross_product(x, sides[0].mean, y, sides[1].mean, chunk)
    return mean_correlation(left.T @ cross @ right, len(x))


def mean_correlation(cross: Tensor, rows: int) -> float:
    """:func:`svcca` of two spaces, of which the product of the leading components is known.

    Args:
        cross: ``AᵀB`` ``[p, q]`` of :func:`leading_components` A ``[n, p]`` and B ``[n, q]``.
        rows: n.

    Raises:
        DataError: fewer rows than twice the kept components.
    """
    components = sum(cross.shape)
    if rows < 2 * components:
        raise DataError(
            f"{rows} rows are too few for SVCCA of {cross.shape[0]} and {cross.shape[1]} "
            "components: correlations would be high by chance alone",
            f"Give at least {2 * components} samples, or keep fewer components, such as dim=10.",
        )
    correlations = torch.linalg.svdvals(cross)
    return float(correlations.clamp(max=1).mean())


def whitening(product: Tensor, variance: float, dim: int | None) -> Tensor:
    """Map ``[d, p]`` of features to their leading components, each of unit length."""
    values, vectors = torch.linalg.eigh(product)
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > _RANK * values[0]).sum())
    # The component that reaches the share is kept with those before it.
    leading = int((values.cumsum(0) < variance * values.sum()).sum()) + 1 if dim is None else dim
    components = min(leading, rank)
    scaled: Tensor = vectors[:, :components] * values[:components].rsqrt()
    return scaled


def leading_components(
    x: Features, moments: Moments, variance: float, dim: int | None, chunk: int
) -> Tensor:
    """The leading principal components ``[n, p]`` of every row, each of unit length over rows."""
    directions = whitening(moments.product, variance, dim)
    return torch.cat([(part - moments.mean) @ directions for part in blocks(x, chunk)])
