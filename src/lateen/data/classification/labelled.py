"""Labelled images with their class names, whatever form they come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lateen.data.classification.forms import Found, find_labelled
from lateen.data.classification.naming import name_classes
from lateen.data.classification.sets import SPLITS, ClassificationSet, find_set
from lateen.data.prompts import TEMPLATES, read_templates
from lateen.data.sample import Dataset
from lateen.errors import DataError
from lateen.files import content_key


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
        name: of the set, as in :data:`~lateen.data.classification.SETS`; known from a hub name.
        split: which part of the data; that which the set is judged on if not given.
        column: the label column of rows that have several.
        classes: a text file with a class a line.

    Raises:
        DataError: nothing labelled is there, names and labels do not fit, or there is one class.
        UsageError: there is no such set or split.
    """
    spec = find_set(name, str(source))
    preferred = spec.splits if spec is not None else SPLITS
    found = find_labelled(str(source), split=split, preferred=preferred, column=column)
    if not found.labels:
        part = f" ({found.split})" if found.split else ""
        raise DataError(
            f"not one image in {source}{part} has a label: there are no class folders, and no "
            "labels beside the images",
            "Give a folder with one subfolder of images per class, or another --split.",
        )
    names, places, named_by = name_classes(found, spec, Path(classes) if classes else None)
    if len(names) < 2:
        raise DataError(
            f"{source} has one class, {names[0]!r}, and one alone is always right",
            "Give images of two or more, or --classes with all that an image may be taken for.",
        )
    templates, verbatim = _prompts(found, spec)
    return LabelledImages(
        found.dataset, {sample: places[label] for sample, label in found.labels.items()}, names,
        named_by, templates, verbatim, spec, found.split, found.splits, found.unlabelled,
        found.duplicates, found.empty,
    )  # fmt: skip


def _prompts(found: Found, spec: ClassificationSet | None) -> tuple[tuple[str, ...], bool]:
    if found.templates_file is not None:
        return read_templates(found.templates_file), True
    return (spec.templates if spec is not None else TEMPLATES), False
