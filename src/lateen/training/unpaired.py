"""Images without captions and texts without images, from which heads learn beside the pairs.

SOTAlign (arXiv 2602.23353): a teacher in closed form, the canonical maps of the pairs, says how
like each of some images and each of some texts are; the heads are held to how it would match them
(:mod:`lateen.training.transport`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.errors import TrainingError
from lateen.features import Pairs, StoreRows
from lateen.files import content_key
from lateen.training.batches import (
    Array,
    BatchRows,
    Stream,
    default_block,
    generator,
    shuffled,
)
from lateen.training.canonical import AffineMap, canonical_maps, ridges_of
from lateen.training.config import TrainSection, UnpairedSection
from lateen.training.heads import AlignmentHeads, FrozenEncoders
from lateen.training.inputs import check_rows
from lateen.training.loader import StoreSource
from lateen.training.ranks import ALONE, Ranks
from lateen.training.transport import transport_loss


@dataclass(frozen=True)
class Unpaired(FrozenEncoders):
    """Alignment heads on frozen features, trained on pairs and on what is unpaired.

    Attributes:
        pairs: what the teacher is made of; its images or texts stand for those not given.
        settings: with a section ``unpaired``.
        images: images without captions, of the encoder of the pairs' images.
        texts: texts without images, likewise.
    """

    pairs: Pairs
    settings: TrainSection
    images: StoreRows | None = None
    texts: StoreRows | None = None

    @property
    def section(self) -> UnpairedSection:
        """That of the settings."""
        assert self.settings.unpaired is not None
        return self.settings.unpaired

    @property
    def given(self) -> list[StoreRows]:
        """What there is beside the pairs."""
        return [rows for rows in (self.images, self.texts) if rows is not None]

    @property
    def key(self) -> dict[str, Any]:
        """The features by content; where a side is not given they are the pairs'."""
        sides = [
            rows and [rows.store.manifest.content, sha256(rows.rows.tobytes()).hexdigest()]
            for rows in (self.images, self.texts)
        ]
        return {"unpaired": content_key(sides)}

    @property
    def told(self) -> dict[str, Any]:
        """How many images and texts are unpaired, and which features they are."""
        sides = (("images", self.images), ("texts", self.texts))
        counts = {f"unpaired {side}": len(rows) for side, rows in sides if rows is not None}
        return {**counts, "unpaired data": self.key["unpaired"]}

    def source(self, pairs: Pairs, settings: TrainSection, ranks: Ranks = ALONE) -> StoreSource:
        """Batches of pairs, each with unpaired rows below them.

        Raises:
            TrainingError: features that nothing can be learned from, or several processes.
        """
        if ranks.size > 1:
            raise TrainingError(
                f"{ranks.size} processes cannot share unpaired images and texts: one plan matches "
                "all of a batch",
                "Train in one process, or leave train.unpaired out.",
            )
        for rows in self.given:
            check_rows(rows.store, rows.rows)
        return StoreSource(pairs, settings, ranks, self.plan)

    def complete(self, heads: AlignmentHeads) -> AlignmentHeads:
        """The heads with a teacher."""
        return TaughtHeads(heads, self.teacher, self.section.weight, self.plan.size)

    def trained(self, heads: AlignmentHeads) -> AlignmentHeads:
        """The heads without it."""
        return cast(TaughtHeads, heads).plain()

    @cached_property
    def teacher(self) -> tuple[AffineMap, AffineMap]:
        """The canonical maps of all directions that the pairs have."""
        ridges = ridges_of(self.settings, len(self.pairs))
        return canonical_maps(self.pairs, min(self.dims(self.pairs)), ridges)

    @cached_property
    def plan(self) -> UnpairedPlan:
        """Which rows each step sees."""
        return UnpairedPlan(self)


