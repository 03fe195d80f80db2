"""Features for the tests of metrics."""

from __future__ import annotations

import torch
from torch import Tensor


class OnlySlices:
    """Features as a store gives them, that can be read in no other way and remember the most."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows
        self.most = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> Tensor:
        assert isinstance(rows, slice)
        found = self._rows[rows].clone()
        self.most = max(self.most, len(found))
        return found


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def related(n: int, dx: int, dy: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two spaces that share some of what they say."""
    shared = normal(n, 3, seed)
    x = shared @ normal(3, dx, seed + 1) + 0.5 * normal(n, dx, seed + 2)
    y = shared @ normal(3, dy, seed + 3) + 0.5 * normal(n, dy, seed + 4)
    return x, y


def rotation(d: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed).double()).Q.float()
