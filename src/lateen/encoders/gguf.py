"""Language models in GGUF files, llama.cpp's format: the one door of text encoders and of
``lateen.mllm``.

A file is the whole model: configuration, tokenizer and weights, quantised or not. Weights are
unpacked, whatever could compute with them packed, so that features are a function of the file.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lateen.data.fingerprint import file_hashes
from lateen.encoders.faults import explained
from lateen.encoders.weights import frozen, quiet_transformers, untrained_of
from lateen.files import content_key


def load_gguf(file: Path, kind: Any, dtype: torch.dtype) -> tuple[Any, set[str]]:
    """The model in a GGUF file, and the names of its weights that the file lacks.

    Args:
        file: that is there; :func:`~lateen.encoders.resolve.check_gguf` has looked.
        kind: transformers' class that loads it, ``AutoModel`` or ``AutoModelForCausalLM``.
        dtype: of its weights in memory.

    Raises:
        EncoderError: it is damaged, or transformers has no such architecture in its GGUF form.
    """
    with _alone(file) as (folder, options):
        model, report = kind.from_pretrained(
            folder, dtype=dtype, output_loading_info=True, **options, **_unpacked()
        )
    if hasattr(model.config, "quantization_config"):
        # No longer true: a folder that says so would not load again.
        del model.config.quantization_config
    model.config._name_or_path = ""
    return model, set(report["missing_keys"])


def gguf_config(file: Path) -> Any:
    """The configuration in a GGUF file; errors are those of :func:`load_gguf`."""
    from transformers import AutoConfig

    with _alone(file) as (folder, options):
        return AutoConfig.from_pretrained(folder, **options)


def gguf_encoder(file: Path, dtype: torch.dtype, *, untrained: bool) -> tuple[Any, bool]:
    """The model without its output layer, for evaluation, as
    :func:`~lateen.encoders.weights.load_pretrained` gives one; errors are those of both.

    Args:
        file: as for :func:`load_gguf`.
        dtype: likewise.
        untrained: with random weights in its architecture.
    """
    from transformers import AutoModel

    if untrained:
        return untrained_of(gguf_config(file), file, dtype=dtype), True
    return frozen(*load_gguf(file, AutoModel, dtype), file)


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer in a GGUF file; errors are those of :func:`load_gguf`."""
    from transformers import AutoTokenizer

    with _alone(file) as (folder, options):
        return AutoTokenizer.from_pretrained(folder, **options)


def gguf_hash(file: Path) -> str:
    """Content key of all that is in a GGUF file: what fixes the model's forward pass."""
    return content_key(["gguf", file_hashes([file])])


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What has transformers' ``from_pretrained`` read a GGUF file, and nothing that lies beside it:
    an empty folder, and the argument that names the file."""
    reading = explained(
        f"the language model in {file} cannot be loaded",
        "It may be damaged, or of an architecture that transformers does not read from GGUF: "
        "download it again, or give the model's folder with config.json and safetensors.",
    )
    # Its bar for the tensors of a GGUF file cannot be turned off.
    silence = contextlib.redirect_stderr(io.StringIO())
    with quiet_transformers(), reading, silence, tempfile.TemporaryDirectory() as folder:
        yield folder, {"gguf_file": str(file.resolve())}


def _unpacked() -> dict[str, Any]:
    """Have transformers unpack quantised weights; releases before that was a choice always do."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}
