"""Some rows of a store, as metrics read features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from lateen.store.reader import Store


@dataclass(frozen=True)
class StoreRows:
    """Some rows of a store in an order of one's own, read from disk as they are asked for.

    Attributes:
        store: where they are.
        rows: ``[n]`` their numbers.
    """

    store: Store
    rows: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> Tensor:
        return self.store[self.rows[part]]
