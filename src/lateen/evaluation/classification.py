"""Zero-shot classification: class names in prompts against images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data.labels import LabelledImages, open_labelled
from lateen.data.prompts import class_prompts, read_templates
from lateen.errors import DataError, UsageError
from lateen.evaluation.features import cached_features, conditions
from lateen.features import Store
from lateen.files import content_key, make_folder
from lateen.metrics import class_embeddings, classification, confusion_matrix, most_confused
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.progress import log
from lateen.report.chance import top_k
from lateen.report.confusion import confusion_plot
from lateen.report.plots import save_plot

_CLASSES = 256  # whose prompts are encoded at a time


_MOST_CLASSES = 100  # whose confusion matrix is in the result


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
    cache: Path | None = None,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Top-1, top-5, mean per-class and per-class accuracy in percent, and what is confused.

    An image may be taken for any class of the set; where no set is known, for any class that the
    data name. Classes of the same name cannot be told apart: their images count as wrong, as all
    ties do.

    Args:
        model: an aligned model.
        images: labelled images in any form that
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same.
        set: which of the field's sets they are (:data:`~lateen.data.labels.SETS`): its
            class names, prompts and metric.
        split: which part of the data.
        column: the label column of rows that have several.
        classes: a text file with a class name a line.
        templates: prompts with ``{}`` for the class name, or a file of them, which are taken as
            written; if not given those beside the data, else lateen's for such pictures.
        cache: where to keep features; lateen's cache folder if not given.
        out: folder for ``confusion.png``, written only if given.

    Returns:
        JSON-ready; ``metric`` names the set's own, and ``score`` is its value.

    Raises:
        DataError: nothing labelled, fewer than two classes, or names that do not fit.
        UsageError: no or two sources, or an unknown set or split.
    """
    labelled = open_labelled(
        one_source("classification", images, data), name=set, split=split, column=column,
        classes=classes,
    )  # fmt: skip
    prompts, verbatim = _templates(templates, labelled)
    out = make_folder(out) if out is not None else None
    if not labelled.named_by:
        raise DataError(
            f"{labelled.dataset.name} numbers its {len(labelled.names)} classes and does not name "
            "them",
            "Give --set, or --classes with a class name a line in the order of the numbers.",
        )
    store, rows, target = labelled_features(model, labelled, cache)
    if not rows:
        raise DataError(
            f"not one labelled image of {labelled.dataset.name} could be read",
            f"See {store.path / 'skipped.jsonl'}.",
        )
    image = project_rows(model.project_image, store, rows)
    text = embed_classes(model, labelled.names, prompts, verbatim=verbatim)
    result = {
        "task": "classification",
        **_scores(image, text, target, labelled),
        **described(labelled, store, rows),
        "templates": list(prompts),
        "templates_verbatim": verbatim,
        "same_name": _same_names(labelled.names),
        "conditions": labelled_conditions(model, labelled),
    }
    counts = confusion_matrix(image, text, target)
    pairs = most_confused(counts, labelled.names, limit=30)
    result["most_confused"] = pairs
    if len(labelled.names) <= _MOST_CLASSES:
        result["confusion"] = {"names": list(labelled.names), "counts": counts.tolist()}
    if out is not None:
        save_plot(confusion_plot(labelled.names, counts.numpy(), pairs), out / "confusion.png")
        result["pictures"] = {"confusion": str(out / "confusion.png")}
    return result


def _scores(
    image: Tensor, text: Tensor, target: Tensor, labelled: LabelledImages
) -> dict[str, Any]:
    """Accuracies beside those of guessing, and which of them is the set's own."""
    count = len(labelled.names)
    found = classification(image, text, target, labelled.names)
    guess = {"top1": top_k(1, count), "top5": top_k(5, count), "mean_per_class": top_k(1, count)}
    return {"metric": labelled.metric, "score": found[labelled.metric], **found, "chance": guess}


def one_source(task: str, images: str | Path | None, data: str | Path | None) -> str | Path:
    """The one of two options that is given.

    Raises:
        UsageError: none or both are.
    """
    if (images is None) == (data is None):
        given = "no images" if images is None else "both --images and --data"
        raise UsageError(f"{task} is given {given}", "Give one of --images and --data.")
    return images if images is not None else data  # type: ignore[return-value]


def labelled_features(
    model: AlignedModel, labelled: LabelledImages, cache: Path | None
) -> tuple[Store, list[int], Tensor]:
    """The vision encoder's features, which rows have a label, and those rows' classes ``[n]``."""
    name = f"classes-{labelled.split}" if labelled.split else "classes"
    store = cached_features(
        labelled.dataset, model.vision_encoder, folder=cache and cache / name,
        dtype=model.config.feature_dtype("vision"),
    )  # fmt: skip
    rows = [row for row, sample in enumerate(store.ids) if sample in labelled.labels]
    target = torch.tensor([labelled.labels[store.ids[row]] for row in rows], dtype=torch.int64)
    return store, rows, target


def labelled_conditions(model: AlignedModel, *parts: LabelledImages) -> dict[str, Any]:
    """What a number on labelled images depends on: those judged, and those learned from."""
    keys = [key for part in parts for key in (part.dataset.fingerprint, part.key)]
    return conditions(model, content_key(keys))


def described(labelled: LabelledImages, store: Store, rows: Sequence[int]) -> dict[str, Any]:
    """What was evaluated on, JSON-ready."""
    return {
        "set": labelled.set.name if labelled.set is not None else None,
        "split": labelled.split,
        "images": len(rows),
        "classes": len(labelled.names),
        "skipped": len(store.skipped) + labelled.duplicates,
        "unlabelled": labelled.unlabelled,
        "empty_classes": list(labelled.empty),
        "named_by": labelled.named_by or "numbers",
    }


@torch.no_grad()
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
    parts = []
    for start in range(0, len(different), _CLASSES):
        some = different[start : start + _CLASSES]
        prompts = [p for name in some for p in class_prompts(name, templates, verbatim=verbatim)]
        text = model.encode_text(prompts)
        parts.append(class_embeddings(text.view(len(some), len(templates), -1)))
    place = {name: index for index, name in enumerate(different)}
    return torch.cat(parts)[[place[name] for name in names]]


def _templates(
    given: Sequence[str] | str | Path | None, labelled: LabelledImages
) -> tuple[tuple[str, ...], bool]:
    """The prompts, and whether they are to be taken as written."""
    if given is None:
        return labelled.templates, labelled.verbatim
    if isinstance(given, str | Path):
        return read_templates(Path(given)), True
    if not given:
        raise UsageError("there is no template", "Give at least one prompt with {}.")
    class_prompts("", given)
    return tuple(given), False


def _same_names(names: Sequence[str]) -> list[str]:
    same = [name for name, count in Counter(names).items() if count > 1]
    if same:
        log.warning(
            "%d class names stand for several classes each (%s), whose images count as wrong",
            len(same), ", ".join(map(repr, same[:5])),
        )  # fmt: skip
    return same
