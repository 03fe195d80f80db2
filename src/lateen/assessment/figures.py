"""The plots of an assessment, by file name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lateen.assessment.wording import METRICS, OF_VISION, Results, baselines, estimate, known, level
from lateen.report import LayerScore, Point, heat_map, layer_profile, scatter_plot
from lateen.report.plots import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAT_MAP, LAYERS = "heat-map.png", "layers.png"
_MOST_GROUPS = 6
_SIDES = ("vision", "text")
_ASIDE = "baseline, not counted"
_SCORE = "mean R@10 (%)"


def assessment_figures(results: Results) -> dict[str, Figure]:
    """The plots that these results have enough for, by the name of their file."""
    figures = {}
    for metric in (*OF_VISION, "mutual_knn", "cka"):
        points = _vision_points(results, metric) if metric in OF_VISION else _pairs(results, metric)
        if len(points) > 1:
            figures[scatter_name(metric)] = _scatter_figure(results, metric, points)
    if min(len(results["vision"]), len(results["text"])) > 1:
        cells = {(r["vision_label"], r["text_label"]): r["probe"]["R@10"] for r in results["rows"]}
        figures[HEAT_MAP] = heat_map(cells, label=f"Alignment probing, {_SCORE}")
    if panels := _layer_panels(results):
        figures[LAYERS] = layer_profile(panels, ylabel=_SCORE)
    return figures


def scatter_name(metric: str) -> str:
    """The file of a metric's scatter plot."""
    return f"scatter-{metric.replace('_', '-')}.png"


def _scatter_figure(results: Results, metric: str, points: list[Point]) -> Figure:
    found = _correlation(results, metric)
    unit = f" (%), k = {_depth(results)}" if metric == "knn" else ""
    unit = " (%)" if metric == "linear_probe" else unit
    return scatter_plot(
        points,
        f"{METRICS[metric]}{unit}",
        f"{_SCORE}, mean over text encoders" if metric in OF_VISION else _SCORE,
        _note(results, found),
        line=found is not None and known(found),
    )


def _note(results: Results, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no correlation was taken"
    shown = estimate(found)
    return f"Pearson {shown} ({level(results)} interval)" if known(found) else shown


def _correlation(results: Results, metric: str) -> Mapping[str, Any] | None:
    """That of the plotted points: with one encoder on a side, pairs are the other's encoders."""
    real = {side: sum(not one["baseline"] for one in results[side]) for side in _SIDES}
    overs = ["vision" if metric in OF_VISION or real["text"] == 1 else "text"]
    if metric not in OF_VISION and min(real.values()) > 1:
        overs = ["pairs"]
    found = [c for c in results["correlations"] if (c["x"], c["y"]) == (metric, "probe")]
    return next((c for c in found if c["over"] in overs), None)


def _vision_points(results: Results, metric: str) -> list[Point]:
    """One for each vision candidate; y is its mean over all texts that are no baseline."""
    vision, aside = results["vision"], baselines(results)
    encoders = Counter(one["encoder"] for one in vision)
    by_encoder = max(encoders.values()) > 1 and 1 < len(encoders) <= _MOST_GROUPS
    points = []
    for one in vision:
        mine = [r for r in results["rows"] if r["vision_label"] == one["label"]]
        probes = [r["probe"]["R@10"] for r in mine if r["text_label"] not in aside]
        if probes and mine[0][metric] is not None:
            group = one["encoder"] if by_encoder else "encoder"
            fitted = not one["baseline"]
            points.append(
                Point(
                    one["label"], mine[0][metric], fmean(probes),
                    group if fitted else _ASIDE, fitted,
                )
            )  # fmt: skip
    return points


def _depth(results: Results) -> str:
    """The k of the kNN accuracy that ranks: the first that was asked for."""
    return str(next((k for one in results["vision"] for k in one["knn"] or {}), ""))


def _pairs(results: Results, metric: str) -> list[Point]:
    """Labelled by the side with more candidates, grouped by the other where that has few."""
    aside = baselines(results)
    counts = {side: len(results[side]) for side in _SIDES}
    many, few = _SIDES if counts["vision"] >= counts["text"] else _SIDES[::-1]
    points = []
    for row in results["rows"]:
        if row[metric] is not None:
            sides = [row[f"{side}_label"] for side in _SIDES]
            label, group = row[f"{many}_label"], row[f"{few}_label"]
            if counts[few] > _MOST_GROUPS:
                label, group = " × ".join(shortened(side, 16) for side in sides), ""
            fitted = not aside & set(sides)
            at = (row[metric], row["probe"]["R@10"])
            points.append(Point(label, *at, group if fitted else _ASIDE, fitted))
    return points


def _layer_panels(results: Results) -> dict[str, dict[str, list[LayerScore]]]:
    """Where an encoder has several layers: their probing with the other side's best encoder."""
    scores = {(r["vision_label"], r["text_label"]): r["probe"] for r in results["rows"]}
    panels = {}
    for side, other in (("vision", "text"), ("text", "vision")):
        partner = _partner(results, other)
        lines: dict[str, list[LayerScore]] = {}
        for one in results[side]:
            pair = (one["label"], partner) if side == "vision" else (partner, one["label"])
            if probe := scores.get(pair):
                score = LayerScore(one["layer"], probe["R@10"], *probe["interval"])
                name = ", ".join(filter(None, (one["encoder"], one["pooling"])))
                lines.setdefault(name, []).append(score)
        several = {name: line for name, line in lines.items() if len(line) > 1}
        if several:
            panels[f"{side} layers, with {partner}"] = several
    return panels


def _partner(results: Results, side: str) -> str:
    best: str = max(results[side], key=lambda one: one["mean_probe"])["label"]
    return best
