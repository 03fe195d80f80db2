"""What a tuning begins with: the model, the target's features, and what the loss starts from."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.data import Dataset, ListDataset, Sample, decode_image, open_dataset
from lateen.device import resolve_device, resolve_precision
from lateen.encoders import Encoder, load_with
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError
from lateen.evaluation.features import cached_features, model_key
from lateen.files import content_key
from lateen.hardware import use_hardware
from lateen.model import AlignedModel
from lateen.model.clip import is_clip, open_model
from lateen.model.model import project_rows
from lateen.progress import log
from lateen.training.ranks import ALONE, Ranks
from lateen.tuning.alignment import (
    Alignment,
    KernelAlignment,
    TunedTower,
    Widths,
    fit_alignment,
    start_term,
)
from lateen.tuning.config import TuneRecipe
from lateen.tuning.fitting import KernelFit
from lateen.tuning.source import (
    LiveReference,
    PixelSource,
    Reference,
    StoredReference,
    TuningImages,
)
from lateen.tuning.tower import ImageTower, candidate, tunable

_MOST_HELD_OUT = 512  # images; their kernel matrix has the square of it
_IMAGES_PER_DIM = 8  # that a linear map of embeddings is fitted on
_PATCH_IMAGES = 16  # whose patches a kernel is fitted on


@dataclass(frozen=True)
class Preparation:
    """A model, a target and images, encoded and ready to be tuned on.

    Attributes:
        plan: the recipe.
        start: the model before tuning.
        target: the target encoder.
        train: images to tune on.
        held_out: images that the kernel term is measured on.
        dataset: what both are of.
    """

    plan: TuneRecipe
    start: AlignedModel
    target: Encoder
    train: TuningImages
    held_out: TuningImages
    dataset: Dataset

    @classmethod
    def of(cls, plan: TuneRecipe) -> Preparation:
        """Load both networks and encode the images with each, from the cache where that was done.

        Raises:
            LateenError: anything of it is not there or does not fit.
        """
        settings = plan.tune
        start = _open_start(plan)
        if settings.method != "projection":
            # What cannot move is said before images are encoded.
            encoder = tunable(start.vision_encoder, patches=settings.patches)
            ImageTower(encoder, start.heads.vision).choose(settings)
        target = load_with(plan.target.encoder, "image", plan.target.options())
        if settings.patches:
            _check_target_patches(target)
        dataset = open_dataset(plan.images)
        before = cached_features(dataset, start.vision_encoder, dtype="float32")
        wanted = cached_features(dataset, target)
        images = TuningImages.join(dataset, before, wanted)
        share = min(settings.holdout, _MOST_HELD_OUT / len(images))
        train, held_out = images.split(max(share, 1.5 / len(images)), seed=0)
        if settings.fraction < 1:
            train, _ = train.split(1 - settings.fraction, seed=settings.seed)
        skipped = len(dataset) - len(images)
        log.info(
            "%d images to tune on, %d held out for the kernel term%s", len(train), len(held_out),
            f", {skipped} could not be read" if skipped else "",
        )  # fmt: skip
        return cls(plan, start, target, train, held_out, dataset)

    @property
    def encoder(self) -> Encoder:
        """The model's vision encoder before tuning."""
        return self.start.vision_encoder

    @property
    def key(self) -> dict[str, Any]:
        """Everything but the settings that decides the result, as JSON values."""
        return {
            "model": model_key(self.start), "target": self.target.info.key,
            "images": self.train.pairs.key, "held out": self.held_out.pairs.key,
        }  # fmt: skip

    def new_tower(self) -> ImageTower:
        """The model's own tower, to be tuned."""
        encoder = tunable(self.encoder, patches=self.plan.tune.patches)
        return ImageTower(encoder, self.start.heads.vision)

    def embeddings(self, images: TuningImages) -> Tensor:
        """Embeddings ``[n, dim]`` before tuning, not normalised."""
        store, rows = images.pairs.image, images.pairs.image_rows
        return project_rows(lambda x: self.start.project_image(x, normalize=False), store, rows)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Embeddings and target features of some images to tune on, always the same.

        A linear map has many more values than a kernel: it takes some images for each dim.
        """
        settings = self.plan.tune
        count = settings.fit_images
        if settings.method == "feature":
            count = max(count, _IMAGES_PER_DIM * (self.start.heads.settings.dim or 0))
        count = min(count, len(self.train))
        some = np.random.default_rng(0).choice(len(self.train), count, replace=False)
        images = self.train.take(np.sort(some))
        return self.embeddings(images), images.targets(slice(None))

    def fitted(self) -> tuple[TunedTower, KernelFit | None]:
        """What is trained, with the kernel's fit.

        Raises:
            DataError: features that nothing can be fitted to.
            TrainingError: the sides agree already.
        """
        settings = self.plan.tune
        tower = self.new_tower()
        student, target = self.sample()
        patches = self._patches(tower) if settings.patches else None
        alignment, fit = fit_alignment(student, target, settings, patches)
        if settings.method == "feature":  # of the images that it was fitted on a map knows too much
            student, target = self.embeddings(self.held_out), self.held_out.targets(slice(None))
        first = start_term(alignment, student, target, settings.batch)
        first_patches = 1.0
        if patches is not None:
            assert isinstance(alignment, KernelAlignment)
            first_patches = start_term(alignment.of_patches, *patches, 1)
        widths = Widths(student.shape[1], target.shape[1], 0 if patches is None else
                        patches[1].shape[2])  # fmt: skip
        module = TunedTower(tower, alignment, widths, settings, (first, first_patches))
        return module, fit

    def source(self, ranks: Ranks = ALONE) -> PixelSource:
        """The batches."""
        settings = self.plan.tune
        live = settings.augment != "none" or settings.patches
        head = copy.deepcopy(self.start.heads.vision).float().requires_grad_(False).cpu()
        reference: Reference = StoredReference(self.train, head)
        if live:
            reference = LiveReference(self.target, self.encoder, head, settings.patches)
        return PixelSource(self.train, self.encoder, reference, settings, ranks)

    def held_out_term(self, alignment: Alignment, model: AlignedModel | None = None) -> float:
        """The distance from the target on the held-out images; of the start without a model.

        Args:
            alignment: on the CPU.
            model: a candidate.
        """
        student = self._embed_held_out(model) if model else self.embeddings(self.held_out)
        rows = student.isfinite().all(1)
        with torch.no_grad():
            return float(alignment(student[rows], self.held_out.targets(slice(None))[rows]))

    def held_out_dataset(self) -> ListDataset:
        """The held-out images."""
        names = list(self.held_out.pairs.ids)
        samples = [Sample(name, self.held_out.sources[name]) for name in names]
        key = content_key([self.dataset.fingerprint, names])
        return ListDataset("held-out images", samples, key)

    def candidate(self, module: TunedTower) -> AlignedModel:
        """The model with the tower as it is now."""
        return candidate(self.start, module.vision)

    def _embed_held_out(self, model: AlignedModel) -> Tensor:
        """A candidate's embeddings ``[n, dim]`` of the held-out images, not normalised; NaN for
        what can no longer be read."""
        names = list(self.held_out.pairs.ids)
        with tempfile.TemporaryDirectory(prefix="lateen-") as folder:
            store = cached_features(
                self.held_out_dataset(), model.vision_encoder, folder=Path(folder) / "store",
                dtype="float32",
            )  # fmt: skip
            some = project_rows(
                lambda x: model.project_image(x, normalize=False), store, range(len(store))
            )
            read = store.ids  # which are on disk until then
        rows = {name: row for row, name in enumerate(names)}
        embeddings = torch.full((len(names), some.shape[1]), torch.nan)
        embeddings[[rows[name] for name in read]] = some
        return embeddings

    @torch.no_grad()
    def _patches(self, tower: ImageTower) -> tuple[Tensor, Tensor]:
        """Patch embeddings ``[n, p, d]`` and target features ``[n, q, e]`` of a few images."""
        names = self.train.pairs.ids[: min(_PATCH_IMAGES, len(self.train))]
        views = [decode_image(self.train.sources[name]) for name in names]
        pixels = torch.stack(list(self.encoder.prepare(views)))
        device = next(tower.parameters()).device
        rows = tower.with_patches(pixels.to(device)).cpu()
        dim = self.start.config.head_settings.dim
        assert isinstance(self.target, VisionEncoder)
        wanted = self.target.encode_patches(self.target.prepare(views))
        return rows[:, dim:].unflatten(1, (-1, dim)), wanted  # type: ignore[no-untyped-call]


def _open_start(plan: TuneRecipe) -> AlignedModel:
    """The model that is tuned, its weights in float32 whatever it computes in: a GPU would hold
    them in bfloat16, and so round what is trained from there, and what is saved as it was."""
    with use_hardware(precision="float32"):
        start = open_model(plan.model)
        vision = start.vision_encoder
    precision = resolve_precision(plan.precision, resolve_device())
    if isinstance(vision, VisionEncoder):
        vision.info = replace(vision.info, precision=precision)
    if is_clip(plan.model):  # whose towers are loaded together, and describe the model
        text = start.text_encoder
        text.info = replace(text.info, precision=precision)
        start.config.vision, start.config.text = vision.info.as_dict(), text.info.as_dict()
    return start


def _check_target_patches(target: Encoder) -> None:
    if not isinstance(target, VisionEncoder):
        raise EncoderError(f"{target.info.id} has no features per patch", "Leave tune.patches out.")
    target.check_patches()
