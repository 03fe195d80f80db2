"""Forward passes of encoders: batches of like length, and smaller ones where memory is short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lateen.device import default_batch, empty_cache
from lateen.encoders import Encoder, RemoteEncoder, ViewedEncoder
from lateen.errors import EncoderEndedError, EncoderError, is_out_of_memory
from lateen.progress import log


class ForwardPasses:
    """Runs prepared items through a network, a batch in several pieces once memory was short.

    A piece rounds as a batch of its size does, so that features may differ in their last bits from
    those of the whole batch, as with another batch size.
    """

    def __init__(self) -> None:
        self._pieces = 1

    def __call__(self, prepared: Sequence[Any], encoders: Sequence[Encoder]) -> list[torch.Tensor]:
        """Features ``[n, dim]`` of every encoder; of several, which are views, from one pass.

        Raises:
            EncoderError: memory is short for a single item.
        """
        while True:
            size = -(-len(prepared) // self._pieces)
            try:
                parts = [
                    _forward(prepared[first : first + size], encoders)
                    for first in range(0, len(prepared), size)
                ]
                return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
            except EncoderEndedError:  # whatever it said last
                raise
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    name, noun = encoders[0].info.id, encoders[0].info.modality
                    raise EncoderError(
                        f"there is not enough memory to encode one {noun} with {name}",
                        "Choose another --device, a smaller encoder, or bfloat16.",
                    ) from error
            # Here, where the error no longer holds the tensors that did not fit.
            empty_cache()
            self._pieces *= 2
            smaller = -(-len(prepared) // self._pieces)
            log.warning("out of memory with %d at a time in a forward pass: going on with %d",
                        size, smaller)  # fmt: skip


def _forward(prepared: Sequence[Any], encoders: Sequence[Encoder]) -> list[torch.Tensor]:
    """Features ``[n, dim]`` of every encoder; of several, which are views, from one pass."""
    first = encoders[0]
    if len(encoders) == 1:
        if isinstance(first, RemoteEncoder):
            return [first.encode_accepted(prepared)]
        return [first.encode(prepared)]
    assert isinstance(first, ViewedEncoder)
    return first.encode_views(prepared, encoders)


def batch_of(encoder: Encoder, device: str = "auto") -> int:
    """Images, or thousands of text tokens, for a call of an encoder where nothing else is said.

    Args:
        encoder: whose; one that runs elsewhere says it itself.
        device: that it is on.
    """
    if isinstance(encoder, RemoteEncoder):
        return encoder.batch
    return default_batch(encoder.info.modality == "image", device)


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length; a batch's padded size stays within ``budget``.

    Args:
        lengths: tokens of each text.
        budget: tokens per batch, padding included; a longer text is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
