"""One id written in two ways, as two stores of different origin have it: found, and joined."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from lateen.features.ids import IdIndex, Ids
from lateen.features.store import Store
from lateen.progress import log

Array = np.ndarray[Any, Any]
# In words, and what is left of an id without it.
_SPELLINGS: dict[str, Callable[[str], str]] = {
    "but for their endings": lambda i: posixpath.splitext(i)[0],
    "but for the folders before them": posixpath.basename,
    "but for capital letters": str.lower,
    "but for zeros before the number": lambda i: i.lstrip("0") or "0",
    "but for folders and endings": lambda i: posixpath.splitext(posixpath.basename(i))[0],
    "but for folders, endings and zeros before the number": lambda i: (
        posixpath.splitext(posixpath.basename(i))[0].lstrip("0") or "0"
    ),
}


@dataclass(frozen=True)
class Spelling:
    """What half of the ids of two sides, or more, differ in.

    Attributes:
        words: what that is, as ``but for their endings``.
        shared: how many ids are the same without it.
        first: such an id as the one side has it.
        second: as the other has it.
    """

    words: str
    shared: int
    first: str
    second: str


def spelled_alike(first: Collection[str], second: Collection[str]) -> Spelling | None:
    """What half of the ids of two sides differ in, where no two of one side become the same.

    Args:
        first: different ids.
        second: different ids.
    """
    for words, spelling in _SPELLINGS.items():
        others = {spelling(sample): sample for sample in second}
        both = [(i, others[spelling(i)]) for i in first if spelling(i) in others]
        unique = len(others) == len(second) and len({spelling(i) for i in first}) == len(first)
        if unique and 2 * len(both) >= min(len(first), len(second)):
            return Spelling(words, len(both), *both[0])
    return None


def told_alike(spelling: Spelling | None) -> str:
    """What two sides' ids differ in, as the end of a sentence; empty for nothing."""
    return "" if spelling is None else (
        f"; {spelling.shared} of them are the same {spelling.words} ({spelling.first!r} and "
        f"{spelling.second!r}): write them alike in both"
    )  # fmt: skip


def join_alike(image: Store, column: Store, owner: Array) -> Array:
    """The row of each caption's image, also by ids that differ in their spelling alone.

    Args:
        image: the images.
        column: the captions.
        owner: ``[captions]`` as found by the ids as they are, −1 where there is none.
    """
    lost = np.flatnonzero(owner < 0)
    alike = spelled_alike(list(image.ids), list(dict.fromkeys(column.ids))) if lost.size else None
    if alike is None:
        return owner
    spelling = _SPELLINGS[alike.words]
    sought = Ids.of(map(spelling, column.ids.take(lost)))
    owner = owner.copy()
    owner[lost] = IdIndex(Ids.of(map(spelling, image.ids))).find(sought)
    log.warning(
        "%s: %d of %d captions are joined by ids that are the same %s, such as %r and %r",
        column.path, int((owner[lost] >= 0).sum()), len(owner), alike.words, alike.first,
        alike.second,
    )  # fmt: skip
    return owner
