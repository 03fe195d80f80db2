"""An encoder for a process of Ray, that dies once."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch
from toys import ColourEncoder


class DyingEncoder(ColourEncoder):
    """Kills its process at the second batch, if the file that ``LATEEN_TEST_DIES`` names is there,
    which it takes away."""

    def __init__(self) -> None:
        super().__init__()
        self._batches = 0

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        self._batches += 1
        mark = Path(os.environ["LATEEN_TEST_DIES"])
        if self._batches == 2 and mark.exists():
            mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(prepared)


def dying_encoder() -> DyingEncoder:
    return DyingEncoder()


def failing_encoder() -> ColourEncoder:
    from lateen.errors import EncoderError

    raise EncoderError("this encoder is not there", "Look for it.")
