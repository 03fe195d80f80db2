"""What goes with alignment probing: correlations of the other measures with it, in words too.

A correlation is only ever written with its interval and n, or else as the reason for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from lateen.assessment.leaderboard import Results, Row
from lateen.assessment.measure import Measure, PairMeasure, TextMeasure, VisionMeasure, measures
from lateen.assessment.probing import CUTOFF
from lateen.assessment.recipe import MeasureSection
from lateen.metrics import (
    Correlation,
    CorrelationGap,
    correlate,
    correlate_units,
    correlation_gap,
)
from lateen.metrics.correlation import Units
from lateen.report.text import plain

FEWEST = 5  # networks on a side, from which on a correlation over them says something
OVER = {"pairs": "pairs", "vision": "vision encoders", "text": "text encoders"}
_SIDES = ("vision", "text")
_SAIL_CLAIMS = ("knn", "linear_probe")  # that the first predicts probing better


def probing_correlations(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row], settings: MeasureSection
) -> list[dict[str, Any]]:
    """What goes with probing: over vision encoders, over text encoders, and over all pairs.

    Over encoders, a pair's numbers are first averaged over the other side, so that every encoder is
    one point. Layers and poolings of one network are not independent, so that intervals resample
    networks. Baselines are left out: points far below all others would make any two measures of
    quality agree.
    """
    networks = {
        side: _networks_of(encoders) for side, encoders in zip(_SIDES, (vision, text), strict=True)
    }
    counted = _without_baselines(rows, vision, text)
    results = []
    for over, encoders in (("vision", vision), ("text", text)):
        points = _encoder_points(counted, encoders, over)
        for key in _measure_keys(VisionMeasure if over == "vision" else TextMeasure, PairMeasure):
            known = [p for p in points if p.get(key) is not None]
            if known:
                values = [p[key] for p in known], [p["probe"] for p in known]
                units = [networks[over][p["label"]] for p in known]
                few = _too_few({over: units})
                if few:
                    answer = Correlation(len(known), reason=few)
                elif _independent(units):
                    answer = correlate(*values, level=settings.level)
                else:
                    answer = correlate_units(
                        *values, units, level=settings.level, resamples=settings.resamples,
                        seed=settings.seed,
                    )  # fmt: skip
                results.append({"x": key, "y": "probe", "over": over, **answer.as_dict()})
    for key in _measure_keys(VisionMeasure, PairMeasure):
        pairs = [r for r in counted if r[key] is not None]
        labels = {side: [r[f"{side}_label"] for r in pairs] for side in _SIDES}
        if min(len(set(of_side)) for of_side in labels.values()) > 1:
            sides = {side: [networks[side][label] for label in labels[side]] for side in _SIDES}
            few = _too_few(sides)
            answer = Correlation(len(pairs), reason=few) if few else correlate_units(
                [r[key] for r in pairs], [r["probe"][f"R@{CUTOFF}"] for r in pairs],
                *sides.values(), level=settings.level, resamples=settings.resamples,
                seed=settings.seed,
            )  # fmt: skip
            results.append({"x": key, "y": "probe", "over": "pairs", **answer.as_dict()})
    return results


def correlation_gaps(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row], settings: MeasureSection
) -> list[dict[str, Any]]:
    """Whether kNN predicts probing better than the linear probe does, as SAIL reports."""
    points = _encoder_points(_without_baselines(rows, vision, text), vision, "vision")
    known = [p for p in points if all(p.get(key) is not None for key in _SAIL_CLAIMS)]
    if not known:
        return []
    networks = _networks_of(vision)
    units = [networks[p["label"]] for p in known]
    few = _too_few({"vision": units})
    gap = CorrelationGap(len(known), reason=few) if few else correlation_gap(
        *([p[key] for p in known] for key in (*_SAIL_CLAIMS, "probe")), units=units,
        level=settings.level, resamples=settings.resamples, seed=settings.seed,
    )  # fmt: skip
    better, than = _SAIL_CLAIMS
    return [{"better": better, "than": than, "over": "vision", **gap.as_dict()}]


def _networks_of(encoders: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """The networks of every encoder, by its label; of fused ones those of their parts.

    Encoders of assessments made before these were recorded count as networks of their own.
    """
    return {one["label"]: tuple(one.get("networks") or [one["label"]]) for one in encoders}


def count_networks(encoders: Sequence[Row]) -> int:
    """How many networks the encoders are views of; baselines are not counted."""
    counted = [one for one in encoders if not one["baseline"]]
    return len(set(chain(*_networks_of(counted).values())))


def _independent(units: Units) -> bool:
    """Whether no two of the points share a network, and none has several."""
    return len(set(chain(*units))) == len(units) == sum(map(len, units))


def _too_few(sides: Mapping[str, Units]) -> str | None:
    """Why there are too few networks for a correlation over these sides, if there are."""
    counts = {side: len(set(chain(*units))) for side, units in sides.items()}
    few = [f"{n} {side} network{'' if n == 1 else 's'}" for side, n in counts.items() if n < FEWEST]
    return f"{' and '.join(few)} of the {FEWEST} that a correlation needs" if few else None


def left_out(results: Results) -> list[str]:
    """What (a key of :data:`OVER`) correlations are not given over, for too few networks."""
    few = [side for side in _SIDES if count_networks(results[side]) < FEWEST]
    taken = {one["over"] for one in results["correlations"]}
    return [over for over in OVER if over in taken and (over in few or (few and over == "pairs"))]


def sail_gap(results: Results) -> Mapping[str, Any] | None:
    """The gap that SAIL's claim is about, if it was taken."""
    gaps = (g for g in results["gaps"] if (g["better"], g["than"]) == _SAIL_CLAIMS)
    return next(gaps, None)


def correlation_text(correlation: Mapping[str, Any]) -> str:
    """``r = 0.93 [0.80, 0.97], n = 24``; without an interval only why there is none."""
    if not has_interval(correlation):
        return f"no correlation: {missing_reason(correlation)}"
    r = with_interval(correlation["pearson"], correlation["pearson_interval"])
    return f"r = {r}, n = {correlation['n']}"


def has_interval(correlation: Mapping[str, Any]) -> bool:
    """Whether there is a correlation to show, which is one with an interval."""
    return correlation["pearson"] is not None and correlation["pearson_interval"] is not None


def missing_reason(entry: Mapping[str, Any]) -> str:
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


def _measure_keys(*kinds: type[Measure]) -> list[str]:
    return [row.key for row in measures(*kinds)]


def _without_baselines(
    rows: Sequence[Row], vision: Sequence[Row], text: Sequence[Row]
) -> list[Row]:
    labels = {encoder["label"] for encoder in (*vision, *text) if not encoder["baseline"]}
    return [r for r in rows if {r["vision_label"], r["text_label"]} <= labels]


def _encoder_points(rows: Sequence[Row], encoders: Sequence[Row], side: str) -> list[Row]:
    """One point per encoder: its own numbers, and those of its pairs averaged."""
    points = []
    for encoder in encoders:
        pairs = [r for r in rows if r[f"{side}_label"] == encoder["label"]]
        if not pairs:
            continue
        point: Row = {"label": encoder["label"]}
        point["probe"] = _mean([r["probe"][f"R@{CUTOFF}"] for r in pairs])
        for key in _measure_keys(VisionMeasure, PairMeasure):
            values = [r[key] for r in pairs if r[key] is not None]
            point[key] = _mean(values) if len(values) == len(pairs) else None
        point |= {key: encoder.get(key) for key in _measure_keys(TextMeasure)}
        points.append(point)
    return points


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
