"""What makes held-out numbers say less than they seem to: images seen before, and too few of them.

Images are told apart by hashes of their files' bytes, where their stores have them, and by their
features: equal features of one encoder are one image to it. An id alone proves nothing, as the rows
of two tables may both be numbered from 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from lateen.features import Pairs, StoreRows
from lateen.progress import log

_FEW = 50
# Half of the 95 % interval of a share of one half, in points, is this by the root of the count.
_POINTS = 98.0
_ORDER = ("train", "validation", "holdout", "test")
# Features of one image, computed in two batches, differ by rounding; of two images by more.
_NEAR = 0.02
_CHUNK = 8192


def warn_of_splits(splits: Mapping[str, Pairs]) -> list[str]:
    """Say in the log what makes the numbers of held-out splits say less than they seem to.

    Args:
        splits: by name; with ``train``, those that are judged on.

    Returns:
        A sentence for each.
    """
    names = [name for name in _ORDER if name in splits]
    shared = {name: _shared([splits[n] for n in names[at:]]) for at, name in enumerate(names)}
    warnings = [
        _overlap(first, second, copies, len(splits[second]))
        for first, second in itertools.combinations(names, 2)
        if (copies := shared[first][names.index(second) - names.index(first) - 1])
    ]
    warnings += [
        _too_few(name, len(splits[name])) for name in names[1:] if len(splits[name]) < _FEW
    ]
    for warning in warnings:
        log.warning("%s", warning)
    return warnings


def _overlap(first: str, second: str, copies: Mapping[str, str], count: int) -> str:
    sample, there = next(iter(copies.items()))
    named = f"{sample!r}" if sample == there else f"{sample!r}, in {first} {there!r}"
    return (
        f"{len(copies)} of the {count} images of {second} are in {first} too (the first: {named}): "
        f"R@K on {second} is too high; leave them out of one"
    )


def _too_few(name: str, count: int) -> str:
    points = math.ceil(_POINTS / math.sqrt(count))
    return f"{count} held-out images ({name}): differences of less than {points} points say nothing"


def _shared(splits: Sequence[Pairs]) -> list[dict[str, str]]:
    """For every split but the first its images that are in the first too, with their ids there."""
    first, *others = splits
    if not others:
        return []
    shared = [_same_bytes(first, other) | _same_ids(first, other) for other in others]
    by_digest: dict[bytes, list[tuple[int, str]]] = {}
    for at, other in enumerate(others):
        for sample, digest in _digests(other):
            by_digest.setdefault(digest, []).append((at, sample))
    for sample, digest in _digests(first):
        for at, copy in by_digest.pop(digest, ()):
            shared[at].setdefault(copy, sample)
    return [
        {sample: copies[sample] for sample in other.ids if sample in copies}
        for other, copies in zip(others, shared, strict=True)
    ]


def _digests(pairs: Pairs) -> Iterator[tuple[str, bytes]]:
    rows = StoreRows(pairs.image, pairs.image_rows)
    return zip(pairs.ids, rows.digests(), strict=True)


def _same_bytes(first: Pairs, second: Pairs) -> dict[str, str]:
    """For every image of the second split whose file's bytes are those of one in the first, its id
    there."""
    here, there = (pairs.image.image_hashes(pairs.image_rows) for pairs in (first, second))
    values, rows = np.unique(here, return_index=True)
    at = np.searchsorted(values, there).clip(max=len(values) - 1)
    same = np.flatnonzero((there != 0) & (values[at] == there))
    return {second.ids[i]: first.ids[rows[at[i]]] for i in same.tolist()}


def _same_ids(first: Pairs, second: Pairs) -> dict[str, str]:
    """The ids that two splits share, where their features are of one image."""
    at = {sample: position for position, sample in enumerate(second.ids)}
    both = [(i, at[sample]) for i, sample in enumerate(first.ids) if sample in at]
    same: dict[str, str] = {}
    for start in range(0, len(both), _CHUNK):
        here, there = map(list, zip(*both[start : start + _CHUNK], strict=True))
        a = first.image[first.image_rows[here]]
        b = second.image[second.image_rows[there]]
        near = torch.linalg.vector_norm(a - b, dim=1) <= _NEAR * torch.linalg.vector_norm(a, dim=1)
        same |= {
            first.ids[i]: first.ids[i] for i, yes in zip(here, near.tolist(), strict=True) if yes
        }
    return same
