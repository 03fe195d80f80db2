"""The demo from the world to the page, on the same functions that any user calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lateen.demo.wording import COLOUR_PROMPTS, SENTENCES, SHAPE_PROMPTS
from lateen.demo.world import World, generate_world
from lateen.evaluation import evaluate_classification
from lateen.experiment import RunResult, run
from lateen.experiment.page import add_examples, add_training, best_matches
from lateen.experiment.recipe import Recipe
from lateen.files import refuse_foreign
from lateen.metrics.retrieval import mean_recall
from lateen.progress import log
from lateen.report import Headline, Page, TableData, classification_table, retrieval_table
from lateen.report.sheet import contact_sheet, save_png

TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
VISION_ENCODER = "lateen.demo.descriptor:describe"
_WHAT = """\
The world is drawn: scenes of one to three shapes in eight colours and two sizes, each with two \
short captions that leave things out and make mistakes, and one detailed caption. The vision \
encoder is not a network: it is a classical descriptor of colours and edges, written in this \
package and plugged in by its dotted path (`lateen.demo.descriptor:describe`), as you can plug in \
your own. The text encoder is MiniLM. Both stay frozen.

Features were computed once and kept in stores; a linear head on each side was then trained with \
SAIL's sigmoid loss, short and detailed captions both counting as positives. Sixteen of the 64 \
combinations of shape and colour were never shown in training; the zero-shot numbers are on those \
alone."""
_LIMITS = """\
Colours and shapes are easy, and a classical descriptor sees them well: these numbers say that the \
machinery works, not how good a CLIP of yours will be. Which object is on the left, and which \
colour belongs to which object, is learned only in part, as in CLIP itself."""


def run_demo(out: Path, *, quick: bool = False) -> tuple[Path, list[TableData]]:
    """Generate the world, train on it, evaluate, search, and write one page about it.

    Args:
        out: folder of the demo; a second call skips what is done.
        quick: a tenth of the data and of the training: a smoke test.

    Returns:
        The page's path, and the result tables.
    """
    refuse_foreign(
        out, "the folder of a demo", ("world/world.json", "world/.lock", "run/results.json")
    )
    log.info("drawing the world into %s", out / "world")
    sizes = {"train": 400, "test": 100} if quick else {"train": 4000, "test": 500}
    world = generate_world(out / "world", **sizes)
    result = run(_recipe(world, quick), out / "run")
    shape = evaluate_classification(
        result.model, images=world.folder / "unseen-shape", templates=SHAPE_PROMPTS,
        cache=out / "run/stores/unseen-shape",
    )  # fmt: skip
    colour = evaluate_classification(
        result.model, images=world.folder / "unseen-colour", templates=COLOUR_PROMPTS,
        cache=out / "run/stores/unseen-colour",
    )  # fmt: skip
    tables = _tables(result, shape, colour)
    return _write_page(out, result, tables, shape, colour), tables


def _recipe(world: World, quick: bool) -> Recipe:
    return Recipe.build({
        "data": {"root": world.folder, "train": "train.jsonl", "test": "test.jsonl",
                 "captions": ["short", "detailed"]},
        "vision": {"encoder": VISION_ENCODER},
        "text": {"encoder": TEXT_ENCODER},
        "train": {"batch": 128} if quick else {"epochs": 30},
    })  # fmt: skip


def _tables(result: RunResult, shape: dict[str, Any], colour: dict[str, Any]) -> list[TableData]:
    retrieval = result.results["retrieval"]
    return [
        retrieval_table(retrieval, title="Retrieval with short captions, scenes never seen"),
        classification_table(shape, title="Zero-shot shape, combinations never seen"),
        classification_table(colour, title="Zero-shot colour, combinations never seen"),
    ]


def _write_page(
    out: Path, result: RunResult, tables: list[TableData], shape: dict[str, Any],
    colour: dict[str, Any],
) -> Path:  # fmt: skip
    retrieval = result.results["retrieval"]
    images = {i: s.image for i, s in result.samples.items() if s.image is not None}
    recall = mean_recall(retrieval, (10,))
    rows = best_matches(result.model, SENTENCES, result.pairs, images)
    save_png(contact_sheet(rows), out / "sheet.png")
    page = Page("A CLIP from two frozen encoders", "lateen's demo, without data or network")
    page.headline([
        Headline(f"{recall:.0f} %", "mean R@10", f"among {len(images)} new scenes"),
        Headline(f"{shape['top1']:.0f} %", "zero-shot shape", "combinations never seen"),
        Headline(f"{colour['top1']:.0f} %", "zero-shot colour", "combinations never seen"),
    ])  # fmt: skip
    add_examples(page, rows)
    page.section("What was done").text(_WHAT)
    page.section("Results")
    for table in tables:
        page.table(table)
    page.text(_LIMITS)
    add_training(page, result)
    model = result.out / "model"
    page.section("What to run next").code(
        f'lateen search {model} "a big blue heart" --images {out}/world/images --out sheet.png\n'
        f"lateen inspect {min((result.out / 'stores').glob('train-vision*'))}\n"
        "lateen run recipes/flickr8k.yaml --data.root path/to/flickr8k --out runs/f8k"
    )
    page.save(out / "report.html")
    return out / "report.html"
