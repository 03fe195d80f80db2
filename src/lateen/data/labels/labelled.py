"""Labelled images with their class names, whatever form they come in.

What the classes are called is told by a file, by a file beside the data, or by a known set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lateen.data.labels.forms import LabelledData, find_labelled
from lateen.data.labels.names import (
    ClassName,
    match_numbers,
    match_words,
    read_class_names,
)
from lateen.data.labels.sets import SETS, SPLITS, ClassificationSet, find_set
from lateen.data.prompts import TEMPLATES, class_name, read_templates, without_numbers
from lateen.data.samples import Dataset
from lateen.data.text import read_list
from lateen.errors import DataError
from lateen.files import content_key
from lateen.progress import log

_MOST_TOLD = 10
_NUMBER = re.compile(r"[0-9]+")
_WORDNET_ID = re.compile(r"n[0-9]{8}")
_GIVE = "Give the set that the data are of, or --classes with a line for every class."


@dataclass(frozen=True)
class LabelledImages:
    """Images and the class of each.

    Attributes:
        dataset: the images; what cannot be read comes to light when they are encoded.
        labels: index of its class, by sample id; images without a label have none.
        names: of all classes that an image may be taken for, as words.
        named_by: where the names come from, in words; empty where classes are bare numbers.
        templates: prompts that belong to the data or their set.
        verbatim: whether the prompts are to be taken as written, by others than lateen.
        set: which of the field's sets it is, where that is known.
        split: which part of the data it is, where there are several.
        splits: all parts.
        unlabelled: how many images have no label.
        duplicates: how many have the id of another, which alone counts.
        empty: class folders without an image.
    """

    dataset: Dataset
    labels: Mapping[str, int]
    names: tuple[str, ...]
    named_by: str
    templates: tuple[str, ...]
    verbatim: bool
    set: ClassificationSet | None
    split: str | None
    splits: tuple[str, ...]
    unlabelled: int
    duplicates: int = 0
    empty: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The set's own metric: ``top1`` or ``mean_per_class``."""
        return self.set.metric if self.set is not None else "top1"

    @cached_property
    def key(self) -> str:
        """Content key (64 hex digits) of labels and names."""
        return content_key([sorted(self.labels.items()), self.names])


def open_labelled(
    source: str | Path,
    *,
    name: str | None = None,
    split: str | None = None,
    column: str | None = None,
    classes: str | Path | None = None,
) -> LabelledImages:
    """Open labelled images in any of their published forms.

    A folder of class folders; WebDataset shards with ``.cls`` files, ``classnames.txt`` and
    ``zeroshot_classification_templates.txt`` beside them, as CLIP_benchmark publishes them; rows of
    ``datasets`` or Parquet files; or a hub name of any of these. Class names come from the first of
    these that there is: ``classes``, ``classnames.txt``, the table of the set, the data's own
    labels. The labels of folders that are WordNet ids are named as ImageNet's.

    Args:
        source: a path, a pattern of shards, or a hub name.
        name: of the set, as in :data:`~lateen.data.labels.SETS`; known from a hub name.
        split: which part of the data; that which the set is judged on if not given.
        column: the label column of rows that have several.
        classes: a text file with a class a line.

    Raises:
        DataError: nothing labelled is there, names and labels do not fit, or there is one class.
        UsageError: there is no such set or split.
    """
    spec = find_set(name, str(source))
    preferred = spec.splits if spec is not None else SPLITS
    data = find_labelled(str(source), split=split, preferred=preferred, column=column)
    if not data.labels:
        part = f" ({data.split})" if data.split else ""
        raise DataError(
            f"not one image in {source}{part} has a label: there are no class folders, and no "
            "labels beside the images",
            "Give a folder with one subfolder of images per class, or another --split.",
        )
    names, indices, named_by = name_classes(data, spec, Path(classes) if classes else None)
    if len(names) < 2:
        raise DataError(
            f"{source} has one class, {names[0]!r}, and one alone is always right",
            "Give images of two or more, or --classes with all that an image may be taken for.",
        )
    labels = {sample: indices[label] for sample, label in data.labels.items()}
    counts = Counter(labels.values()).most_common()
    log.info(
        "%s: %d images in %d of %d classes: %s%s", data.dataset.name, len(labels), len(counts),
        len(names), ", ".join(f"{names[index]} ({count})" for index, count in counts[:_MOST_TOLD]),
        ", …" if len(counts) > _MOST_TOLD else "",
    )  # fmt: skip
    templates, verbatim = _prompts(data, spec)
    return LabelledImages(
        data.dataset, labels, names,
        named_by, templates, verbatim, spec, data.split, data.splits, data.unlabelled,
        data.duplicates, data.empty,
    )  # fmt: skip


