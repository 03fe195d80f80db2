"""Labelled images: logistic regression on frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.evaluation.intervals import shares
from lateen.evaluation.labelled import (
    FEATURES,
    FOLDS,
    check_classes,
    learned_from,
    one_source,
    open_probed,
    probe_scores,
    probed_result,
)
from lateen.evaluation.tables import left_out, references, titled
from lateen.evaluation.task import FeaturesOf, Result, Task
from lateen.model import AlignedModel
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)


def evaluate_linear_probe(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    set: str | None = None,
    split: str | None = None,
    train: str | None = None,
    column: str | None = None,
    features: FeaturesOf = "both",
    seed: int = 0,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of logistic regression on frozen features, in percent; its strength is swept.

    Without a split to learn from, each of five stratified folds is predicted by the others.

    Args:
        model: an aligned model.
        images: labelled images: a folder with a subfolder per class, shards, a hub id; what
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same, in its published layout.
        set: which of the field's sets they are, such as ``imagenet`` or ``eurosat``.
        split: the part that is judged.
        train: the part that is learned from; ``train`` where there is one.
        column: the label column of rows that have several.
        features: of the frozen encoder, of the aligned embedding, or both.
        seed: of the folds and of the images that choose the strength.
        cache: where to keep features; lateen's cache folder if not given.

    Returns:
        JSON-ready: ``encoder`` and ``embedding``, each with ``accuracy``, the chosen ``c`` and the
        ``validation`` accuracy by C.

    Raises:
        DataError: nothing labelled, one class, or a class with too few images.
        UsageError: no or two sources, or an unknown set or split.
    """
    options = {"name": set, "split": split, "column": column}
    source = one_source("linear-probe", images, data)
    probed = open_probed(model, source, options, train, features, cache)
    check_classes(probed, least=2 if probed.train is not None else FOLDS)

    probes = {kind: probe_scores(*probed.of(kind), seed) for kind in probed.test.features}
    accuracy = {
        kind: {
            "accuracy": probe.accuracy,
            "c": probe.c,
            "validation": {f"{c:g}": value for c, value in probe.validation.items()},
        }
        for kind, probe in probes.items()
    }
    hits = {f"{kind}.accuracy": probe.right for kind, probe in probes.items()}
    folds = {"folds": FOLDS} if probed.train is None else {}
    return {**probed_result(model, probed, accuracy, hits), **folds, "seed": seed}


def linear_probe_tables(result: Result) -> Iterator[TableData]:
    """Accuracy and chosen strength for each kind of features, beside chance."""
    of = [name for name in FEATURES if name in result]
    rows: list[list[Cell]] = []
    for name in of:
        rows.append([FEATURES[name], result[name]["accuracy"], _strengths(result[name]["c"])])
        rows += interval_row(result, (f"{name}.accuracy", ""))
    rows.append(["chance", result["chance"], None])
    yield TableData(
        titled("Linear probe", result),
        [Column("features of the"), Column("top-1 (%)", 1), Column("C")],
        rows, learned_from(result) + left_out(result),
        reference=references(rows, FEATURES.values()),
    )  # fmt: skip


def _strengths(c: float | Sequence[float]) -> str:
    """The chosen C, of several folds each of them once."""
    chosen = dict.fromkeys(c if isinstance(c, Sequence) else [c])
    return ", ".join(f"{each:g}" for each in chosen)


TASK = Task(
    evaluate_linear_probe,
    {"encoder": "encoder.accuracy", "embedding": "embedding.accuracy"},
    linear_probe_tables, statistics=shares, order=40,
)  # fmt: skip
