"""MMVP-VLM: are images that CLIP takes for alike told apart, and how alike are they here?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.cases import Case, CaseSet
from lateen.data.mmvp import PATTERNS, read_mmvp
from lateen.data.prompts import as_templates
from lateen.evaluation.cache import cached_features
from lateen.evaluation.cases import ScoredCases, score_cases
from lateen.evaluation.embedding import conditions, model_key, project_rows
from lateen.files import make_folder
from lateen.metrics.choice import (
    PAIR_CHANCE,
    PairHits,
    cosines,
    five_numbers,
    pair_hits,
    percent,
)
from lateen.model import AlignedModel, open_model
from lateen.report.plots import save_plot
from lateen.report.similarity_plot import similarity_plot
from lateen.store import Store

TEMPLATES = ("a photo of {}",)
"""The prompt of MMVP's own evaluation."""


def evaluate_mmvp(
    model: AlignedModel,
    *,
    data: str | Path,
    images: str | Path | None = None,
    templates: Sequence[str] | str | Path = TEMPLATES,
    baseline: AlignedModel | str | Path | None = None,
    out: str | Path | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Pair accuracy in percent per visual pattern and its mean, and how alike paired images are.

    A pair counts when each image picks its own statement (METHODS §1.6). MMVP's released code lets
    each statement pick its image instead: that is ``statement_accuracy``. The cosines within pairs
    are those of the embeddings, of the bare vision encoder's features, and of the baseline's
    embeddings; SAIL (arXiv:2412.04616, figure 5) shows such distributions.

    Args:
        model: an aligned model.
        data: the folder of MMVP-VLM, with Questions.csv and the folder of images.
        images: the folder of the patterns' folders, if it is elsewhere.
        templates: prompts with ``{}`` for the statement; or a file of them, one a
            line; embeddings of several are averaged.
        baseline: another model whose cosines to show: an AlignedModel, or a plain CLIP or SigLIP,
            by folder or hub id.
        out: folder for ``similarity.png``, the distributions of cosines; none if not given.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        DataError: the data is not there or of another form, or has a pattern that is not of the
            nine.
    """
    found = read_mmvp(data, images=images)
    other = None if baseline is None else _opened(baseline)
    out = make_folder(out) if out is not None else None
    templates = as_templates(templates)
    scored = score_cases(model, found, templates=templates, cache=cache)
    hits = pair_hits(scored.scores)
    patterns = _patterns(scored.cases, hits)
    similar = _similarities(model, scored, found, other, cache)
    result: dict[str, Any] = {
        "task": "mmvp",
        "pair_accuracy": _mean(patterns, "pair_accuracy"),
        "statement_accuracy": _mean(patterns, "statement_accuracy"),
        "chance": PAIR_CHANCE["text"],
        "pairs": len(scored.cases),
        **scored.counts(),
        "patterns": patterns,
        "similarity": {name: five_numbers(values) for name, values in similar.items()},
        "templates": list(templates),
        "conditions": conditions(model, scored.data),
    }
    if other is not None:
        result["conditions"]["baseline"] = model_key(other)
    if out is not None:
        result["pictures"] = [str(_draw(similar, model, other, out))]
    return result


def _opened(baseline: AlignedModel | str | Path) -> AlignedModel:
    return baseline if isinstance(baseline, AlignedModel) else open_model(baseline)


def _patterns(cases: Sequence[Case], hits: PairHits) -> dict[str, dict[str, float]]:
    """Accuracies by pattern, in the paper's order; one without a pair is left out."""
    found = {}
    for pattern in PATTERNS.values():
        mine = torch.tensor([case.groups["pattern"] == pattern for case in cases])
        if mine.any():
            found[pattern] = {
                "pair_accuracy": percent(hits.text[mine]),
                "statement_accuracy": percent(hits.image[mine]),
                "pairs": int(mine.sum()),
            }
    return found


def _mean(patterns: dict[str, dict[str, float]], number: str) -> float:
    return statistics.fmean(pattern[number] for pattern in patterns.values())


def _similarities(
    model: AlignedModel,
    scored: ScoredCases,
    found: CaseSet,
    baseline: AlignedModel | None,
    cache: Path | None,
) -> dict[str, Tensor]:
    """Image–image cosines ``[pairs]`` of the model, of its encoder, and of the baseline."""
    similar = {
        "model": _within_pairs(model.project_image, scored.images, scored.cases),
        "encoder": _within_pairs(_as_is, scored.images, scored.cases),
    }
    if baseline is not None:
        store = cached_features(
            found.images, baseline.vision_encoder, folder=cache and cache / "baseline-images",
            dtype=baseline.config.feature_dtype("vision"),
        )  # fmt: skip
        similar["baseline"] = _within_pairs(baseline.project_image, store, scored.cases)
    return similar


def _within_pairs(
    project: Callable[[Tensor], Tensor], store: Store, cases: Sequence[Case]
) -> Tensor:
    """Cosines of the pairs of which both images have features."""
    rows = {sample: row for row, sample in enumerate(store.ids)}
    pairs = [[rows[i] for i in case.images] for case in cases if rows.keys() >= {*case.images}]
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return cosines(project_rows(project, store, first), project_rows(project, store, second))


def _as_is(features: Tensor) -> Tensor:
    return features


def _draw(
    similar: dict[str, Tensor], model: AlignedModel, baseline: AlignedModel | None, out: Path
) -> Path:
    names = {"model": "aligned model", "encoder": f"its encoder, {_encoder(model)}"}
    if baseline is not None:
        names["baseline"] = f"baseline, {_encoder(baseline)}"
    shown = {names[key]: values.tolist() for key, values in similar.items()}
    path = out / "similarity.png"
    save_plot(similarity_plot(shown), path)
    return path


def _encoder(model: AlignedModel) -> str:
    info = model.vision_encoder.info
    return f"{info.id.rstrip('/').rpartition('/')[2]} ({info.pooling})"
