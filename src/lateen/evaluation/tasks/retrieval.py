"""Image-caption pairs, both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from lateen.data import Dataset, open_dataset
from lateen.data.samples import no_captions
from lateen.errors import DataError, UsageError, choices
from lateen.evaluation.features import (
    JudgedImages,
    bank_facts,
    conditions,
    find_trained_on,
    side_features,
)
from lateen.evaluation.intervals import Array, Arrays, Statistics, resampled
from lateen.evaluation.tables import left_out, noted, titled
from lateen.evaluation.task import WITH_BANK, Result, Task, with_bank
from lateen.features import Pairs, StoreRows, TextColumn, pair
from lateen.files import content_key
from lateen.metrics import cross_ranks, mean_recall, retrieval, retrieval_of_ranks, rsum
from lateen.metrics.features import Features
from lateen.metrics.resampling import Median, Tally
from lateen.metrics.retrieval import Retrieval
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.model.query_bank import QueryBank, chosen_bank
from lateen.progress import log
from lateen.report.chance import recall_at_k
from lateen.report.tables import (
    TableData,
    retrieval_table,
)

_CUTOFFS = (1, 5, 10)
Columns = Literal["first", "each", "union"]
# What is a column's own, where each is judged.
_OWN = ("text_to_image", "image_to_text", "rsum", "mean_recall", "intervals", "images", "captions",
        "with_bank")  # fmt: skip


def evaluate_retrieval(
    model: AlignedModel,
    *,
    captions: Path | str | None = None,
    images: Path | str | None = None,
    column: str | None = None,
    columns: Columns = "first",
    split: str | None = None,
    per_image: int | None = None,
    folds: int | None = None,
    bank: Path | str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """R@1/5/10 and median rank of text → image and image → text retrieval, and their rsum.

    Args:
        model: an aligned model.
        captions: table, COCO or Karpathy JSON, shards, a hub id: any source of pairs that
            :func:`~lateen.data.open_dataset` reads.
        images: folder of the images that ``captions`` names, or a source of pairs itself.
        column: the caption column; the first one if not given.
        columns: of several columns the ``first``, or ``each`` by itself (the first one's numbers
            lead), or their ``union``: all captions of an image count as its own.
        split: of a caption file or datasets name that has splits.
        per_image: only each image's first captions, so many; the field takes 5 of COCO's and
            Flickr30k's (METHODS §1.6).
        folds: also the mean over this many parts of the images, each with a pool of its own:
            COCO's "1k" numbers are those of 5.
        bank: a query bank, with which recalls are told, too: the model's own if it carries one;
            ``none``; or a file of `lateen bank`.
        cache: where to keep features; lateen's cache folder if not given.

    Raises:
        UsageError: neither captions nor images are given, or numbers below 1.
        DataError: there are no captions, or fewer images than folds.
    """
    source = captions or images
    if source is None:
        raise UsageError("retrieval needs image-caption pairs", "Give --captions (and --images).")
    for name, value in (("per-image", per_image), ("folds", folds)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}", "It must be at least 1.")
    known = chosen_bank(model, bank)
    dataset = open_dataset(
        source, images=images if captions else None, split=split,
        captions=(column,) if column else (),
    )  # fmt: skip
    chosen = _chosen_columns(dataset, column, columns)
    _ = model.vision_encoder, model.text_encoder  # what cannot be loaded fails here
    image = side_features(model, "vision", dataset, folder=cache and cache / "images")
    texts = [
        side_features(model, "text", dataset, name, cache and cache / f"texts-{name}")
        for name in chosen
    ]
    if columns == "union":
        pairs = pair(image, *texts)
        return retrieval_result(
            model, pairs, per_image=per_image, folds=folds, union=True, bank=known
        )
    results = [
        retrieval_result(model, pair(image, text), per_image=per_image, folds=folds, bank=known)
        for text in texts
    ]
    if columns == "first":
        return results[0]
    parts = {each["column"]: {k: each[k] for k in _OWN if k in each} for each in results}
    return {**results[0], "by_column": parts}


def _chosen_columns(dataset: Dataset, column: str | None, columns: Columns) -> tuple[str, ...]:
    """The caption columns to judge on; of several that nobody chose among, it is said which.

    Raises:
        UsageError: an unknown choice, or one beside a column by name.
        DataError: there is no caption.
    """
    if columns not in get_args(Columns):
        raise UsageError(f"columns cannot be {columns!r}", choices(columns, get_args(Columns)))
    if column and columns != "first":
        raise UsageError(
            f"--column {column} and --columns {columns} are two choices", "Give one of them."
        )
    there = (column,) if column else tuple(dataset.columns)
    if not there:
        raise DataError(no_captions(dataset), "Give a file that has, with --captions.")
    if len(there) > 1 and columns == "first":
        log.warning(
            "retrieval is judged on the captions %s (also there: %s; choose with --column, or "
            "--columns each or union)", there[0], ", ".join(there[1:]),
        )  # fmt: skip
    return there[:1] if columns == "first" else there


def retrieval_result(
    model: AlignedModel, pairs: Pairs, *, per_image: int | None = None, folds: int | None = None,
    union: bool = False, bank: QueryBank | None = None,
    embed: Callable[..., Features] = project_rows,
) -> dict[str, Any]:  # fmt: skip
    """Retrieval on pairs of features that the model's encoders made (first caption column).

    Args:
        model: an aligned model.
        pairs: the features.
        per_image: only each image's first captions, so many.
        folds: also the mean over this many parts of the images.
        union: the captions of all columns together, instead of the first column's.
        bank: a query bank of the model, with which recalls are told, too.
        embed: how embeddings are made of rows of a store, as :func:`project_rows` makes them.

    Raises:
        DataError: fewer images than folds.
    """
    texts = pairs.texts if union else pairs.texts[:1]
    columns = [each if per_image is None else each.first(per_image) for each in texts]
    image = embed(model.project_image, pairs.image, pairs.image_rows)
    by_column = [embed(model.project_text, each.store, each.rows) for each in columns]
    text = by_column[0] if len(columns) == 1 else torch.cat([each[:] for each in by_column])
    owner = torch.cat([torch.from_numpy(each.owner) for each in columns])
    stores = [pairs.image, *(each.store for each in columns)]
    skipped = {(s["id"], s["source"]) for store in stores for s in store.skipped}
    copies = _copies(pairs)
    if copies:
        log.warning(
            "%d of %d images have the very features of another: copies, most likely. They tie with "
            "each other, and a tie counts against the model", copies, len(pairs),
        )  # fmt: skip
    by_text, by_image = cross_ranks(image, text, owner)
    result = retrieval_of_ranks(by_text, by_image)
    ranks = {"owner": owner, "text_ranks": by_text, "image_ranks": by_image}
    judged = JudgedImages.of(pairs.image, pairs.image_rows)
    beside = {}
    if bank is not None:
        found = cross_ranks(bank.extend_images(image), bank.extend_texts(text), owner)
        ranks |= {"bank_text_ranks": found[0], "bank_image_ranks": found[1]}
        beside = {"with_bank": {**_recalls(retrieval_of_ranks(*found)), **bank_facts(bank, judged)}}
    return {
        "task": "retrieval",
        **_recalls(result),
        **beside,
        **resampled(retrieval_statistics, ranks, pairs.ids),
        **({"folds": _over_folds(image, text, owner, folds)} if folds else {}),
        "images": len(pairs),
        "captions": len(text),
        "column": " + ".join(each.name for each in columns),
        "per_image": per_image,
        "copies": copies,
        "skipped": len(skipped),
        "trained_on": find_trained_on(model, judged),
        "conditions": conditions(model, _data_key(pairs, columns)),
    }


def _recalls(found: Retrieval) -> dict[str, Any]:
    """Recalls both ways, and what is made of them."""
    means = {f"R@{k}": mean_recall(found, (k,)) for k in _CUTOFFS}
    return {**found, "rsum": rsum(found), "mean_recall": means}


def retrieval_statistics(arrays: Arrays) -> Statistics:
    """Every number of :func:`retrieval_result` from the ranks of captions and images."""
    found = _statistics(arrays["owner"], arrays["text_ranks"], arrays["image_ranks"])
    if "bank_text_ranks" in arrays:
        ranks = arrays["bank_text_ranks"], arrays["bank_image_ranks"]
        beside = _statistics(arrays["owner"], *ranks)
        found |= {f"{WITH_BANK}{path}": statistic for path, statistic in beside.items()}
    return found


def _statistics(owner: Array, text_ranks: Array, image_ranks: Array) -> Statistics:
    ways = {
        "text_to_image": (owner, text_ranks),
        "image_to_text": (np.arange(len(image_ranks)), image_ranks),
    }
    unit = np.concatenate([of for of, _ in ways.values()])
    way = np.repeat([0, 1], [len(of) for of, _ in ways.values()])
    ranks = np.concatenate([ranks for _, ranks in ways.values()])
    found: Statistics = {}
    for name, (of, values) in ways.items():
        found |= {f"{name}.R@{k}": Tally(of, values <= k) for k in _CUTOFFS}
        found[f"{name}.median_rank"] = Median(of, values)
    found |= {f"mean_recall.R@{k}": Tally(unit, ranks <= k, group=way) for k in _CUTOFFS}
    found["rsum"] = Tally(
        np.tile(unit, 3),
        np.concatenate([ranks <= k for k in _CUTOFFS]),
        group=np.concatenate([way + 2 * index for index in range(3)]),
        scale=600,
    )
    return found


def _copies(pairs: Pairs) -> int:
    """How many images have the very features of an earlier one."""
    return len(pairs) - len(set(StoreRows(pairs.image, pairs.image_rows).digests()))


def _data_key(pairs: Pairs, columns: Sequence[TextColumn]) -> str:
    """Content key of the images and captions themselves, whatever encoded them."""
    first, *others = (
        (each.store.manifest.description.fingerprint, each.name,
         hashlib.sha256(each.counts.tobytes()).hexdigest())
        for each in columns
    )  # fmt: skip
    fingerprint, name, counts = first
    images = pairs.image.manifest.description.fingerprint
    return content_key([list(pairs.ids), [images, fingerprint], name, counts, *others])


def _over_folds(image: Features, text: Features, owner: Tensor, folds: int) -> dict[str, Any]:
    """Every number's mean over ``folds`` parts of the images, in their order."""
    if len(image) < folds:
        raise DataError(f"{len(image)} images cannot make {folds} folds", "Ask for fewer.")
    parts = []
    for images in torch.arange(len(image)).tensor_split(folds):
        first, last = int(images[0]), int(images[-1]) + 1
        own = (owner >= first) & (owner < last)
        at = own.nonzero()[:, 0]  # neighbours, but where there are several columns
        span = slice(int(at[0]), int(at[-1]) + 1)
        parts.append(retrieval(image[first:last], text[span][own[span]], owner[own] - first))
    ways = {
        way: {key: sum(part[way][key] for part in parts) / folds for key in parts[0][way]}
        for way in parts[0]
    }
    return {"count": folds, **ways, "rsum": rsum(ways)}


