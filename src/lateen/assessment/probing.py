"""Alignment probing: linear heads trained on a pair of frozen encoders (METHODS §1.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lateen.assessment.cache import cached_json
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs
from lateen.metrics import RecallHits, cross_ranks, mean_recall, rank_hits, retrieval_of_ranks
from lateen.model.model import project_rows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loop import CHECKPOINT, train

CUTOFF = 10  # the R@K that ranks


@dataclass(frozen=True)
class Probe:
    """What probing one pair of encoders gave.

    Attributes:
        retrieval: both directions, as :func:`lateen.metrics.retrieval` gives them.
        hits: of every judged image, for intervals.
    """

    retrieval: dict[str, Any]
    hits: RecallHits

    def mean(self, cutoff: int) -> float:
        """R@``cutoff`` in percent, mean of both directions."""
        return mean_recall(self.retrieval, (cutoff,))


def probe_pair(pairs: Pairs, judged: Pairs, recipe: Recipe, folder: Path) -> Probe:
    """Train linear heads on ``pairs`` and judge them on ``judged``; what is done is not done again.

    The judged images choose nothing: the heads of the last step are taken.

    Args:
        pairs: features to train on, with all caption columns as positives.
        judged: features of other images; the first caption column counts.
        recipe: its head and training.
        folder: of all probes; each has a file in it, by content.

    Raises:
        TrainingError: features that nothing can be learned from, or a loss that is not finite.
    """
    settings = [recipe.head.model_dump(mode="json"), recipe.train.model_dump(mode="json")]

    def work(name: str) -> dict[str, Any]:
        heads = _train(pairs, recipe.head, recipe.train, folder / name)
        return _judge(heads, judged)

    result = cached_json(folder, "probe", [pairs.key, judged.key, settings], work)
    return Probe(result["retrieval"], RecallHits(**result["hits"]))


def _train(pairs: Pairs, head: HeadSection, settings: TrainSection, out: Path) -> AlignmentHeads:
    heads = train(pairs, head=head, settings=settings, out=out).heads
    # The numbers are kept, not the heads: a grid of hundreds would fill the disk.
    (out / CHECKPOINT).unlink(missing_ok=True)
    return heads


@torch.no_grad()
def _judge(heads: AlignmentHeads, judged: Pairs) -> dict[str, Any]:
    column = judged.texts[0]
    image = project_rows(heads.embed_image, judged.image, judged.image_rows)
    text = project_rows(heads.embed_text, column.store, column.rows)
    owner = torch.from_numpy(column.owner)
    ranks = cross_ranks(image, text, owner)
    return {"retrieval": retrieval_of_ranks(*ranks), "hits": rank_hits(*ranks, owner).as_dict()}
