"""The names of an assessment's metrics, and how its numbers are written.

A correlation is only ever written with its interval and n, or else as the reason for none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
