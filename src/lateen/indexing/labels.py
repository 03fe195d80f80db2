"""Label photographs: which of some given labels fits each best, and by how much.

A label's confidence is a softmax over the labels of t · cosine, with the model's own t; with a
query bank, of t · (cosine less the label's hubness). It ranks the labels that were given; whether
the best of them is true, it does not say. One label has to be best: "none of these" asks whether it
also fits better than words that nobody gave.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lateen.data.labels.names import packaged_class_names
from lateen.data.prompts import DOMAIN_TEMPLATES, TEMPLATES, class_prompts
from lateen.data.published import PUBLISHED, as_templates, is_published
from lateen.data.text import read_list
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.features import embed_prompts
from lateen.indexing.photographs import Photographs, photograph_path
from lateen.model import AlignedModel, open_model
from lateen.model.query_bank import chosen_bank

NONE = "none of these"
NONE_PERCENT = 90.0
_WORDS = "cifar100"  # a hundred everyday things, by the names of that set's classes
_ARTICLE = re.compile(r"(a|an|the) (?=\S)", re.IGNORECASE)
_ARTICLE_BEFORE = re.compile(r"\b(a|an|the|one) \{\}", re.IGNORECASE)
_COLUMNS = ("path", "label", "confidence", "runner_up", "runner_up_confidence", "cosine", "fit",
            "skipped")  # fmt: skip


@dataclass(frozen=True)
class LabelledPhotograph:
    """A photograph and its label.

    Attributes:
        id: the image's path relative to the folder.
        path: where it is.
        label: the one of the labels that fits best, or :data:`NONE`.
        confidence: of the label, 0 to 1: its share in a softmax over all labels. ``None`` for
            :data:`NONE`, which is no label among others.
        runner_up: the label that fits second best; for :data:`NONE` the best one. ``None`` where
            only one label was given.
        runner_up_confidence: its confidence.
        cosine: between the image and the label that fits best, -1 to 1.
        fit: percent of the everyday words that the best label fits better than; ``None`` if
            :data:`NONE` was not asked for.
    """

    id: str
    path: Path
    label: str
    confidence: float | None
    runner_up: str | None
    runner_up_confidence: float | None
    cosine: float
    fit: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "path": str(self.path)}


@dataclass(frozen=True)
class Labelling:
    """The photographs of a folder with their labels.

    Attributes:
        labels: in the order given; :data:`NONE` last, if it was asked for.
        photographs: those that could be read.
        skipped: ``id`` and ``reason`` of the others.
        conditions: what the confidences are: ``confidence`` in words, ``logit_scale`` (t itself),
            ``loss`` of the model's training if it is known, ``templates``, the query ``bank``, and
            ``none``: in words, when a photograph is of none of the labels.
    """

    labels: tuple[str, ...]
    photographs: list[LabelledPhotograph]
    skipped: list[dict[str, str]]
    conditions: dict[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """How many photographs have each label."""
        counted = Counter(photograph.label for photograph in self.photographs)
        return {label: counted[label] for label in self.labels}

    def of(self, label: str) -> list[LabelledPhotograph]:
        """The photographs with a label, the surest first; of :data:`NONE` those that the labels fit
        worst."""
        chosen = [each for each in self.photographs if each.label == label]
        if label == NONE:
            return sorted(chosen, key=lambda each: (each.fit or 0.0, each.cosine))
        return sorted(chosen, key=lambda each: (-(each.confidence or 0.0), -each.cosine))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "labels": list(self.labels), "counts": self.counts, **self.conditions,
            "photographs": [each.as_dict() for each in self.photographs], "skipped": self.skipped,
        }  # fmt: skip

    def csv(self) -> str:
        """A row for every image of the folder; those that could not be read have the reason in the
        last column and no label."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        rows: list[dict[str, Any]] = [
            {"path": p.id, "label": p.label, "confidence": _decimals(p.confidence, 4),
             "runner_up": p.runner_up, "runner_up_confidence": _decimals(p.runner_up_confidence, 4),
             "cosine": _decimals(p.cosine, 4), "fit": _decimals(p.fit, 0)}
            for p in self.photographs
        ]  # fmt: skip
        rows += [{"path": skip["id"], "skipped": skip["reason"]} for skip in self.skipped]
        writer.writerows(rows)
        return text.getvalue()


