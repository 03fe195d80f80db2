"""Where, how much at a time and in which precision networks run, and a fast matrix product."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

from lateen.errors import UsageError
from lateen.hardware import hardware

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
    torch.ops.mkldnn, "_linear_pointwise"
)


BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""Of a CPU: what computes in bfloat16, as torch calls it."""


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of two matrices, without a gradient of its own.

    In float32 on a CPU it is oneDNN's: torch's default there is MKL, which leaves half of the
    AVX-512 of processors not made by Intel unused. Both round like any float32 product.
    """
    return _onednn_linear(a, b.T) if _suits_onednn(a, b) else a @ b


class _LinearsByOneDNN(TorchFunctionMode):
    """While it is entered, linear layers in float32 on a CPU are oneDNN's, as :func:`matmul`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        if func is linear and not kwargs and _suits_onednn(args[0], args[1]):
            return _onednn_linear(*args)
        return func(*args, **(kwargs or {}))


def _suits_onednn(a: Tensor, b: Tensor) -> bool:
    plain = torch.compiler.is_compiling() or a.device.type != "cpu" or not a.numel()
    return _ONEDNN and not plain and a.dtype == b.dtype == torch.float32


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def autocast_dtype(tensor: Tensor) -> torch.dtype:
    """What matrix products with ``tensor`` run in: autocast's dtype where it is on."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def resolve_device(device: str = "auto") -> torch.device:
    """The device that networks run on.

    ``auto`` is what :func:`~lateen.hardware.use_hardware` says, else the first CUDA GPU if there is
    one, else the CPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ….

    Raises:
        UsageError: this machine, or this torch, has no such device.
    """
    name = device if device != "auto" else hardware().device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "," in name:
        raise UsageError(
            f"one process runs on one device, and {name!r} are several",
            "Several are for `lateen encode`; then train or evaluate on one, or with torchrun.",
        )
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"there is no device {name!r} that this torch ({torch.__version__}) can use",
            f"Use {_usable()}.",
        ) from error
    return torch.device(name)


def split_devices(device: str) -> list[str]:
    """The devices in ``cuda:0,cuda:1``; none where it is one.

    Raises:
        UsageError: there is no such device.
    """
    names = [name.strip() for name in device.split(",") if name.strip()]
    if len(names) < 2:
        return []
    for name in names:
        resolve_device(name)
    return names


def default_workers() -> int:
    """Threads that prepare: those of :func:`~lateen.hardware.use_hardware`, else as many as there
    are cores, at most 8."""
    return hardware().workers or min(8, os.cpu_count() or 1)


def default_batch(image: bool, device: str | torch.device = "auto") -> int:
    """Images, or thousands of text tokens, per forward pass: those of
    :func:`~lateen.hardware.use_hardware`, else what fits the cache or the GPU.

    Args:
        image: whether images are encoded.
        device: that they are encoded on; a name is looked for.
    """
    if chosen := hardware().batch_size:
        return chosen
    gpu = (resolve_device(device) if isinstance(device, str) else device).type == "cuda"
    if image:
        return 256 if gpu else 16
    return 64 if gpu else 1


def _usable() -> str:
    """The names of the devices there are."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    *names, last = ["auto", *cuda, *mps, "cpu"]
    return f"{', '.join(names)} or {last}"


def empty_cache() -> None:
    """Give GPUs back the memory that torch holds and does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def resolve_precision(precision: str, device: torch.device, bfloat16: bool | None = None) -> str:
    """``auto`` is what :func:`~lateen.hardware.use_hardware` says, else ``bfloat16`` where the
    processor computes in it, else ``float32``.

    Args:
        precision: that was asked for.
        device: that computes.
        bfloat16: whether it computes in that; ``None`` to look.
    """
    if precision == "auto":
        precision = hardware().precision
    if precision != "auto":
        return precision
    half = bool(bfloat16_support(device)) if bfloat16 is None else bfloat16
    return "bfloat16" if half else "float32"


def bfloat16_support(device: torch.device) -> str:
    """What of the processor computes in bfloat16, in words; empty if nothing does."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) if torch.cuda.is_bf16_supported() else ""
    if device.type != "cpu":
        return ""
    features = torch.cpu.get_capabilities()
    return ", ".join(name for name in BFLOAT16_FEATURES if features.get(name))


@contextlib.contextmanager
def forward_pass(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and autocast where the precision is bfloat16; else fast linear layers.

    Not inference mode: its tensors could not be trained on.

    Autocast keeps norms and reductions in float32; it costs nothing against pure bfloat16 here
    and keeps text features at cosine ≥ 0.9999 of float32.
    """
    half = precision == "bfloat16"
    linears = contextlib.nullcontext() if half or device.type != "cpu" else _LinearsByOneDNN()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half), linears:
        yield


def weights_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The type in which weights are held, whatever the checkpoint's own.

    float32, which autocast needs on the CPU; bfloat16 where a GPU computes in it, so that models
    of several billion weights fit.
    """
    half = device.type == "cuda" and precision == "bfloat16"
    return torch.bfloat16 if half else torch.float32
