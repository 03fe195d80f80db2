"""The page that a run leaves behind: numbers, examples, training curve, conditions, next steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lateen.data import ImageSource
from lateen.experiment.runs import RunResult
from lateen.features import Pairs
from lateen.metrics.retrieval import mean_recall
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.report import (
    Headline,
    Page,
    SheetHit,
    SheetRow,
    TableData,
    bar_chart,
    classification_table,
    retrieval_table,
    training_curve,
)
from lateen.report.chance import recall_at_k
from lateen.report.tables import interval_cell

PAGE = "report.html"
_MOST_CHANCE = 10.0  # percent: what guessing may find in a number that leads


def best_matches(
    model: AlignedModel,
    queries: Sequence[str],
    pairs: Pairs,
    images: Mapping[str, ImageSource],
    k: int = 6,
) -> list[SheetRow]:
    """The ``k`` images of ``pairs`` nearest to each query, best first.

    Args:
        model: the trained model.
        queries: sentences.
        pairs: whose image features to search.
        images: where the image of each id is.
        k: hits per query.
    """
    embeddings = project_rows(model.project_image, pairs.image, pairs.image_rows)
    best = (model.encode_text(queries) @ embeddings.T).topk(min(k, len(pairs)), dim=1)
    return [
        SheetRow(
            query,
            [
                SheetHit(images[pairs.ids[i]], pairs.ids[i], score)
                for i, score in zip(row.tolist(), scores.tolist(), strict=True)
            ],
        )
        for query, row, scores in zip(queries, best.indices, best.values, strict=True)
    ]


def write_run_page(result: RunResult) -> Path:
    """Write ``report.html`` into the run's folder.

    Returns:
        The page's path.
    """
    vision, text = result.model.config.vision or {}, result.model.config.text or {}
    names = [Path(str(side["id"])).name for side in (vision, text)]
    made_of = "a frozen and a trained encoder" if text.get("trained") else "two frozen encoders"
    page = Page(f"{names[0]} × {names[1]}", f"A CLIP made of {made_of}")
    page.headline(_headlines(result.results))
    add_results(page, result.results)
    add_examples(page, best_matches(result.model, _captions(result), result.pairs, _images(result)))
    add_training(page, result)
    model = result.out / "model"
    page.section("What to run next").code(
        f'lateen search {model} "two dogs on the beach" --images DIR --out sheet.png\n'
        f"lateen evaluate retrieval {model} --captions F.csv --images DIR"
    )
    page.save(result.out / PAGE)
    return result.out / PAGE


def add_examples(page: Page, rows: Sequence[SheetRow]) -> None:
    """A section of queries, each with the images found for it."""
    page.section("Searching with a sentence")
    for row in rows:
        page.gallery(row)


def add_training(page: Page, result: RunResult) -> None:
    """The training curve and the conditions of every number."""
    page.section("Training").figure(
        training_curve(read_metrics(result.metrics)),
        "Loss over the steps, and retrieval on the images that chose the step.",
    )
    page.section("Conditions").facts(_facts(result))


def _captions(result: RunResult, count: int = 4) -> list[str]:
    """The first caption of samples spread evenly over the split."""
    ids = result.pairs.ids
    column = result.pairs.texts[0].name
    chosen = [ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(min(count, len(ids)))]
    return [result.samples[i].captions[column][0] for i in chosen]


def _images(result: RunResult) -> dict[str, ImageSource]:
    return {i: s.image for i, s in result.samples.items() if s.image is not None}


def add_results(page: Page, results: dict[str, Any]) -> None:
    """Sections for what ``results.json`` holds."""
    page.section("Results")
    for table in result_tables(results):
        page.table(table)
    for warning in results.get("warnings", ()):
        page.text(f"Beware: {warning}.")
    classes = results.get("classification")
    if classes:
        page.figure(
            bar_chart(classes["per_class"], chance=100 / classes["classes"]),
            "Zero-shot accuracy of each class.",
        )


def result_tables(results: dict[str, Any]) -> list[TableData]:
    """The tables of a ``results.json``, for the page and the terminal."""
    tables = []
    if "retrieval" in results:
        retrieval = results["retrieval"]
        note = "; these images also chose the training step" if retrieval["chose_step"] else ""
        column = f", {retrieval['column']}" if retrieval.get("column") else ""
        title = f"Retrieval on {retrieval['split']}{column}{note}"
        tables.append(retrieval_table(retrieval, title=title))
    if "classification" in results:
        title = "Zero-shot classification"
        tables.append(classification_table(results["classification"], title=title))
    return tables


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _headlines(results: dict[str, Any]) -> list[Headline]:
    lines = []
    if "retrieval" in results:
        lines += _retrieval_headlines(results["retrieval"])
    if "classification" in results:
        classes = results["classification"]
        note = f"{classes['classes']} classes, zero-shot{_between(classes, 'top1')}"
        lines.append(Headline(f"{classes['top1']:.1f} %", "top-1 accuracy", note))
    return lines


def _retrieval_headlines(retrieval: dict[str, Any]) -> list[Headline]:
    """Mean recall at the largest depth where guessing finds less than a tenth, and R@1."""
    images, captions = retrieval["images"], retrieval["captions"]
    guesses = {
        k: (recall_at_k(k, images) + recall_at_k(k, captions, captions / images)) / 2
        for k in (10, 5, 1)
    }
    telling = [k for k, guess in guesses.items() if guess < _MOST_CHANCE]
    if not telling:
        return [Headline("–", "retrieval", f"{images} images are too few to say anything")]
    k = telling[0]
    chosen = ", which also chose the step" if retrieval.get("chose_step") else ""
    lines = [
        Headline(
            f"{mean_recall(retrieval, (k,)):.1f} %",
            f"mean R@{k}, both directions",
            f"guessing {guesses[k]:.1f} %{_between(retrieval, f'mean_recall.R@{k}')}",
        )
    ]
    if k > 1:
        first = retrieval["text_to_image"]["R@1"]
        note = f"{images:,} images{chosen}{_between(retrieval, 'text_to_image.R@1')}"
        lines.append(Headline(f"{first:.1f} %", "text → image R@1", note))
    return lines


def _between(result: Mapping[str, Any], path: str) -> str:
    """The interval of a number, as the end of a note."""
    limits = (result.get("intervals") or {}).get(path)
    return f"; 95 % interval {interval_cell(limits)}" if limits else ""


def _facts(result: RunResult) -> dict[str, Any]:
    config = result.model.config
    training = config.training or {}
    head = config.head_settings
    facts: dict[str, Any] = {
        "vision encoder": _encoder(config.vision),
        "text encoder": _encoder(config.text),
        "head": f"{head.name}, {head.dim} dimensions",
        "training pairs": training.get("pairs"),
        "captions": training.get("captions"),
        "steps": training.get("steps"),
        "left out": sum(result.skipped.values()),
        "seed": str(training.get("seed")),
        "model": result.results.get("retrieval", {}).get("conditions", {}).get("model", "")[:16],
    }
    for stage, seconds in result.seconds.items():
        facts[f"{stage} in this call"] = f"{seconds:.1f} s"
    return facts


def _encoder(side: dict[str, Any] | None) -> str:
    side = side or {}
    layer = "" if side.get("layer") is None else f", layer {side['layer']}"
    return f"{side.get('id')} ({side.get('pooling')}{layer}, {side.get('dim')} dimensions)"
