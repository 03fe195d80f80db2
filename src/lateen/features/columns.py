"""The captions of one column, grouped by sample, and their means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lateen.errors import DataError
from lateen.features.store import Store

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TextColumn:
    """The captions of one column, grouped by sample: sample i has rows[offsets[i]:offsets[i+1]].

    Attributes:
        store: the text store.
        offsets: ``[n + 1]``.
        rows: ``[captions]`` rows of the store.
        position: where only one caption of each sample was chosen, which one, from 0.
    """

    store: Store
    offsets: Array
    rows: Array
    position: int | None = None

    @property
    def name(self) -> str:
        """The caption column's name; ``caption#1`` where it is only the second captions."""
        return self.store.name if self.position is None else f"{self.store.name}#{self.position}"

    @property
    def counts(self) -> Array:
        """Captions of each sample, ``[n]``, each at least 1."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> Array:
        """The position of each caption's sample, ``[captions]``."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def indices(self, samples: Array, pick: Array) -> Array:
        """Indices into :attr:`rows` of one caption per sample.

        Args:
            samples: ``[k]`` positions of samples.
            pick: ``[k]`` which caption of each, from 0 to its count - 1.
        """
        indices: Array = self.offsets[samples] + pick
        return indices

    def take(self, samples: Array) -> TextColumn:
        """The captions of these samples only, in this order."""
        counts = self.counts[samples]
        offsets = _ends(counts)
        at = np.repeat(self.offsets[samples] - offsets[:-1], counts)
        at += np.arange(offsets[-1])
        return replace(self, offsets=offsets, rows=self.rows[at])

    def first(self, count: int) -> TextColumn:
        """Each sample's first ``count`` captions, or all where it has fewer."""
        counts = self.counts
        inside = np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], counts)
        ends = _ends(np.minimum(counts, count))
        return replace(self, offsets=ends, rows=self.rows[inside < count])

    def nth(self, position: int) -> TextColumn:
        """One caption of each sample: that at ``position``, from 0, among those in the store.

        Raises:
            DataError: a sample has fewer captions.
        """
        short = np.flatnonzero(self.counts <= position)
        if short.size:
            first, count = self.store.ids[self.rows[self.offsets[short[0]]]], self.counts[short[0]]
            raise DataError(
                f"{self.name}#{position} needs {position + 1} captions of every image, and "
                f"{first!r} has {count} (positions count from 0; {short.size} images have too few)",
                "Choose a lower position, or leave those images out of the data.",
            )
        rows = self.rows[self.offsets[:-1] + position]
        return TextColumn(self.store, np.arange(len(rows) + 1), rows, position)


@dataclass(frozen=True)
class CaptionMeans:
    """For each sample the mean of its captions' features, each L2-normalised first.

    A sample has one place in either space, and its captions are all of it that the text side has.
    """

    column: TextColumn

    def __len__(self) -> int:
        return len(self.column.offsets) - 1

    def __getitem__(self, part: slice) -> Tensor:
        start, stop, _ = part.indices(len(self))
        offsets = self.column.offsets[start : stop + 1]
        features = self.column.store[self.column.rows[offsets[0] : offsets[-1]]]
        owner = torch.from_numpy(np.repeat(np.arange(stop - start), np.diff(offsets)))
        total = torch.zeros(stop - start, features.shape[1])
        total.index_add_(0, owner, torch.nn.functional.normalize(features, dim=-1))
        mean: Tensor = total / torch.bincount(owner, minlength=stop - start)[:, None]
        return mean


def _ends(counts: Array) -> Array:
    """Where each of several groups begins, and the last ends, ``[n + 1]``."""
    ends = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    return ends
