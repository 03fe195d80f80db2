"""The page of an assessment, with its plots: what was measured and what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lateen.assessment.leaderboard import (
    METRICS,
    OF_VISION,
    OVER,
    PAIRWISE,
    Results,
    baselines,
    definitions,
    estimate,
    known,
    level,
    tied,
    with_interval,
)
from lateen.assessment.tables import correlations_table, encoder_tables, findings, leaderboard_table
from lateen.report import (
    Headline,
    LayerScore,
    Page,
    Point,
    heat_map,
    layer_profile,
    save_plot,
    scatter_plot,
)
from lateen.report.chance import recall_at_k
from lateen.report.plots import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


HEAT_MAP, LAYERS = "heat-map.png", "layers.png"
_MOST_GROUPS = 6
_SIDES = ("vision", "text")
_ASIDE = "baseline, not counted"
_SCORE = "mean R@10 (%)"
PAGE = "report.html"
_FIRST = 10  # rows shown before the pictures; all of them stand below


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


def write_assessment_page(results: Results, folder: Path) -> Path:
    """Write ``report.html`` and its plots as PNG into ``folder``.

    Args:
        results: the content of ``assessment.json``.
        folder: is made if it is not there.

    Returns:
        The page's path.
    """
    figures = assessment_figures(results)
    for name, figure in figures.items():
        save_plot(figure, folder / name)
    page = Page("Which encoders align?", _subtitle(results))
    page.headline(_headlines(results)).text(_measured(results))
    page.section("Findings").text("\n\n".join(findings(results)))
    page.section("The best pairs").table(leaderboard_table(results, _FIRST))
    if HEAT_MAP in figures:
        page.figure(figures[HEAT_MAP], "Rows and columns by their means, the highest first.")
    _add_predictors(page, results, figures)
    if LAYERS in figures:
        page.section("Layers").figure(figures[LAYERS], _layers_caption(results))
    page.section("Encoders")
    for table in encoder_tables(results):
        page.table(table)
    if len(results["rows"]) > _FIRST:
        page.section("Every pair").table(leaderboard_table(results))
    page.section("What each number is").facts(definitions(results))
    page.section("Conditions").facts(_facts(results))
    page.section("Remarks").text("\n\n".join(_remarks(results)))
    page.save(folder / PAGE)
    return folder / PAGE


def _layers_caption(results: Results) -> str:
    return (
        "Alignment probing of each layer with the encoder of the other side that has the highest "
        f"mean. Bars: {level(results)} intervals; layer 0 is the embeddings, output the encoder's "
        "own features."
    )


def _subtitle(results: Results) -> str:
    vision, text, pairs = (len(results[key]) for key in ("vision", "text", "rows"))
    return (
        f"{_count(vision, 'vision candidate')} × {_count(text, 'text candidate')}: "
        f"{_count(pairs, 'pair')} of frozen encoders, judged on {results['conditions']['split']}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _headlines(results: Results) -> Iterator[Headline]:
    best, ties = results["rows"][0], len(tied(results))
    low, high = best["probe"]["interval"]
    pair = f"{best['vision_label']} × {best['text_label']}; {low:.1f} to {high:.1f}"
    yield Headline(f"{best['probe']['R@10']:.1f} %", "highest mean R@10", pair)
    if len(results["rows"]) > 1:
        yield Headline(f"{ties:,}", "tied with the best", f"of {len(results['rows']) - 1:,} others")
    yield from islice(_predictors(results), 2)


def _predictors(results: Results) -> Iterator[Headline]:
    for over, noun in OVER.items():
        mine = [c for c in results["correlations"] if (c["y"], c["over"]) == ("probe", over)]
        if ranked := sorted(filter(known, mine), key=lambda c: -abs(c["pearson"])):
            top = ranked[0]
            r, interval = str(with_interval(top["pearson"], top["pearson_interval"])).split(" ", 1)
            what = f"r of {METRICS.get(top['x'], top['x'])} with probing, over {noun}"
            yield Headline(r, what, f"{interval}, n = {top['n']}")


def _measured(results: Results) -> str:
    held = results["conditions"]
    images, captions = held["images"], held["captions"]
    guess = (recall_at_k(10, images) + recall_at_k(10, captions, captions / images)) / 2
    return (
        "Each vision candidate was paired with each text candidate, and nothing in either was "
        f"trained. For every pair, linear heads were trained on {held['train_images']:,} images "
        "with their captions; how well these find the other side, as the mean of text → image and "
        f"image → text R@10 on {images:,} images and {captions:,} captions, is its alignment "
        f"probing. Guessing scores {guess:.1f} %. The cheap metrics train no heads: they compare "
        "the two feature spaces, a sample's captions averaged, or judge the vision encoder alone, "
        "and are of use as far as they predict probing.\n\n"
        f"Intervals are {level(results)} intervals. Those of R@10 say how much it would vary with "
        "other test images; another seed of training is not in them. Pairs that share an encoder "
        "are not independent, and few encoders leave any correlation wide open: read its interval "
        "before its value."
    )


def _add_predictors(page: Page, results: Results, figures: Mapping[str, Figure]) -> None:
    page.section("What predicts alignment").table(correlations_table(results))
    captions = {
        "knn": "Accuracy of the vision encoder by its nearest labelled images.",
        "linear_probe": "Accuracy of a linear classifier on the vision encoder.",
        "mutual_knn": "Neighbours that both spaces share, a point for each pair.",
        "cka": "Similarity of the two kernels, a point for each pair.",
    }
    for metric, caption in captions.items():
        if figure := figures.get(scatter_name(metric)):
            page.figure(figure, f"{caption} A label is left out where it has no room.")


def _facts(results: Results) -> dict[str, Any]:
    held = results["conditions"]
    facts = {
        "sweep": results["sweep"],
        "split": held["split"],
        "test images": held["images"],
        "test captions": held["captions"],
        "training images": held["train_images"],
        "labelled images": held["labelled_images"],
        "classes": held["classes"],
        "seed": str(held["seed"]),
        "measures": _settings(held.get("measure", {})),
        "probing: preset": held["probe"].get("preset"),
        "probing: head": _settings(held["probe"]["head"]),
        "probing: training": _settings(held["probe"]["train"]),
        "data": str(held["data"] or "–")[:16],
        "labels": str(held["labels"] or "–")[:16],
        "versions": ", ".join(f"{k} {v}" for k, v in held["versions"].items()),
    }
    return facts | {f"{k} in this call": f"{v:,.1f} s" for k, v in held["seconds"].items()}


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _remarks(results: Results) -> Iterator[str]:
    rows, held = results["rows"], results["conditions"]
    for metric in (*PAIRWISE, *OF_VISION):
        unlabelled = metric in OF_VISION and not held["labelled_images"]
        unsaid = "there are no labelled images" if unlabelled else "no reason was recorded"
        reasons = Counter(row["notes"].get(metric, unsaid) for row in rows if row[metric] is None)
        for why, count in reasons.items():
            yield f"No {METRICS[metric]} for {count:,} of {_count(len(rows), 'pair')}: {why}."
    skipped, copies = held["skipped"], held["duplicates"]
    yield f"Left out because not every feature store has them: {_count(skipped, 'sample')}."
    yield (
        f"Of those judged, {_count(copies['images'], 'image')} and "
        f"{_count(copies['texts'], 'text')} "
        "have the same features as another one: retrieval cannot tell them apart."
    )
    if trained := copies.get("trained"):
        yield (
            f"Of those judged, {_count(trained, 'image')} "
            f"{'has' if trained == 1 else 'have'} the features of one that was trained on: for "
            "these, alignment probing is too high."
        )
    for side in _SIDES:
        if max(Counter(one["encoder"] for one in results[side]).values()) > 1:
            yield (
                f"Layers and poolings of one {side} encoder count as {side} encoders of their own; "
                "they are not independent, so the intervals of correlations are too narrow."
            )
    if len(rows) > 1:
        yield "The best of many is a little flattered by having been chosen on the same images."