class UnpairedPlan:
    """The unpaired rows of every step: a pure function of seed and step, like the pairs'.

    Both sides go through their rows in random orders of their own, pass after pass.

    Args:
        unpaired: the rows.

    Attributes:
        sources: images, then texts.
        size: how many images a step has, and how many texts in every text tensor.
    """

    def __init__(self, unpaired: Unpaired) -> None:
        pairs, settings = unpaired.pairs, unpaired.settings
        given = (unpaired.images, unpaired.texts)
        self.sources = [
            own if rows is None else (rows.store, rows.rows)
            for rows, own in zip(given, pairs.sources, strict=False)
        ]
        self._tensors = len(pairs.texts) * settings.captions_per_image
        self._counts = [len(rows) for _, rows in self.sources]
        enough = max(1, self._counts[1] // self._tensors)
        self.size = min(unpaired.section.batch, self._counts[0], enough)
        self._seed = settings.seed
        self._blocks = [default_block([source], self.size) for source in self.sources]
        self._orders: list[tuple[int, Array]] = [(-1, np.empty(0, np.int64))] * 2

    def positions(self, step: int) -> list[Array]:
        """Positions ``[size]`` in the sources of a step's images, and of every text tensor's."""
        texts = self._some(1, step, self.size * self._tensors)
        return [self._some(0, step, self.size), *np.split(texts, self._tensors)]

    def _some(self, side: int, step: int, count: int) -> Array:
        """The next ``count`` of a side, the last of one pass and the first of the next."""
        at = np.arange(step * count, (step + 1) * count)
        turns, places = np.divmod(at, self._counts[side])
        return np.concatenate(
            [self._order(side, int(turn))[places[turns == turn]] for turn in np.unique(turns)]
        )

    def _order(self, side: int, turn: int) -> Array:
        if self._orders[side][0] != turn:
            random = generator(self._seed, Stream.UNPAIRED, 2 * turn + side)
            order = shuffled(self._counts[side], self._blocks[side], random)
            self._orders[side] = turn, order
        return self._orders[side][1]


class TaughtHeads(AlignmentHeads):
    """Alignment heads that are held to a teacher where images and texts are not paired.

    In training an embedding is followed by what the teacher makes of the same features: so both
    come to the loss together, whatever a batch is divided into.

    Args:
        heads: freshly drawn; what is trained are their parameters.
        teacher: maps of image and text features.
        weight: of the transport loss.
        size: rows at the end of every batch that are not paired.
    """

    def __init__(
        self, heads: AlignmentHeads, teacher: Sequence[AffineMap], weight: float, size: int
    ) -> None:
        super(AlignmentHeads, self).__init__()  # no weights are drawn
        self.settings = heads.settings
        self.vision, self.text = heads.vision, heads.text
        self.logit_scale, self.logit_bias = heads.logit_scale, heads.logit_bias
        self._plain, self._teacher = [heads], list(teacher)
        self._weight, self._size = weight, size
        self._transport = math.nan

    def embed_image(self, features: Tensor, rows: BatchRows | None = None) -> Tensor:
        """As of any heads; in training followed by the teacher's."""
        return self._taught(super().embed_image(features, rows), features, 0)

    def embed_text(self, features: Tensor, rows: BatchRows | None = None) -> Tensor:
        """As of any heads; in training followed by the teacher's."""
        return self._taught(super().embed_text(features, rows), features, 1)

    def _taught(self, student: Tensor, features: Tensor, side: int) -> Tensor:
        if not self.training:
            return student
        with torch.no_grad(), torch.autocast(student.device.type, enabled=False):
            self._teacher[side] = self._teacher[side].to(student.device)
            teacher = F.normalize(self._teacher[side](features), dim=1)
        return torch.cat([student, teacher.to(student.dtype)], 1)

    def loss(
        self, image: Tensor, texts: Sequence[Tensor], settings: TrainSection, ranks: Ranks = ALONE
    ) -> Tensor:
        """The contrastive loss of the pairs and, weighted, the transport loss of what is unpaired.

        The arguments are those of any heads, the embeddings each followed by the teacher's.
        """
        dim, pairs = self.settings.dim, len(image) - self._size
        contrastive = super().loss(
            image[:pairs, :dim], [text[:pairs, :dim] for text in texts], settings, ranks
        )
        unpaired = torch.cat([text[pairs:] for text in texts])
        transport = transport_loss(
            image[pairs:, :dim], unpaired[:, :dim], image[pairs:, dim:], unpaired[:, dim:]
        )
        self._transport = transport.item()
        return contrastive + self._weight * transport

    def figures(self) -> dict[str, float]:
        """Also the transport loss, without its weight."""
        return {**super().figures(), "transport": self._transport}

    def plain(self) -> AlignmentHeads:
        """The heads alone, with the same parameters."""
        [heads] = self._plain
        heads.logit_scale, heads.logit_bias = self.logit_scale, self.logit_bias
        return heads.train(self.training)
