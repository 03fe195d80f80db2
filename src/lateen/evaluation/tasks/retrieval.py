"""Image-caption pairs, both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lateen.data import open_dataset
from lateen.data.samples import no_captions
from lateen.errors import DataError, UsageError
from lateen.evaluation.features import (
    JudgedImages,
    cached_features,
    conditions,
    find_trained_on,
)
from lateen.evaluation.tables import left_out, noted, titled
from lateen.evaluation.task import Result, Task
from lateen.features import Pairs, StoreRows, pair
from lateen.features.pairs import TextColumn
from lateen.files import content_key
from lateen.metrics import retrieval, rsum
from lateen.model import AlignedModel
from lateen.model.model import project_rows
from lateen.progress import log
from lateen.report.chance import recall_at_k
from lateen.report.tables import (
    TableData,
    retrieval_table,
)


def evaluate_retrieval(
    model: AlignedModel,
    *,
    captions: Path | str | None = None,
    images: Path | str | None = None,
    column: str | None = None,
    split: str | None = None,
    per_image: int | None = None,
    folds: int | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """R@1/5/10 and median rank of text → image and image → text retrieval, and their rsum.

    Args:
        model: an aligned model.
        captions: table, COCO or Karpathy JSON, shards, a hub id: any source of pairs that
            :func:`~lateen.data.open_dataset` reads.
        images: folder of the images that ``captions`` names, or a source of pairs itself.
        column: the caption column; the first one if not given.
        split: of a caption file or datasets name that has splits.
        per_image: only each image's first captions, so many; the field takes 5 of COCO's and
            Flickr30k's (METHODS §1.6).
        folds: also the mean over this many parts of the images, each with a pool of its own:
            COCO's "1k" numbers are those of 5.
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
    dataset = open_dataset(
        source, images=images if captions else None, split=split,
        captions=(column,) if column else (),
    )  # fmt: skip
    columns = [column] if column else dataset.columns[:1]
    if others := dataset.columns[1:] if not column else ():
        log.warning(
            "retrieval is judged on the captions %s (also there: %s; choose with --column)",
            columns[0], ", ".join(others),
        )  # fmt: skip
    if not columns:
        raise DataError(no_captions(dataset), "Give a file that has, with --captions.")
    image = cached_features(
        dataset, model.vision_encoder, folder=cache and cache / "images",
        dtype=model.config.feature_dtype("vision"),
    )  # fmt: skip
    text = cached_features(
        dataset, model.text_encoder, columns[0], folder=cache and cache / f"texts-{columns[0]}",
        dtype=model.config.feature_dtype("text"),
    )  # fmt: skip
    return retrieval_result(model, pair(image, text), per_image=per_image, folds=folds)


def retrieval_result(
    model: AlignedModel, pairs: Pairs, *, per_image: int | None = None, folds: int | None = None
) -> dict[str, Any]:
    """Retrieval on pairs of features that the model's encoders made (first caption column).

    Args:
        model: an aligned model.
        pairs: the features.
        per_image: only each image's first captions, so many.
        folds: also the mean over this many parts of the images.

    Raises:
        DataError: fewer images than folds.
    """
    column = pairs.texts[0] if per_image is None else pairs.texts[0].first(per_image)
    image = project_rows(model.project_image, pairs.image, pairs.image_rows)
    text = project_rows(model.project_text, column.store, column.rows)
    owner = torch.from_numpy(column.owner)
    skipped = {(s["id"], s["source"]) for s in pairs.image.skipped + column.store.skipped}
    copies = _copies(pairs)
    if copies:
        log.warning(
            "%d of %d images have the very features of another: copies, most likely. They tie with "
            "each other, and a tie counts against the model", copies, len(pairs),
        )  # fmt: skip
    found = retrieval(image, text, owner)
    return {
        "task": "retrieval",
        **found,
        "rsum": rsum(found),
        **({"folds": _over_folds(image, text, owner, folds)} if folds else {}),
        "images": len(pairs),
        "captions": len(text),
        "column": column.name,
        "per_image": per_image,
        "copies": copies,
        "skipped": len(skipped),
        "trained_on": find_trained_on(model, JudgedImages.of(pairs.image, pairs.image_rows)),
        "conditions": conditions(model, _data_key(pairs, column)),
    }


def _copies(pairs: Pairs) -> int:
    """How many images have the very features of an earlier one."""
    return len(pairs) - len(set(StoreRows(pairs.image, pairs.image_rows).digests()))


def _data_key(pairs: Pairs, column: TextColumn) -> str:
    """Content key of the images and captions themselves, whatever encoded them."""
    stores = (pairs.image, column.store)
    counts = hashlib.sha256(column.counts.tobytes()).hexdigest()
    return content_key(
        [pairs.ids, [s.manifest.description.fingerprint for s in stores], column.name, counts]
    )


def _over_folds(image: Tensor, text: Tensor, owner: Tensor, folds: int) -> dict[str, Any]:
    """Every number's mean over ``folds`` parts of the images, in their order."""
    if len(image) < folds:
        raise DataError(f"{len(image)} images cannot make {folds} folds", "Ask for fewer.")
    parts = []
    for images in torch.arange(len(image)).tensor_split(folds):
        mine = (owner >= images[0]) & (owner <= images[-1])
        parts.append(retrieval(image[images], text[mine], owner[mine] - images[0]))
    ways = {
        way: {key: sum(part[way][key] for part in parts) / folds for key in parts[0][way]}
        for way in parts[0]
    }
    return {"count": folds, **ways, "rsum": rsum(ways)}


def _chance(result: Result, key_path: str) -> float | None:
    """R@k of a random ranking, in percent."""
    images, captions = result["images"], result["captions"]
    depth = int(key_path.rpartition("@")[2])
    if key_path.startswith("text"):
        return recall_at_k(depth, images)
    return recall_at_k(depth, captions, captions / images)


def retrieval_tables(result: Result) -> Iterator[TableData]:
    """Recalls of both ways beside chance; the mean over parts, if there are any."""
    table = retrieval_table(result, titled("Retrieval", result))
    total = f" rsum {result['rsum']:.1f} of 600." if "rsum" in result else ""
    first = f" The first {result['per_image']} captions." if result.get("per_image") else ""
    column = f" Captions are the column {result['column']}." if result.get("column") else ""
    copies = f" {result['copies']:,} images are copies." if result.get("copies") else ""
    yield noted(table, column + first + total + copies + left_out(result))
    if folds := result.get("folds"):
        counts = {key: max(1, result[key] // folds["count"]) for key in ("images", "captions")}
        table = retrieval_table({**folds, **counts}, f"Mean over {folds['count']} parts")
        yield noted(table, f" In each part, that is; rsum {folds['rsum']:.1f} of 600.")


TASK = Task(
    evaluate_retrieval,
    {
        f"{short} {key}": f"{way}.{key}"
        for way, short in (("text_to_image", "T2I"), ("image_to_text", "I2T"))
        for key in ("R@1", "R@5", "R@10", "median_rank")
    }
    | {"rsum": "rsum"},
    retrieval_tables, overview=("T2I R@1", "I2T R@1"), chance=_chance, order=10,
)  # fmt: skip
