"""Images to tune on: decoded pixels, with what the target and the start give for each."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lateen.data import Dataset, Sample, decode_image
from lateen.data.samples import ImageSource
from lateen.device import default_workers
from lateen.encoders import Encoder
from lateen.encoders.vision import VisionEncoder
from lateen.errors import DataError, ImageError, TrainingError
from lateen.features import Pairs, Store
from lateen.features.ids import IdIndex
from lateen.features.pipeline import resized_side
from lateen.hardware import hardware
from lateen.training.batches import (
    Batch,
    BatchRows,
    Part,
    Stream,
    plan_batches,
)
from lateen.training.loader import read_ahead
from lateen.training.ranks import ALONE, Ranks
from lateen.tuning.config import TuneSection

_SMALLEST_CROP = 0.5  # share of an image's area
_Read = tuple[Image.Image | None, Tensor]


@dataclass(frozen=True)
class TuningImages:
    """Images that both the student's encoder and the target's could read.

    Attributes:
        pairs: the student's features before tuning, by row; without captions.
        target: the target's features.
        target_rows: ``[n]`` the row of each image there.
        sources: where each image is, by id.
    """

    pairs: Pairs
    target: Store
    target_rows: np.ndarray[tuple[int], np.dtype[np.int64]]
    sources: Mapping[str, ImageSource]

    @classmethod
    def join(cls, dataset: Dataset, start: Store, target: Store) -> TuningImages:
        """The images of a dataset that are in both stores.

        Raises:
            DataError: there are fewer than four: two to compare in training, two held out.
        """
        sources = {s.id: s.image for s in dataset if isinstance(s, Sample) and s.image is not None}
        rows = IdIndex(target.ids).find(start.ids)
        common = np.flatnonzero(rows >= 0)
        if len(common) < 4:
            raise DataError(
                f"of the images of {dataset.name} both encoders can read {len(common)}",
                "Give more images: a kernel matrix compares them with each other.",
            )
        pairs = Pairs(start.ids.take(common), start, common, ())
        return cls(pairs, target, rows[common], sources)

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, samples: np.ndarray[tuple[int], np.dtype[np.int64]]) -> TuningImages:
        """These images only, in this order."""
        chosen = self.pairs.take(samples)
        return TuningImages(chosen, self.target, self.target_rows[samples], self.sources)

    def split(self, share: float, seed: int) -> tuple[TuningImages, TuningImages]:
        """Split into (rest, held out); an image's side depends on its id and the seed alone."""
        rest, held_out = self.pairs.holdout_positions(share, seed)
        return self.take(rest), self.take(held_out)

    def targets(self, samples: np.ndarray[tuple[int], np.dtype[np.int64]] | slice) -> Tensor:
        """Target features ``[len(samples), dim]``, float32."""
        return self.target[self.target_rows[samples]]


class Reference(Protocol):
    """What an image's embedding is compared with: what target and start give for it."""

    @property
    def viewers(self) -> Sequence[Encoder]:
        """The encoders that are shown each view; none where stores say what they give."""

    def of(self, part: Part, views: Sequence[Image.Image], pixels: Tensor) -> Tensor:
        """``[n, width]``, one row for each image of a part.

        Args:
            part: which images.
            views: as they are seen in this step, RGB; none where there are no :attr:`viewers`.
            pixels: the same, prepared for the student.
        """


