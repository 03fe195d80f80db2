"""What an ablation ladder shows: tables, CSV, plot and page, from the JSON of ``ladder.json``."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.experiment.curve_report import (
    chosen_by_pairs,
    curve_panels,
    curve_sentences,
    curve_tables,
)
from lateen.files import write_text
from lateen.metrics.retrieval import mean_recall
from lateen.report import (
    Column,
    Page,
    TableData,
    curve_plot,
    ladder_figures,
    ladder_plot,
    save_plot,
)
from lateen.report.page import made_with
from lateen.report.tables import over_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV, PLOT, PAGE = "ladder.csv", "ladder.png", "report.html"
_WAYS = {"text_to_image": ("T2I", "t2i"), "image_to_text": ("I2T", "i2t")}
_CUTOFFS = (1, 5, 10)


def write_ladder_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``ladder.csv`` (a row per run), ``ladder.png`` and ``report.html`` into ``folder``."""
    write_text(folder / CSV, _csv(results))
    save_plot(ladder_figure(results), folder / PLOT)
    base = results["base"]
    names = [Path(base[side]["encoder"]).name for side in ("vision", "text")]
    title, of = ("Data curve", "curve") if _over_pairs(results) else ("Ablation ladder", "rung")
    page = Page(title, f"{names[0]} × {names[1]}, every {of} with the same features")
    for table in ladder_tables(results):
        page.table(table)
    page.panels(_panels(results))
    head = "What pairs are worth" if _over_pairs(results) else "Beside the paper"
    page.section(head).text("\n\n".join(ladder_sentences(results)))
    page.section("Conditions").facts(_facts(results) | made_with())
    page.save(folder / PAGE)


def _over_pairs(results: Mapping[str, Any]) -> bool:
    """Whether the rungs are curves; what earlier versions wrote has none."""
    return bool(results.get("over_pairs"))


def _panels(results: Mapping[str, Any]) -> Iterator[tuple[Figure, str]]:
    """The figures of the page with their captions."""
    measured = "Every seed, their mean and standard deviation."
    paper = f"Of {results['paper'] or 'a paper'}, never measured here: compare the shapes."
    if not _over_pairs(results):
        figures = ladder_figures(*_plotted(results))
        yield from zip(figures, (measured, paper), strict=False)
        return
    for panel in curve_panels(results):
        seeds = "Mean and standard deviation of the seeds."
        yield curve_plot([panel]), paper if panel.published else seeds


def ladder_figure(results: Mapping[str, Any]) -> Figure:
    """The plot of a ladder, from the JSON of ``ladder.json``."""
    if _over_pairs(results):
        return curve_plot(curve_panels(results))
    return ladder_plot(*_plotted(results))


def ladder_tables(results: Mapping[str, Any]) -> list[TableData]:
    """The numbers of every rung, and its step from the rung it builds on beside the paper's; over
    numbers of pairs, those of every number and what a doubling gives."""
    if _over_pairs(results):
        return curve_tables(results)
    return [_numbers(results), _steps(results)]


def ladder_sentences(results: Mapping[str, Any]) -> list[str]:
    """What a ladder says, in sentences."""
    return (curve_sentences if _over_pairs(results) else against_the_paper)(results)


def against_the_paper(results: Mapping[str, Any]) -> list[str]:
    """One sentence for every step that is not as published: reversed, or lost between the seeds."""
    if len(results["seeds"]) < 2:
        return ["One seed alone cannot say where the paper is right."]
    sentences = []
    for rung, base in _pairs_of_rungs(results):
        paper = _published_step(rung, base)
        verdict = _verdict(rung, base)
        if verdict in (_REVERSED, _UNCLEAR) and paper is not None:
            here = statistics.mean(_mean_r1(rung)) - statistics.mean(_mean_r1(base))
            sentences.append(
                f"{rung['name']}: {verdict}. From {base['name']}, mean R@1 changes by "
                f"{_signed(here)} here and by {_signed(paper)} in the paper."
            )
    return sentences or ["No step goes against the published one."]


_AGREES, _REVERSED, _UNCLEAR = "as published", "reversed", "unclear"