def classify(
    model: AlignedModel | str | Path,
    images: str | Path,
    labels: Sequence[str] | str | Path,
    *,
    templates: Sequence[str] | str | Path | None = None,
    none: bool | float = False,
    bank: str | Path | None = None,
    cache: Path | None = None,
) -> Labelling:
    """Give every photograph of a folder the label that fits best.

    A confidence is the label's share in a softmax over all labels of t · cosine, with the model's
    own t; its b, the same for all, falls out. It ranks the labels that were given, and is no
    probability of being true: a photograph of none of them has a confident label, too, unless
    ``none`` gives it another choice. A model trained with the sigmoid loss judged every pair by
    itself, so that the softmax is of lateen's making there.

    Args:
        model: an AlignedModel, its folder, or a plain CLIP or SigLIP by folder or hub id.
        images: a folder of images, with all its subfolders.
        labels: two or more, as a list; as a text with commas; or a text file with one a line.
        templates: sentences with ``{}`` for the label: a list, one sentence, a file, or the name of
            lateen's own for one kind of pictures (:data:`~lateen.data.prompts.DOMAIN_TEMPLATES`)
            or of published ones (:data:`~lateen.data.published.PUBLISHED`);
            lateen's general ones if not given.
        none: also tell the photographs of which none of the labels may be true: those whose best
            label fits no better than this percentage of a hundred everyday words, the class names
            of CIFAR-100 (``True``: 90). A test of the label against words that nobody asked for,
            not a probability; with many labels, more pass it by chance.
        bank: a query bank, which takes the hubness of every label off its cosines: the model's own
            if it carries one; ``none``; or a file of ``lateen bank``.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        UsageError: fewer than two labels (one will do with ``none``), two that are the same, an
            empty one, no such templates, or a percentage outside 0 to 100.
        DataError: no readable image, or no such file of labels.
    """
    percent = _percent(none)
    names = checked_labels(labels, none=percent is not None)
    prompts = label_templates(templates)
    if not Path(images).is_dir():
        raise DataError(f"there is no folder {images}", "Check the path.")
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    known = chosen_bank(ready, bank)
    photographs = Photographs.of(ready, images, cache=cache)

    def scored(words: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Cosines ``[photographs, words]``, and the same less the words' hubness."""
        embedded = embed_prompts(ready, [prompts.sentences(word) for word in words])
        cosine = photographs.embeddings @ embedded.T
        return cosine, cosine if known is None else cosine - known.text_hubness(embedded)

    cosine, scores = scored(names)
    fits = None
    if percent is not None:
        _, against = scored([each.words for each in packaged_class_names(_WORDS)])
        fits = 100 * (scores.max(1).values[:, None] > against).double().mean(1)
    scale = ready.logit_scale.detach().exp().item()
    labelled = _labelled(photographs, names, cosine, scores, scale)
    if fits is not None and percent is not None:
        rows = zip(labelled, fits.tolist(), strict=True)
        labelled = [_tested(each, fit, percent) for each, fit in rows]
    of_cosine = "(cosine less the label's hubness)"
    conditions = {
        "confidence": f"softmax of {scale:.4g} · {'cosine' if known is None else of_cosine} over "
        "the labels: a ranking of those given, no probability of being true",
        "bank": None if known is None else str(known),
        "logit_scale": scale, "loss": (ready.config.training or {}).get("loss"),
        "templates": list(prompts.templates),
        "none": None if percent is None else f"the best label fits no better than {percent:g} % of "
        "100 everyday words (the class names of CIFAR-100)",
    }  # fmt: skip
    names = (*names, NONE) if percent is not None else names
    return Labelling(names, labelled, photographs.unreadable, conditions)


def _labelled(
    photographs: Photographs, names: Sequence[str], cosine: Tensor, scores: Tensor, scale: float
) -> list[LabelledPhotograph]:
    """The two best labels of each photograph by their scores ``[photographs, labels]``; cosines are
    shown."""
    best = (scale * scores.double()).softmax(1).topk(min(2, len(names)), dim=1)
    labelled = []
    for row, sample in enumerate(photographs.samples):
        (first, *second), (sure, *next_sure) = best.indices[row].tolist(), best.values[row].tolist()
        labelled.append(
            LabelledPhotograph(
                sample.id, photograph_path(sample), names[first], sure,
                names[second[0]] if second else None, next_sure[0] if second else None,
                cosine[row, first].item(),
            )
        )  # fmt: skip
    return labelled


def _tested(photograph: LabelledPhotograph, fit: float, percent: float) -> LabelledPhotograph:
    """The photograph with its fit, and with :data:`NONE` where that is not enough."""
    if fit > percent:
        return replace(photograph, fit=fit)
    return replace(
        photograph, fit=fit, label=NONE, confidence=None, runner_up=photograph.label,
        runner_up_confidence=photograph.confidence,
    )  # fmt: skip


def _percent(none: bool | float) -> float | None:
    """From what percentage of the words on a label is believed; ``None`` where all are.

    Raises:
        UsageError: it is outside 0 to 100.
    """
    if none is False:
        return None
    percent = NONE_PERCENT if none is True else float(none)
    if not 0 <= percent < 100:
        raise UsageError(
            f"a label cannot be asked to fit better than {percent:g} % of the words",
            "Give a percentage from 0 to 99.",
        )
    return percent


def _decimals(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def checked_labels(given: Sequence[str] | str | Path, *, none: bool = False) -> tuple[str, ...]:
    """The labels, checked.

    Raises:
        UsageError: there are too few, an empty one, or two that are the same.
        DataError: what can only be a file is not there.
    """
    names = _listed(given) if isinstance(given, str | Path) else list(given)
    names = [" ".join(name.split()) for name in names]
    if "" in names:
        raise UsageError(f"label {names.index('') + 1} is empty", "Leave it out.")
    counted = Counter(name.casefold() for name in names)
    if twice := [name for name in names if counted[name.casefold()] > 1]:
        raise UsageError(f"the label {twice[0]!r} is given twice", "Give every label once.")
    if none and NONE in names:
        raise UsageError(f"{NONE!r} is a label and asked for by --none", "Leave one of them out.")
    if not names:
        raise UsageError("there is no label", 'Give two or more, such as --labels "a dog,a cat".')
    if len(names) == 1 and not none:
        raise UsageError(
            "one label is too few: every photograph would get it",
            'Give two or more, such as --labels "a dog,a cat", or --none beside it.',
        )
    return tuple(names)


def _listed(given: str | Path) -> list[str]:
    """The labels in a text file, or in a text with commas."""
    path = Path(given)
    if path.is_file():
        return [line for line in read_list(path) if line.strip()]
    if isinstance(given, Path) or ("," not in given and path.suffix in (".txt", ".json", ".csv")):
        raise DataError(f"there is no file of labels {given}", "Write one label a line.")
    return given.split(",")


@dataclass(frozen=True)
class LabelPrompts:
    """Sentences that labels are put in.

    Attributes:
        templates: with ``{}`` for the label.
        verbatim: whether labels are put in as they are written, without an article.
    """

    templates: tuple[str, ...]
    verbatim: bool

    def sentences(self, label: str) -> list[str]:
        """A label in every template."""
        return [_sentence(label, each, self.verbatim) for each in self.templates]


def label_templates(given: Sequence[str] | str | Path | None) -> LabelPrompts:
    """The prompts that are asked for, as :func:`classify` takes them.

    Raises:
        UsageError: there are no such templates.
    """
    if given is None:
        return LabelPrompts(TEMPLATES, False)
    if isinstance(given, str):
        if "{}" in given:
            return LabelPrompts((given,), True)
        if given in DOMAIN_TEMPLATES:
            return LabelPrompts(DOMAIN_TEMPLATES[given], False)
        if not is_published(given) and not Path(given).is_file():
            raise UsageError(
                f"there are no templates {given!r}",
                f"Give a sentence with {{}}, a file, or a name. "
                f"{choices(given, [*DOMAIN_TEMPLATES, *PUBLISHED])}",
            )
    return LabelPrompts(as_templates(given), True)


def _sentence(label: str, template: str, verbatim: bool) -> str:
    """A label in a template; its own article goes where the template brings one."""
    own = _ARTICLE.match(label)
    if own and _ARTICLE_BEFORE.search(template):
        label = label[own.end() :]
    return class_prompts(label, [template], verbatim=verbatim)[0]
