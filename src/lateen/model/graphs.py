"""The two sides of a model as ONNX graphs, encoder and head in one.

What is exported computes in float32, whatever the model computes in here.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lateen.encoders.text import PLACE, TextEncoder
from lateen.encoders.vision import VisionEncoder
from lateen.errors import MissingExtraError, ModelError, reason

if TYPE_CHECKING:
    from lateen.model.model import AlignedModel

TOKENS, MASK, PIXELS = "input_ids", "attention_mask", "pixel_values"
TEXT, IMAGE = "text_embedding", "image_embedding"
TOKENIZER = "tokenizer.json"
_NEEDED = ("onnx", "onnxscript")
_INSTEAD = "Models whose encoders are plain transformers models can be exported."


@dataclass(frozen=True)
class TextInputs:
    """What makes token ids of texts, beside the tokenizer's file.

    Attributes:
        prompt: stands before every text.
        lower: whether texts are put in lower case.
        end: token ids after every text.
        max_tokens: of a text with its end; longer ones are cut.
        pad_to: the one length that the graph takes; ``None`` for any up to ``max_tokens``.
        pad: the id of padding, on the right.
        nothing: the id that stands for a text without any token.
    """

    prompt: str
    lower: bool
    end: tuple[int, ...]
    max_tokens: int
    pad_to: int | None
    pad: int
    nothing: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def check_exporter() -> None:
    """See that graphs can be made.

    Raises:
        MissingExtraError: a package is not installed.
    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name, "onnx", "ONNX")


def write_text_graph(model: AlignedModel, folder: Path, name: str) -> TextInputs:
    """Write a model's text side and its tokenizer.

    The graph takes ``input_ids`` and ``attention_mask`` ``[n, length]`` and gives
    ``text_embedding`` ``[n, dim]``, L2-normalised.

    Args:
        model: an aligned model.
        folder: where to.
        name: of the graph's file.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: the text encoder does not run as a plain transformers model with a fast
            tokenizer, has a prompt that goes on after the text, or cannot be exported.
    """
    check_exporter()
    encoder = model.text_encoder
    if not isinstance(encoder, TextEncoder) or not encoder.tokenizer.is_fast:
        raise ModelError(
            f"the text encoder {encoder.info.id} is no plain transformers model with a fast "
            "tokenizer, of which ONNX can be made", _INSTEAD,
        )  # fmt: skip
    settings = encoder.info.preprocessing
    prompt = settings.get("prompt") or ""
    if PLACE in prompt:
        raise ModelError(
            f"the text encoder's prompt {prompt!r} goes on after the text, for which ONNX files "
            "have no place", "Train with a prompt that stands before the text.",
        )  # fmt: skip
    longest, fixed = int(settings["max_tokens"]), settings.get("pad_to")
    network, heads = encoder.network, model.heads

    class TextSide(nn.Module):
        """Token ids and mask to embeddings."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.heads = network, heads

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.heads.embed_text(self.network(ids, mask))

    batch = torch.export.Dim("batch")
    shape = {0: batch} if fixed else {0: batch, 1: torch.export.Dim("length", max=longest)}
    ids = torch.full((2, fixed or min(7, longest)), encoder.pad_token, dtype=torch.long)
    _write(TextSide(), (ids, torch.ones_like(ids)), (shape, shape), (TOKENS, MASK), TEXT,
           folder / name, encoder.info.id)  # fmt: skip
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str()
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    end = (encoder.tokenizer.eos_token_id,) if settings.get("append_eos") else ()
    return TextInputs(
        prompt, bool(settings.get("lower")), end, longest, fixed, encoder.pad_token,
        encoder.no_text,
    )  # fmt: skip


def write_image_graph(model: AlignedModel, path: Path) -> tuple[int, int]:
    """Write a model's vision side.

    The graph takes ``pixel_values`` ``[n, 3, height, width]`` and gives ``image_embedding``
    ``[n, dim]``, L2-normalised.

    Args:
        model: an aligned model.
        path: of the graph.

    Returns:
        Height and width in pixels that it takes.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: the vision encoder does not run as a plain transformers model, or cannot be
            exported.
    """
    check_exporter()
    encoder = model.vision_encoder
    if not isinstance(encoder, VisionEncoder):
        raise ModelError(
            f"the vision encoder {encoder.info.id} is no plain transformers model, of which ONNX "
            "can be made", _INSTEAD,
        )  # fmt: skip
    network, heads = encoder.network, model.heads

    class VisionSide(nn.Module):
        """Pixels to embeddings."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.heads = network, heads

        def forward(self, pixels: Tensor) -> Tensor:
            return self.heads.embed_image(self.network(pixels))

    height, width = encoder.image_size
    shape = {0: torch.export.Dim("batch")}
    pixels = torch.zeros(2, 3, height, width)
    _write(VisionSide(), (pixels,), (shape,), (PIXELS,), IMAGE, path, encoder.info.id)
    return height, width


def _write(
    side: nn.Module, example: tuple[Tensor, ...], shapes: tuple[Any, ...], inputs: tuple[str, ...],
    output: str, path: Path, name: str,
) -> None:  # fmt: skip
    """Export a side.

    Raises:
        ModelError: torch cannot.
    """
    side = copy.deepcopy(side.eval()).cpu().float()
    try:
        with torch.no_grad(), _unsaid():
            torch.onnx.export(
                side, example, str(path), input_names=list(inputs), output_names=[output],
                dynamic_shapes=shapes, dynamo=True, verbose=False, external_data=False,
            )  # fmt: skip
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ModelError(
            f"no ONNX graph can be made of {name} ({reason(error)})", _INSTEAD
        ) from error


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed, and of names of axes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
