"""Winoground: do two images and two captions of the same words find each other?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lateen.data.cases import Case
from lateen.data.winoground import TAGS, read_winoground
from lateen.evaluation.cases import score_cases
from lateen.evaluation.embedding import conditions
from lateen.metrics.choice import PAIR_CHANCE, PairHits, pair_hits, pair_scores
from lateen.model import AlignedModel


def evaluate_winoground(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Text, image and group score in percent, together and by tag (METHODS §1.6).

    Args:
        model: an aligned model.
        data: ``facebook/winoground``, or its files; see
            :func:`~lateen.data.winoground.read_winoground`.
        images: folder of the images that ``examples.jsonl`` names, or ``images.zip``.
        split: of a hub dataset that has several.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data is not there, not to be had without access, or of another form.
    """
    scored = score_cases(model, read_winoground(data, images=images, split=split), cache=cache)
    hits = pair_hits(scored.scores)
    return {
        "task": "winoground",
        **pair_scores(hits),
        "chance": PAIR_CHANCE,
        "examples": len(scored.cases),
        **scored.counts(),
        "by_tag": {tag: _by_tag(scored.cases, hits, tag) for tag in TAGS},
        "split": split,
        "conditions": conditions(model, scored.data),
    }


def _by_tag(cases: Sequence[Case], hits: PairHits, tag: str) -> dict[str, dict[str, float]]:
    """Scores of the examples with each value of a tag; some have none."""
    found = {}
    for value in sorted({case.groups[tag] for case in cases if tag in case.groups}):
        mine = torch.tensor([case.groups.get(tag) == value for case in cases])
        scores = pair_scores(PairHits(*(solved[mine] for solved in hits)))
        found[value] = {**scores, "examples": int(mine.sum())}
    return found