def retrieval_chance(result: Result, key_path: str) -> float:
    """R@k of a random ranking, in percent."""
    images, captions = result["images"], result["captions"]
    depth = int(key_path.rpartition("@")[2])
    if "text_to_image" in key_path:
        return recall_at_k(depth, images)
    return recall_at_k(depth, captions, captions / images)


def retrieval_tables(result: Result) -> Iterator[TableData]:
    """Recalls of both ways beside chance; the mean over parts, if there are any."""
    on = f", {result['column']}" if result.get("column") else ""
    table = retrieval_table(result, titled("Retrieval", result) + on)
    total = f" rsum {result['rsum']:.1f} of 600." if "rsum" in result else ""
    first = f" The first {result['per_image']} captions." if result.get("per_image") else ""
    copied = result.get("copies", 0)
    copies = f" {copied:,} image{'s are copies' if copied > 1 else ' is a copy'}." if copied else ""
    yield noted(table, first + total + copies + left_out(result))
    for name, part in list(result.get("by_column", {}).items())[1:]:
        yield retrieval_table(part, f"Captions {name}")
    if folds := result.get("folds"):
        counts = {key: max(1, result[key] // folds["count"]) for key in ("images", "captions")}
        table = retrieval_table({**folds, **counts}, f"Mean over {folds['count']} parts")
        yield noted(table, f" In each part, that is; rsum {folds['rsum']:.1f} of 600.")


TASK = Task(
    evaluate_retrieval,
    with_bank(
        {
            f"{short} {key}": f"{way}.{key}"
            for way, short in (("text_to_image", "T2I"), ("image_to_text", "I2T"))
            for key in ("R@1", "R@5", "R@10", "median_rank")
        }
        | {"rsum": "rsum"}
    ),
    retrieval_tables, statistics=retrieval_statistics, overview=("T2I R@1", "I2T R@1"),
    chance=retrieval_chance, order=10,
)  # fmt: skip
