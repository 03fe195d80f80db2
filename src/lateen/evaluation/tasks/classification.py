"""Zero-shot, labelled images: a folder with a subfolder per class, shards, the hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lateen.data.labels import LabelledImages, open_labelled
from lateen.data.prompts import class_prompts, read_templates
from lateen.data.published import PUBLISHED, is_published, published_templates, templates_of_set
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.features import (
    JudgedImages,
    bank_facts,
    embed_prompts,
    find_trained_on,
)
from lateen.evaluation.intervals import Arrays, Statistics, resampled
from lateen.evaluation.labelled import described, labelled_conditions, labelled_rows, one_source
from lateen.evaluation.tables import MOST_CLASSES, left_out, noted, titled
from lateen.evaluation.task import WITH_BANK, Result, Task, with_bank
from lateen.files import make_folder
from lateen.metrics import (
    class_ranks,
    classification_of_ranks,
    confusion_matrix,
    most_confused,
)
from lateen.metrics.resampling import Tally
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.model.query_bank import chosen_bank
from lateen.progress import log
from lateen.report.chance import top_k
from lateen.report.confusion import confusion_plot
from lateen.report.plots import save_plot
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    classification_table,
    per_class_table,
)

_MOST_CONFUSED = 10  # pairs in the table
_METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}
_DEEPEST = 255  # rank that is kept; those below it are no nearer to being right
_LARGEST_CONFUSION = 100  # classes whose confusion matrix is in the result


def evaluate_classification(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    set: str | None = None,
    split: str | None = None,
    column: str | None = None,
    classes: str | Path | None = None,
    templates: Sequence[str] | str | Path | None = None,
    bank: Path | str | None = None,
    cache: Path | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Top-1, top-5, mean per-class and per-class accuracy in percent, and what is confused.

    An image may be taken for any class of the set; where no set is known, for any class that the
    data name. Classes of the same name cannot be told apart: their images count as wrong, as all
    ties do.

    Args:
        model: an aligned model.
        images: labelled images: a folder with a subfolder per class, shards, a hub id; what
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same, in its published layout.
        set: which of the field's sets they are, such as ``imagenet`` or ``eurosat``
            (:data:`~lateen.data.labels.SETS`): its class names, prompts and metric.
        split: which part of the data.
        column: the label column of rows that have several.
        classes: a text file with a class name a line.
        templates: prompts with ``{}`` for the class name, a file of them, or ``openai`` and
            ``openai-7`` for the published ones, where they are installed or beside the data; all
            are taken as written. If not given those beside the data, else lateen's for such
            pictures.
        bank: a query bank, with which accuracies are told, too: the model's own if it carries one;
            ``none``; or a file of `lateen bank`.
        cache: where to keep features; lateen's cache folder if not given.
        out: folder for ``confusion.png``, written only if given.

    Returns:
        JSON-ready; ``metric`` names the set's own, and ``score`` is its value.

    Raises:
        DataError: nothing labelled, fewer than two classes, or names that do not fit.
        UsageError: no or two sources, an unknown set or split, or templates that are nowhere.
    """
    source = one_source("classification", images, data)
    labelled = open_labelled(source, name=set, split=split, column=column, classes=classes)
    prompts, verbatim, origin = _templates(templates, labelled, Path(source))
    known = chosen_bank(model, bank)
    out = make_folder(out) if out is not None else None
    if not labelled.named_by:
        raise DataError(
            f"{labelled.dataset.name} numbers its {len(labelled.names)} classes and does not name "
            "them",
            "Give --set, or --classes with a class name a line in the order of the numbers.",
        )
    _ = model.vision_encoder, model.text_encoder  # what cannot be loaded fails here
    store, rows, target = labelled_rows(model, labelled, cache)
    image = project_rows(model.project_image, store, rows)
    text = embed_classes(model, labelled.names, prompts, verbatim=verbatim)
    ranks = class_ranks(image, text, target)
    judged = JudgedImages.of(store, rows)
    beside, bank_ranks = {}, None
    if known is not None:
        bank_ranks = class_ranks(known.extend_images(image), known.extend_texts(text)[:], target)
        scores = classification_of_ranks(bank_ranks, target, labelled.names)
        beside = {"with_bank": {**scores, **bank_facts(known, judged)}}
    result = {
        "task": "classification",
        **_scores(ranks, target, labelled),
        **beside,
        **classification_facts(ranks, target, [store.ids[row] for row in rows], bank_ranks),
        **described(labelled, store, rows),
        "templates": list(prompts),
        "templates_verbatim": verbatim,
        "templates_from": origin,
        "same_name": _same_names(labelled.names),
        "trained_on": find_trained_on(model, judged),
        "conditions": labelled_conditions(model, labelled),
    }
    counts = confusion_matrix(image, text, target)
    pairs = most_confused(counts, labelled.names, limit=30)
    result["most_confused"] = pairs
    if len(labelled.names) <= _LARGEST_CONFUSION:
        result["confusion"] = {"names": list(labelled.names), "counts": counts.tolist()}
    if out is not None:
        save_plot(confusion_plot(labelled.names, counts.numpy(), pairs), out / "confusion.png")
        result["pictures"] = {"confusion": str(out / "confusion.png")}
    return result


