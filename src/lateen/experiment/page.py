"""The page that a run leaves behind: numbers, examples, training curve, conditions, next steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lateen.data import ImageSource
from lateen.evaluation.intervals import unpacked
from lateen.experiment.runs import RunResult
from lateen.features import Pairs
from lateen.metrics.retrieval import cross_ranks, mean_recall
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
from lateen.report.overlays import spread
from lateen.report.page import interval_note, made_with

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
_MOST_CHANCE = 10.0  # percent: what guessing may find in a number that leads
_SHOWN = 6  # images under a caption
_EXAMPLES = 3  # captions that find their image first, and as many that do not find it


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
    cosines = model.encode_text(queries) @ embeddings.T
    return [
        SheetRow(query, _nearest(row, pairs, images, k))
        for query, row in zip(queries, cosines, strict=True)
    ]


def _nearest(
    cosines: Tensor, pairs: Pairs, images: Mapping[str, ImageSource], k: int
) -> list[SheetHit]:
    """The ``k`` images with the highest of these cosines ``[images]``."""
    best = cosines.topk(min(k, len(pairs)))
    return [
        SheetHit(images[pairs.ids[i]], pairs.ids[i], score)
        for i, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
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
    _add_captions(page, result)
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
    rows = read_metrics(result.metrics)
    panels = {"loss": "Loss.", "validation": "Retrieval on the images that chose the step."}
    page.section("Training").panels(
        (training_curve([row for row in rows if row.get(key) is not None]), caption)
        for key, caption in panels.items()
        if any(row.get(key) is not None for row in rows)
    )
    page.section("Conditions").facts(_facts(result))


def run_figures(result: RunResult) -> dict[str, Figure]:
    """The plots of a run, by the name of their files."""
    figures = {"training": training_curve(read_metrics(result.metrics))}
    if classes := result.results.get("classification"):
        figures["classes"] = _class_bars(classes)
    return figures


@torch.no_grad()
def _add_captions(page: Page, result: RunResult) -> None:
    """Captions of the split that find their image first, and captions that do not find it."""
    pairs, model, images = result.pairs, result.model, _images(result)
    first = pairs.texts[0].first(1)
    embeddings = project_rows(model.project_image, pairs.image, pairs.image_rows)
    ranks = _caption_ranks(result, embeddings)
    found, missed = (torch.nonzero(where)[:, 0].tolist() for where in (ranks == 1, ranks > _SHOWN))
    page.section("Searching with a caption").text(
        f"Of the {len(pairs):,} images, the first caption finds its own image first for "
        f"{len(found):,}, and not among the first {_SHOWN} for {len(missed):,}. Examples of both "
        "are taken evenly over the images; the caption's own image is marked."
    )
    for heading, of_kind in (("Found first", found), ("Not found", missed)):
        if of_kind:
            page.subsection(heading)
        for at in (of_kind[index] for index in sorted(spread(len(of_kind), _EXAMPLES))):
            text = project_rows(model.project_text, first.store, first.rows[at : at + 1])[0]
            hits = _nearest(text @ embeddings.T, pairs, images, _SHOWN)
            own = replace(hits[0], right=True)
            rank = int(ranks[at])
            if rank > 1:
                score = (text @ embeddings[at]).item()
                own = SheetHit(images[pairs.ids[at]], f"rank {rank:,}", score, right=True)
            row = [own, *hits[1:]] if rank == 1 else [*hits[:-1], own]
            caption = result.samples[pairs.ids[at]].captions[first.name][0]
            page.gallery(SheetRow(caption, row))


def _caption_ranks(result: RunResult, embeddings: Tensor) -> Tensor:
    """The rank of each image ``[n]`` for its first caption: as the results keep it, else computed,
    of a run that was to be without retrieval.

    Args:
        result: of a run.
        embeddings: of its images ``[n, dim]``.
    """
    pairs, model = result.pairs, result.model
    column = pairs.texts[0]
    if arrays := unpacked(result.results.get("retrieval", {})):
        return torch.from_numpy(arrays["text_ranks"][column.offsets[:-1]].astype("int64"))
    texts = project_rows(model.project_text, column.store, column.rows[column.offsets[:-1]])
    return cross_ranks(embeddings, texts, torch.arange(len(pairs)))[0]


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
        page.figure(_class_bars(classes), "Zero-shot accuracy of each class.")


def _class_bars(classes: Mapping[str, Any]) -> Figure:
    return bar_chart(classes["per_class"], chance=100 / classes["classes"])


def result_tables(results: dict[str, Any]) -> list[TableData]:
    """The tables of a ``results.json``, for the page and the terminal."""
    tables = []
    if "retrieval" in results:
        retrieval = results["retrieval"]
        bank = ", and the bank's temperature" if "with_bank" in retrieval else ""
        note = (
            f"; these images also chose the training step{bank}" if retrieval["chose_step"] else ""
        )
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
    note = interval_note(result, path)
    return f"; {note}" if note else ""


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
    for key, word in (("best", "layers by mutual kNN"), ("auto", "layers that add most")):
        if key in (layers := result.results.get("layers", {})):
            facts[word] = layers["told"][key]
    for stage, seconds in result.seconds.items():
        facts[f"{stage} in this call"] = f"{seconds:.1f} s"
    return facts | {"device": _device(result.model)} | made_with()


def _device(model: AlignedModel) -> str:
    device = model.logit_scale.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _encoder(side: dict[str, Any] | None) -> str:
    side = side or {}
    layer = "" if side.get("layer") is None else f", layer {side['layer']}"
    return f"{side.get('id')} ({side.get('pooling')}{layer}, {side.get('dim')} dimensions)"
