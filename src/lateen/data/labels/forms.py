"""The forms in which labelled images are published, each read into the same few facts."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lateen.data.folder import ImageFolder
from lateen.data.hub import is_hub_name, is_saved_dataset
from lateen.data.labels.hub import fetch_shards, open_labelled_rows
from lateen.data.samples import Dataset, Sample, choose_split, is_unicode, refuse_split, sample_id
from lateen.data.webdataset import WebDataset, find_shards
from lateen.errors import DataError
from lateen.progress import log

_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


_CLASS_NAMES, _TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


_ACCEPTED = (
    "Give a folder with one subfolder of images per class, WebDataset shards with .cls files, "
    "Parquet files or a folder saved by datasets, or a name on the hub (owner/name)."
)


@dataclass(frozen=True)
class Found:
    """Labelled images as the data have them.

    Attributes:
        dataset: the images.
        labels: by sample id; a number as text where ``classes`` is ``None``.
        classes: every label that the data name, in the data's order; ``None`` for bare numbers.
        split: the part that this is, where there are several.
        splits: all parts.
        names_file: class names beside the data, a line for every number.
        templates_file: prompts beside the data.
        unlabelled: how many images have no label.
        duplicates: how many have the id of another, which alone counts.
        empty: class folders without an image.
    """

    dataset: Dataset
    labels: Mapping[str, str]
    classes: tuple[str, ...] | None
    split: str | None = None
    splits: tuple[str, ...] = ()
    names_file: Path | None = None
    templates_file: Path | None = None
    unlabelled: int = 0
    duplicates: int = 0
    empty: tuple[str, ...] = ()


def find_labelled(
    source: str, *, split: str | None, preferred: Sequence[str], column: str | None
) -> Found:
    """Open labelled images in any form; nothing is decoded.

    Args:
        source: a path, a pattern of shards, or a hub name.
        split: which part; if not given, the first of ``preferred`` that is there.
        preferred: names of splits.
        column: the label column of rows that have several.

    Raises:
        DataError: nothing is there, or nothing labelled.
        UsageError: there is no such split, or none could be chosen.
    """
    path = Path(source)
    if ".tar" in path.suffixes:
        return _shards(find_shards(source)[0].parent, source, split, ())
    if path.is_dir() and not is_saved_dataset(path) and not any(path.rglob("*.parquet")):
        parts = tuple(sorted({tar.parent.name for tar in path.glob("*/*.tar")}))
        if parts:
            chosen = choose_split(parts, split, source, preferred)
            return _shards(path / chosen, path / chosen, chosen, parts)
        if any(path.glob("*.tar")):
            return _shards(path, path, split, ())
        return _folder(path, split, preferred)
    if path.is_dir() or path.suffix.lower() == ".parquet":
        return _rows(source, split, preferred, column)
    if path.exists() or not is_hub_name(source):
        what = "is no set of labelled images" if path.exists() else "is not there"
        raise DataError(f"{source} {what}", _ACCEPTED)
    return _on_hub(source, split, preferred, column)


def _folder(root: Path, split: str | None, preferred: Sequence[str]) -> Found:
    inside = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "."))
    parts = inside if inside and set(inside) <= _SPLIT_NAMES else ()
    if parts:
        split = choose_split(parts, split, root, preferred)
    else:
        refuse_split(root, split)
    folder = root / split if split else root
    dataset = ImageFolder(folder)
    labels = dataset.labels
    unlabelled, duplicates = _count(dataset, labels)
    return Found(
        dataset, labels, dataset.classes, split, parts, unlabelled=unlabelled,
        duplicates=duplicates, empty=_empty(folder, dataset.classes),
    )  # fmt: skip


def _count(dataset: Dataset, labels: Mapping[str, str]) -> tuple[int, int]:
    """How many images have no label, and how many the id of another."""
    unlabelled = duplicates = 0
    for item in dataset:
        if isinstance(item, Sample):
            unlabelled += item.id not in labels
        else:
            duplicates += not item.sample and item.column is None
    return unlabelled, duplicates


def _empty(folder: Path, classes: Sequence[str]) -> tuple[str, ...]:
    names = {p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."}
    empty = sorted({sample_id(name) for name in names if is_unicode(name)} - set(classes))
    if empty:
        log.warning("%d class folders have no image: %s", len(empty), ", ".join(empty[:5]))
    return tuple(empty)


def _shards(folder: Path, source: str | Path, split: str | None, parts: tuple[str, ...]) -> Found:
    if not parts:
        refuse_split(source, split)
    dataset = WebDataset(source)
    labels: dict[str, str] = {}
    for sample, label in _shard_labels(find_shards(source)):
        labels.setdefault(sample, label)  # of samples of one id the first counts
    if not labels:
        raise DataError(
            f"the shards in {source} have no .cls files, so no labels",
            "Give shards in the form of CLIP_benchmark, with an image and a .cls for each sample.",
        )
    unlabelled, duplicates = _count(dataset, labels)
    return Found(
        dataset, labels, None, split, parts, _beside(folder, _CLASS_NAMES),
        _beside(folder, _TEMPLATES), unlabelled=unlabelled, duplicates=duplicates,
    )  # fmt: skip


def _beside(folder: Path, name: str) -> Path | None:
    """The file ``name`` with the shards or above them."""
    return next((p for p in (folder / name, folder.parent / name) if p.is_file()), None)


def _shard_labels(shards: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """The label of each sample, from its ``.cls`` file."""
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    folder, _, file = member.name.rpartition("/")
                    key, _, kind = file.partition(".")
                    content = tar.extractfile(member) if kind == "cls" else None
                    if content is not None:
                        label = content.read().decode("utf-8", "replace").strip()
                        yield sample_id(f"{folder}/{key}" if folder else key), _number(label, shard)
        except (
            tarfile.TarError
        ):  # the shard is cut; its whole samples are there, as WebDataset says
            continue


def _number(label: str, shard: Path) -> str:
    if not re.fullmatch(r"[0-9]+", label):
        raise DataError(
            f"a .cls file in {shard} holds {label[:40]!r}, which is no number of a class",
            "Write the class's number, counted from 0.",
        )
    return str(int(label))


def _on_hub(name: str, split: str | None, preferred: Sequence[str], column: str | None) -> Found:
    def choose(parts: Sequence[str]) -> str:
        return choose_split(parts, split, name, preferred)

    shards = fetch_shards(name, _CLASS_NAMES, choose)
    if shards is None:
        return _rows(name, split, preferred, column)
    folder, chosen, parts = shards
    return _shards(folder / chosen, folder / chosen, chosen, parts)


def _rows(source: str, split: str | None, preferred: Sequence[str], column: str | None) -> Found:
    rows = open_labelled_rows(
        source, column, lambda parts: choose_split(parts, split, source, preferred),
    )  # fmt: skip
    if not rows.splits:
        refuse_split(source, split)
    return Found(
        rows, rows.labels, rows.classes, rows.split, rows.splits, unlabelled=rows.unlabelled
    )