class PixelSource:
    """Batches of decoded images, prepared for the student, with their reference beside them.

    Args:
        images: to train on.
        encoder: the student's, whose preprocessing it is.
        reference: what target and start give.
        settings: of the batches and the views.
        ranks: the processes that share them.

    Raises:
        TrainingError: fewer images in a batch than there are processes, or one alone.
    """

    def __init__(
        self, images: TuningImages, encoder: Encoder, reference: Reference, settings: TuneSection,
        ranks: Ranks = ALONE,
    ) -> None:  # fmt: skip
        plan = plan_batches(images.pairs, settings, ranks, block=1)
        if len(images) // plan.steps_per_epoch < 2:
            raise TrainingError(
                f"tune.batch {settings.batch} leaves batches of one image, which has nothing to be "
                "compared with",
                "Raise tune.batch, or tune on more images.",
            )
        self.steps = plan.steps
        self.epoch, self.rows, self.parts = plan.epoch, plan.rows, plan.parts
        self._images, self._encoder, self._reference = images, encoder, reference
        self._settings = settings
        # Images are decoded at the size that those need who see them, as they were for the stores.
        sides = [resized_side(each) for each in (encoder, *reference.viewers)]
        self._side = None if None in sides else max(side for side in sides if side is not None)
        if self._side is not None and settings.augment == "crop":
            self._side = math.ceil(self._side / math.sqrt(_SMALLEST_CROP))
        self._given: dict[tuple[int, int], Tensor] = {}  # references that a step asks for again

    def stream(self, parts: Iterable[Part]) -> Generator[Batch]:
        """The images of ``parts``, decoded ahead of time. Close the iterator to stop reading."""
        self._given.clear()
        threads = hardware().workers or default_workers()
        with contextlib.closing(read_ahead(parts, _images_of, self._read, threads)) as read:
            for part, images in read:
                yield self._batch(part, images)

    def _read(self, image: tuple[Part, int]) -> _Read:
        """An image as it is seen in this step, where anyone else sees it, and prepared."""
        part, index = image
        name = self._images.pairs.ids[int(part.samples[index])]
        try:
            view = decode_image(self._images.sources[name], short_side=self._side)
            if self._settings.augment == "crop":
                view = _random_view(view, part.rows, index)
            [pixels] = self._encoder.prepare([view])
        except (ImageError, ValueError, OSError) as error:
            raise TrainingError(
                f"image {name} could be read when it was encoded, and now cannot: {error}",
                "Put it back, and run the same command again: it goes on at the last checkpoint.",
            ) from error
        return (view if self._reference.viewers else None), pixels

    def _batch(self, part: Part, images: Sequence[_Read]) -> Batch:
        views, prepared = zip(*images, strict=True)
        pixels = torch.stack(prepared)
        at = part.rows.step, part.rows.first
        reference = self._given.pop(at, None)
        if reference is None:
            seen = [view for view in views if view is not None]
            reference = self._reference.of(part, seen, pixels)
            if len(self.rows(part.rows.step)) > 1:  # gradient caching goes over the parts twice
                self._given[at] = reference
        return Batch(pixels, [reference], part.rows)


def _images_of(part: Part) -> list[tuple[Part, int]]:
    """Each image of a part, by its place in it."""
    return [(part, index) for index in range(len(part.samples))]


def _random_view(image: Image.Image, rows: BatchRows, index: int) -> Image.Image:
    """A random crop with the image's own proportions, mirrored in half of the cases."""
    random = np.random.default_rng([rows.seed, Stream.VIEWS, rows.step, rows.first + index])
    width, height = image.size
    edge = float(np.sqrt(random.uniform(_SMALLEST_CROP, 1)))
    size = max(1, round(edge * width)), max(1, round(edge * height))
    left, top = (int(random.integers(0, w - s + 1)) for w, s in zip(image.size, size, strict=True))
    view = image.crop((left, top, left + size[0], top + size[1])).resize((width, height))
    mirrored = bool(random.integers(2))
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


@dataclass(frozen=True)
class StoredReference:
    """The reference from stores: the target's features, then the start's embedding.

    Attributes:
        images: to train on.
        project: the start's features to its embeddings.
    """

    images: TuningImages
    project: torch.nn.Module

    @property
    def viewers(self) -> Sequence[Encoder]:
        """None."""
        return ()

    @torch.no_grad()
    def of(self, part: Part, views: Sequence[Image.Image], pixels: Tensor) -> Tensor:
        """``[n, e + d]``."""
        del views, pixels
        start = self.project(self.images.pairs.image_features(part.samples)).float()
        return torch.cat([self.images.targets(part.samples), start], dim=1)


@dataclass(frozen=True)
class LiveReference:
    """The reference computed in every step: for views that change, and for patches.

    Attributes:
        target: the target encoder.
        start: the student's encoder before tuning.
        project: its features to embeddings.
        patches: also the target's features of every patch.
    """

    target: Encoder
    start: Encoder
    project: torch.nn.Module
    patches: bool

    @property
    def viewers(self) -> Sequence[Encoder]:
        """The target; the start is given the student's pixels."""
        return (self.target,)

    @torch.no_grad()
    def of(self, part: Part, views: Sequence[Image.Image], pixels: Tensor) -> Tensor:
        """``[n, e + d]``, or with patches ``[n, e + d + q · e']``."""
        del part
        seen = self.target.prepare(list(views))
        start = self.project(self.start.encode(list(pixels))).float()
        columns = [self.target.encode(seen), start]
        if self.patches:
            assert isinstance(self.target, VisionEncoder)
            columns.append(self.target.encode_patches(seen).flatten(1))
        return torch.cat(columns, dim=1)
