"""The page of a tuning: what was gained, what was risked, and where it would have been wise to
stop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.report import Headline, Page
from lateen.report.page import made_with
from lateen.report.step_plots import StepLine, step_plot
from lateen.report.tables import INTERVAL, difference_range, signed
from lateen.tuning.summary import has_limits, sentence, tune_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
Results = Mapping[str, Any]
_MOST_HEADLINES = 3  # of measures, beside the drift and the kernel
# What the page opens with, as far as it is there.
_FIRST = ("knn_encoder", "zero_shot", "retrieval", "mmvp", "linear_probe_encoder")
_WITH_TEXTS = ("zero_shot", "retrieval", "mmvp")
_IMAGES_ALONE = (
    "knn_encoder", "knn_embedding", "linear_probe_encoder", "linear_probe_embedding",
)  # fmt: skip


def write_tune_page(results: Results, out: Path) -> Path:
    """Write ``report.html`` into the folder of a tuning.

    Args:
        results: the content of ``results.json``.
        out: the folder.

    Returns:
        The page's path.
    """
    names = [name_of(results[side]) for side in ("student", "target")]
    page = Page(f"{names[0]} tuned to {names[1]}", sentence(results["verdict"]))
    page.headline(_headlines(results))
    if remarks := list(_remarks(results)):
        page.text("\n\n".join(remarks))
    page.section("What it gained and what it cost")
    for table in tune_tables(results):
        page.table(table)
    if plots := list(_plots(results)):
        page.section("While it was tuned").text(_how_to_read(results)).panels(plots)
    page.section("Conditions").facts(_facts(results) | made_with())
    page.save(out / PAGE)
    return out / PAGE


def tune_figures(results: Results) -> dict[str, Figure]:
    """The plots of a tuning, by the name of their files."""
    figures = {
        "with-texts": _measures_figure(results, _WITH_TEXTS, "With texts"),
        "images-alone": _measures_figure(results, _IMAGES_ALONE, "Images alone"),
        "drift": _drift_figure(results),
        "kernel": _kernel_figure(results),
        "loss": _loss_figure(results),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _plots(results: Results) -> Iterator[tuple[Figure, str]]:
    captions = {
        "with-texts": "Points of percent above the start; the band is the paired 95 % interval.",
        "images-alone": "The same, of measures that need no text.",
        "drift": "Cosine of evaluation images' embeddings with those of the start.",
        "kernel": "The kernel term of each batch over that of the start.",
        "loss": "Each part of the loss, as it enters it.",
    }
    for name, figure in tune_figures(results).items():
        yield figure, captions[name]


def _how_to_read(results: Results) -> str:
    kept, stopped = results["kept_step"], results.get("stopped")
    text = f"The solid line marks step {kept:,}, which is kept"
    if stopped:
        text += f"; the dashed one step {stopped['step']:,}, at which a limit was broken"
    return f"{text}. Step 0 is the start, against which everything is measured."


def name_of(facts: Mapping[str, Any]) -> str:
    """What a model or encoder is called, without the folders that it is in; ``model`` itself is
    what every run calls it, and says nothing."""
    known = (facts.get(key) for key in ("name", "id", "encoder", "place", "vision"))
    name = next((str(value) for value in known if value), "a model")
    path = Path(name)
    return (path.parent.name if path.name == "model" else path.name) or name


def _headlines(results: Results) -> Iterator[Headline]:
    before, after = results["before"], results["after"]
    there = [name for name in _FIRST if name in before and name in after]
    for name in there[:_MOST_HEADLINES]:
        first, last = before[name], after[name]
        interval = last["difference"]["interval"]
        note = f"{first['value']:.1f} → {last['value']:.1f} %"
        if interval:
            note += f"; {INTERVAL} {difference_range(interval)}"
        note += f"; {last['n']:,} {last['of']}"
        label = f"points of {last['label']}"
        yield Headline(signed(last["difference"]["value"]), label, note)
    if drift := results.get("drift"):
        cosine = drift["cosine"]
        note = f"5 % of {drift['images']:,} images below {cosine['q05']:.3f}"
        yield Headline(f"{cosine['mean']:.3f}", "mean cosine with the start", note)
    kernel = results["kernel"]
    if kernel.get("start"):
        share = 100 * kernel["end"] / kernel["start"]
        note = f"{kernel['start']:.2g} → {kernel['end']:.2g}"
        yield Headline(f"{share:.0f} %", "of the kernel term is left", note)


def _remarks(results: Results) -> Iterator[str]:
    """What has to be known before the numbers are believed."""
    stopped = results.get("stopped")
    if stopped:
        yield f"Stopped at step {stopped['step']:,}. {' '.join(stopped['why'])}"
    checks = results["checkpoints"]
    chose = has_limits(results["settings"].get("stop")) and len(checks) > 1
    yield from data_remarks(checks, chose)


def data_remarks(checks: Sequence[Mapping[str, Any]], chose: bool) -> Iterator[str]:
    """What has to be known of the evaluation data before the numbers are believed.

    Args:
        checks: with what to ``beware`` of, and what is ``left_out``.
        chose: whether the data also decided where to stop.
    """
    if chose:
        yield (
            "These images also decided at which step to stop: measure on others before you rely on "
            "the numbers."
        )
    for key, before in (("beware", "Beware: "), ("left_out", "Not measured: ")):
        if said := list(dict.fromkeys(text for check in checks for text in check.get(key, ()))):
            yield f"{before}{'; '.join(text.rstrip('.') for text in said)}."


def _marks(results: Results) -> dict[str, float]:
    marks = {f"step {results['kept_step']:,}, kept": float(results["kept_step"])}
    if stopped := results.get("stopped"):
        marks[f"step {stopped['step']:,}, stopped"] = float(stopped["step"])
    return marks


def _measures_figure(results: Results, names: Sequence[str], title: str) -> Figure | None:
    """Differences from the start; without a single one there is no plot."""
    lines = [line for name in names if (line := _difference_line(results, name)).points]
    if not lines:
        return None
    label = "points above the start"
    return step_plot(lines, title, label, marks=_marks(results), level=0)


def _difference_line(results: Results, name: str) -> StepLine:
    points, band, label = [], [], name
    for check in results["checkpoints"]:
        if (measure := check["measures"].get(name)) and measure["difference"]:
            difference, label = measure["difference"], measure["label"]
            points.append((check["step"], difference["value"]))
            band.append(tuple(difference["interval"] or (difference["value"],) * 2))
    return StepLine(label, points, band)


def _drift_figure(results: Results) -> Figure | None:
    checks = [check for check in results["checkpoints"] if check.get("drift")]
    if not checks:
        return None
    names = {"mean": "mean", "q05": "5 % are below", "q01": "1 % are below"}
    lines = [
        StepLine(label, [(check["step"], check["drift"]["cosine"][key]) for check in checks])
        for key, label in names.items()
    ]
    return step_plot(lines, "Drift", "cosine with the start", marks=_marks(results))


def _kernel_figure(results: Results) -> Figure | None:
    points = _logged(results, "kernel_relative")
    if not points:
        return None
    lines = [StepLine("kernel term", points)]
    return step_plot(lines, "Kernel", "of the start's", marks=_marks(results), level=1)


def _loss_figure(results: Results) -> Figure | None:
    settings = results["settings"]
    term = "kernel_relative" if settings.get("pull") == "relative" else "kernel"
    parts = {
        "loss": ("loss", 1.0), "kernel term": (term, settings.get("weight", 1.0)),
        "distance from the start": ("drift", settings.get("drift", 1.0)),
    }  # fmt: skip
    every = [
        StepLine(label, [(step, weight * value) for step, value in _logged(results, key)])
        for label, (key, weight) in parts.items()
    ]
    lines = [line for line in every if any(value > 0 for _, value in line.points)]
    if not lines:
        return None
    return step_plot(lines, "Loss", "loss, log scale", marks=_marks(results), log=True)


def _logged(results: Results, key: str) -> list[tuple[float, float]]:
    rows = results.get("log", ())
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _facts(results: Results) -> dict[str, Any]:
    kernel = results["kernel"]
    stopped = results.get("stopped")
    facts: dict[str, Any] = {
        "method": results["method"],
        "student": words_of(results["student"]),
        "target": words_of(results["target"]),
        "images": results["images"],
        "steps": f"{results['steps']:,} planned, {results['kept_step']:,} kept"
        + (f", stopped at {stopped['step']:,}" if stopped else ""),
        "student's kernel": words_of(kernel["student"]),
        "target's kernel": words_of(kernel["target"]),
        "kernel's start": words_of(kernel.get("fit")),
        "kernel is learned": words_of(kernel.get("learned")),
    }
    facts |= {f"setting {key}": words_of(value) for key, value in results["settings"].items()}
    facts["time"] = f"{results['seconds']:,.0f} s"
    facts |= {
        f"key of {key}" if key in facts else key: words_of(value)
        for key, value in results["conditions"].items()
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def words_of(value: Any) -> str:
    """A setting as text; of several values each with its name."""
    if isinstance(value, Mapping):
        parts = ((key, words_of(inner)) for key, inner in value.items())
        return ", ".join(f"{key} {text}" for key, text in parts if text)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return f"{value[:16]}…" if len(value) == 64 and value.isalnum() else value
    if isinstance(value, Sequence):
        return ", ".join(map(words_of, value))
    return "" if value is None else str(value)
