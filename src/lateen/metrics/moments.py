"""Second moments of feature spaces, in one place for CKA and SVCCA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lateen.errors import DataError
from lateen.metrics.features import Features, block, blocks, check_paired

# A spread this small against the mean is what centring in float64 leaves of equal rows.
_NO_SPREAD = 1e-12


@dataclass(frozen=True)
class Moments:
    """Of features ``X`` ``[n, d]``, centred: sums over rows, in float64.

    Attributes:
        features: as they were given.
        mean: ``[d]``, which was taken off.
        product: ``XᵀX`` ``[d, d]``.
        squares: squared length of every row ``[n]``.
    """

    features: Features
    mean: Tensor
    product: Tensor
    squares: Tensor

    @classmethod
    def of(cls, x: Features, chunk: int) -> Moments:
        """Moments in two passes, the first for the mean, so that nothing cancels.

        Memory is O(d² + chunk · d + n).

        Args:
            x: features ``[n, d]``.
            chunk: rows read at a time.

        Raises:
            DataError: NaN or infinity, or features that are constant.
        """
        mean = torch.stack([rows.sum(0) for rows in blocks(x, chunk)]).sum(0) / len(x)
        product = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
        squares = []
        for rows in blocks(x, chunk):
            centred = rows - mean
            product += centred.T @ centred
            squares.append(centred.square().sum(1))
        moments = cls(x, mean, product, torch.cat(squares))
        if moments.squares.mean().sqrt() <= _NO_SPREAD * mean.norm():
            raise DataError(
                "all rows of features on one side are the same",
                "Encode with another layer or pooling, or check the samples.",
            )
        return moments


def cross_product(x: Features, x_mean: Tensor, y: Features, y_mean: Tensor, chunk: int) -> Tensor:
    """``XᵀY`` ``[dx, dy]`` of two spaces over the same rows, centred.

    Raises:
        DataError: numbers of rows that differ.
    """
    check_paired(x, y)
    total = torch.zeros(len(x_mean), len(y_mean), dtype=torch.float64, device=x_mean.device)
    for start in range(0, len(x), chunk):
        total += (block(x, start, chunk) - x_mean).T @ (block(y, start, chunk) - y_mean)
    return total
