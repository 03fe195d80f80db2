"""What a ladder over numbers of pairs shows: a curve for each rung, from the JSON of
``ladder.json``."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from lateen.metrics.retrieval import mean_recall
from lateen.report import Column, CurvePanel, TableData
from lateen.report.tables import over_seeds

_WAYS = {"t2i": ("text_to_image", "text → image"), "i2t": ("image_to_text", "image → text")}


def curve_panels(results: Mapping[str, Any]) -> list[CurvePanel]:
    """The curves as they are plotted: mean R@10, R@1 each way, and those of papers."""
    panels = [CurvePanel("both directions", "mean R@10 (%)", _curves(results, _mean_r10))]
    for way, name in _WAYS.values():
        measured = _curves(results, lambda run, way=way: run[way]["R@1"])
        panels.append(CurvePanel(name, "R@1 (%)", measured))
    for short, (_, name) in _WAYS.items():
        published = {
            each["name"]: {int(count): [value] for count, value in each[short].items()}
            for each in results["curves"]
            if each[short]
        }
        if published:
            title = f"{name}, published, on other data"
            panels.append(CurvePanel(title, "R@1 (%)", published, published=True))
    return panels


def curve_tables(results: Mapping[str, Any]) -> list[TableData]:
    """The numbers of every rung at every number of pairs, and what a doubling of pairs gives."""
    return [_numbers(results), _doublings(results)]


def curve_sentences(results: Mapping[str, Any]) -> list[str]:
    """What each rung gains by a doubling of the pairs, and how many pairs of the first rung the
    others are worth."""
    curves = _mean_curves(results)
    sentences = []
    for name, curve in curves.items():
        if len(curve) > 1:
            (few, low), (many, high) = min(curve.items()), max(curve.items())
            gain = (high - low) / math.log2(many / few)
            sentences.append(
                f"{name}: from {few:,} to {many:,} pairs, each doubling gives {gain:.1f} points of "
                f"mean R@10."
            )
    first, *others = curves
    for name in others:
        worth = [
            f"{count:,} are worth {_told(pairs, curves[first])}"
            for count, value in curves[name].items()
            if (pairs := pairs_for(value, curves[first])) is not None
        ]
        if worth:
            sentences.append(f"Pairs of {name} in pairs of {first}: {', '.join(worth)}.")
    return sentences


def chosen_by_pairs(results: Mapping[str, Any]) -> dict[str, str]:
    """Share and ridges of the closed form of every rung that has its own for a number of pairs."""
    told = {}
    for rung in results["rungs"]:
        # Each draw may have its own; earlier versions kept one.
        trained = [run.get("train", rung["train"]) for run in rung["runs"]]
        if all(train.get("cca_ridge") for train in trained):
            settings = "; ".join(dict.fromkeys(map(_closed_form, trained)))
            told[f"{rung['name']}, {rung['pairs']:,} pairs"] = settings
    return told


def _closed_form(train: Mapping[str, Any]) -> str:
    ridges = " / ".join(map(str, train["cca_ridge"]))
    return f"train.cca {train['cca']}, train.cca_ridge {ridges}"


def pairs_for(value: float, curve: Mapping[int, float]) -> float | None:
    """The number of pairs at which a curve reaches a value, between two points on the logarithm of
    their number.

    Args:
        value: to reach.
        curve: by number of pairs.

    Returns:
        The smallest such number; 0 where its first point is above the value, infinity where none
        reaches it, and ``None`` where the curve has one point.
    """
    points = sorted(curve.items())
    if len(points) < 2:
        return None
    if points[0][1] > value:
        return 0.0
    for (few, low), (many, high) in itertools.pairwise(points):
        if low <= value <= high:
            share = (value - low) / (high - low) if high > low else 0.0
            return float(few * (many / few) ** share)
    return math.inf


def _told(pairs: float, curve: Mapping[int, float]) -> str:
    if pairs == 0:
        return f"fewer than {min(curve):,}"
    return f"more than {max(curve):,}" if math.isinf(pairs) else f"{round(pairs, -1):,.0f}"


def _mean_r10(run: Mapping[str, Any]) -> float:
    return mean_recall(run, (10,))


def _curves(results: Mapping[str, Any], value: Any) -> dict[str, dict[int, list[float]]]:
    """A value of every seed, by rung and number of pairs."""
    curves: dict[str, dict[int, list[float]]] = {}
    for rung in results["rungs"]:
        curves.setdefault(rung["name"], {})[rung["pairs"]] = [value(run) for run in rung["runs"]]
    return curves


def _mean_curves(results: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Mean R@10 over the seeds, by rung and number of pairs."""
    return {
        name: {count: statistics.mean(values) for count, values in curve.items()}
        for name, curve in _curves(results, _mean_r10).items()
    }


def _numbers(results: Mapping[str, Any]) -> TableData:
    recalls = [(way, cutoff) for way, _ in _WAYS.values() for cutoff in (1, 10)]
    heads = [f"{short.upper()} R@{cutoff}" for short in _WAYS for cutoff in (1, 10)]
    rows = [
        [
            rung["name"], rung["pairs"],
            *(over_seeds([run[way][f"R@{cutoff}"] for run in rung["runs"]])
              for way, cutoff in recalls),
            over_seeds([_mean_r10(run) for run in rung["runs"]]),
        ]
        for rung in results["rungs"]
    ]  # fmt: skip
    seeds = results["seeds"]
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    chose = ", which also chose the training step" if results["chose_step"] else ""
    return TableData(
        f"Retrieval on {results['split']}{chose}, by number of training pairs",
        [Column("rung", whole=True), Column("pairs", 0),
         *(Column(head, 1) for head in (*heads, "mean R@10"))],
        rows,
        f"Percent of {results['images']:,} images and their captions, {over}. A pair is an image "
        f"with all its captions; {_drawn(results)}, and fewer are part of more.",
    )  # fmt: skip


def _drawn(results: Mapping[str, Any]) -> str:
    """By which seed pairs are drawn."""
    one = results["base"]["data"]["pairs_seed"]
    return "each seed draws its own" if one is None else f"one draw for all (data.pairs_seed {one})"


def _doublings(results: Mapping[str, Any]) -> TableData:
    """Points of mean R@10 by doubling of the pairs, between neighbours of every curve."""
    curves = _mean_curves(results)
    counts: Sequence[int] = sorted({count for curve in curves.values() for count in curve})
    rows = []
    for few, many in itertools.pairwise(counts):
        gains = [
            (curve[many] - curve[few]) / math.log2(many / few)
            if {few, many} <= set(curve) else None
            for curve in curves.values()
        ]  # fmt: skip
        rows.append([f"{few:,} → {many:,}", *gains])
    return TableData(
        "What a doubling of the pairs gives",
        [Column("pairs", whole=True), *(Column(name, 1) for name in curves)],
        rows,
        "Points of mean R@10, mean of the seeds.",
    )
