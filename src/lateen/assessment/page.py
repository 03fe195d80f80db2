"""The page of an assessment, with its plots: what was measured and what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lateen.assessment.chance import chance_remarks, networks_table
from lateen.assessment.correlations import (
    OVER,
    correlation_text,
    count_networks,
    has_interval,
    with_interval,
)
from lateen.assessment.leaderboard import Results, baseline_labels, interval_level, tied_rows
from lateen.assessment.measure import (
    Measure,
    PairMeasure,
    Scatter,
    VisionMeasure,
    measure_definitions,
    measure_name,
    measures,
)
from lateen.assessment.tables import (
    NARROW,
    correlations_table,
    encoder_tables,
    few_encoders,
    findings,
    leaderboard_table,
)
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
from lateen.report.page import made_with
from lateen.report.plots import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


HEAT_MAP, LAYERS = "heat-map.png", "layers.png"
_SIDES = ("vision", "text")
_ASIDE = "baseline, not counted"
_SCORE = "mean R@10 (%)"
PAGE = "report.html"
_FIRST = 10  # rows shown before the pictures; all of them stand below


def assessment_figures(results: Results) -> dict[str, Figure]:
    """The plots that these results have enough for, by the name of their file."""
    figures = {}
    for measure, _ in _plotted_measures():
        of_vision = isinstance(measure, VisionMeasure)
        points = (_vision_points if of_vision else _pair_points)(results, measure.key)
        if len(points) > 1:
            figures[scatter_name(measure.key)] = _scatter_figure(results, measure, points)
    if min(len(results["vision"]), len(results["text"])) > 1:
        cells = {(r["vision_label"], r["text_label"]): r["probe"]["R@10"] for r in results["rows"]}
        figures[HEAT_MAP] = heat_map(cells, label=f"Alignment probing, {_SCORE}")
    if panels := _layer_panels(results):
        figures[LAYERS] = layer_profile(panels, ylabel=_SCORE)
    return figures


def _plotted_measures() -> list[tuple[Measure, Scatter]]:
    """The measures that are plotted, in the order of their plots."""
    rows = measures(VisionMeasure, PairMeasure)
    plotted = [(row, row.scatter) for row in rows if row.scatter is not None]
    return sorted(plotted, key=lambda pair: pair[1].order)


def scatter_name(key: str) -> str:
    """The file of a measure's scatter plot."""
    return f"scatter-{key.replace('_', '-')}.png"


def _scatter_figure(results: Results, measure: Measure, points: list[Point]) -> Figure:
    correlation = _plotted_correlation(results, measure)
    of_vision = isinstance(measure, VisionMeasure)
    return scatter_plot(
        points,
        f"{measure.name}{_axis_unit(results, measure)}",
        f"{_SCORE}, mean over text encoders" if of_vision else _SCORE,
        _correlation_note(results, correlation),
        line=correlation is not None and has_interval(correlation),
    )


def _axis_unit(results: Results, measure: Measure) -> str:
    """What a measure is in; of an accuracy also the k that ranks, the first that was asked for."""
    if not isinstance(measure, VisionMeasure):
        return ""
    k = next((k for one in results["vision"] for k in measure.by_k(one.get(measure.key))), None)
    return " (%)" if k is None else f" (%), k = {k}"


def _correlation_note(results: Results, correlation: Mapping[str, Any] | None) -> str:
    if correlation is None:
        return "no correlation was taken"
    text = correlation_text(correlation)
    level = f" ({interval_level(results)} interval)"
    return f"Pearson {text}{level}" if has_interval(correlation) else text


def _plotted_correlation(results: Results, measure: Measure) -> Mapping[str, Any] | None:
    """That of the plotted points: with one encoder on a side, pairs are the other's encoders."""
    real = {side: sum(not one["baseline"] for one in results[side]) for side in _SIDES}
    if isinstance(measure, VisionMeasure):
        over = "vision"
    elif min(real.values()) > 1:
        over = "pairs"
    else:
        over = "vision" if real["text"] == 1 else "text"
    sought = (measure.key, "probe", over)
    return next((c for c in results["correlations"] if (c["x"], c["y"], c["over"]) == sought), None)


def _vision_points(results: Results, key: str) -> list[Point]:
    """One for each vision candidate; y is its mean over all texts that are no baseline."""
    vision, baselines = results["vision"], baseline_labels(results)
    points = []
    for one in vision:
        rows = [r for r in results["rows"] if r["vision_label"] == one["label"]]
        probes = [r["probe"]["R@10"] for r in rows if r["text_label"] not in baselines]
        if probes and rows[0].get(key) is not None:
            fitted = not one["baseline"]
            counted = one.get("counted")
            points.append(
                Point(
                    one["label"], rows[0][key], fmean(probes),
                    one["encoder"] if fitted else _ASIDE, fitted,
                    (counted["interval"][0], counted["interval"][1]) if counted else None,
                )
            )  # fmt: skip
    return points


