"""From measured pairs to a leaderboard: its rows, their ranks, and the encoders in it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from lateen.assessment.candidates import Candidate
from lateen.assessment.measure import VisionMeasure, measures
from lateen.assessment.measurement import Notes, Values
from lateen.assessment.probing import CUTOFF, Probe
from lateen.assessment.recipe import MeasureSection
from lateen.metrics import bootstrap_scores, percentile_interval
from lateen.metrics.resampling import binomial_limits

Results = Mapping[str, Any]  # the content of assessment.json
Row = dict[str, Any]
Scores = np.ndarray[Any, Any]


def interval_level(results: Results) -> str:
    """The level of the intervals, as ``95 %``."""
    return f"{100 * results['rows'][0]['probe']['level']:g} %"


def tied_rows(results: Results) -> list[Mapping[str, Any]]:
    """The rows after the best that cannot be told from it."""
    return [row for row in results["rows"][1:] if row["ties_with_best"]]


def baseline_labels(results: Results) -> set[str]:
    """The labels of all candidates that only stand for knowing nothing; no correlation has them."""
    return {
        encoder["label"]
        for side in ("vision", "text")
        for encoder in results[side]
        if encoder["baseline"]
    }


def leaderboard_row(
    vision: Candidate, text: Candidate, probes: Mapping[int, Probe],
    of_vision: tuple[Values, Notes], of_pair: tuple[Values, Notes], settings: MeasureSection,
) -> Row:  # fmt: skip
    """One row of the leaderboard, without its rank and interval; ``probes`` are by seed."""
    (vision_values, vision_notes), (pair_values, pair_notes) = of_vision, of_pair
    return {
        "vision": vision.name, "text": text.name,
        "layer": vision.layer, "pooling": vision.pooling,
        "text_layer": text.layer, "text_pooling": text.pooling,
        "vision_label": vision.label, "text_label": text.label,
        "probe": {**_over_seeds(probes), "level": settings.level, **_mean_retrieval(probes)},
        **pair_values,
        **{row.key: row.ranking(vision_values[row.key]) for row in measures(VisionMeasure)},
        "notes": {**vision_notes, **pair_notes},
    }  # fmt: skip


def _over_seeds(probes: Mapping[int, Probe]) -> dict[str, Any]:
    """R@K as the mean over seeds; with several also that of each, and the standard deviation."""
    by_k = {f"R@{k}": {seed: p.mean(k) for seed, p in probes.items()} for k in (1, 5, 10)}
    means: dict[str, Any] = {key: fmean(values.values()) for key, values in by_k.items()}
    if len(probes) == 1:
        return means
    return {
        **means,
        "sd": {key: stdev(values.values()) for key, values in by_k.items()},
        "by_seed": {str(seed): {key: by_k[key][seed] for key in by_k} for seed in probes},
    }


def _mean_retrieval(probes: Mapping[int, Probe]) -> dict[str, Any]:
    """The numbers of both directions, each its mean over the seeds."""
    first, *others = [probe.retrieval for probe in probes.values()]
    if not others:
        return first
    return {
        way: {key: fmean([values[key], *(other[way][key] for other in others)]) for key in values}
        for way, values in first.items()
    }


def rank_rows(
    rows: Sequence[Row], probes: Sequence[Mapping[int, Probe]], settings: MeasureSection
) -> tuple[list[Row], Scores]:
    """The rows, best first, with rank, interval, and whether they can be told from the best.

    All pairs see the same draws of images, so that what makes an image hard for all of them cancels
    where they are held against each other. Seeds are not drawn: their mean is.

    Returns:
        The rows, and their R@10 in every draw ``[rows, draws]``.
    """
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["probe"][f"R@{CUTOFF}"])
    scores = bootstrap_scores(
        [probe.hits for index in order for probe in probes[index].values()], cutoff=CUTOFF,
        resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    scores = scores.reshape(len(order), -1, scores.shape[1]).mean(axis=1)
    result = []
    for rank, index in enumerate(order):
        interval = percentile_interval(scores[rank], settings.level)
        if interval[0] == interval[1]:  # of all or of nothing, which no draw changes
            images = len(next(iter(probes[index].values())).hits.captions)
            least, most = (100 * limit for limit in binomial_limits(images, settings.level))
            interval = (least, 100.0) if interval[0] else (0.0, most)
        low, high = percentile_interval(scores[0] - scores[rank], settings.level)
        probe = {**rows[index]["probe"], "interval": list(interval)}
        result.append(
            {"rank": rank + 1, **rows[index], "probe": probe, "ties_with_best": low <= 0 <= high}
        )
    return result, scores


def counted_scores(
    rows: Sequence[Row], scores: Scores, label: str, baselines: Container[str], level: float
) -> dict[str, Any] | None:
    """An encoder's mean R@10 with its interval, over its pairs with encoders that are no baseline.

    Args:
        rows: of the leaderboard.
        scores: R@10 of each in every draw.
        label: of the encoder.
        baselines: labels of all baselines.
        level: of the interval.

    Returns:
        ``None`` where there is no such pair.
    """
    of_it = []
    for index, row in enumerate(rows):
        labels = [row["vision_label"], row["text_label"]]
        if label in labels:
            labels.remove(label)
            if labels[0] not in baselines:
                of_it.append(index)
    if not of_it:
        return None
    interval = percentile_interval(scores[of_it].mean(axis=0), level)
    mean = fmean(rows[index]["probe"][f"R@{CUTOFF}"] for index in of_it)
    return {f"R@{CUTOFF}": mean, "interval": list(interval)}


def encoder_entry(
    rows: Sequence[Row], candidate: Candidate, side: str, values: Mapping[str, Any]
) -> Row:
    """What is to be said of one encoder: its settings, its mean over its pairs, its measures."""
    probes = [r["probe"][f"R@{CUTOFF}"] for r in rows if r[f"{side}_label"] == candidate.label]
    return {
        "label": candidate.label, "encoder": candidate.name, "layer": candidate.layer,
        "pooling": candidate.pooling, "dim": candidate.dim, "baseline": candidate.baseline,
        "networks": list(candidate.networks), "mean_probe": sum(probes) / len(probes), **values,
    }  # fmt: skip
