"""SugarCrepe, ARO and their like: is the right caption nearer to its image than wrong ones?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.caption_choice import read_caption_choice
from lateen.data.cases import Case
from lateen.evaluation.cases import ScoredCases, score_cases
from lateen.evaluation.embedding import conditions
from lateen.files import content_key
from lateen.metrics.choice import choice_hits, percent
from lateen.model import AlignedModel

# Groups within a file that ARO averages over, and how many examples one needs to be counted.
_GROUPS = {"relation_name": 1, "attributes": 25}


def evaluate_caption_choice(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    split: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy in percent per file (category) and its mean over files, beside chance.

    Where examples have a relation or attributes (ARO's Visual Genome sets) a category also has
    ``by_group`` and ``macro_accuracy``, the mean over relations, or over pairs of attributes with
    at least 25 examples. ARO's authors leave out relations that hold both ways ("next to"); here
    all are in it.

    Args:
        model: an aligned model.
        data: SugarCrepe's or ARO's files; see
            :func:`~lateen.data.caption_choice.read_caption_choice`.
        images: folder of the images; a usual place beside ``data`` if not given.
        split: of a hub dataset that has several.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data or the images are not there, or of another form.
    """
    categories, keys, counts = {}, [], []
    for found in read_caption_choice(data, images=images, split=split):
        name = found.cases[0].groups["category"]
        scored = score_cases(model, found, cache=cache and cache / name)
        categories[name] = _category(scored)
        keys.append(scored.data)
        counts.append(scored.counts())
    return {
        "task": "caption-choice",
        "accuracy": _mean(categories, "accuracy"),
        "chance": _mean(categories, "chance"),
        "examples": sum(category["examples"] for category in categories.values()),
        "skipped": sum(count["skipped"] for count in counts),
        "left_out": sum(count["left_out"] for count in counts),
        "left_out_examples": [example for c in counts for example in c["left_out_examples"]],
        "categories": categories,
        "split": split,
        "conditions": conditions(model, content_key(keys)),
    }


def _category(scored: ScoredCases) -> dict[str, Any]:
    hits = choice_hits(scored.scores[:, 0])
    chances = [100 / len(case.captions) for case in scored.cases]
    result: dict[str, Any] = {
        "accuracy": percent(hits),
        "chance": statistics.fmean(chances),
        "examples": len(hits),
        "left_out": len(scored.left_out),
    }
    for kind, least in _GROUPS.items():
        groups = _groups(scored.cases, hits, kind)
        counted = [group["accuracy"] for group in groups.values() if group["examples"] >= least]
        if counted:
            result |= {"macro_accuracy": statistics.fmean(counted), "by_group": groups}
    return result


def _groups(cases: Sequence[Case], hits: Tensor, kind: str) -> dict[str, dict[str, float]]:
    rows: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        if kind in case.groups:
            rows.setdefault(case.groups[kind], []).append(row)
    return {
        name: {"accuracy": percent(hits[torch.tensor(mine)]), "examples": len(mine)}
        for name, mine in sorted(rows.items())
    }


def _mean(categories: dict[str, dict[str, Any]], number: str) -> float:
    return statistics.fmean(category[number] for category in categories.values())
