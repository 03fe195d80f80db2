"""Random numbers that depend on the seed and their use alone, not on what was drawn before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are drawn for; each has a sequence of its own."""

    WEIGHTS = 0
    ORDER = 1
    CAPTIONS = 2
    DROPOUT = 3


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """A NumPy generator for one epoch, column or step of a stream."""
    return np.random.default_rng([seed, stream, index])


@contextlib.contextmanager
def seeded(
    seed: int, stream: Stream, index: int = 0, *, device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's own generators (CPU and ``device``) for the block, and restore them after it."""
    value = int(generator(seed, stream, index).integers(2**63))
    on_cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_cuda else []):
        torch.default_generator.manual_seed(value)
        if on_cuda:
            torch.cuda.manual_seed(value)
        yield
