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
    from lateen.training.heads import AlignmentHeads

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


class TextSide(nn.Module):
    """Token ids and mask ``[n, length]`` to embeddings ``[n, dim]``, L2-normalised.

    Args:
        network: of the text encoder.
        heads: of the model.
    """

    def __init__(self, network: nn.Module, heads: AlignmentHeads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings."""
        return self.heads.embed_text(self.network(ids, mask))


class VisionSide(nn.Module):
    """Pixel values ``[n, 3, height, width]`` to embeddings ``[n, dim]``, L2-normalised.

    Args:
        network: of the vision encoder.
        heads: of the model.
    """

    def __init__(self, network: nn.Module, heads: AlignmentHeads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings."""
        return self.heads.embed_image(self.network(pixels))


def text_side(model: AlignedModel) -> tuple[TextSide, TextInputs]:
    """A model's text side, and what makes its token ids.

    Raises:
        ModelError: the text encoder does not run as a plain transformers model with a fast
            tokenizer, or has a prompt that goes on after the text.
    """
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
    end = (encoder.tokenizer.eos_token_id,) if settings.get("append_eos") else ()
    inputs = TextInputs(
        prompt, bool(settings.get("lower")), end, int(settings["max_tokens"]),
        settings.get("pad_to"), encoder.pad_token, encoder.no_text,
    )  # fmt: skip
    return TextSide(encoder.network, model.heads), inputs


def vision_side(model: AlignedModel) -> tuple[VisionSide, VisionEncoder]:
    """A model's vision side, and its encoder, which knows the processing.

    Raises:
        ModelError: the vision encoder does not run as a plain transformers model.
    """
    encoder = model.vision_encoder
    if not isinstance(encoder, VisionEncoder):
        raise ModelError(
            f"the vision encoder {encoder.info.id} is no plain transformers model, of which ONNX "
            "can be made", _INSTEAD,
        )  # fmt: skip
    return VisionSide(encoder.network, model.heads), encoder


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
        ModelError: as :func:`text_side` raises, or it cannot be exported.
    """
    side, inputs = text_side(model)
    batch, longest = torch.export.Dim("batch"), inputs.max_tokens
    shape = {0: batch} if inputs.pad_to else {0: batch, 1: torch.export.Dim("length", max=longest)}
    ids = torch.full((2, inputs.pad_to or min(7, longest)), inputs.pad, dtype=torch.long)
    write_graph(side, (ids, torch.ones_like(ids)), (shape, shape), (TOKENS, MASK), TEXT,
                folder / name)  # fmt: skip
    write_tokenizer(model, folder)
    return inputs


def write_tokenizer(model: AlignedModel, folder: Path, *, lower: bool = False) -> None:
    """Write the tokenizer's file.

    Args:
        model: whose text side has been found to have a fast one.
        folder: where to.
        lower: have it put texts in lower case.
    """
    from tokenizers import Tokenizer, normalizers

    assert isinstance(model.text_encoder, TextEncoder)
    tokenizer = Tokenizer.from_str(model.text_encoder.tokenizer.backend_tokenizer.to_str())
    if lower:
        steps = [normalizers.Lowercase()]
        if tokenizer.normalizer is not None:
            steps.append(tokenizer.normalizer)
        tokenizer.normalizer = normalizers.Sequence(steps)
    (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")


def write_image_graph(model: AlignedModel, path: Path) -> None:
    """Write a model's vision side.

    The graph takes ``pixel_values`` ``[n, 3, height, width]`` and gives ``image_embedding``
    ``[n, dim]``, L2-normalised.

    Args:
        model: an aligned model.
        path: of the graph.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: as :func:`vision_side` raises, or it cannot be exported.
    """
    side, encoder = vision_side(model)
    pixels = torch.zeros(2, 3, *encoder.image_size)
    shape = {0: torch.export.Dim("batch")}
    write_graph(side, (pixels,), (shape,), (PIXELS,), IMAGE, path)


def write_graph(
    side: nn.Module, example: tuple[Tensor, ...], shapes: tuple[Any, ...], inputs: tuple[str, ...],
    output: str, path: Path,
) -> None:  # fmt: skip
    """Write a module as an ONNX graph, in float32, with its weights in the one file.

    Args:
        side: the module; it is left as it is.
        example: inputs.
        shapes: of each input, its dynamic axes.
        inputs: their names.
        output: the name of what it gives.
        path: of the graph.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: torch cannot export it.
    """
    check_exporter()
    side = copy.deepcopy(side.eval()).cpu().float()
    try:
        with torch.no_grad(), _unsaid():
            torch.onnx.export(
                side, example, str(path), input_names=list(inputs), output_names=[output],
                dynamic_shapes=shapes, dynamo=True, verbose=False, external_data=False,
            )  # fmt: skip
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ModelError(f"no ONNX graph can be made of it ({reason(error)})", _INSTEAD) from error


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed, and of names of axes."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
