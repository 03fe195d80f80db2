"""A dataset as a stream of things to encode, and the content hash of that stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from lateen.data import Dataset, ImageSource, Sample, Skip
from lateen.data.fingerprint import file_hashes
from lateen.data.sample import FileImage, TarImage
from lateen.errors import DataError


@dataclass(frozen=True)
class Item:
    """One thing to encode: an image of a sample, or one of its captions."""

    id: str
    content: ImageSource | str
    source: str


def items_of(dataset: Dataset, modality: str, column: str | None) -> Iterator[Item | Skip]:
    """The dataset as items of one modality, and the skips that concern it, in order."""
    for sample in dataset:
        if isinstance(sample, Skip):
            if sample.sample or (modality == "text" and sample.column in (None, column)):
                yield sample
        elif modality == "image":
            if sample.image is not None:
                yield Item(sample.id, sample.image, sample.image.name)
        else:
            yield from _captions(sample, str(column))


def _captions(sample: Sample, column: str) -> Iterator[Item | Skip]:
    captions = sample.captions.get(column, ())
    for index, caption in enumerate(captions):
        source = f"column {column}, caption {index + 1}"
        if caption.strip():
            yield Item(sample.id, caption, source)
        else:
            yield Skip(sample.id, "empty caption", source, sample=False, column=column)


def fingerprint(dataset: Dataset, modality: str, column: str | None) -> tuple[int, str]:
    """How many items there are, and a content hash of this modality alone.

    Editing a caption must not make the images stale, so the dataset's own fingerprint, which covers
    both, is used only where image bytes cannot be hashed file by file.
    """
    digest, count, files = hashlib.sha256(), 0, []
    whole = False
    for item in items_of(dataset, modality, column):
        count += 1
        parts = [item.id]  # and no path: a dataset that was moved is the same dataset
        if isinstance(item, Skip):
            parts.append(item.reason)
        elif isinstance(item.content, str):
            parts.append(item.content)
        elif isinstance(item.content, FileImage):
            files.append(item.content.path)
        elif isinstance(item.content, TarImage):
            parts += [item.content.member, str(item.content.offset), str(item.content.size)]
            if not files or files[-1] != item.content.tar:
                files.append(item.content.tar)
        else:
            whole = True
        digest.update("\0".join(parts).encode() + b"\n")
    if count == 0:
        raise DataError(
            f"{dataset.name} has no {'images' if modality == 'image' else 'captions'}",
            "Check the path, and the image and caption columns.",
        )
    for file_hash in file_hashes(files):
        digest.update(file_hash.encode())
    if whole:
        digest.update(dataset.fingerprint.encode())
    return count, digest.hexdigest()
