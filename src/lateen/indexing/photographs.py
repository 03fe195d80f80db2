"""The photographs of a folder, embedded; only what is new is encoded."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from lateen.data import FileImage, ImageFolder, Sample, Skip
from lateen.data.fingerprint import file_hashes
from lateen.errors import DataError
from lateen.indexing.cache import FeatureCache
from lateen.model import AlignedModel
from lateen.model.model import project_rows


@dataclass(frozen=True)
class Photographs:
    """The images of a folder, embedded by a model.

    Attributes:
        samples: those that can be read.
        embeddings: ``[n, dim]`` of them, L2-normalised unless asked for otherwise.
        unreadable: ``id`` and ``reason`` of the others.
    """

    samples: list[Sample]
    embeddings: torch.Tensor
    unreadable: list[dict[str, str]]

    @classmethod
    def of(
        cls, model: AlignedModel, images: str | Path, *, cache: Path | None = None,
        normalize: bool = True,
    ) -> Photographs:  # fmt: skip
        """Embed the images of a folder; only those that are new to the cache are encoded.

        Args:
            model: an AlignedModel.
            images: a folder of images, with all its subfolders.
            cache: where to keep features; lateen's cache folder if not given.
            normalize: L2-normalise the embeddings.

        Raises:
            DataError: no readable image in the folder.
        """
        items = list(ImageFolder(images))
        samples = [item for item in items if isinstance(item, Sample)]
        if not samples:
            raise DataError(f"{images} has no images", "Give a folder of photographs.")
        hashes = file_hashes([photograph_path(sample) for sample in samples])
        sources = {h: s.image for h, s in zip(hashes, samples, strict=True) if s.image is not None}
        cached = FeatureCache(model, cache).features(sources)
        if not cached.contents:
            raise DataError(
                f"none of the {len(samples)} images in {images} can be read", "Check them."
            )
        row_of = {content: row for row, content in enumerate(cached.contents)}
        both = list(zip(samples, hashes, strict=True))
        rows = [row_of[content] for _, content in both if content in row_of]
        unreadable = [
            {"id": sample.id, "reason": cached.unreadable[content]}
            for sample, content in both
            if content not in row_of
        ]
        unreadable += [{"id": i.id, "reason": i.reason} for i in items if isinstance(i, Skip)]
        project = functools.partial(model.project_image, normalize=normalize)
        return cls(
            [sample for sample, content in both if content in row_of],
            project_rows(project, cached.features[rows], range(len(rows))), unreadable,
        )  # fmt: skip


def photograph_path(sample: Sample) -> Path:
    """Where a photograph of a folder lies."""
    assert isinstance(sample.image, FileImage)
    return sample.image.path
