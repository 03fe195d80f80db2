"""From measured pairs to a leaderboard, and to what goes with what.

A correlation is only ever written with its interval and n, or else as the reason for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lateen.assessment.candidates import Candidate
from lateen.assessment.measure import CUTOFF, Measures, Probe
from lateen.assessment.recipe import MeasureSection
from lateen.metrics import (
    bootstrap_scores,
    correlate,
    correlate_grid,
    correlation_gap,
    percentile_interval,
)
from lateen.report.text import plain

Results = Mapping[str, Any]  # the content of assessment.json
METRICS = {
    "probe": "alignment probing",
    "cka": "CKA",
    "cka_unbiased": "unbiased CKA",
    "mutual_knn": "mutual kNN",
    "cknna": "CKNNA",
    "svcca": "SVCCA",
    "cycle_knn": "cycle kNN",
    "knn": "kNN accuracy",
    "linear_probe": "linear-probe accuracy",
    "score": "given score",
}
PAIRWISE = ("cka", "cka_unbiased", "mutual_knn", "cknna", "svcca", "cycle_knn")
OF_VISION = ("knn", "linear_probe")
OVER = {"pairs": "pairs", "vision": "vision encoders", "text": "text encoders"}
Row = dict[str, Any]


def estimate(correlation: Mapping[str, Any]) -> str:
    """``r = 0.93 [0.80, 0.97], n = 24``; without an interval only why there is none."""
    if not known(correlation):
        return f"no correlation: {reason(correlation)}"
    r = with_interval(correlation["pearson"], correlation["pearson_interval"])
    return f"r = {r}, n = {correlation['n']}"


def level(results: Results) -> str:
    """The level of the intervals, as ``95 %``."""
    return f"{100 * results['rows'][0]['probe']['level']:g} %"


def tied(results: Results) -> list[Mapping[str, Any]]:
    """The rows after the best that cannot be told from it."""
    return [row for row in results["rows"][1:] if row["ties_with_best"]]


def known(correlation: Mapping[str, Any]) -> bool:
    """Whether there is a correlation to show, which is one with an interval."""
    return correlation["pearson"] is not None and correlation["pearson_interval"] is not None


def reason(entry: Mapping[str, Any]) -> str:
    """Why a correlation, or a difference of two, is not given."""
    return plain(entry["reason"] or "no interval was found").rstrip(".")


def with_interval(
    value: float | None, interval: Sequence[float] | None, sign: str = ""
) -> str | None:
    """``0.93 [0.80, 0.97]``; nothing where there is no interval."""
    if value is None or interval is None:
        return None
    return f"{_coefficient(value, sign)} [{', '.join(map(_coefficient, interval))}]"


def _coefficient(value: float, sign: str = "") -> str:
    decimals = 3 if 0.995 <= abs(value) < 1 else 2  # 0.997 is not 1.00
    return f"{value:{sign}.{decimals}f}".replace("-", "−")


def baselines(results: Results) -> set[str]:
    """The labels of all candidates that only stand for knowing nothing; no correlation has them."""
    return {one["label"] for side in ("vision", "text") for one in results[side] if one["baseline"]}


def definitions(results: Results) -> dict[str, str]:
    """What each metric is, in one line, with the k and the counts it was taken with."""
    held = results["conditions"]
    k, images = held["k"], f"{held['images']:,}"
    heat = held.get("measure", {}).get("temperature", 0.07)
    pairs = f"on the {images} test pairs"
    classes = f"{held['labelled_images'] or 0:,} labelled images of {held['classes'] or 0} classes"
    lines = {
        "probe": f"linear heads trained on frozen features; mean of text → image and image → text "
        f"R@10, in percent; interval by resampling the {images} test images",
        "cka": f"linear centred kernel alignment {pairs}; 1 = the same up to rotation and scale",
        "cka_unbiased": f"CKA with the unbiased estimator of HSIC {pairs}; about 0 if unrelated",
        "mutual_knn": f"share of the {k} nearest neighbours (cosine) common to both spaces {pairs}",
        "cknna": f"CKA restricted to the {k} nearest neighbours that both spaces share {pairs}",
        "svcca": f"mean canonical correlation of the leading principal components {pairs}",
        "cycle_knn": f"share of samples found again by going to the {k} nearest neighbours in one "
        f"space and to theirs in the other {pairs}",
        "knn": f"top-1 accuracy by a weighted vote (cosine, temperature {heat}) of the "
        f"k nearest, {classes}",
        "linear_probe": f"top-1 accuracy of multinomial logistic regression, C swept, {classes}",
        "score": "a figure given for the text encoder, such as its MTEB average; not measured here",
    }
    rows, text = results["rows"], results["text"]
    measured = {m for m in (*PAIRWISE, *OF_VISION) if any(r[m] is not None for r in rows)}
    measured |= {"score"} if any(one["score"] is not None for one in text) else set()
    return {METRICS[m]: line for m, line in lines.items() if m == "probe" or m in measured}


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
