"""Open-vocabulary segmentation: every patch against the names of the classes (METHODS §1.6).

A large image is scored in overlapping squares, by a sliding window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image, Resampling
from torch import Tensor
from torch.nn import functional as F

from lateen.data import Skip, decode_image
from lateen.data.masks import (
    IGNORED,
    MaskedImage,
    MaskedImages,
    PixelCounts,
    check_same_shape,
    open_masks,
    settle_binary,
)
from lateen.data.prompts import TEMPLATES, class_prompts
from lateen.data.published import as_templates
from lateen.data.samples import HashedImage
from lateen.encoders.base import Attention
from lateen.encoders.patches import WindowEncoder
from lateen.errors import DataError, ImageError, UsageError
from lateen.evaluation.features import JudgedImages, conditions, embed_prompts, find_trained_on
from lateen.evaluation.intervals import Arrays, Statistics, resampled
from lateen.evaluation.tables import MOST_CLASSES, by_class, left_out, titled
from lateen.evaluation.task import Result, Task
from lateen.files import jsonl, make_folder, write_text
from lateen.metrics.classification import class_scores
from lateen.metrics.resampling import Tally
from lateen.metrics.segmentation import (
    class_pixels,
    confusion_matrix,
    segmentation,
    segmentation_baselines,
)
from lateen.model import AlignedModel
from lateen.progress import bar
from lateen.report.overlays import picture_name, spread
from lateen.report.tables import (
    Cell,
    Column,
    TableData,
    interval_row,
)

_BATCH = 8  # windows in a forward pass
_CLASSES = 16  # held at the size of the mask at a time: a photograph may have many pixels
_LONGEST_ASPECT = 16
BACKGROUND = "background"
_TOLD = 20  # of what was left out, in a result


def resize_short_side(image: Image, short_side: int) -> Image:
    """``image`` with its shorter side ``short_side`` pixels long, bicubic, in its proportions.

    Raises:
        ValueError: it is over 16 times as long as wide.
    """
    width, height = image.size
    if max(width, height) > _LONGEST_ASPECT * min(width, height):
        raise ValueError(f"aspect ratio {width}:{height} is beyond {_LONGEST_ASPECT}:1")
    scale = short_side / min(width, height)
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return image if size == image.size else image.resize(size, Resampling.BICUBIC)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side, the last one flush with its end.

    >>> window_starts(597, 448, 224)
    [0, 149]
    """
    last = max(0, length - window)
    count = math.ceil(last / stride) + 1
    return [min(index * stride, last) for index in range(count)]


def sliding_logits(
    image: Image, score: Callable[[Sequence[Image]], Tensor], *, window: int, stride: int
) -> Tensor:
    """Logits of every pixel: those of each window brought to its size, averaged where they overlap.

    Args:
        image: neither side shorter than ``window``.
        score: windows to logits ``[n, classes, rows, columns]``.
        window: edge of a window in pixels.
        stride: pixels from one window to the next.

    Returns:
        ``[classes, height, width]``, where the scores are.
    """
    corners = [
        (left, top)
        for top in window_starts(image.height, window, stride)
        for left in window_starts(image.width, window, stride)
    ]
    total = covered = torch.zeros(())
    for start in range(0, len(corners), _BATCH):
        batch = corners[start : start + _BATCH]
        crops = [image.crop((left, top, left + window, top + window)) for left, top in batch]
        scores = _enlarged(score(crops), (window, window))
        if start == 0:
            total = scores.new_zeros(scores.shape[1], image.height, image.width)
            covered = scores.new_zeros(image.height, image.width)
        for (left, top), each in zip(batch, scores, strict=True):
            total[:, top : top + window, left : left + window] += each
            covered[top : top + window, left : left + window] += 1
    return total / covered


def predict(
    logits: Tensor, size: tuple[int, int], background: float | None = None
) -> tuple[Tensor, Tensor]:
    """The class of every pixel of a mask, by the highest of the logits brought to its size.

    A pixel whose highest logit several classes share has no prediction: embeddings that have
    collapsed find nothing.

    Args:
        logits: ``[classes, height, width]``.
        size: height and width of the mask.
        background: the softmax probability below which the best class does not count.

    Returns:
        Class index per pixel ``[height, width]``, -1 without a prediction; and whether the best
        probability is below ``background``, likewise. Both on the CPU.
    """
    best = logits.new_full(size, -math.inf)
    total = logits.new_full(size, -math.inf)
    chosen = torch.zeros(size, dtype=torch.long, device=logits.device)
    tied = torch.zeros(size, dtype=torch.bool, device=logits.device)
    for start in range(0, len(logits), _CLASSES):
        part = _enlarged(logits[None, start : start + _CLASSES], size)[0]
        value, index = part.max(dim=0)
        shared = (part == value).sum(dim=0) > 1
        tied = torch.where(value > best, shared, tied | (value == best))
        chosen = torch.where(value > best, index + start, chosen)
        best = torch.maximum(best, value)
        if background is not None:
            total = torch.logaddexp(total, part.logsumexp(dim=0))
    unsure = torch.zeros_like(tied) if background is None else (best - total).exp() < background
    return chosen.masked_fill(tied | ~best.isfinite(), -1).cpu(), unsure.cpu()


