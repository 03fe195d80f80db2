"""Results as ``assessment.json`` holds them, of made-up encoders."""

import math
import random
import statistics
from typing import Any

from lateen.assessment.measure import PairMeasure, measures

PAIRWISE = tuple(measure.key for measure in measures(PairMeasure))


def candidate(name: str, layer: int | None = None, **more: Any) -> dict[str, Any]:
    label = name if layer is None else f"{name} · layer {layer}"
    return {"label": label, "encoder": name, "layer": layer, "pooling": "pooler", **more}


def results(
    vision: list[dict[str, Any]],
    text: list[dict[str, Any]],
    *,
    labelled: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Every pair of ``vision`` and ``text``; each has a quality, and metrics follow it noisily."""
    noise = random.Random(seed)
    quality = {c["label"]: noise.uniform(0.2, 1.0) for c in [*vision, *text]}
    rows = [_row(v, t, quality, noise, labelled) for v in vision for t in text]
    rows.sort(key=lambda row: -row["probe"]["R@10"])
    for rank, row in enumerate(rows, start=1):
        row["rank"] = rank
        row["ties_with_best"] = rank > 1 and row["probe"]["R@10"] > rows[0]["probe"]["R@10"] - 1.5
    for side, mine in (("vision", vision), ("text", text)):
        for one in mine:
            scores = [r["probe"]["R@10"] for r in rows if r[f"{side}_label"] == one["label"]]
            one.setdefault("baseline", False)
            one |= {"dim": 384, "mean_probe": statistics.fmean(scores)}
    for one in vision:
        first = next(r for r in rows if r["vision_label"] == one["label"])
        one["knn"] = {"10": first["knn"], "20": first["knn"] - 0.4} if labelled else None
        probe = {"accuracy": first["linear_probe"], "c": {"0": 0.1}}
        one["linear_probe"] = probe if labelled else None
    for one in text:
        one.setdefault("score", None)
    return {
        "task": "assessment",
        "sweep": "grid" if min(len(vision), len(text)) > 1 else "language-anchored",
        "rows": rows,
        "vision": vision,
        "text": text,
        "correlations": _correlations(rows, vision, text, labelled),
        "gaps": [_gap(vision)] if labelled else [],
        "conditions": _conditions(labelled),
    }


def grid(**more: Any) -> dict[str, Any]:
    """Ten vision encoders, one of them the baseline, by six text encoders."""
    names = ["mobilenet-v2", "dinov2-small", "dinov2-base", "mae-base", "aimv2-large", "clip-b16",
             "ijepa-huge", "resnet-50", "deit-tiny"]  # fmt: skip
    vision = [candidate(name) for name in names] + [candidate("pixels", baseline=True)]
    texts = ["all-MiniLM-L6-v2", "all-mpnet-base-v2", "gte-base-en-v1.5", "bge-small"]
    text = [candidate(name, score=56 + 2.0 * i) for i, name in enumerate(texts)]
    text += [candidate("all-MiniLM-L6-v2", layer) for layer in (2, 4)]
    return results(vision, text, **more)


def _row(
    v: dict[str, Any], t: dict[str, Any], quality: dict[str, float], noise: random.Random,
    labelled: bool,
) -> dict[str, Any]:  # fmt: skip
    q, s = quality[v["label"]], quality[t["label"]]
    mean = 70 * q * (0.6 + 0.4 * s) + noise.gauss(0, 1)
    ways = {
        way: {"R@1": 0.4 * mean + d, "R@5": 0.8 * mean + d, "R@10": mean + d}
        for way, d in (("text_to_image", -1.0), ("image_to_text", 1.0))
    }
    both = {f"R@{k}": f * mean for k, f in ((1, 0.4), (5, 0.8), (10, 1.0))}
    seen = random.Random(ascii(v["label"]))
    return {
        "vision": v["encoder"], "text": t["encoder"], "layer": v["layer"], "pooling": v["pooling"],
        "text_layer": t["layer"], "text_pooling": "mean", "vision_label": v["label"],
        "text_label": t["label"],
        "probe": {**both, "interval": [mean - 2.1, mean + 2.3], "level": 0.95, **ways},
        **{m: max(-0.02, 0.1 + 0.4 * q * s + noise.gauss(0, 0.05)) for m in PAIRWISE},
        "knn": 60 + 38 * q + seen.gauss(0, 0.5) if labelled else None,
        "linear_probe": 75 + 20 * q + seen.gauss(0, 3) if labelled else None,
        "notes": {},
    }  # fmt: skip


def _correlations(
    rows: list[dict[str, Any]], vision: list[dict[str, Any]], text: list[dict[str, Any]],
    labelled: bool,
) -> list[dict[str, Any]]:  # fmt: skip
    aside = {one["label"] for one in (*vision, *text) if one["baseline"]}
    rows = [r for r in rows if not {r["vision_label"], r["text_label"]} & aside]
    vision = [v for v in vision if not v["baseline"]]
    over = "pairs" if min(len(vision), len(text)) > 1 else "vision" if len(text) == 1 else "text"
    found = [_correlation(m, over, [(r[m], r["probe"]["R@10"]) for r in rows]) for m in PAIRWISE]
    if labelled:
        knn = [(v["knn"]["10"], v["mean_probe"]) for v in vision]
        probe = [(v["linear_probe"]["accuracy"], v["mean_probe"]) for v in vision]
        found += [_correlation("knn", "vision", knn), _correlation("linear_probe", "vision", probe)]
    scored = [(t["score"], t["mean_probe"]) for t in text if t["score"] is not None]
    return [*found, *([_correlation("score", "text", scored)] if scored else [])]


def _correlation(x: str, over: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    head = {"x": x, "y": "probe", "over": over, "n": len(points)}
    if len(points) < 4:
        none = dict.fromkeys(("pearson", "pearson_interval", "spearman", "spearman_interval"))
        return {**head, **none, "reason": f"{len(points)} points are fewer than 4"}
    r = statistics.correlation(*zip(*points, strict=True))
    half = 1.96 / math.sqrt(max(1, len(points) - 3))
    interval = [math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)]
    return {**head, "pearson": r, "pearson_interval": interval, "spearman": 0.98 * r,
            "spearman_interval": [0.95 * interval[0], interval[1]], "reason": None}  # fmt: skip


def _gap(vision: list[dict[str, Any]]) -> dict[str, Any]:
    few = len(vision) < 4
    return {
        "better": "knn", "than": "linear_probe", "over": "vision", "n": len(vision),
        "difference": None if few else 0.03, "interval": None if few else [-0.02, 0.11],
        "reason": f"{len(vision)} points are fewer than 4" if few else None,
    }  # fmt: skip


def _conditions(labelled: bool) -> dict[str, Any]:
    return {
        "images": 1000, "captions": 5000, "train_images": 6000, "split": "test",
        "labelled_images": 800 if labelled else None, "classes": 10 if labelled else None, "k": 10,
        "measure": {"k": 10, "svcca_dim": 10, "temperature": 0.07, "level": 0.95},
        "probe": {"preset": "probe", "head": {"name": "linear", "dim": 2048},
                  "train": {"epochs": 50, "lr": 1e-3}},
        "seed": 0, "data": "ab12" * 16, "labels": "cd34" * 16 if labelled else None,
        "versions": {"lateen": "0.1.0", "torch": "2.13.0"}, "skipped": 2,
        "duplicates": {"images": 0, "texts": 3}, "seconds": {"encode": 61.2, "probe": 140.0},
    }  # fmt: skip
