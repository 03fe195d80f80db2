"""Matrix products of the hot loops."""

from __future__ import annotations

import torch
from torch import Tensor

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of two matrices, without a gradient of its own.

    In float32 on a CPU it is oneDNN's: torch's default there is MKL, which leaves half of the
    AVX-512 of processors not made by Intel unused. Both round like any float32 product.
    """
    plain = torch.compiler.is_compiling() or a.device.type != "cpu" or not a.numel()
    if _ONEDNN and not plain and a.dtype == b.dtype == torch.float32:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
        return product
    return a @ b


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """What matrix products with ``tensor`` run in: autocast's dtype where it is on."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype
