"""The language model of a multimodal one: from a folder or a GGUF file, with a token for images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lateen.encoders.faults import explained
from lateen.encoders.gguf import gguf_tokenizer, load_gguf
from lateen.encoders.resolve import check_language_model, gguf_file
from lateen.encoders.weights import quiet_transformers, refuse_missing
from lateen.errors import ModelError
from lateen.mllm.templates import IMAGE

_MULTIPLE = 64  # rows of embeddings, as matrix products like them


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with an image token.

    Attributes:
        name: for people: the last part of its path or hub id.
        model: of transformers, in evaluation mode.
        tokenizer: its own, with :data:`~lateen.mllm.templates.IMAGE` as one token.
        added: how many rows its embeddings got for that.
    """

    name: str
    model: Any
    tokenizer: Any
    added: int

    @property
    def image_token(self) -> int:
        """The id of the image token."""
        return int(self.tokenizer.convert_tokens_to_ids(IMAGE))

    @property
    def width(self) -> int:
        """Length of its embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def embedding_rms(self) -> float:
        """Root mean square of its vocabulary's embeddings, without the rows that were added."""
        table = self.model.get_input_embeddings().weight
        rows = len(table) - self.added
        return float(table[:rows].detach().float().square().mean().sqrt())


def load_language_model(path: str | Path, *, dtype: torch.dtype | None = None) -> LanguageModel:
    """A causal language model and its tokenizer, with a token for images.

    Where the tokenizer has none it is added, and the embeddings grow if they have no row to spare.
    New rows are the mean of the others: as an input the token is replaced by an image's, and as an
    output it, and the padding behind it, is never the likeliest.

    Args:
        path: a folder, a GGUF file, a folder with one, or a hub id.
        dtype: of its weights; as they are stored if not given (GGUF: float32).

    Raises:
        ModelError: it is not there, or is quantised in another way than GGUF.
        EncoderError: it cannot be loaded.
        MissingExtraError: a GGUF file, and what reads them is not installed.
    """
    from transformers import AutoModelForCausalLM

    check_language_model(path)
    local = Path(path).expanduser()
    gguf = gguf_file(local)
    if gguf is not None:
        tokenizer = gguf_tokenizer(gguf)
        model, missing = load_gguf(gguf, AutoModelForCausalLM, dtype or torch.float32)
        refuse_missing(missing, gguf)
    else:
        model, tokenizer = _from_folder(local if local.is_dir() else path, dtype)
    added = _add_image_token(model, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    model.eval()
    return LanguageModel(gguf.stem if gguf else Path(path).name, model, tokenizer, added)


def _from_folder(source: str | Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """The model and the tokenizer of a folder or a hub id; errors are those of
    :func:`load_language_model`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    loading = explained(
        f"the language model {source} cannot be loaded",
        "Give a causal language model of transformers with its tokenizer.",
    )
    with quiet_transformers(), loading:
        config = AutoConfig.from_pretrained(source)
        if hasattr(config, "quantization_config"):
            raise ModelError(
                f"the language model {source} is quantised",
                "Give it as it was before that, or GGUF.",
            )
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype or "auto")
    model.config._name_or_path = ""
    return model, tokenizer


@torch.no_grad()
def _add_image_token(model: Any, tokenizer: Any) -> int:
    """Give the tokenizer an image token, and the embeddings a row for it; how many were added."""
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    before = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) <= before:
        return 0
    with quiet_transformers():
        model.resize_token_embeddings(
            len(tokenizer), pad_to_multiple_of=_MULTIPLE, mean_resizing=False
        )
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        table[before:] = table[:before].float().mean(0).to(table.dtype)
    return int(model.get_input_embeddings().weight.shape[0] - before)
