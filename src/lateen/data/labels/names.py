"""Class names as words, and the labels that data have for the same classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lateen.data.prompts import class_name
from lateen.data.text import read_list
from lateen.errors import DataError

_SUN_FOLDER = re.compile(r"^/?[a-z]/(?=.)")  # SUN397 files /a/abbey under its first letter
_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class ClassName:
    """A class.

    Attributes:
        words: its name in a prompt.
        spellings: what data call it, where that is something else.
    """

    words: str
    spellings: tuple[str, ...] = ()


def read_class_names(path: Path) -> tuple[ClassName, ...]:
    """One class a line: its name, and behind tabs what the data call it, where that differs.

    JSON and lines pasted from Python are read as well: see :func:`~lateen.data.text.read_list`.

    The line says the class's index. An empty line is a class without a name, as one of CLEVR's
    distances is in CLIP_benchmark's files; those at the end are not counted.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    return _parse(read_list(path))


def packaged_class_names(name: str) -> tuple[ClassName, ...]:
    """The classes in ``names/<name>.txt`` of this package; lines from ``#`` on are comments."""
    file = resources.files(__package__) / "names" / f"{name}.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    return _parse([line for line in lines if not line.startswith("#")])


def _parse(lines: Sequence[str]) -> tuple[ClassName, ...]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    cells = [[cell.strip() for cell in line.split("\t")] for line in lines]
    return tuple(ClassName(words, tuple(others)) for words, *others in cells)


def label_key(label: str) -> str:
    """What is left of a label when writing habits are taken away.

    >>> label_key("Polka-dotted"), label_key("/a/apartment_building/outdoor")
    ('polkadotted', 'apartmentbuildingoutdoor')
    """
    return _NOT_WORD.sub("", _SUN_FOLDER.sub("", label, count=1)).casefold()


def match_words(labels: Sequence[str], names: Sequence[ClassName], *, what: str) -> dict[str, int]:
    """The class of each label that is one, by how it is written; of several words, by the first.

    Args:
        labels: what the data call the classes; ImageNet's are such as ``tench, Tinca tinca``.
        names: the classes.
        what: the classes in words, for the message.

    Raises:
        DataError: a label is that of two classes.
    """
    # What is behind a tab is what the data say, also where a name says something else.
    known = {
        **_indices((name.words,) for name in names),
        **_indices(name.spellings for name in names),
    }
    classes = {}
    for label in labels:
        indices = known.get(label_key(label)) or known.get(label_key(label.partition(",")[0]))
        if indices is not None and len(indices) > 1:
            lines = " and ".join(str(index + 1) for index in sorted(indices))
            raise DataError(
                f"the class {label!r} is named twice among {what}, in lines {lines}",
                "Give every class a name of its own.",
            )
        if indices is not None:
            classes[label] = min(indices)
    return classes


def match_numbers(labels: Sequence[str], count: int, *, ordered: bool, what: str) -> dict[str, int]:
    """The class of each label that is a number.

    Args:
        labels: numbers from 0.
        count: of the classes.
        ordered: whether a number is a class's index.
        what: the classes in words, for the message.

    Raises:
        DataError: a number beyond the classes, or it is not known what they mean.
    """
    if not ordered:
        raise DataError(
            f"the data number their classes, and which number is which of {what} differs from "
            "copy to copy",
            "Give --classes, a file with a line for every class in the order of the numbers.",
        )
    highest = max(labels, key=int)
    if int(highest) >= count:
        raise DataError(
            f"there is a label {highest} beyond {what}, which count from 0 to {count - 1}",
            "Give the set that the data are of, or --classes with a line for every class.",
        )
    return {label: int(label) for label in labels}


def _indices(texts: Iterable[Iterable[str]]) -> dict[str, set[int]]:
    indices: dict[str, set[int]] = {}
    for index, some in enumerate(texts):
        for text in some:
            indices.setdefault(label_key(text), set()).add(index)
    return indices


def read_mask_classes(path: str | Path) -> tuple[str, ...]:
    """The class of each index in masks, one a line; lines that begin with ``#`` do not count.

    Raises:
        DataError: it cannot be read, has fewer than two names, one twice, or an empty line between
            two, after which every index would be in doubt.
    """
    lines = read_list(Path(path))
    names = [" ".join(line.split()) for line in lines if not line.startswith("#")]
    if "" in names:
        raise DataError(
            f"{path} has an empty line before {names[names.index('') + 1]!r}",
            "Remove it, or name the class: the index in masks is that of the line.",
        )
    if len(names) < 2:
        raise DataError(
            f"{path} has {len(names)} class names, and one alone is always right",
            "Give two or more, one a line.",
        )
    name, count = Counter(map(class_name, names)).most_common(1)[0]  # as prompts have it
    if count > 1:
        raise DataError(
            f"{path} has the class {name!r} {count} times, and nothing can tell them apart",
            "Name each class differently.",
        )
    return tuple(names)