def _verdict(rung: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """How the step in mean R@1 stands to the paper's. It is clear where no seed of one rung lies
    among those of the other."""
    paper = _published_step(rung, base)
    if paper is None:
        return ""
    here, there = _mean_r1(rung), _mean_r1(base)
    if len(here) < 2:
        return "one seed"
    if not (min(here) > max(there) or max(here) < min(there)):
        return _UNCLEAR
    return _AGREES if (min(here) > max(there)) == (paper > 0) else _REVERSED


def _published_step(rung: Mapping[str, Any], base: Mapping[str, Any]) -> float | None:
    """The paper's change of mean R@1, where it has both rungs."""
    steps = [_published_change(rung, base, short) for _, short in _WAYS.values()]
    known = [step for step in steps if step is not None]
    return statistics.mean(known) if len(known) == len(steps) else None


def _published_change(rung: Mapping[str, Any], base: Mapping[str, Any], short: str) -> float | None:
    after, before = rung["published"].get(short), base["published"].get(short)
    return None if after is None or before is None else after - before


def _pairs_of_rungs(
    results: Mapping[str, Any],
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Every rung that builds on another, with that one."""
    by_name = {rung["name"]: rung for rung in results["rungs"]}
    return [(rung, by_name[rung["from"]]) for rung in results["rungs"] if rung["from"]]


def _recalls(rung: Mapping[str, Any], way: str, cutoff: int = 1) -> list[float]:
    return [run[way][f"R@{cutoff}"] for run in rung["runs"]]


def _mean_r1(rung: Mapping[str, Any]) -> list[float]:
    return [mean_recall(run, (1,)) for run in rung["runs"]]


def _signed(change: float) -> str:
    return f"{change:+.1f}".replace("-", "−")


def _numbers(results: Mapping[str, Any]) -> TableData:
    heads = [f"{label} R@{cutoff}" for label, _ in _WAYS.values() for cutoff in (1, 10)]
    columns = [Column("rung", whole=True), *(Column(head, 1) for head in (*heads, "mean R@10"))]
    rows = []
    for rung in results["rungs"]:
        cells = [over_seeds(_recalls(rung, way, cutoff)) for way in _WAYS for cutoff in (1, 10)]
        published = [rung["published"].get(short) for short in ("t2i", "i2t")]
        shown = " / ".join("–" if value is None else f"{value:.1f}" for value in published)
        both = over_seeds([mean_recall(run, (10,)) for run in rung["runs"]])
        rows.append([rung["name"], *cells, both, shown if any(published) else "–"])
    count = len(results["seeds"])
    over = f"mean ± standard deviation over {count} seeds" if count > 1 else "one seed"
    paper = f" Published R@1, never measured here: {results['paper']}." if results["paper"] else ""
    chose = ", which also chose the training step" if results["chose_step"] else ""
    return TableData(
        f"Retrieval on {results['split']}{chose}",
        [*columns, Column("published T2I / I2T", 1)],
        rows,
        f"Percent of {results['images']:,} images and their captions, {over}.{paper}",
    )


def _steps(results: Mapping[str, Any]) -> TableData:
    columns = [Column("rung", whole=True), Column("from", whole=True)]
    columns += [
        Column(head, 1)
        for label, _ in _WAYS.values()
        for head in (f"{label} R@1", f"{label} published")
    ]
    rows = []
    for rung, base in _pairs_of_rungs(results):
        cells = []
        for way, (_, short) in _WAYS.items():
            here = statistics.mean(_recalls(rung, way)) - statistics.mean(_recalls(base, way))
            paper = _published_change(rung, base, short)
            cells += [_signed(here), "–" if paper is None else _signed(paper)]
        rows.append([rung["name"], base["name"], *cells, _verdict(rung, base)])
    return TableData(
        "What each step changes",
        [*columns, Column("direction")],
        rows,
        "Changes in points. The direction is that of the mean of both R@1, and clear where no seed "
        "of one rung lies among those of the other.",
    )


def _csv(results: Mapping[str, Any]) -> str:
    heads = [f"{label} R@{cutoff}" for label, _ in _WAYS.values() for cutoff in _CUTOFFS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["rung", "from", "seed", *heads, "mean R@10", "kept step", "steps", "metrics", "pairs"]
    )
    for rung in results["rungs"]:
        for run in rung["runs"]:
            recalls = [run[way][f"R@{cutoff}"] for way in _WAYS for cutoff in _CUTOFFS]
            numbers = [f"{value:.2f}" for value in (*recalls, mean_recall(run, (10,)))]
            writer.writerow(
                [rung["name"], rung["from"], run["seed"], *numbers, run["kept_step"], run["steps"],
                 run["metrics"], rung.get("pairs")]
            )  # fmt: skip
    return text.getvalue()


def _plotted(
    results: Mapping[str, Any],
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict[str, float]]]:
    measured, published = {}, {}
    for rung in results["rungs"]:
        measured[rung["name"]] = {way: _recalls(rung, way) for way in _WAYS}
        published[rung["name"]] = {
            way: rung["published"][short]
            for way, (_, short) in _WAYS.items()
            if short in rung["published"]
        }
    return measured, published


def _facts(results: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same for every rung, and then what each rung sets."""
    base, first = results["base"], results["rungs"][0]["runs"][0]
    facts = {
        "vision encoder": base["vision"]["encoder"],
        "text encoder": base["text"]["encoder"],
        "training data": base["data"]["train"],
        "seeds": ", ".join(map(str, results["seeds"])),
        "batch": base["train"]["batch"],
        "epochs": base["train"]["epochs"],
        "features judged on": first["conditions"]["data"][:16],
        "versions": ", ".join(f"{k} {v}" for k, v in first["conditions"]["versions"].items()),
    }
    for rung in results["rungs"]:
        settings = ", ".join(f"{key} {value}" for key, value in rung["set"].items())
        facts[rung["name"]] = settings or "as the rung it builds on"
    if _over_pairs(results):
        facts |= chosen_by_pairs(results)
    return facts