def _scores(ranks: Tensor, target: Tensor, labelled: LabelledImages) -> dict[str, Any]:
    """Accuracies beside those of guessing, and which of them is the set's own."""
    count = len(labelled.names)
    scores = classification_of_ranks(ranks, target, labelled.names)
    guess = {"top1": top_k(1, count), "top5": top_k(5, count), "mean_per_class": top_k(1, count)}
    return {"metric": labelled.metric, "score": scores[labelled.metric], **scores, "chance": guess}


def classification_facts(
    ranks: Tensor, target: Tensor, ids: Sequence[str], bank_ranks: Tensor | None = None
) -> dict[str, Any]:
    """Intervals of the accuracies, and what each image contributes to them.

    Args:
        ranks: of each image's own class, from 1 ``[n]``.
        target: index of each image's class ``[n]``.
        ids: of the images.
        bank_ranks: as ``ranks``, with a query bank.
    """
    arrays = {"ranks": ranks.clamp(max=_DEEPEST), "classes": target}
    if bank_ranks is not None:
        arrays["bank_ranks"] = bank_ranks.clamp(max=_DEEPEST)
    return resampled(classification_statistics, arrays, ids)


def classification_statistics(arrays: Arrays) -> Statistics:
    """The accuracies, from the rank of each image's own class."""
    image = np.arange(len(arrays["ranks"]))
    found: Statistics = {}
    for name, before in (("ranks", ""), ("bank_ranks", WITH_BANK)):
        if (ranks := arrays.get(name)) is not None:
            own = Tally(image, ranks <= 1, group=arrays["classes"])
            found |= {
                f"{before}top1": Tally(image, ranks <= 1),
                f"{before}top5": Tally(image, ranks <= 5),
                f"{before}mean_per_class": own,
            }
    return found


def embed_classes(
    model: AlignedModel, names: Sequence[str], templates: Sequence[str], *, verbatim: bool = False
) -> Tensor:
    """One L2-normalised embedding per class ``[c, dim]``, the mean of its prompts'.

    Args:
        model: an aligned model.
        names: of the classes; those that are the same have exactly the same embedding.
        templates: prompts with ``{}`` for the name.
        verbatim: take them as written.
    """
    different = list(dict.fromkeys(names))
    prompts = [class_prompts(name, templates, verbatim=verbatim) for name in different]
    index_of = {name: index for index, name in enumerate(different)}
    return embed_prompts(model, prompts)[[index_of[name] for name in names]]


def _templates(
    given: Sequence[str] | str | Path | None, labelled: LabelledImages, source: Path
) -> tuple[tuple[str, ...], bool, str]:
    """The prompts, whether they are to be taken as written, and where they are from, in words."""
    if given is None:
        origin = "beside the data" if labelled.verbatim else "lateen's own"
        return labelled.templates, labelled.verbatim, origin
    if isinstance(given, str | Path):
        of = labelled.set.published if labelled.set is not None else None
        if is_published(given):
            found = published_templates(str(given), of, source if source.is_dir() else None)
            return found.templates, True, f"{given}: {found.source}"
        if isinstance(given, str) and not Path(given).suffix and not Path(given).exists():
            raise UsageError(f"there are no templates {given!r}", choices(given, PUBLISHED))
        several = templates_of_set(Path(given), of)
        if several is not None:
            return several.templates, True, several.source
        return read_templates(Path(given)), True, str(given)
    if not given:
        raise UsageError("there is no template", "Give at least one prompt with {}.")
    class_prompts("", given)
    return tuple(given), False, "given"


def _same_names(names: Sequence[str]) -> list[str]:
    same = [name for name, count in Counter(names).items() if count > 1]
    if same:
        log.warning(
            "%d class names stand for several classes each (%s), whose images count as wrong",
            len(same), ", ".join(map(repr, same[:5])),
        )  # fmt: skip
    return same


def classification_tables(result: Result) -> Iterator[TableData]:
    """Accuracies beside chance, by class where there are few, and what is confused."""
    table = classification_table(result, titled("Zero-shot classification", result))
    own = ""
    if result.get("set") and result.get("metric") in _METRICS:
        own = f" The metric of {result['set']} is {_METRICS[result['metric']]}."
    if result.get("templates_from"):
        own += f" {len(result['templates'])} prompts a class ({result['templates_from']})."
    if result.get("same_name"):
        own += f" {len(result['same_name'])} names are those of several classes, and count wrong."
    yield noted(table, own + left_out(result))
    if len(result["per_class"]) <= MOST_CLASSES:
        yield per_class_table(result["per_class"], MOST_CLASSES)
    if pairs := result.get("most_confused"):
        yield _confused(pairs)


def _confused(pairs: list[Result]) -> TableData:
    rows: list[list[Cell]] = [
        [pair["class"], pair["taken_for"], pair["percent"], pair["images"]]
        for pair in pairs[:_MOST_CONFUSED]
    ]
    columns = [
        Column("class"), Column("taken for"), Column("of its images (%)", 1), Column("images", 0)
    ]  # fmt: skip
    return TableData("What is confused most", columns, rows)


TASK = Task(
    evaluate_classification,
    with_bank({"top-1": "top1", "top-5": "top5", "mean per class": "mean_per_class"}),
    classification_tables, statistics=classification_statistics, order=20,
)  # fmt: skip
