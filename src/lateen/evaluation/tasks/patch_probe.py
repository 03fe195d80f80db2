"""Patch probing: what a linear layer can read out of single patches (METHODS §2).

After Covert et al., *Locality Alignment Improves Vision-Language Models* (arXiv:2410.11087), which
KUEA takes over: local probing asks each patch for the classes inside it, global probing the image
for all of its classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional as F

from lateen.data import Skip, decode_image
from lateen.data.masks import (
    IGNORED,
    MaskedImages,
    PixelCounts,
    check_same_shape,
    open_masks,
    settle_binary,
)
from lateen.data.samples import HashedImage
from lateen.encoders import Encoder, ViewedEncoder
from lateen.encoders.patches import WindowEncoder
from lateen.errors import DataError, ImageError, UsageError
from lateen.evaluation.features import JudgedImages, conditions, find_trained_on
from lateen.evaluation.intervals import Arrays, Statistics, resampled
from lateen.evaluation.tables import MOST_CLASSES, by_class, left_out, references, titled
from lateen.evaluation.task import Result, Task
from lateen.evaluation.tasks.segmentation import ignored_share, resize_short_side
from lateen.metrics.classification import multilabel
from lateen.metrics.resampling import Tally
from lateen.model import AlignedModel
from lateen.progress import bar
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)

_IMAGES = 16  # in a forward pass
_ROWS = 256  # in a step
_EPOCHS = 30
_STEPS = 500  # at least, for sets of few rows
_RATE = 1e-2
_CHUNK = 8192  # rows held in float32 or more at a time
_DENSE_POOLINGS = ("mean", "cls+mean")
_TOLD = 20  # of what was left out, in a result
_NOTHING = "its mask has no pixel of any class"
_Rows = tuple[Tensor, Tensor, Tensor]


def evaluate_patch_probe(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    classes: str | Path | None = None,
    data: str | Path | None = None,
    layout: str = "auto",
    ignore: int = IGNORED,
    window: int | None = None,
    holdout: float = 0.2,
    seed: int = 0,
) -> dict[str, Any]:
    """Macro recall in percent of linear probes on the frozen vision encoder's patch features.

    Local: each patch predicts the union of the labels of its pixels. Global: the mean of the
    image's patches predicts the union of its labels. Binary cross-entropy per class, yes above
    one half. ``baseline`` says yes to classes that most rows to learn from have.

    Images are resized to the window and cut to its middle square. Whole images are held out.

    Args:
        model: an aligned model; only its vision encoder is used. Where its pooling is not ``mean``
            or ``cls+mean``, the bare patch tokens are probed: ``pooling`` in the result says so.
        images: folder of images.
        masks: folder of index masks (PNG) with the images' names.
        classes: text file with one class name a line, the index in masks being the line's from 0.
        data: instead of images and masks: folder of a published set.
        layout: of that set, ``ade20k``, ``coco-stuff`` or ``voc20``; found out by default.
        ignore: index of pixels that are of no class.
        window: edge in pixels that the encoder sees; its own size if not given.
        holdout: share of the images to test on.
        seed: of the division and of training.

    Raises:
        UsageError: options that do not go together.
        DataError: fewer than two images with labels.
        EncoderError: the vision encoder has no features per patch.
    """
    if not 0 < holdout < 1:
        raise UsageError(f"a share of {holdout} cannot be held out", "Give one between 0 and 1.")
    dataset = settle_binary(
        open_masks(images=images, masks=masks, data=data, layout=layout, classes=classes), ignore
    )
    encoder = WindowEncoder(probed := _with_patches(model.vision_encoder), window)
    left_out = _LeftOut(list(dataset.skips))
    rows = list(_labelled_patches(dataset, encoder, ignore, left_out))
    skips = left_out.skips
    left_out.pixels.warn(len(dataset.classes), ignore)
    if len(rows) < 2:
        first = f" (the first left out: {skips[0].id}: {skips[0].reason})" if skips else ""
        raise DataError(
            f"{len(rows)} of {len(dataset)} images of {dataset.name} can be used{first}, and a "
            "probe needs two",
            "Give more images, with masks whose indices are those of the classes.",
        )
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    tested = min(len(rows) - 1, max(1, round(holdout * len(rows))))
    test, train = ([rows[i] for i in part] for part in (order[:tested], order[tested:]))
    probes: dict[str, Any] = {}
    counts: dict[str, Tensor] = {}
    for name, gather in (("local", _patch_rows), ("global", _image_rows)):
        probes[name], tallies = _probe(gather(train), gather(test), dataset.classes, seed)
        counts |= {f"{name}_{what}": values for what, values in tallies.items()}
    return {
        **probes,
        **resampled(patch_probe_statistics, counts, [image.id for image in test]),
        "images": len(rows),
        "images_tested": tested,
        "classes": len(dataset.classes),
        **left_out.pixels.as_dict(),
        "skipped": len(skips),
        "skips": [skip.as_dict() for skip in skips[:_TOLD]],
        "set": dataset.name,
        "pooling": probed.info.pooling,
        "window": encoder.window,
        "grid": encoder.grid,
        "holdout": holdout,
        "ignore": ignore,
        "seed": seed,
        "trained_on": find_trained_on(model, JudgedImages({row.id: row.hash for row in test})),
        "conditions": conditions(model, dataset.fingerprint),
    }


@dataclass
class _LeftOut:
    """Images and pixels that are not counted."""

    skips: list[Skip]
    pixels: PixelCounts = field(default_factory=PixelCounts)


@dataclass(frozen=True)
class LabelledPatches:
    """The patches of an image.

    Attributes:
        features: ``[grid · grid, dim]``, float16.
        labels: which classes are in each ``[grid · grid, classes]``, bool.
        id: of the image.
        hash: of the image's bytes.
    """

    features: Tensor
    labels: Tensor
    id: str
    hash: int


def patch_labels(labels: np.ndarray[Any, Any], grid: int, classes: int) -> Tensor:
    """Which classes are in each cell of the middle square of a mask.

    A pixel belongs to the cell that its centre is in.

    Args:
        labels: class index per pixel ``[height, width]``; others are of no class.
        grid: cells along an edge of the square.
        classes: how many there are.

    Returns:
        ``[grid · grid, classes]``, bool, in raster order.
    """
    height, width = labels.shape
    edge = min(height, width)
    rows, columns = (
        np.floor((np.arange(length) + 0.5 - (length - edge) / 2) * grid / edge).astype(int)
        for length in (height, width)
    )
    inside = np.ix_((rows >= 0) & (rows < grid), (columns >= 0) & (columns < grid))
    cells = (rows[:, None] * grid + columns[None, :])[inside]
    pixels = labels[inside]
    known = (pixels >= 0) & (pixels < classes)
    there = torch.zeros(grid * grid, classes, dtype=torch.bool)
    there[torch.from_numpy(cells[known]), torch.from_numpy(pixels[known]).long()] = True
    return there


def linear_multilabel(train: Tensor, labels: Tensor, test: Tensor, seed: int = 0) -> Tensor:
    """Which classes a linear layer finds in each row to test ``[m, classes]``, bool.

    Features are standardised by the rows to learn from. Adam, binary cross-entropy averaged over
    rows and classes, the rate falling to 0 as a cosine; the same seed gives the same.

    Args:
        train: features to learn from ``[n, d]``, of any float type.
        labels: their classes ``[n, classes]``, bool.
        test: features ``[m, d]``.
        seed: of the order of rows.
    """
    mean, spread = _moments(train)
    weight = torch.zeros(labels.shape[1], train.shape[1], requires_grad=True)
    share = labels.double().mean(dim=0).clamp(1e-4, 1 - 1e-4)
    bias = torch.logit(share).float().requires_grad_()  # else rare classes are late to be denied
    optimizer = torch.optim.Adam([weight, bias], lr=_RATE)
    steps = max(_STEPS, _EPOCHS * -(-len(train) // _ROWS))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    order: list[Tensor] = []
    for _ in range(steps):
        if not order:
            order = list(torch.split(torch.randperm(len(train), generator=generator), _ROWS))
        rows = order.pop()
        logits = F.linear((train[rows].float() - mean) / spread, weight, bias)
        loss = F.binary_cross_entropy_with_logits(logits, labels[rows].float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        parts = torch.split(test, _CHUNK)
        return torch.cat([F.linear((x.float() - mean) / spread, weight, bias) > 0 for x in parts])


def _with_patches(encoder: Encoder) -> Encoder:
    if encoder.info.pooling not in _DENSE_POOLINGS and isinstance(encoder, ViewedEncoder):
        return encoder.view("mean", encoder.info.layer)
    return encoder


class _Labelled(NamedTuple):
    """An image that waits for its batch: its middle square, and which classes are in each cell."""

    square: Image
    labels: Tensor
    id: str
    hash: int


def _labelled_patches(
    dataset: MaskedImages, encoder: WindowEncoder, ignore: int, left_out: _LeftOut
) -> Iterator[LabelledPatches]:
    """Images with their labels, in order; what cannot be used is added to ``left_out``."""
    waiting: list[_Labelled] = []
    with bar(len(dataset), "patches", "image") as progress:
        for pair in dataset:
            progress.update()
            source = HashedImage(pair.image)
            try:
                photograph = decode_image(source)
                truth = dataset.counted(pair, ignore)
                check_same_shape(photograph, truth.labels)
                square = _middle(resize_short_side(photograph, encoder.window), encoder.window)
            except (ImageError, ValueError) as error:
                left_out.skips.append(Skip(pair.id, str(error), pair.image.name))
                continue
            left_out.pixels.add(truth)
            there = patch_labels(truth.labels, encoder.grid, len(dataset.classes))
            if not bool(there.any()):
                left_out.skips.append(Skip(pair.id, _NOTHING, pair.mask.name))
                continue
            waiting.append(_Labelled(square, there, pair.id, source.hash))
            if len(waiting) == _IMAGES:
                yield from _encoded(encoder, waiting)
                waiting = []
    if waiting:
        yield from _encoded(encoder, waiting)


def _encoded(encoder: WindowEncoder, waiting: Sequence[_Labelled]) -> Iterator[LabelledPatches]:
    features = encoder.encode([image.square for image in waiting]).flatten(1, 2).half()
    for each, image in zip(features, waiting, strict=True):
        yield LabelledPatches(each, image.labels, image.id, image.hash)


def _middle(image: Image, edge: int) -> Image:
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge))


def _patch_rows(images: Sequence[LabelledPatches]) -> _Rows:
    """Patches with labels ``[n, dim]``, their classes ``[n, classes]`` and image ``[n]``."""
    labels = torch.cat([image.labels for image in images])
    known = labels.any(dim=1)  # where no pixel is of a class, nothing is known, not even absence
    owner = torch.arange(len(images)).repeat_interleave(
        torch.tensor([len(image.labels) for image in images])
    )
    return torch.cat([image.features for image in images])[known], labels[known], owner[known]


def _image_rows(images: Sequence[LabelledPatches]) -> _Rows:
    """Mean patches ``[n, dim]``, all classes of their images ``[n, classes]``, and these."""
    features = torch.stack([image.features.float().mean(dim=0) for image in images])
    labels = torch.stack([image.labels.any(dim=0) for image in images])
    return features, labels, torch.arange(len(images))


def _probe(
    train: _Rows, test: _Rows, names: Sequence[str], seed: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Scores of a probe, and its hits by image and class."""
    predicted = linear_multilabel(train[0], train[1], test[0], seed)
    usual = (train[1].double().mean(dim=0) > 0.5).expand_as(test[1])
    baseline = multilabel(usual, test[1], names)
    scores = {
        **multilabel(predicted, test[1], names),
        "baseline": {key: baseline[key] for key in ("macro_recall", "macro_precision")},
        "rows": len(train[0]),
        "rows_tested": len(test[0]),
    }
    return scores, _class_hits(predicted, test[1], test[2])


