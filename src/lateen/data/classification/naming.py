"""What the classes of some data are called: from a file, from beside the data, or from a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lateen.data.classification.forms import Found
from lateen.data.classification.names import (
    ClassName,
    match_numbers,
    match_words,
    read_class_names,
)
from lateen.data.classification.sets import SETS, ClassificationSet
from lateen.data.prompts import class_name
from lateen.data.rows import read_utf8
from lateen.errors import DataError

_NUMBER = re.compile(r"[0-9]+")
_WORDNET_ID = re.compile(r"n[0-9]{8}")
_GIVE = "Give the set that the data are of, or --classes with a line for every class."


class Naming(NamedTuple):
    """Class names as words, the index of each of the data's labels, and where the names are from
    (empty where there are only numbers)."""

    words: tuple[str, ...]
    places: Mapping[str, int]
    source: str


def name_classes(found: Found, spec: ClassificationSet | None, file: Path | None) -> Naming:
    """The first that there is of: the file, the file beside the data, the set's table, the labels.

    Args:
        found: the data.
        spec: which of the field's sets it is, if known.
        file: a class a line.

    Raises:
        DataError: names and labels do not fit.
    """
    labels = _labels(found)
    if file is not None:
        names = read_class_names(file)
        _need_names(file, [each.words for each in names])
        places = _match(found, labels, names, ordered=True, what=f"the classes in {file}")
        if places is None:
            raise DataError(
                f"not one of the {len(labels)} classes of the data, such as {labels[0]!r}, is in "
                f"{file}",
                "Write one class a line: its name, and behind a tab what the data call it.",
            )
        return Naming(tuple(each.words for each in names), places, str(file))
    if found.names_file is not None:
        return _beside_data(found.names_file, labels, spec)
    if spec is not None:
        return _from_table(found, labels, spec)
    if found.classes is None:
        count = max(map(int, labels)) + 1
        return Naming(tuple(map(str, range(count))), {str(i): i for i in range(count)}, "")
    if all(map(_WORDNET_ID.fullmatch, labels)):
        return _from_table(found, labels, SETS["imagenet"], whole=False)
    return _own(labels)


def _need_names(file: Path, words: Sequence[str]) -> None:
    if not any(words):
        raise DataError(f"{file} names no class", "Write the name of a class on each line.")


def _labels(found: Found) -> Sequence[str]:
    return found.classes or sorted(set(found.labels.values()), key=int)


def _match(
    found: Found, labels: Sequence[str], names: Sequence[ClassName], *, ordered: bool, what: str
) -> dict[str, int] | None:
    """The index of every label among ``names``; ``None`` where not one is among them."""
    if found.classes is None:
        return match_numbers(labels, len(names), ordered=ordered, what=what)
    known = match_words(labels, names, what=what)
    if len(known) == len(labels):
        return known
    if all(map(_NUMBER.fullmatch, labels)):
        return match_numbers(labels, len(names), ordered=ordered, what=what)
    if not known:
        return None
    # The data may have other words for a few classes, in the same order.
    places = {label: place for place, label in enumerate(labels)}
    alike = len(labels) == len(names) and 2 * len(known) > len(labels)
    if ordered and alike and all(places[label] == place for label, place in known.items()):
        return places
    other = next(label for label in labels if label not in known)
    raise DataError(f"the data have a class {other!r}, which is not among {what}", _GIVE)


def _beside_data(file: Path, labels: Sequence[str], spec: ClassificationSet | None) -> Naming:
    # An empty line is a class without a name, so that none may be dropped.
    words = tuple(line.strip() for line in read_utf8(file).splitlines())
    _need_names(file, words)
    if spec is not None and len(words) != spec.count:
        raise DataError(
            f"{file} names {len(words)} classes, and {spec.name} has {spec.count}", _GIVE
        )
    what = f"the classes in {file}"
    return Naming(words, match_numbers(labels, len(words), ordered=True, what=what), file.name)


def _from_table(
    found: Found, labels: Sequence[str], spec: ClassificationSet, *, whole: bool = True
) -> Naming:
    places = _match(found, labels, spec.names, ordered=spec.ordered, what=spec.classes)
    if places is None and spec.whole and len(labels) != spec.count:
        raise DataError(
            f"not one of the {len(labels)} classes of the data, such as {labels[0]!r}, is among "
            f"{spec.classes}",
            _GIVE,
        )
    if places is None:
        return _own(labels)
    kept = range(len(spec.names)) if spec.whole and whole else sorted(set(places.values()))
    return Naming(
        tuple(spec.names[index].words for index in kept),
        {label: kept.index(place) for label, place in places.items()},
        f"lateen's names of {spec.name}",
    )


def _own(labels: Sequence[str]) -> Naming:
    places = {label: index for index, label in enumerate(labels)}
    return Naming(tuple(map(class_name, labels)), places, "the labels of the data")