def _pair_points(results: Results, key: str) -> list[Point]:
    """Of the colour of their vision encoder; of the text encoder where there is one of vision."""
    baselines = baseline_labels(results)
    several = [side for side in _SIDES if len(results[side]) > 1]
    coloured = "vision" if len({row["vision"] for row in results["rows"]}) > 1 else "text"
    points = []
    for row in results["rows"]:
        if row.get(key) is not None:
            sides = [row[f"{side}_label"] for side in _SIDES]
            named = [row[f"{side}_label"] for side in several or _SIDES]
            label = named[0] if len(named) == 1 else " × ".join(shortened(n, 16) for n in named)
            fitted = not baselines & set(sides)
            low, high = row["probe"]["interval"]
            at = (row[key], row["probe"]["R@10"])
            group = row[coloured] if fitted else _ASIDE
            points.append(Point(label, *at, group, fitted, (low, high)))
    return points


def _layer_panels(results: Results) -> dict[str, dict[str, list[LayerScore]]]:
    """Where an encoder has several layers: their probing with the other side's best encoder."""
    scores = {(r["vision_label"], r["text_label"]): r["probe"] for r in results["rows"]}
    panels = {}
    for side, other in (("vision", "text"), ("text", "vision")):
        partner = _best_partner(results, other)
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


def _best_partner(results: Results, side: str) -> str:
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
    page.headline(_headlines(results)).text(_how_measured(results))
    page.section("Findings").text("\n\n".join(findings(results)))
    more = len(results["rows"]) > _FIRST
    page.section("The best pairs")
    page.table(leaderboard_table(results, _FIRST, NARROW if more else None))
    if (networks := networks_table(results)).rows:
        page.table(networks)
    if HEAT_MAP in figures:
        page.figure(figures[HEAT_MAP], "Rows and columns by their means, the highest first.")
    _add_predictors(page, results, figures)
    if LAYERS in figures:
        page.section("Layers").text(_layers_caption(results)).panels(
            (layer_profile({title: lines}, ylabel=_SCORE), "")
            for title, lines in _layer_panels(results).items()
        )
    page.section("Encoders")
    for table in encoder_tables(results):
        page.table(table)
    if more:
        page.section("Every pair").table(leaderboard_table(results))
    page.section("What each number is").facts(measure_definitions(results))
    page.section("Conditions").facts(_conditions(results) | made_with())
    page.section("Remarks").text("\n\n".join(_remarks(results)))
    page.save(folder / PAGE)
    return folder / PAGE


def _layers_caption(results: Results) -> str:
    return (
        "Alignment probing of each layer with the encoder of the other side that has the highest "
        f"mean. Bars: {interval_level(results)} intervals; layer 0 is the embeddings, output the "
        "encoder's own features."
    )


