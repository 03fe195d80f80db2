"""The forms in which labelled images are published, each read into the same few facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.data.captions import CaptionDataset
from lateen.data.folder import ImageFolder, split_folders, visible_folders
from lateen.data.hub import (
    HubImages,
    HubRows,
    is_hub_name,
    is_saved_dataset,
    load_splits,
    unreachable,
)
from lateen.data.images import IMAGE_SUFFIXES
from lateen.data.samples import (
    Dataset,
    Sample,
    choose_split,
    is_unicode,
    refuse_split,
    sample_id,
    split_word,
)
from lateen.data.tables import find_image_column
from lateen.data.webdataset import WebDataset, find_shards
from lateen.errors import DataError, choices
from lateen.objects.hub import hub_snapshot
from lateen.progress import log

_CLASS_NAMES, _TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"
_LABEL_NAMES = ("label", "labels", "fine_label", "cls", "class", "target", "variant")
_ACCEPTED = (
    "Give a folder with one subfolder of images per class, WebDataset shards with .cls files, "
    "Parquet files or a folder saved by datasets, or a name on the hub (owner/name)."
)


@dataclass(frozen=True)
class LabelledData:
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
) -> LabelledData:
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


def _folder(root: Path, split: str | None, preferred: Sequence[str]) -> LabelledData:
    root = _inner(root)
    if parts := split_folders(root):
        split = choose_split(parts, split, root, preferred)
    else:
        refuse_split(root, split)
    folder = _inner(root / split) if split else root
    dataset = ImageFolder(folder)
    labels = dataset.labels
    unlabelled, duplicates = _count(dataset, labels)
    return LabelledData(
        dataset, labels, dataset.classes, split, parts, unlabelled=unlabelled,
        duplicates=duplicates, empty=_empty(folder, dataset.classes),
    )  # fmt: skip


def _inner(folder: Path) -> Path:
    """The folder that class folders are in, where archives put it into others of one folder each:
    ``seg_train/seg_train`` for ``seg_train``."""
    while len(inside := visible_folders(folder)) == 1:
        below = folder / inside[0]
        pictures = any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir())
        if pictures or split_word(inside[0]) or not visible_folders(below):
            break
        log.info("%s: its only folder is %s, so that is looked into", folder, below.name)
        folder = below
    return folder


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
    names = set(visible_folders(folder))
    empty = sorted({sample_id(name) for name in names if is_unicode(name)} - set(classes))
    if empty:
        log.warning("%d class folders have no image: %s", len(empty), ", ".join(empty[:5]))
    return tuple(empty)


def _shards(
    folder: Path, source: str | Path, split: str | None, parts: tuple[str, ...]
) -> LabelledData:
    if not parts:
        refuse_split(source, split)
    dataset = WebDataset(source)
    labels = {sample: _number(*label) for sample, label in dataset.label_files.items()}
    if not labels:
        raise DataError(
            f"the shards in {source} have no .cls files, so no labels",
            "Give shards in the form of CLIP_benchmark, with an image and a .cls for each sample.",
        )
    unlabelled, duplicates = _count(dataset, labels)
    return LabelledData(
        dataset, labels, None, split, parts, _beside(folder, _CLASS_NAMES),
        _beside(folder, _TEMPLATES), unlabelled=unlabelled, duplicates=duplicates,
    )  # fmt: skip


def _beside(folder: Path, name: str) -> Path | None:
    """The file ``name`` with the shards or above them."""
    return next((p for p in (folder / name, folder.parent / name) if p.is_file()), None)


def _number(label: str, shard: Path) -> str:
    if not re.fullmatch(r"[0-9]+", label):
        raise DataError(
            f"a .cls file in {shard} holds {label[:40]!r}, which is no number of a class",
            "Write the class's number, counted from 0.",
        )
    return str(int(label))


def _on_hub(
    name: str, split: str | None, preferred: Sequence[str], column: str | None
) -> LabelledData:
    """Shards in CLIP_benchmark's form, from the cache where they are whole; else rows."""
    folder = _snapshot(name, ["*.txt", "*/*.txt"], _is_benchmark)
    if isinstance(folder, Exception):
        return _rows(name, split, preferred, column)
    parts = tuple(sorted(file.parent.name for file in folder.glob("*/nshards.txt")))
    chosen = choose_split(parts, split, name, preferred)
    whole = _snapshot(name, [f"{chosen}/*"], lambda root: _has_all_shards(root / chosen))
    if isinstance(whole, Exception):
        raise unreachable(name, whole) from whole
    return _shards(folder / chosen, folder / chosen, chosen, parts)


