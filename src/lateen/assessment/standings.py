"""From measured pairs to a leaderboard, and to what goes with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lateen.assessment.candidates import Candidate
from lateen.assessment.probing import CUTOFF, Probe
from lateen.assessment.spaces import Measures
from lateen.assessment.wording import OF_VISION, PAIRWISE
from lateen.metrics import (
    bootstrap_scores,
    correlate,
    correlate_grid,
    correlation_gap,
    percentile_interval,
)
from lateen.recipe.assessment import MeasureSection

Row = dict[str, Any]


def row(
    vision: Candidate, text: Candidate, probe: Probe, quality: Mapping[str, Any],
    compared: tuple[Measures, dict[str, str]], settings: MeasureSection,
) -> Row:  # fmt: skip
    """One row of the leaderboard, without its rank and interval."""
    measures, notes = compared
    return {
        "vision": vision.name, "text": text.name,
        "layer": vision.layer, "pooling": vision.pooling,
        "text_layer": text.layer, "text_pooling": text.pooling,
        "vision_label": vision.label, "text_label": text.label,
        "probe": {
            **{f"R@{k}": probe.mean(k) for k in (1, 5, 10)},
            "level": settings.level, **probe.retrieval,
        },
        **measures,
        "knn": first(quality.get("knn")),
        "linear_probe": (quality.get("linear_probe") or {}).get("accuracy"),
        "notes": {**quality.get("notes", {}), **notes},
    }  # fmt: skip


def first(by_k: Mapping[str, float] | None) -> float | None:
    """The accuracy that ranks: that of the first number of neighbours asked for."""
    return next(iter(by_k.values())) if by_k else None


def ranked(rows: Sequence[Row], probes: Sequence[Probe], settings: MeasureSection) -> list[Row]:
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
    for place, index in enumerate(order):
        interval = percentile_interval(scores[place], settings.level)
        low, high = percentile_interval(scores[0] - scores[place], settings.level)
        probe = {**rows[index]["probe"], "interval": list(interval)}
        result.append(
            {"rank": place + 1, **rows[index], "probe": probe, "ties_with_best": low <= 0 <= high}
        )
    return result


def side(rows: Sequence[Row], candidate: Candidate, key: str, extra: Mapping[str, Any]) -> Row:
    """What is to be said of one encoder: its settings, and its mean over its pairs."""
    mine = [r["probe"][f"R@{CUTOFF}"] for r in rows if r[f"{key}_label"] == candidate.label]
    return {
        "label": candidate.label, "encoder": candidate.name, "layer": candidate.layer,
        "pooling": candidate.pooling, "dim": candidate.dim, "baseline": candidate.baseline,
        "mean_probe": sum(mine) / len(mine), **extra,
    }  # fmt: skip


def correlations(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row], settings: MeasureSection
) -> list[dict[str, Any]]:
    """What goes with probing: over vision encoders, over text encoders, and over all pairs.

    Over encoders, a pair's numbers are first averaged over the other side, so that every encoder is
    one point. Baselines are left out: points far below all others would make any two measures of
    quality agree.
    """
    mine = _without_baselines(rows, vision, text)
    found = []
    for over, sides in (("vision", vision), ("text", text)):
        own = OF_VISION if over == "vision" else ("score",)
        points = _averaged(mine, sides, over)
        for name in (*own, *PAIRWISE):
            kept = [p for p in points if p.get(name) is not None]
            if kept:
                values = [p[name] for p in kept], [p["probe"] for p in kept]
                answer = correlate(*values, level=settings.level)
                found.append({"x": name, "y": "probe", "over": over, **answer.as_dict()})
    for name in (*OF_VISION, *PAIRWISE):
        kept = [r for r in mine if r[name] is not None]
        if len({r["vision_label"] for r in kept}) > 1 and len({r["text_label"] for r in kept}) > 1:
            answer = correlate_grid(
                [r[name] for r in kept], [r["probe"][f"R@{CUTOFF}"] for r in kept],
                [r["vision_label"] for r in kept], [r["text_label"] for r in kept],
                level=settings.level, resamples=settings.resamples, seed=settings.seed,
            )  # fmt: skip
            found.append({"x": name, "y": "probe", "over": "pairs", **answer.as_dict()})
    return found


def gaps(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row], settings: MeasureSection
) -> list[dict[str, Any]]:
    """Whether kNN predicts probing better than the linear probe does, as SAIL reports."""
    points = _averaged(_without_baselines(rows, vision, text), vision, "vision")
    kept = [p for p in points if all(p.get(name) is not None for name in OF_VISION)]
    if not kept:
        return []
    gap = correlation_gap(
        *([p[name] for p in kept] for name in (*OF_VISION, "probe")),
        level=settings.level, resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    return [{"better": "knn", "than": "linear_probe", "over": "vision", **gap.as_dict()}]


def _without_baselines(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row]
) -> list[Row]:
    known = {one["label"] for one in (*vision, *text) if not one["baseline"]}
    return [r for r in rows if {r["vision_label"], r["text_label"]} <= known]


def _averaged(rows: Sequence[Row], sides: Sequence[Row], key: str) -> list[Row]:
    """One point per encoder: its own numbers, and those of its pairs averaged."""
    points = []
    for one in sides:
        mine = [r for r in rows if r[f"{key}_label"] == one["label"]]
        if not mine:
            continue
        point: Row = {"probe": _mean([r["probe"][f"R@{CUTOFF}"] for r in mine])}
        for name in (*OF_VISION, *PAIRWISE):
            values = [r[name] for r in mine if r[name] is not None]
            point[name] = _mean(values) if len(values) == len(mine) else None
        point["score"] = one.get("score")
        points.append(point)
    return points


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
