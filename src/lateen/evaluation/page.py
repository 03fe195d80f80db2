"""The page of one task's result, and what pages of results have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lateen.evaluation.tables import result_tables, subject_and_split
from lateen.evaluation.task import RESULT_KINDS, Result, was_trained_on
from lateen.report.confusion import confusion_plot
from lateen.report.page import Headline, Page, interval_note, made_with
from lateen.report.plots import bar_chart

_PLOTS = {
    "confusion.png": "What each class is taken for.",
    "similarity.png": "Cosine of the two images of a pair that CLIP takes for alike.",
    "per-class.png": "IoU of each class.",
}
_MOST_PICTURES = 16
_MOST_HEADLINES = 6


def write_task_page(result: Result, folder: Path) -> Path:
    """Write ``<task>.html``: headline numbers, tables, pictures and conditions of one result.

    Args:
        result: what :func:`lateen.evaluation.evaluate` gives.
        folder: where the pictures are that the task drew.

    Returns:
        The page's path.
    """
    model, task = result["model"], str(result["task"])
    about = ": ".join(filter(None, (task, subject_and_split(result))))
    page = Page(f"{model['vision']} × {model['text']}", about)
    if numbers := list(_headlines(result))[:_MOST_HEADLINES]:
        page.headline(numbers)
    page.section("Results")
    for table in result_tables(result):
        page.table(table)
    for warning in result.get("warnings", ()):
        page.text(f"Beware: {warning}.")
    add_pictures(page, folder, result, _MOST_PICTURES)
    page.section("Conditions").facts(_facts(result) | made_with())
    path = folder / f"{task}.html"
    page.save(path)
    return path


def add_pictures(page: Page, folder: Path, result: Result, most: int) -> None:
    """The plots of a result, and at most so many of the other pictures that its task drew.

    Only those that the result names: of other images, or of another model, some may lie in
    ``folder`` still. Plots of what the result holds are drawn again, in the page's type and
    colours.
    """
    from PIL import Image

    paths = list(_pictures(folder, result))
    plots = {}
    if confusion := result.get("confusion"):
        pairs = result.get("most_confused", ())
        plots["confusion.png"] = confusion_plot(confusion["names"], confusion["counts"], pairs)
    if "per-class.png" in {path.name for path in paths}:
        plots["per-class.png"] = bar_chart(result["per_class"], label="IoU (%)")
    for name, plot in plots.items():
        page.figure(plot, _PLOTS[name])
    paths = [path for path in paths if path.name not in plots]
    others = [path for path in paths if path.name not in _PLOTS]
    for path in [*(path for path in paths if path.name in _PLOTS), *others[:most]]:
        with Image.open(path) as picture:
            page.figure(picture, _PLOTS.get(path.name, ""), alt=path.stem)
    if len(others) > most:
        page.text(f"{len(others) - most:,} more pictures are in `{folder}`.")


def _pictures(folder: Path, result: Result) -> Iterator[Path]:
    """The files, whether the result names them from its folder or from where it was made."""
    named = result.get("pictures") or ()
    for name in sorted(map(str, named.values() if isinstance(named, Mapping) else named)):
        places = (folder / name, folder / Path(name).name)
        yield from [path for path in places if path.is_file()][:1]


def _headlines(result: Result) -> Iterator[Headline]:
    task = RESULT_KINDS[result["task"]]
    for label, value, chance in task.main_numbers(result):
        # Most are percent, but a task may lead with a cosine or a rank.
        shown = f"{value:.1f}" if abs(value) >= 1 else f"{value:.3g}"
        note = headline_note(result, label, None if chance is None else f"{chance:.1f}")
        yield Headline(shown, label, note)


def headline_note(result: Result, label: str, chance: str | None) -> str:
    """What stands below a number: its interval, what guessing scores, images trained on.

    Args:
        result: of a task.
        label: of the number, in the task's headline.
        chance: what guessing scores, if that is known.
    """
    trained_on = was_trained_on(result)
    notes = [
        interval_note(result, RESULT_KINDS[result["task"]].headline[label]),
        f"chance {chance}" if chance is not None else "",
        f"beware: {trained_on}" if trained_on else "",
    ]
    return "; ".join(filter(None, notes))


def _facts(result: Result) -> dict[str, Any]:
    model = result["model"]
    templates = result.get("templates") or ()
    options = ", ".join(f"{key} {value}" for key, value in result.get("options", {}).items())
    facts = {
        "model": model["place"],
        "vision encoder": model["vision"],
        "text encoder": model["text"],
        "head": model["head"],
        "options": options or None,
        "prompts": f"{len(templates)}, such as {templates[0]!r}" if templates else None,
        "seed": None if result.get("seed") is None else str(result["seed"]),
        **condition_facts(result),
    }
    return {name: value for name, value in facts.items() if value is not None}


def condition_facts(result: Result) -> dict[str, str]:
    """What a result's numbers depend on: the keys of its data and its model, and versions.

    Args:
        result: of any kind.
    """
    conditions = result["conditions"]
    return {
        "data key": str(conditions.get("data", "–"))[:16],
        "model key": str(conditions.get("model", "–"))[:16],
        "versions": ", ".join(f"{k} {v}" for k, v in conditions.get("versions", {}).items()),
    }
