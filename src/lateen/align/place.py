"""Where the rows that a head is given lie in the batch that all processes share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lateen.align.ranks import ALONE, Ranks
from lateen.align.seeding import Stream

_GROUP = 256  # rows whose noise is drawn together


@dataclass(frozen=True)
class Place:
    """The rows ``first`` to ``first + rows`` of a step's batch.

    Attributes:
        seed: of the training.
        step: from 0.
        first: position of the first row in the whole batch, that of all processes.
        rows: how many.
        columns: how many texts each of these rows stands for, one block below the other.
        side: 0 for images, 1 for texts.
        ranks: the processes that share the batch.
    """

    seed: int
    step: int
    first: int
    rows: int
    columns: int = 1
    side: int = 0
    ranks: Ranks = ALONE

    def texts(self, columns: int) -> Place:
        """The same rows on the text side."""
        return replace(self, columns=columns, side=1)

    def noise(self, layer: int, width: int, device: torch.device) -> Tensor:
        """Random bytes ``[columns · rows, width]``, the same whatever else is drawn and however the
        batch is divided.

        Args:
            layer: different layers, different bytes.
            width: bytes per row.
            device: CPU and CUDA draw different bytes.
        """
        begin, end = self.first // _GROUP, -(-(self.first + self.rows) // _GROUP)
        skip = self.first - begin * _GROUP
        blocks = []
        for column in range(self.columns):
            groups = [self._group((layer, column, g), width, device) for g in range(begin, end)]
            blocks.append(torch.cat(groups)[skip : skip + self.rows])
        return torch.cat(blocks)

    def _group(self, key: tuple[int, ...], width: int, device: torch.device) -> Tensor:
        entropy = [self.seed, Stream.DROPOUT, self.step, self.side, *key]
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
        generator = torch.Generator(device).manual_seed(seed)
        # Eight bytes at a draw: on a CPU that is ten times as fast as drawing each.
        words = torch.empty(-(-_GROUP * width // 8), dtype=torch.int64, device=device)
        words.random_(-(2**63), None, generator=generator)
        return words.view(torch.uint8)[: _GROUP * width].view(_GROUP, width)
