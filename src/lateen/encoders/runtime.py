"""Where and in which arithmetic an encoder runs, and how its files are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lateen.data.fingerprint import file_hashes
from lateen.errors import EncoderError
from lateen.files import content_key

_WEIGHTS = ("*.safetensors", "*.bin")


def resolve_device(device: str = "auto") -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` is ``bfloat16`` where the processor computes in it, else ``float32``."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))


@contextlib.contextmanager
def forward_pass(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and autocast where the precision is bfloat16.

    Not inference mode: its tensors could not be trained on.

    Autocast keeps norms and reductions in float32; it costs nothing against pure bfloat16 here
    and keeps text features at cosine ≥ 0.9999 of float32.
    """
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), autocast:
        yield


def weights_hash(folder: Path) -> str:
    """Content key over a model folder's weight files and config.json."""
    files = sorted(p for pattern in _WEIGHTS for p in folder.rglob(pattern))
    safetensors = [p for p in files if p.suffix == ".safetensors"]
    chosen = safetensors or files
    if not chosen:
        raise EncoderError(f"{folder} has no weights (*.safetensors)", "Download the model again.")
    paths = [*chosen, *sorted(folder.rglob("config.json"))]
    names = [p.relative_to(folder).as_posix() for p in paths]
    return content_key(sorted(zip(names, file_hashes(paths), strict=True)))


def load_pretrained(folder: Path, *, trust_remote_code: bool, **options: Any) -> tuple[Any, bool]:
    """Load a transformers model in evaluation mode, quietly and strictly.

    Returns:
        The model, and whether its pooler weights were in the checkpoint.

    Raises:
        EncoderError: weights are missing (the model would be partly random) or do not load.
    """
    from transformers import AutoModel

    with quiet_transformers():
        try:
            model, report = AutoModel.from_pretrained(
                folder, trust_remote_code=trust_remote_code, output_loading_info=True, **options
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise EncoderError(
                f"cannot load the encoder in {folder}: {str(error).strip().splitlines()[0]}",
                "Check that the folder is whole; a class outside transformers needs "
                "trust_remote_code.",
            ) from error
    missing = set(report["missing_keys"])
    pooler = {key for key in missing if "pooler" in key.split(".")}
    if missing - pooler:
        names = sorted(missing - pooler)
        raise EncoderError(
            f"{folder} lacks {len(names)} weights (first {names[0]!r}) and would be partly random",
            "Download the model again, or use the checkpoint's own class.",
        )
    return model.eval().requires_grad_(False), not pooler


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own progress bars and load reports off the screen."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
