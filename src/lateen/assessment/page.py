"""The page of an assessment: what was measured, what it says, every number with its conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.assessment.figures import HEAT_MAP, LAYERS, assessment_figures, scatter_name
from lateen.assessment.tables import correlations_table, encoder_tables, findings, leaderboard_table
from lateen.assessment.wording import (
    METRICS,
    OF_VISION,
    OVER,
    PAIRWISE,
    Results,
    definitions,
    known,
    level,
    tied,
    with_interval,
)
from lateen.report import Headline, Page, save_plot
from lateen.report.chance import recall_at_k

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_SIDES = ("vision", "text")
_FIRST = 10  # rows shown before the pictures; all of them stand below


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