def _subtitle(results: Results) -> str:
    vision, text, pairs = (len(results[key]) for key in ("vision", "text", "rows"))
    return (
        f"{_counted(vision, 'vision candidate')} × {_counted(text, 'text candidate')}: "
        f"{_counted(pairs, 'pair')} of frozen encoders, judged on {results['conditions']['split']}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _headlines(results: Results) -> Iterator[Headline]:
    best, ties = results["rows"][0], len(tied_rows(results))
    low, high = best["probe"]["interval"]
    pair = f"{best['vision_label']} × {best['text_label']}; {low:.1f} to {high:.1f}"
    yield Headline(f"{best['probe']['R@10']:.1f} %", "highest mean R@10", pair)
    if len(results["rows"]) > 1:
        yield Headline(f"{ties:,}", "tied with the best", f"of {len(results['rows']) - 1:,} others")
    yield from islice(_predictor_headlines(results), 2)


def _predictor_headlines(results: Results) -> Iterator[Headline]:
    for over, noun in OVER.items():
        correlations = [
            c for c in results["correlations"] if (c["y"], c["over"]) == ("probe", over)
        ]
        strongest = sorted(filter(has_interval, correlations), key=lambda c: -abs(c["pearson"]))
        if strongest:
            top = strongest[0]
            r, interval = str(with_interval(top["pearson"], top["pearson_interval"])).split(" ", 1)
            what = f"r of {measure_name(top['x'])} with probing, over {noun}"
            yield Headline(r, what, f"{interval}, n = {top['n']}")


def _how_measured(results: Results) -> str:
    conditions = results["conditions"]
    images, captions = conditions["images"], conditions["captions"]
    guess = (recall_at_k(10, images) + recall_at_k(10, captions, captions / images)) / 2
    return (
        "Each vision candidate was paired with each text candidate, and nothing in either was "
        f"trained. For every pair, linear heads were trained on {conditions['train_images']:,} "
        f"images with their captions{_seeds_text(results)}; how well these find the other side, as "
        f"the mean of text → image and image → text R@10 on {images:,} images and {captions:,} "
        f"captions, is its alignment probing. Guessing scores {guess:.1f} %. The cheap metrics "
        "train no heads: they compare the two feature spaces, a sample's captions averaged, or "
        "judge the vision encoder alone, and are of use as far as they predict probing.\n\n"
        f"Intervals are {interval_level(results)} intervals. Those of R@10 say how much it would "
        "vary with other test images; another seed of training is not in them. Pairs that share an "
        "encoder are not independent, and few encoders leave any correlation wide open: read its "
        "interval before its value."
    )


def _seeds_text(results: Results) -> str:
    seeds = results["conditions"]["probe"].get("seeds")
    return f", {len(seeds)} times with other seeds" if seeds else ""


def _add_predictors(page: Page, results: Results, figures: Mapping[str, Figure]) -> None:
    page.section("What predicts alignment")
    if few := few_encoders(results):
        page.text(few)
    table = correlations_table(results)
    if table.rows or not few:
        page.table(table)
    plots = [
        (figures[name], scatter.caption)
        for measure, scatter in _plotted_measures()
        if (name := scatter_name(measure.key)) in figures
    ]
    if plots:
        page.panels(plots).text(
            f"Bars are {interval_level(results)} intervals of R@10 over test images. The highest "
            "point and those farthest from the line are named."
        )


def _conditions(results: Results) -> dict[str, Any]:
    conditions = results["conditions"]
    several = conditions["probe"].get("seeds")
    seeds = {"seed": " and ".join(map(str, several))} if several else {}
    facts = {
        "sweep": results["sweep"],
        "split": conditions["split"],
        "test images": conditions["images"],
        "test captions": conditions["captions"],
        "training images": conditions["train_images"],
        "labelled images": conditions["labelled_images"],
        "classes": conditions["classes"],
        "seed": str(conditions["seed"]),
        "measures": _settings_text(conditions.get("measure", {})),
        "probing: preset": conditions["probe"].get("preset"),
        "probing: head": _settings_text(conditions["probe"]["head"]),
        "probing: training": _settings_text(conditions["probe"]["train"] | seeds),
        "data": str(conditions["data"] or "–")[:16],
        "labels": str(conditions["labels"] or "–")[:16],
        "versions": ", ".join(f"{k} {v}" for k, v in conditions["versions"].items()),
    }
    return facts | {f"{k} in this call": f"{v:,.1f} s" for k, v in conditions["seconds"].items()}


def _settings_text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _remarks(results: Results) -> Iterator[str]:
    rows, conditions = results["rows"], results["conditions"]
    for measure in measures(PairMeasure, VisionMeasure):
        unlabelled = isinstance(measure, VisionMeasure) and not conditions["labelled_images"]
        unsaid = "there are no labelled images" if unlabelled else "no reason was recorded"
        missing = [row for row in rows if row.get(measure.key) is None]
        reasons = Counter(row["notes"].get(measure.key, unsaid) for row in missing)
        for why, count in reasons.items():
            yield f"No {measure.name} for {count:,} of {_counted(len(rows), 'pair')}: {why}."
    yield from chance_remarks(results)
    skipped, copies = conditions["skipped"], conditions["duplicates"]
    yield f"Left out because not every feature store has them: {_counted(skipped, 'sample')}."
    yield (
        f"Of those judged, {_counted(copies['images'], 'image')} and "
        f"{_counted(copies['texts'], 'text')} "
        "have the same features as another one: retrieval cannot tell them apart."
    )
    if trained := copies.get("trained"):
        yield (
            f"Of those judged, {_counted(trained, 'image')} "
            f"{'has' if trained == 1 else 'have'} the features of one that was trained on: for "
            "these, alignment probing is too high."
        )
    for side in _SIDES:
        if count_networks(results[side]) < sum(not one["baseline"] for one in results[side]):
            yield (
                f"Layers and poolings of one {side} network are not independent: intervals of "
                "correlations resample networks."
            )
    if len(rows) > 1:
        yield "The best of many is a little flattered by having been chosen on the same images."
