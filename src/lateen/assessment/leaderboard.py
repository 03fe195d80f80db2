"""From measured pairs to a leaderboard: its rows, their ranks, and the encoders in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lateen.assessment.candidates import Candidate
from lateen.assessment.measure import VisionMeasure, measures
from lateen.assessment.measurement import Notes, Values
from lateen.assessment.probing import CUTOFF, Probe
from lateen.assessment.recipe import MeasureSection
from lateen.metrics import bootstrap_scores, percentile_interval

Results = Mapping[str, Any]  # the content of assessment.json
Row = dict[str, Any]


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
    vision: Candidate, text: Candidate, probe: Probe, of_vision: tuple[Values, Notes],
    of_pair: tuple[Values, Notes], settings: MeasureSection,
) -> Row:  # fmt: skip
    """One row of the leaderboard, without its rank and interval."""
    (vision_values, vision_notes), (pair_values, pair_notes) = of_vision, of_pair
    return {
        "vision": vision.name, "text": text.name,
        "layer": vision.layer, "pooling": vision.pooling,
        "text_layer": text.layer, "text_pooling": text.pooling,
        "vision_label": vision.label, "text_label": text.label,
        "probe": {
            **{f"R@{k}": probe.mean(k) for k in (1, 5, 10)},
            "level": settings.level, **probe.retrieval,
        },
        **pair_values,
        **{row.key: row.ranking(vision_values[row.key]) for row in measures(VisionMeasure)},
        "notes": {**vision_notes, **pair_notes},
    }  # fmt: skip


def rank_rows(rows: Sequence[Row], probes: Sequence[Probe], settings: MeasureSection) -> list[Row]:
    """The rows, best first, with rank, interval, and whether they can be told from the best.

    All pairs see the same draws of images, so that what makes an image hard for all of them cancels
    where they are held against each other.
    """
    order = sorted(range(len(rows)), key=lambda i: -rows[i]["probe"][f"R@{CUTOFF}"])
    scores = bootstrap_scores(
        [probes[index].hits for index in order], cutoff=CUTOFF, resamples=settings.resamples,
        seed=settings.seed,
    )  # fmt: skip
    result = []
    for rank, index in enumerate(order):
        interval = percentile_interval(scores[rank], settings.level)
        low, high = percentile_interval(scores[0] - scores[rank], settings.level)
        probe = {**rows[index]["probe"], "interval": list(interval)}
        result.append(
            {"rank": rank + 1, **rows[index], "probe": probe, "ties_with_best": low <= 0 <= high}
        )
    return result


def encoder_entry(
    rows: Sequence[Row], candidate: Candidate, side: str, values: Mapping[str, Any]
) -> Row:
    """What is to be said of one encoder: its settings, its mean over its pairs, its measures."""
    probes = [r["probe"][f"R@{CUTOFF}"] for r in rows if r[f"{side}_label"] == candidate.label]
    return {
        "label": candidate.label, "encoder": candidate.name, "layer": candidate.layer,
        "pooling": candidate.pooling, "dim": candidate.dim, "baseline": candidate.baseline,
        "mean_probe": sum(probes) / len(probes), **values,
    }  # fmt: skip