def _prompts(data: LabelledData, spec: ClassificationSet | None) -> tuple[tuple[str, ...], bool]:
    if data.templates_file is not None:
        return read_templates(data.templates_file), True
    return (spec.templates if spec is not None else TEMPLATES), False


class Naming(NamedTuple):
    """Class names as words, the index of each of the data's labels, and where the names are from
    (empty where there are only numbers)."""

    words: tuple[str, ...]
    indices: Mapping[str, int]
    source: str


def name_classes(data: LabelledData, spec: ClassificationSet | None, file: Path | None) -> Naming:
    """The first that there is of: the file, the file beside the data, the set's table, the labels.

    Args:
        data: the images with the labels that the data have.
        spec: which of the field's sets it is, if known.
        file: a class a line.

    Raises:
        DataError: names and labels do not fit.
    """
    labels = _labels(data)
    if file is not None:
        names = read_class_names(file)
        _need_names(file, [each.words for each in names])
        indices = _match(data, labels, names, ordered=True, what=f"the classes in {file}")
        if indices is None:
            raise DataError(
                f"not one of the {len(labels)} classes of the data, such as {labels[0]!r}, is in "
                f"{file}",
                "Write one class a line: its name, and behind a tab what the data call it.",
            )
        return Naming(tuple(each.words for each in names), indices, str(file))
    if data.names_file is not None:
        return _beside_data(data.names_file, labels, spec)
    if spec is not None:
        return _from_table(data, labels, spec)
    if data.classes is None:
        count = max(map(int, labels)) + 1
        return Naming(tuple(map(str, range(count))), {str(i): i for i in range(count)}, "")
    if all(map(_WORDNET_ID.fullmatch, labels)):
        return _from_table(data, labels, SETS["imagenet"], whole=False)
    return _own(labels)


def _need_names(file: Path, words: Sequence[str]) -> None:
    if not any(words):
        raise DataError(f"{file} names no class", "Write the name of a class on each line.")


def _labels(data: LabelledData) -> Sequence[str]:
    return data.classes or sorted(set(data.labels.values()), key=int)


def _match(
    data: LabelledData,
    labels: Sequence[str],
    names: Sequence[ClassName],
    *,
    ordered: bool,
    what: str,
) -> dict[str, int] | None:
    """The index of every label among ``names``; ``None`` where not one is among them."""
    if data.classes is None:
        return match_numbers(labels, len(names), ordered=ordered, what=what)
    known = match_words(labels, names, what=what)
    if len(known) == len(labels):
        return known
    if all(map(_NUMBER.fullmatch, labels)):
        return match_numbers(labels, len(names), ordered=ordered, what=what)
    if not known:
        return None
    # The data may have other words for a few classes, in the same order.
    indices = {label: index for index, label in enumerate(labels)}
    alike = len(labels) == len(names) and 2 * len(known) > len(labels)
    if ordered and alike and all(indices[label] == index for label, index in known.items()):
        return indices
    other = next(label for label in labels if label not in known)
    raise DataError(f"the data have a class {other!r}, which is not among {what}", _GIVE)


def _beside_data(file: Path, labels: Sequence[str], spec: ClassificationSet | None) -> Naming:
    # An empty line is a class without a name, so that none may be dropped.
    words = tuple(line.strip() for line in read_list(file))
    _need_names(file, words)
    if spec is not None and len(words) != spec.count:
        raise DataError(
            f"{file} names {len(words)} classes, and {spec.name} has {spec.count}", _GIVE
        )
    what = f"the classes in {file}"
    return Naming(words, match_numbers(labels, len(words), ordered=True, what=what), file.name)


def _from_table(
    data: LabelledData, labels: Sequence[str], spec: ClassificationSet, *, whole: bool = True
) -> Naming:
    indices = _match(data, labels, spec.names, ordered=spec.ordered, what=spec.classes)
    if indices is None and spec.whole and len(labels) != spec.count:
        raise DataError(
            f"not one of the {len(labels)} classes of the data, such as {labels[0]!r}, is among "
            f"{spec.classes}",
            _GIVE,
        )
    if indices is None:
        return _own(labels)
    is_whole = spec.whole and whole
    used = range(len(spec.names)) if is_whole else sorted(set(indices.values()))
    return Naming(
        tuple(spec.names[index].words for index in used),
        {label: used.index(index) for label, index in indices.items()},
        f"lateen's names of {spec.name}",
    )


def _own(labels: Sequence[str]) -> Naming:
    indices = {label: index for index, label in enumerate(labels)}
    cleaned = without_numbers(labels)
    if cleaned != list(labels):
        log.warning(
            "classes are named without the numbers before them, such as %r for %r (--classes "
            "with a name a line says otherwise)", class_name(cleaned[0]), labels[0],
        )  # fmt: skip
    return Naming(tuple(map(class_name, cleaned)), indices, "the labels of the data")
