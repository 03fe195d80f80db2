"""Labelled images: vote of the nearest neighbours, without a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lateen.errors import UsageError
from lateen.evaluation.intervals import shares
from lateen.evaluation.labelled import (
    FEATURES,
    check_classes,
    learned_from,
    one_source,
    open_probed,
    probed_result,
    usable_ks,
    votes,
)
from lateen.evaluation.tables import left_out, references, titled
from lateen.evaluation.task import FeaturesOf, Result, Task
from lateen.metrics.choice import percent
from lateen.model import AlignedModel
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)


def evaluate_knn(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    data: str | Path | None = None,
    set: str | None = None,
    split: str | None = None,
    train: str | None = None,
    column: str | None = None,
    features: FeaturesOf = "both",
    k: Sequence[int] = (10, 20, 100, 200),
    temperature: float = 0.07,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Accuracy of a weighted vote among the nearest neighbours, in percent, for each k.

    Without a split to learn from, each image is classified by all the others (METHODS §1.5).

    Args:
        model: an aligned model.
        images: labelled images: a folder with a subfolder per class, shards, a hub id; what
            :func:`~lateen.data.labels.open_labelled` reads.
        data: the same, in its published layout.
        set: which of the field's sets they are, such as ``imagenet`` or ``eurosat``.
        split: the part that is judged.
        train: the part whose images vote; ``train`` where there is one.
        column: the label column of rows that have several.
        features: of the frozen encoder, of the aligned embedding, or both.
        k: numbers of neighbours; those beyond the images that can vote are left out.
        temperature: of the votes.
        cache: where to keep features; lateen's cache folder if not given.

    Returns:
        JSON-ready: ``encoder`` and ``embedding``, each accuracy by k as text.

    Raises:
        DataError: nothing labelled, one class, fewer images than the smallest k, or a class to be
            found that no image to learn from has.
        UsageError: no or two sources, or an unknown set or split.
    """
    options = {"name": set, "split": split, "column": column}
    ks = list(k) if isinstance(k, Sequence) else [k]
    probed = open_probed(model, one_source("knn", images, data), options, train, features, cache)
    check_classes(probed, least=1)
    if not ks or not all(isinstance(each, int) for each in ks):
        raise UsageError(f"{ks} are no numbers of neighbours", "Give one or more as --k.")
    usable = usable_ks(ks, probed.voters)

    hits = {kind: votes(*probed.of(kind), usable, temperature) for kind in probed.test.features}
    accuracy = {
        kind: {k: percent(right) for k, right in by_k.items()} for kind, by_k in hits.items()
    }
    by_path = {f"{kind}.{k}": right for kind, by_k in hits.items() for k, right in by_k.items()}
    return {
        **probed_result(model, probed, accuracy, by_path),
        "k_left_out": [each for each in ks if each not in usable],
        "temperature": temperature,
    }


def knn_tables(result: Result) -> Iterator[TableData]:
    """Accuracy for each k, of each kind of features, beside chance."""
    of = [name for name in FEATURES if name in result]
    ks = list(result[of[0]])
    rows: list[list[Cell]] = []
    for name in of:
        rows.append([FEATURES[name], *(result[name][k] for k in ks)])
        rows += interval_row(result, (f"{name}.{k}" for k in ks))
    rows.append(["chance", *(result["chance"] for _ in ks)])
    left = result.get("k_left_out")
    more = f" Too few images for k = {', '.join(map(str, left))}." if left else ""
    yield TableData(
        titled("Nearest neighbours", result),
        [Column("features of the"), *(Column(f"k = {k} (%)", 1) for k in ks)],
        rows, learned_from(result) + more + left_out(result),
        reference=references(rows, FEATURES.values()),
    )  # fmt: skip


TASK = Task(
    evaluate_knn,
    {"encoder k=10": "encoder.10", "embedding k=10": "embedding.10"},
    knn_tables, statistics=shares, order=30,
)  # fmt: skip