def _class_hits(predicted: Tensor, truth: Tensor, image: Tensor) -> dict[str, Tensor]:
    """Of every image and class of which it has rows: how many, and how many were found."""
    shape = (int(image.max()) + 1, truth.shape[1])
    tries = torch.zeros(shape, dtype=torch.int64).index_add_(0, image, truth.long())
    hits = torch.zeros(shape, dtype=torch.int64).index_add_(0, image, (predicted & truth).long())
    where, label = tries.nonzero(as_tuple=True)
    return {
        "image": where, "class": label, "hits": hits[where, label], "tries": tries[where, label],
    }  # fmt: skip


def patch_probe_statistics(arrays: Arrays) -> Statistics:
    """Macro recall of both probes from the hits of each image and class."""
    return {
        f"{name}.macro_recall": Tally(
            *(arrays[f"{name}_{what}"] for what in ("image", "hits", "tries", "class"))
        )
        for name in ("local", "global")
    }


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, 1 where it is constant."""
    parts = torch.split(rows, _CHUNK)
    mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(0) / len(rows)
    squares = [((part.double() - mean) ** 2).sum(dim=0) for part in parts]
    spread = (torch.stack(squares).sum(0) / len(rows)).sqrt()
    return mean.float(), spread.where(spread > 1e-6, 1.0).float()


def patch_probe_tables(result: Result) -> Iterator[TableData]:
    """Recall and precision beside what the usual classes alone give."""
    rows: list[list[Cell]] = []
    measured = {"local": "local: a patch's classes", "global": "global: the image's"}
    for name, words in measured.items():
        part = result[name]
        usual = part["baseline"]
        rows.append([words, part["macro_recall"], part["macro_precision"], part["rows_tested"]])
        rows += interval_row(result, (f"{name}.macro_recall", "", ""))
        rows.append(
            ["usual classes, always", usual["macro_recall"], usual["macro_precision"], None]
        )
    yield TableData(
        titled("Patch probing", result),
        [Column(""), Column("macro recall (%)", 1), Column("macro precision (%)", 1),
         Column("rows judged", 0)],
        rows,
        f"{result['images_tested']:,} of {result['images']:,} images held out, "
        f"{result['classes']:,} classes.{ignored_share(result)}{left_out(result)}",
        reference=references(rows, measured.values()),
    )  # fmt: skip
    if len(result["local"]["per_class"]) <= MOST_CLASSES:
        yield by_class("Local recall by class", "recall (%)", result["local"]["per_class"])


TASK = Task(
    evaluate_patch_probe,
    {"local recall": "local.macro_recall", "global recall": "global.macro_recall"},
    patch_probe_tables, statistics=patch_probe_statistics, order=90,
)  # fmt: skip