def _snapshot(name: str, files: list[str], is_whole: Callable[[Path], bool]) -> Path | Exception:
    """The folder with some files of a hub dataset, or why they cannot be had whole."""
    problem: Exception = OSError("it is not in the cache")
    for cached in (True, False):
        try:
            folder = hub_snapshot(name, dataset=True, files=files, cached=cached)
        except FileNotFoundError as error:
            problem = error
            continue
        # The cache gives out what an interrupted or partial download left there, and so does the
        # client where there is no network.
        if is_whole(folder):
            return folder
        problem = OSError("only a part of it is there")
    return problem


def _is_benchmark(folder: Path) -> bool:
    return (folder / _CLASS_NAMES).is_file() and any(folder.glob("*/nshards.txt"))


def _has_all_shards(folder: Path) -> bool:
    try:
        count = int((folder / "nshards.txt").read_text())
    except (OSError, ValueError):
        return False
    return all((folder / f"{index}.tar").is_file() for index in range(count))


def _rows(
    source: str, split: str | None, preferred: Sequence[str], column: str | None
) -> LabelledData:
    """A folder saved by ``datasets``, Parquet files, or a hub name; the id is the row's number."""
    import datasets

    content = load_splits(source)
    parts: tuple[str, ...] = ()
    if isinstance(content, datasets.DatasetDict):
        if source.endswith(".parquet"):  # the only part is called train, whatever it is
            [content] = content.values()
        else:
            parts = tuple(content)
            split = choose_split(parts, split, source, preferred)
            content = content[split]
    rows = HubRows(source, content)
    dataset = CaptionDataset(source, (), HubImages(rows, _image_column(rows)), merge=False)
    for index in range(len(rows)):
        dataset.add(str(index), index, {}, rows.source(index))
    label = _label_column(rows, column)
    values = [row.cells[label] for row in rows.read([label])]
    classes = _classes(rows.features[label], values, source)
    words = {str(index): _label(value, classes) for index, value in enumerate(values)}
    labels = {index: word for index, word in words.items() if word is not None}
    if not parts:
        refuse_split(source, split)
    return LabelledData(
        dataset, labels, classes, split, parts, unlabelled=len(values) - len(labels)
    )  # fmt: skip


def _image_column(rows: HubRows) -> str:
    images = [each for each, kind in rows.features.items() if _holds_images(kind)]
    if not images:
        raise DataError(
            f"{rows.name} has no column of images; its columns are {', '.join(rows.columns)}",
            "Give a dataset with a column of the type Image, or of encoded images (bytes).",
        )
    return find_image_column(images, None) or images[0]


def _holds_images(kind: Any) -> bool:
    """Whether a column is of images, or of their bytes as other programs write Parquet."""
    import datasets

    if isinstance(kind, dict):
        kind = kind.get("bytes")
    encoded = isinstance(kind, datasets.Value) and kind.dtype in ("binary", "large_binary")
    return encoded or isinstance(kind, datasets.Image)


def _label_column(rows: HubRows, given: str | None) -> str:
    import datasets

    if given is not None:
        if given not in rows.columns:
            raise DataError(f"{rows.name} has no column {given!r}", choices(given, rows.columns))
        return given
    named = next((each for each in _LABEL_NAMES if each in rows.columns), None)
    of_type = [c for c, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
    if named is None and len(of_type) != 1:
        raise DataError(
            f"{rows.name} has {'several columns' if of_type else 'no column'} of labels; its "
            f"columns are {', '.join(rows.columns)}",
            "Name the one with --column.",
        )
    return named or of_type[0]


def _classes(kind: Any, values: Sequence[Any], name: str) -> tuple[str, ...] | None:
    import datasets

    if isinstance(kind, datasets.ClassLabel):
        names = tuple(str(each) for each in kind.names)
        highest = max((value for value in values if value is not None), default=-1)
        if highest >= len(names):
            raise DataError(
                f"{name} has a label {highest}, and only {len(names)} class names",
                "Correct the dataset.",
            )
        return names
    if all(isinstance(value, int) or value is None for value in values):  # also True and False
        return None
    if all(isinstance(value, str) or value is None for value in values):
        return tuple(sorted({value for value in values if value}))
    raise DataError(
        f"the labels of {name} are neither numbers nor texts, one for each image",
        "Name another column with --column.",
    )


def _label(value: Any, classes: tuple[str, ...] | None) -> str | None:
    if value is None or value == "" or (isinstance(value, int) and value < 0):
        return None
    if isinstance(value, int):
        return classes[value] if classes is not None else str(int(value))
    return str(value)
