"""Photographs that are nearly the same: copies, other sizes, shots of one burst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lateen.errors import UsageError
from lateen.indexing.hits import Hit
from lateen.indexing.photo_index import Index
from lateen.indexing.table import CONTENT
from lateen.progress import bar

NEAR = 0.9
"""The cosine from which on two photographs are told to be nearly the same, if nothing is said."""
_ROWS = 1024  # photographs that are compared with all others at a time


@dataclass(frozen=True)
class Group:
    """Photographs of which each is nearly the same as another one of the group.

    Attributes:
        photographs: the largest picture first; ``score`` is the cosine with that one.
        identical: ids of those that are the same to the byte as one before them.
    """

    photographs: list[Hit]
    identical: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "photographs": [each.as_dict() for each in self.photographs],
            "identical": self.identical,
        }


def find_duplicates(index: Index | str | Path, *, near: float = NEAR) -> list[Group]:
    """Groups of photographs that are nearly the same, the largest groups first.

    Every photograph is compared with every other one.

    Args:
        index: an index, or its place.
        near: the cosine of two embeddings from which on they count.

    Raises:
        UsageError: ``near`` is not between 0 and 1.
    """
    if not 0 < near <= 1:
        raise UsageError(f"near is {near:g}", "Give a cosine above 0, up to 1: 0.9.")
    opened = index if isinstance(index, Index) else Index.open(index)
    ids, vectors = opened.vectors()
    leader = list(range(len(ids)))

    def root(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for first, second in _pairs(vectors, near):
        leader[root(second)] = root(first)
    groups: dict[int, list[int]] = {}
    for place in range(len(ids)):
        groups.setdefault(root(place), []).append(place)
    several = [members for members in groups.values() if len(members) > 1]
    contents = opened.columns_of([ids[i] for members in several for i in members], [CONTENT])
    found = [_group(opened, ids, vectors, members, contents) for members in several]
    return sorted(found, key=lambda g: (-len(g.photographs), g.photographs[0].id))


def _pairs(vectors: np.ndarray[Any, Any], near: float) -> Iterator[tuple[int, int]]:
    """The places of every two whose cosine is large enough."""
    count = len(vectors)
    with bar(count, "compare", "photograph", stage=count > _ROWS) as progress:
        for start in range(0, count, _ROWS):
            block = vectors[start : start + _ROWS]
            # A cosine of 1 is a little less in float32.
            rows, others = np.nonzero(block @ vectors[start:].T >= near - 1e-6)
            for row, other in zip(rows.tolist(), others.tolist(), strict=True):
                if other > row:
                    yield start + row, start + other
            progress.update(len(block))


def _group(
    index: Index, ids: Sequence[str], vectors: np.ndarray[Any, Any], members: Sequence[int],
    rows: dict[str, dict[str, Any]],
) -> Group:  # fmt: skip
    photos = {place: index.photo(ids[place]) for place in members}

    def size(place: int) -> tuple[int, int, str]:
        about = photos[place].about
        return -(about["width"] or 0) * (about["height"] or 0), -(about["bytes"] or 0), ids[place]

    order = sorted(members, key=size)
    cosines = vectors[order] @ vectors[order[0]]
    hits = [
        Hit(photos[p].id, photos[p].path, float(cosine), about=photos[p].about)
        for p, cosine in zip(order, cosines, strict=True)
    ]
    seen: set[str] = set()
    identical = []
    for hit in hits:
        content = str(rows[hit.id][CONTENT])
        if content in seen:
            identical.append(hit.id)
        seen.add(content)
    return Group(hits, identical)
