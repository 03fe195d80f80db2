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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lateen.errors import MissingExtraError, ModelError, reason
from lateen.model.sides import INSTEAD, TextInputs, fast_tokenizer, text_side, vision_side

if TYPE_CHECKING:
    from lateen.encoders.text import TextEncoder
    from lateen.model.model import AlignedModel

TOKENS, MASK, PIXELS = "input_ids", "attention_mask", "pixel_values"
TEXT, IMAGE = "text_embedding", "image_embedding"
TOKENIZER = "tokenizer.json"
_NEEDED = ("onnx", "onnxscript")


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
        ModelError: as :func:`text_side` raises, or it cannot be exported.
    """
    side, encoder, inputs = text_side(model)
    batch, longest = torch.export.Dim("batch"), inputs.max_tokens
    shape = {0: batch} if inputs.pad_to else {0: batch, 1: torch.export.Dim("length", max=longest)}
    ids = torch.full((2, inputs.pad_to or min(7, longest)), inputs.pad, dtype=torch.long)
    write_graph(side, (ids, torch.ones_like(ids)), (shape, shape), (TOKENS, MASK), TEXT,
                folder / name)  # fmt: skip
    write_tokenizer(encoder, folder)
    return inputs


def write_tokenizer(encoder: TextEncoder, folder: Path, *, lower: bool = False) -> None:
    """Write the tokenizer's file.

    Args:
        encoder: with a fast one.
        folder: where to.
        lower: have it put texts in lower case.
    """
    made = fast_tokenizer(encoder, lower=lower)
    (folder / TOKENIZER).write_text(made.to_str(), encoding="utf-8")


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
        raise ModelError(f"no ONNX graph can be made of it ({reason(error)})", INSTEAD) from error


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