def _enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values.float(), size=size, mode="bilinear", align_corners=False)


def evaluate_segmentation(
    model: AlignedModel,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    classes: str | Path | None = None,
    data: str | Path | None = None,
    layout: str = "auto",
    ignore: int = IGNORED,
    background: float | None = None,
    templates: Sequence[str] | str | Path = TEMPLATES,
    short_side: int = 448,
    window: int = 448,
    stride: int = 224,
    attention: Attention = "qk",
    residual: bool = True,
    pictures: int = 8,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """mIoU, pixel accuracy and IoU per class in percent, beside chance and the best constant.

    Every image is scored in overlapping windows: the embedding of each patch against those of the
    classes, brought to the window's size, averaged where windows overlap, brought to the mask's.

    Args:
        model: an aligned model whose vision encoder has features per patch.
        images: folder of images.
        masks: folder of index masks (PNG) with the images' names.
        classes: text file with one class name a line, the index in masks being the line's from 0.
        data: instead of images and masks: folder of a published set.
        layout: of that set, ``ade20k``, ``coco-stuff`` or ``voc20``; found out by default.
        ignore: index of pixels that are of no class.
        background: below this softmax probability of the best class, the class called
            ``background`` is predicted, which then has no prompt of its own.
        templates: prompts with ``{}`` for the class name; a file of them, one a line; or
            ``openai``, the 80 published ones; embeddings of several are averaged.
        short_side: pixels that images are resized to.
        window: edge of the sliding window in pixels.
        stride: pixels from window to window.
        attention: in the last block: ``qk`` as the model was made, ``qq`` or ``kk``.
        residual: False drops what passes by the attention of the last block.
        pictures: how many images to show in ``out``, evenly spread.
        out: folder for ``overlays/*.png``, ``per-class.png`` and ``skipped.jsonl``.

    Raises:
        UsageError: options that do not go together.
        DataError: no image with a mask, or no pixel of any class.
        EncoderError: the vision encoder has no features per patch, or no attention to change.
    """
    _check_sizes(short_side, window, stride)
    prompts = as_templates(templates)
    dataset = settle_binary(
        open_masks(images=images, masks=masks, data=data, layout=layout, classes=classes), ignore
    )
    encoder = WindowEncoder(model.vision_encoder, window, attention=attention, residual=residual)
    segmenter = Segmenter(
        model, encoder, *_embed_classes(model, dataset.classes, prompts, background),
        short_side=max(short_side, encoder.window),
        stride=max(1, round(stride * encoder.window / window)), threshold=background,
    )  # fmt: skip
    out = make_folder(out) if out is not None else None
    run = _Run(dataset, ignore, out, spread(len(dataset), pictures if out else 0))
    run.over_all(segmenter)
    names = dataset.classes
    result = segmentation(run.confusion, names)
    if out is not None:
        run.write(result)
    return {
        **result,
        **resampled(segmentation_statistics, run.per_image(), run.ids),
        **segmentation_baselines(run.confusion, names),
        "miou_over": "classes in the truth or a prediction of any image, all pixels together",
        "images": len(run.ids),
        "classes": len(names),
        "pixels": int(run.confusion.sum()),
        **run.pixels.as_dict(),
        "skipped": len(run.skips),
        "skips": [skip.as_dict() for skip in run.skips[:_TOLD]],
        "pictures": run.pictures,
        "set": dataset.name,
        "short_side": segmenter.short_side,
        "window": encoder.window,
        "stride": segmenter.stride,
        "attention": attention,
        "residual": residual,
        "ignore": ignore,
        "background": background,
        "templates": list(prompts),
        "trained_on": find_trained_on(model, run.judged),
        "conditions": conditions(model, dataset.fingerprint),
    }


@dataclass(frozen=True)
class Segmenter:
    """Predicts the class of every pixel.

    Attributes:
        model: whose image head the patch features go through.
        encoder: gives the patch features.
        classes: embeddings of the classes with prompts ``[c, dim]``.
        indices: of each of these among all classes ``[c]``.
        rest: index of the class of unsure pixels, if there is one.
        short_side: pixels that images are resized to.
        stride: pixels from window to window.
        threshold: softmax probability below which a pixel is unsure.
    """

    model: AlignedModel
    encoder: WindowEncoder
    classes: Tensor
    indices: Tensor
    rest: int | None
    short_side: int
    stride: int
    threshold: float | None

    @torch.no_grad()
    def __call__(self, image: Image, size: tuple[int, int]) -> Tensor:
        """Class index per pixel of a mask of ``size`` (height, width), -1 where there is none.

        Args:
            image: as :func:`~lateen.evaluation.tasks.segmentation.resize_short_side` gives it.
            size: of the mask.
        """
        logits = sliding_logits(image, self._score, window=self.encoder.window, stride=self.stride)
        chosen, unsure = predict(logits, size, self.threshold)
        classes = torch.where(chosen < 0, -1, self.indices[chosen.clamp_min(0)])
        return classes if self.rest is None else classes.masked_fill(unsure, self.rest)

    def _score(self, windows: Sequence[Image]) -> Tensor:
        patches = self.encoder.encode(windows)
        embeddings = self.model.project_image(patches.flatten(0, 2)).float()
        scores = self.model.heads.scale * class_scores(
            embeddings, self.classes.to(embeddings.device)
        )
        return scores.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


@dataclass
class _Run:
    """One pass over a set, and what was counted in it."""

    dataset: MaskedImages
    ignore: int
    out: Path | None
    shown: frozenset[int]
    ids: list[str] = field(default_factory=list)
    pixels: PixelCounts = field(default_factory=PixelCounts)
    judged: JudgedImages = field(default_factory=JudgedImages)
    skips: list[Skip] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    confusion: Tensor = field(init=False)
    counts: list[Tensor] = field(default_factory=list)  # hits, union and truth of each class

    def over_all(self, segmenter: Segmenter) -> None:
        count = len(self.dataset.classes)
        self.confusion = torch.zeros(count, count + 1, dtype=torch.long)
        self.skips += self.dataset.skips
        with bar(len(self.dataset), "segment", "image") as progress:
            for index, pair in enumerate(self.dataset):
                progress.update()
                try:
                    image, truth = self._read(pair, segmenter.short_side)
                except (ImageError, ValueError) as error:
                    self.skips.append(Skip(pair.id, str(error), pair.image.name))
                    continue
                predicted = segmenter(image, (truth.shape[0], truth.shape[1]))
                pixels = confusion_matrix(predicted, truth, count)
                self.confusion += pixels
                self.counts.append(class_pixels(pixels))
                self.ids.append(pair.id)
                if index in self.shown:
                    self._show(pair, image, predicted, truth)
        self.pixels.warn(count, self.ignore)
        self._check_classes()
        if not self.ids:
            first = self.skips[0]
            raise DataError(
                f"not one image of {self.dataset.name} with its mask can be used (the first: "
                f"{first.id}: {first.reason})",
                "Check the images and masks.",
            )

    def per_image(self) -> dict[str, Tensor]:
        """Pixels of each image and class of which it has any, truly or predicted."""
        pixels = torch.stack(self.counts)
        image, label = pixels[..., 1].nonzero(as_tuple=True)
        hits, union, true = pixels[image, label].unbind(-1)
        return {"image": image, "class": label, "hits": hits, "union": union, "true": true}

    def _check_classes(self) -> None:
        """See that the masks have two classes or more.

        Raises:
            DataError: one is left, as where the index of the other is ignored.
        """
        names, pixels = self.dataset.classes, self.confusion.sum(1).tolist()
        there = [name for name, count in zip(names, pixels, strict=True) if count]
        if len(there) == 1:
            raise DataError(
                f"of {len(names)} classes only {there[0]!r} is in the masks of "
                f"{self.dataset.name}, and one alone is always right ({self.pixels.ignored:,} of "
                f"{self.pixels.pixels:,} pixels are ignored, index {self.ignore})",
                "Check the indices in the masks, the order of --classes, and --ignore.",
            )

    def _read(self, pair: MaskedImage, short_side: int) -> tuple[Image, Tensor]:
        """The image, resized, and the class of each pixel of its mask, -1 where there is none."""
        source = HashedImage(pair.image)
        photograph = decode_image(source)
        truth = self.dataset.counted(pair, self.ignore)
        image = resize_short_side(photograph, short_side)
        check_same_shape(photograph, truth.labels)
        self.pixels.add(truth)
        self.judged.add(pair.id, source)
        return image, torch.from_numpy(truth.labels)

    def _show(self, pair: MaskedImage, image: Image, predicted: Tensor, truth: Tensor) -> None:
        from lateen.report.overlays import segmentation_overlay
        from lateen.report.plots import save_plot

        if self.out is None:
            return
        taken = [Path(name).name for name in self.pictures]
        path = self.out / "overlays" / picture_name(pair.id, taken)
        figure = segmentation_overlay(
            image, predicted.numpy(), truth.numpy(), self.dataset.classes, title=pair.id
        )
        save_plot(figure, path)
        self.pictures.append(str(path.relative_to(self.out)))

    def write(self, result: dict[str, Any]) -> None:
        from lateen.report.plots import bar_chart, save_plot

        if self.out is None:
            return
        save_plot(bar_chart(result["per_class"], label="IoU (%)"), self.out / "per-class.png")
        self.pictures.append("per-class.png")
        if self.skips:
            rows = [skip.as_dict() for skip in self.skips]
            write_text(self.out / "skipped.jsonl", jsonl(rows))


def _embed_classes(
    model: AlignedModel,
    names: Sequence[str],
    templates: Sequence[str],
    background: float | None,
) -> tuple[Tensor, Tensor, int | None]:
    """Embeddings of the classes that have prompts, their indices, and the index of the one that
    has none."""
    rest = None
    if background is not None:
        if BACKGROUND not in names:
            raise UsageError(
                f"no class is called {BACKGROUND}, so no pixel can be it",
                "Leave --background out, or name a class so.",
            )
        rest = list(names).index(BACKGROUND)
    indices = [index for index in range(len(names)) if index != rest]
    if len(indices) < 2:
        raise UsageError(
            f"{len(indices)} class is left beside {BACKGROUND}, and one alone is always the best",
            "Name two or more.",
        )
    prompts = [class_prompts(names[index], templates) for index in indices]
    return embed_prompts(model, prompts), torch.tensor(indices), rest


def _check_sizes(short_side: int, window: int, stride: int) -> None:
    if min(short_side, window, stride) < 1:
        raise UsageError("sizes are pixels, 1 or more", "Give --short-side 448, for instance.")
    if window > short_side:
        raise UsageError(
            f"a window of {window} pixels does not fit images whose short side is {short_side}",
            "Give a smaller --window or a larger --short-side.",
        )
    if stride > window:
        raise UsageError(
            f"a stride of {stride} pixels leaves gaps between windows of {window}",
            "Give a stride of at most the window.",
        )


def segmentation_statistics(arrays: Arrays) -> Statistics:
    """mIoU and pixel accuracy from the pixels of each image and class."""
    image, hits = arrays["image"], arrays["hits"]
    return {
        "miou": Tally(image, hits, arrays["union"], arrays["class"]),
        "pixel_accuracy": Tally(image, hits, arrays["true"]),
    }


def ignored_share(result: Result) -> str:
    """What share of the masks' pixels is ignored, in words; results of before do not say."""
    share = result.get("ignored_share")
    return f" {share:.1f} % of pixels ignored." if share else ""


def segmentation_tables(result: Result) -> Iterator[TableData]:
    """mIoU and pixel accuracy beside chance and the best constant; by class where those are few."""
    constant = result["best_constant"]
    rows: list[list[Cell]] = [
        ["zero-shot", result["miou"], result["pixel_accuracy"]],
        *interval_row(result, ("miou", "pixel_accuracy")),
        [f"always {constant['class']!r}", constant["miou"], constant["pixel_accuracy"]],
        ["chance", result["chance"]["miou"], result["chance"]["pixel_accuracy"]],
    ]
    yield TableData(
        titled("Open-vocabulary segmentation", result),
        [Column(""), Column("mIoU (%)", 1), Column("pixel accuracy (%)", 1)],
        rows,
        f"{result['images']:,} images, {result['classes']:,} classes, short side "
        f"{result['short_side']}, window {result['window']}, stride {result['stride']}, "
        f"{result['attention']} attention"
        f"{'' if result['residual'] else ' without residual'}.{ignored_share(result)}"
        f"{left_out(result)}",
        reference=tuple(range(1, len(rows))),
    )
    if len(result["per_class"]) <= MOST_CLASSES:
        yield by_class("IoU by class", "IoU (%)", result["per_class"])


TASK = Task(
    evaluate_segmentation,
    {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"},
    segmentation_tables, statistics=segmentation_statistics, overview=("mIoU",), order=80,
)  # fmt: skip
