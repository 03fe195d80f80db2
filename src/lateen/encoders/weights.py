"""The files of a network: found, loaded strictly, hashed."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from lateen.data.fingerprint import file_hashes
from lateen.encoders.faults import explained, loading
from lateen.errors import EncoderError
from lateen.files import content_key, read_json
from lateen.progress import log

_WEIGHTS = ("*.safetensors", "*.bin")
# As safetensors calls them.
_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}

PROVENANCE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "architectures")
"""Fields of a config.json that say where a model came from, not what it computes."""


def weights_hash(folder: Path, *, nested: bool = False) -> str:
    """Content key of a model's weights and configuration: what fixes its forward pass.

    It is taken over the contents of the weight files, without their names, and of config.json
    without the fields that only say who wrote it (name, dtype, class, version of transformers).
    So a packaged copy and the hub's are the same encoder, and the same weights under another
    activation or number of heads are not.

    Args:
        folder: of the transformer.
        nested: also what is in folders inside it, for models of several modules.

    Raises:
        EncoderError: there are no weights.
    """
    find = folder.rglob if nested else folder.glob
    files = [p for pattern in _WEIGHTS for p in find(pattern)]
    chosen = [p for p in files if p.suffix == ".safetensors"] or files
    if not chosen:
        raise EncoderError(f"{folder} has no weights (*.safetensors)", "Download the model again.")
    configs = [_without_provenance(read_json(p)) for p in sorted(find("config.json"))]
    return content_key([sorted(file_hashes(chosen)), configs])


def _without_provenance(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in PROVENANCE}


def warn_of_unused_code(name: str, folder: Path) -> None:
    """Say so where a model brings a class of its own and transformers' class is used instead."""
    for path in folder.rglob("config.json"):
        if "AutoModel" in (read_json(path).get("auto_map") or {}):
            log.warning(
                "%s brings model code of its own, which is not used: transformers' class may "
                "compute something else; pass trust_remote_code to use it",
                name,
            )
            return


def load_pretrained(
    folder: Path, *, dtype: torch.dtype, trust_remote_code: bool, config: Mapping[str, Any]
) -> tuple[Any, bool]:
    """Load a transformers model in evaluation mode, quietly and strictly.

    Args:
        folder: with its weights and its configuration.
        dtype: of its weights in memory.
        trust_remote_code: whether code in the folder may run.
        config: values that stand in place of the configuration's own.

    Returns:
        The model (of an encoder-decoder for texts, its encoder), and whether its pooler weights
        were in the checkpoint.

    Raises:
        EncoderError: weights are missing (the model would be partly random) or do not load.
    """
    from transformers import AutoModel

    with quiet_transformers(), loading(folder):
        model, report = AutoModel.from_pretrained(
            folder, dtype=dtype, trust_remote_code=trust_remote_code,
            output_loading_info=True, **config,
        )  # fmt: skip
    return frozen(model, set(report["missing_keys"]), folder)


def frozen(model: Any, missing: set[str], source: Path) -> tuple[Any, bool]:
    """A model that was loaded, for evaluation: as :func:`load_pretrained` gives it.

    Args:
        model: of transformers.
        missing: its weights that were not in the files.
        source: folder or file that it came from.

    Raises:
        EncoderError: weights are missing.
    """
    if model.config.is_encoder_decoder and model.main_input_name == "input_ids":
        model = model.get_encoder()
        missing = {key for key in missing if not key.startswith("decoder.")}
    pooler = {key for key in missing if "pooler" in key.split(".")}
    refuse_missing(missing - pooler, source)
    without_cache(model)
    return model.eval().requires_grad_(False), not pooler


def refuse_missing(names: set[str], source: Path) -> None:
    """See that no weights of a model are missing.

    Raises:
        EncoderError: some are.
    """
    if names:
        raise EncoderError(
            f"{source} lacks {len(names)} weights (first {min(names)!r}) and would be partly "
            "random",
            "Download the model again, or use the checkpoint's own class.",
        )


def load_as_stored(folder: Path) -> Any:
    """A transformers model on the CPU, each tensor in the number format that its file has it in.

    So every tensor is, to the bit, the file's; transformers itself would take one format for all.
    (What it renames while loading is in the format of most of the file.)

    Raises:
        EncoderError: as :func:`load_pretrained`.
    """
    model, _ = load_pretrained(folder, dtype=torch.float32, trust_remote_code=False, config={})
    dtypes = _stored_dtypes(folder)
    usual = Counter(dtypes.values()).most_common(1)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            dtype = dtypes.get(name, usual[0][0] if usual else tensor.dtype)
            tensor.data = tensor.data.to(dtype)  # float32 holds the values of all of them
    return model


def _stored_dtypes(folder: Path) -> dict[str, torch.dtype]:
    """The number format of each float tensor of a folder's weight files, by its name there."""
    dtypes: dict[str, torch.dtype] = {}
    files = sorted(folder.glob("*.safetensors"))
    for path in files:
        with safe_open(path, framework="pt") as file:
            stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        dtypes |= {name: _FLOATS[kind] for name, kind in stored.items() if kind in _FLOATS}
    for path in [] if files else sorted(folder.glob("*.bin")):
        weights = torch.load(path, map_location="meta", weights_only=True)
        dtypes |= {name: each.dtype for name, each in weights.items() if each.is_floating_point()}
    return dtypes


def load_untrained(
    folder: Path, *, dtype: torch.dtype, trust_remote_code: bool, config: Mapping[str, Any]
) -> Any:
    """The model that ``folder`` describes with random weights of a fixed seed, for evaluation.

    What is left of an encoder without its training is what its architecture does alone: the
    baseline of an assessment. Its weights depend on the versions of torch and transformers.
    Arguments are those of :func:`load_pretrained`.

    Raises:
        EncoderError: transformers cannot make this model.
    """
    from transformers import AutoConfig

    with quiet_transformers(), _making(folder):
        made = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **config)
    return untrained_of(made, folder, dtype=dtype, trust_remote_code=trust_remote_code)


def untrained_of(
    config: Any, source: Path, *, dtype: torch.dtype, trust_remote_code: bool = False
) -> Any:
    """The same of a configuration that is loaded from ``source``; errors are the same."""
    from transformers import AutoModel

    with quiet_transformers(), torch.random.fork_rng(), _making(source):
        torch.manual_seed(1)
        model = AutoModel.from_config(config, trust_remote_code=trust_remote_code)
    return frozen(model.to(dtype), set(), source)[0]


def _making(source: Path) -> contextlib.AbstractContextManager[None]:
    return explained(
        f"cannot make an untrained model of {source}",
        "Only models of transformers' own can be had untrained.",
    )


def tensors_hash(model: torch.nn.Module) -> str:
    """Content key of a model's weights as they are in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content_key(["untrained", digest.hexdigest()])


def without_cache(model: torch.nn.Module) -> None:
    """Keep decoders from building a key-value cache, which one forward pass never reads."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if getattr(config, "use_cache", False):
            config.use_cache = False  # type: ignore[union-attr]


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
