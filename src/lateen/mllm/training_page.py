"""The page of a stage: what was learned, and what the model says of images that it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.data.samples import ImageSource
from lateen.mllm.held_out import ANOTHER, LOWER, OWN
from lateen.report import Headline, Page
from lateen.report.page import Card, made_with
from lateen.report.step_plots import StepLine, step_plot
from lateen.report.tables import Column, TableData, interval_cell
from lateen.report.text import without_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Results = Mapping[str, Any]


def write_training_page(results: Results, path: Path, images: Mapping[str, ImageSource]) -> Path:
    """Write the page of a stage.

    Args:
        results: the content of ``training.json``.
        path: of the file.
        images: by id, of which the page shows some.

    Returns:
        The page's path.
    """
    model = results["model"]
    tuned = f", {results['tune']}" if results["tune"] else ""
    page = Page(f"{Path(model['tower']).name} × {model['llm']}", f"stage {results['stage']}{tuned}")
    page.headline(_headlines(results))
    page.text(_in_words(results))
    if results["checks"]:
        page.section("Held-out images").table(checks_table(results))
    page.panels(_plots(results))
    if results["said"]:
        page.section("What it says of some of them")
        page.cards(_card(each, images) for each in results["said"])
    page.section("Conditions").facts(_facts(results) | made_with())
    page.save(path)
    return path


def checks_table(results: Results) -> TableData:
    """The loss on held-out images at every check, under the own image and under another's."""
    rows = [
        [check["step"], check[OWN], check[ANOTHER], check[LOWER],
         interval_cell(check["intervals"][LOWER])]
        for check in results["checks"]
    ]  # fmt: skip
    last = results["checks"][-1]
    columns = [
        Column("step", 0), Column("loss, own image", 3), Column("loss, another's", 3),
        Column("own lower, %", 1), Column("95 % interval"),
    ]  # fmt: skip
    note = (
        f"Mean loss of a token in {last['conversations']:,} conversations about {last['n']:,} "
        "images, none of which is learned. Where the image says nothing, the own one's loss is the "
        "lower one for 50 %."
    )
    return TableData("Loss", columns, rows, note)


def _headlines(results: Results) -> Iterator[Headline]:
    if results["checks"]:
        last = results["checks"][-1]
        low, high = last["intervals"][LOWER]
        note = f"{low:.1f}–{high:.1f}, chance 50"
        yield Headline(f"{last[LOWER]:.1f} %", "own image's loss lower", note)
        yield Headline(f"{last[OWN]:.2f}", "held-out loss", f"{last[ANOTHER]:.2f} under another's")
    yield Headline(
        f"{results['steps']:,}", "steps", f"{results['seconds'] / 60:.1f} minutes in all"
    )


def _in_words(results: Results) -> str:
    data = results["data"]
    moved = {
        None: "The projector alone was trained.",
        "full": "The language model and the projector were trained.",
        "lora": "The projector and additions of low rank to the language model were trained; these "
        "are merged into it.",
    }[results["tune"]]
    tower = " The tower was trained, too." if results["recipe"]["train"]["tune_tower"] else ""
    left = f" {data['skipped']:,} were left out." if data["skipped"] else ""
    short = (
        f" Of long ones {data['turns_left_out']:,} last turns were left out."
        if data["turns_left_out"] else ""
    )  # fmt: skip
    return (
        f"{moved}{tower} It learned from {data['conversations']:,} conversations about "
        f"{data['images']:,} images of {without_folders(data['name'])}.{left}{short}"
    )


def _plots(results: Results) -> Iterator[tuple[Figure, str]]:
    rows, checks = results["log"], results["checks"]
    if rows:
        line = StepLine("loss", [(row["step"], row["loss"]) for row in rows])
        yield step_plot([line], "Training", "loss of a token"), "Mean over the steps of a row."
    if len(checks) > 1:
        lines = [
            StepLine(label, [(check["step"], check[name]) for check in checks],
                     [tuple(check["intervals"][name]) for check in checks])
            for name, label in ((OWN, "own image"), (ANOTHER, "another's"))
        ]  # fmt: skip
        yield (
            step_plot(lines, "Held-out images", "loss of a token"),
            "The bands are 95 % intervals over images.",
        )


def _card(said: Mapping[str, Any], images: Mapping[str, ImageSource]) -> Card:
    cut = " … (cut)" if said["cut"] else ""
    facts = {"said": f"{said['said']}{cut}" or "(nothing)", "in the data": said["right"]}
    return Card([images[name] for name in said["images"]], said["asked"], facts)


def _facts(results: Results) -> dict[str, Any]:
    model, recipe = results["model"], results["recipe"]
    train = recipe["train"]
    facts = {
        "tower": model["tower"],
        "tokens of an image": model["tokens_per_image"],
        "language model": model["llm"],
        "began with a projector": model["projector"],
        "parameters that moved": results["parameters"],
        "data": without_folders(results["data"]["name"]),
        "conversations per step": train["batch"],
        "peak learning rate": train["lr"],
        "of the projector": train["projector_lr"],
        "precision": results["precision"],
        "image tokens": {"stored": "made before, in float16", "live": "made in every step"}[
            results["features"]
        ],
        "seed": train["seed"],
    }
    return {name: value for name, value in facts.items() if value is not None}
