"""Joining image stores and text stores by id, never by position."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lateen.data.captions import split_position
from lateen.errors import DataError, PairingError, UsageError, choices
from lateen.features.columns import Array, TextColumn
from lateen.features.ids import IdIndex, Ids
from lateen.features.spelling import join_alike, spelled_alike, told_alike
from lateen.features.store import Store
from lateen.files import content_key

_WHY_UNIQUE = "Ids join images to captions"
_JOIN_ALIKE = "Or join them so: ids='alike' (lateen train --ids alike)."
_CHUNK = 65536  # ids that are one text at a time
_SAME_IDS = "Encode both from one dataset, or keep the common ids: missing='drop' (--missing drop)."


def unique_ids(store: Store, why: str) -> IdIndex:
    """Finds the row of every id.

    Args:
        store: with a row per sample.
        why: ids must be unique, for the error.

    Raises:
        PairingError: an id stands twice.
    """
    index = IdIndex(store.ids)
    repeats = index.repeats()
    if repeats.size:
        [first] = index.find(store.ids.take(repeats[:1]))
        raise PairingError(
            f"{store.path} has the id {store.ids[first]!r} twice (rows {first} and {repeats[0]})",
            f"{why}; give every image its own.",
        )
    return index


def only_in_one(
    first: Store, alone: Array, second: Store, other_alone: Array, skipped: set[str]
) -> str:
    """How two stores' ids differ, in words; empty if they do not.

    Args:
        first: a store.
        alone: its rows whose ids the second store lacks.
        second: another one.
        other_alone: its rows whose ids the first store lacks.
        skipped: ids that may be missing.
    """
    differing = [
        (store, ids)
        for store, rows in ((first, alone), (second, other_alone))
        if (ids := [i for i in dict.fromkeys(store.ids.take(rows)) if i not in skipped])
    ]
    told = "; ".join(
        f"{len(ids)} ids are only in {store.path}: {', '.join(map(repr, ids[:3]))}"
        for store, ids in differing
    )
    if len(differing) < 2:
        return told
    return told + told_alike(spelled_alike(*(ids for _, ids in differing)))


@dataclass(frozen=True)
class Pairs:
    """Samples that have an image and at least one caption in every column.

    Attributes:
        ids: ``n`` sample ids, in the image store's order, as a sequence of strings.
        image: the image store.
        image_rows: ``[n]`` rows of it.
        texts: one entry per caption column.
        dropped: how many ids were left out of the join.
    """

    ids: Ids
    image: Store
    image_rows: Array
    texts: tuple[TextColumn, ...]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stores(self) -> list[Store]:
        """The image store, then the text stores."""
        return [store for store, _ in self.sources]

    @property
    def sources(self) -> list[tuple[Store, Array]]:
        """The image store, then the text stores, each with the rows of it that are used."""
        texts = ((column.store, column.rows) for column in self.texts)
        return [(self.image, self.image_rows), *texts]

    def __repr__(self) -> str:
        captions = sum(len(column.rows) for column in self.texts)
        return f"Pairs({len(self)} images, {captions} captions in {len(self.texts)} columns)"

    def image_features(self, samples: Array | slice) -> torch.Tensor:
        """Image features ``[len(samples), image dim]``, float32."""
        return self.image[self.image_rows[samples]]

    def text_features(self, column: int, samples: Array, pick: Array) -> torch.Tensor:
        """One caption per sample, ``[len(samples), text dim]``, float32.

        Args:
            column: index into :attr:`texts`.
            samples: ``[k]`` positions of samples.
            pick: ``[k]`` which caption of each, from 0 to its count - 1.
        """
        texts = self.texts[column]
        return texts.store[texts.rows[texts.indices(samples, pick)]]

    def all_texts(self, column: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Every caption of a column: features ``[m, dim]`` and its sample's position ``[m]``."""
        texts = self.texts[column]
        return texts.store[texts.rows], torch.from_numpy(texts.owner)

    def with_captions(self, *names: str) -> Pairs:
        """The same samples with these captions, each name a positive of its own.

        Args:
            names: of caption columns; ``caption#1`` is the second caption of each sample alone
                (see :meth:`TextColumn.nth`).

        Raises:
            DataError: there is no such column, or a sample has fewer captions.
        """
        columns = {column.store.name: column for column in self.texts}
        texts = []
        for name, position in map(split_position, names):
            if name not in columns:
                raise DataError(f"there is no caption column {name!r}", choices(name, columns))
            column = columns[name]
            texts.append(column if position is None else column.nth(position))
        return replace(self, texts=tuple(texts))

    def take(self, samples: Array) -> Pairs:
        """These samples only, in this order."""
        return Pairs(
            self.ids.take(samples), self.image, self.image_rows[samples],
            tuple(column.take(samples) for column in self.texts), self.dropped,
        )  # fmt: skip

    def holdout(self, share: float, seed: int = 0) -> tuple[Pairs, Pairs]:
        """Split into (rest, held out); an id's side depends on the id and the seed alone.

        Args:
            share: of the samples to hold out, in (0, 1).
            seed: another seed, another split.
        """
        rest, held_out = self.holdout_positions(share, seed)
        return self.take(rest), self.take(held_out)

    def holdout_positions(self, share: float, seed: int = 0) -> tuple[Array, Array]:
        """The positions, in order, of the samples on either side of :meth:`holdout`.

        Args:
            share: of the samples to hold out, in (0, 1).
            seed: another seed, another split.
        """
        if not 0 < share < 1:
            raise ValueError(f"share must be in (0, 1), not {share}")
        order = self._order(str(seed))
        count = min(max(1, round(share * len(self))), len(self) - 1)
        return np.sort(order[count:]), np.sort(order[:count])

    def draw(self, count: int, seed: int = 0) -> Pairs:
        """``count`` of the samples, which their ids and the seed alone choose: of one seed, a
        smaller draw is part of every larger one."""
        return self.take(np.sort(self._order(f"draw {seed}")[:count]))

    def _order(self, salt: str) -> Array:
        """Positions in an order that the ids and the salt alone give."""
        digests = (hashlib.sha256(f"{salt}:{i}".encode()).digest()[:8] for i in self.ids)
        numbers = np.fromiter((int.from_bytes(d, "big") for d in digests), np.uint64, len(self))
        return np.argsort(numbers, kind="stable")

    def spread(self, most: int) -> Array:
        """Positions, in order, of at most so many samples, evenly over all: data may be in the
        order of where they are from."""
        count = min(len(self), most)
        positions: Array = np.linspace(0, len(self) - 1, count).astype(np.int64)
        return positions

    @property
    def key(self) -> str:
        """Content key of the joined features: it changes when any row, id, order or choice does."""
        ids = hashlib.sha256()
        for start in range(0, len(self.ids), _CHUNK):
            part = "\n".join(self.ids[start : start + _CHUNK])
            ids.update(("\n" * (start > 0) + part).encode())
        chosen = [(column.store.manifest.content, column.position) for column in self.texts]
        return content_key([ids.hexdigest(), self.image.manifest.content, chosen])


def pair(
    images: Store | str | Path,
    *texts: Store | str | Path,
    missing: Literal["error", "drop"] = "error",
    ids: Literal["exact", "alike"] = "exact",
) -> Pairs:
    """Join an image store with one text store per caption column, by id.

    Ids that either side recorded as skipped leave silently: they are in its ``skipped.jsonl``.

    Args:
        images: an image store or its path.
        texts: text stores or their paths, one per caption column.
        missing: what to do with ids that only one side knows: ``error``, or ``drop`` them.
        ids: ``alike`` also joins ids that differ in their ending, the folders before them, capital
            letters or zeros before a number alone, where no two of a store become the same; the
            image's stands. It is said in what.

    Raises:
        PairingError: ids that differ (the first are named), a duplicate image id, a store of the
            wrong modality, or nothing in common.
    """
    if missing not in ("error", "drop"):
        raise UsageError(f"missing is {missing!r}", "It is 'error' or 'drop'.")
    if ids not in ("exact", "alike"):
        raise UsageError(f"ids are {ids!r}", "They are 'exact' or 'alike'.")
    image = images if isinstance(images, Store) else Store.open(images)
    columns = [text if isinstance(text, Store) else Store.open(text) for text in texts]
    _check_modalities(image, columns)
    index = unique_ids(image, _WHY_UNIQUE)
    # Of every caption the row of its image, -1 where there is none.
    owners = [index.find(column.ids) for column in columns]
    del index
    if ids == "alike":
        owners = [join_alike(image, *each) for each in zip(columns, owners, strict=True)]
    captioned = [_rows_named(owner, len(image)) for owner in owners]
    if missing == "error":
        for column, owner, has_caption in zip(columns, owners, captioned, strict=True):
            _check_same_ids(image, np.flatnonzero(~has_caption), column, np.flatnonzero(owner < 0))
    common = np.flatnonzero(np.logical_and.reduce(captioned))
    if not common.size:
        spelled = spelled_alike(list(image.ids), list(dict.fromkeys(columns[0].ids)))
        raise PairingError(
            f"{image.path} and {columns[0].path} share no id: for example {image.ids[0]!r} "
            f"against {columns[0].ids[0]!r}{told_alike(spelled)}",
            _JOIN_ALIKE if spelled else
            "Encode both from the same dataset, so that they carry the same ids.",
        )  # fmt: skip
    joined = list(zip(columns, owners, strict=True))
    strangers = [column.ids.take(np.flatnonzero(owner < 0)) for column, owner in joined]
    return Pairs(
        image.ids.take(common), image, common,
        tuple(_column(column, owner, common, len(image)) for column, owner in joined),
        dropped=len(image) + _count_different(strangers) - len(common),
    )  # fmt: skip


def _rows_named(rows: Array, count: int) -> Array:
    """Which of ``count`` rows are among ``rows``, where those below 0 are none."""
    named = np.zeros(count, bool)
    named[rows[rows >= 0]] = True
    return named


def _count_different(parts: Sequence[Ids]) -> int:
    """How many different ids there are in all parts together."""
    ids = Ids.joined(parts)
    return len(ids) - len(IdIndex(ids).repeats())


def _check_modalities(image: Store, columns: Sequence[Store]) -> None:
    if not columns:
        raise PairingError("there is no text store to pair with", "Give at least one.")
    for store, expected in [(image, "image"), *((column, "text") for column in columns)]:
        if store.modality != expected:
            raise PairingError(
                f"{store.path} holds {store.modality} features where {expected} features belong",
                "Give the image store first, then the text stores.",
            )


def _check_same_ids(image: Store, alone: Array, column: Store, column_alone: Array) -> None:
    skipped = {skip["id"] for store in (image, column) for skip in store.skipped}
    differences = only_in_one(image, alone, column, column_alone, skipped)
    if differences:
        raise PairingError(
            f"the stores do not describe the same samples: {differences}",
            _JOIN_ALIKE if "are the same but for" in differences else _SAME_IDS,
        )


def _column(store: Store, owner: Array, images: Array, count: int) -> TextColumn:
    """The captions of these images, each image's in their order.

    Args:
        store: the captions.
        owner: ``[captions]`` the row of each one's image, −1 where it has none.
        images: ``[n]`` rows of the images wanted, ascending.
        count: rows of the image store.
    """
    if len(images) < count:
        wanted = np.append(_rows_named(images, count), False)  # the last one for the −1
        owner = np.where(wanted[owner], owner, -1)
    rows = np.argsort(owner, kind="stable")  # those of no image first
    offsets = np.searchsorted(owner[rows], np.append(images, count).astype(owner.dtype))
    unused = offsets[0]
    return TextColumn(store, offsets - unused, rows[unused:].copy() if unused else rows)


def pair_grid(
    images: Sequence[Store],
    texts: Sequence[Sequence[Store]],
    missing: Literal["error", "drop"] = "error",
) -> list[list[Pairs]]:
    """Pairs of every image store with every text encoder, on the samples that all of them have.

    Numbers of different encoders can only be held against each other on the same samples: what one
    skipped leaves for all, be it an image or one of its captions.

    Args:
        images: image stores of the same images.
        texts: for each text encoder, its stores, one per caption column.
        missing: what to do with ids that only some know: ``error``, or ``drop`` them.

    Returns:
        ``pairs[image store][text encoder]``, all with the same ids in the same order.

    Raises:
        PairingError: ids or numbers of captions that differ (the first are named), a duplicate
            image id, a store of the wrong modality, or nothing in common.
    """
    columns = [store for stores in texts for store in stores]
    base = pair(images[0], *columns, missing=missing)
    finders = _image_finders(images, base, missing)
    ends = np.cumsum([0, *(len(stores) for stores in texts)])
    alike = _same_captions(base, [slice(*span) for span in itertools.pairwise(ends)], missing)
    rows = [finder.find(base.ids) for finder in finders]
    common = np.flatnonzero(np.logical_and.reduce([alike, *(there >= 0 for there in rows)]))
    if not common.size:
        raise PairingError(
            f"no image is in all of the {len(images)} image stores and has the same captions in "
            "all text stores",
            "Encode all from one dataset, so that they carry the same ids.",
        )
    shared = base.take(common)
    strangers = [store.ids.take(finders[0].lacking(store.ids)) for store in [*images[1:], *columns]]
    dropped = len(images[0]) + _count_different(strangers) - len(common)
    return [
        [
            replace(
                shared, image=store, dropped=dropped, image_rows=there[common].astype(np.int64),
                texts=shared.texts[start:stop],
            )
            for start, stop in itertools.pairwise(ends)
        ]
        for store, there in zip(images, rows, strict=True)
    ]  # fmt: skip


def _image_finders(images: Sequence[Store], base: Pairs, missing: str) -> list[IdIndex]:
    """What finds the row of every id in each image store.

    Raises:
        PairingError: a text store, an id that stands twice, or ids that differ.
    """
    finders = [unique_ids(images[0], _WHY_UNIQUE)]
    skipped = {skip["id"] for store in base.stores for skip in store.skipped}
    for other in images[1:]:
        if other.modality != "image":
            raise PairingError(
                f"{other.path} holds {other.modality} features where image features belong",
                "Give image stores on one side and text stores on the other.",
            )
        finders.append(unique_ids(other, _WHY_UNIQUE))
        skips = skipped | {skip["id"] for skip in other.skipped}
        differences = only_in_one(
            images[0], finders[-1].lacking(images[0].ids), other, finders[0].lacking(other.ids),
            skips,
        )  # fmt: skip
        if differences and missing == "error":
            raise PairingError(
                f"the stores do not describe the same images: {differences}",
                "Encode all from one dataset, or keep the common ids: missing='drop' "
                "(--missing drop).",
            )
    return finders


def _same_captions(base: Pairs, encoders: Sequence[slice], missing: str) -> np.ndarray[Any, Any]:
    """Which samples ``[n]`` have the same captions in the stores of every text encoder.

    Args:
        base: pairs with the columns of all text encoders.
        encoders: the columns of each.
        missing: ``error`` to refuse numbers that differ though no caption was skipped.

    Raises:
        PairingError: numbers of captions differ.
    """
    alike = np.ones(len(base), dtype=bool)
    for encoder in encoders[1:]:
        for ours, theirs in zip(base.texts[encoders[0]], base.texts[encoder], strict=False):
            skips = [{(s["id"], s["source"]) for s in c.store.skipped} for c in (ours, theirs)]
            by_one = {sample for sample, _ in skips[0] ^ skips[1]}
            same = ours.counts == theirs.counts
            odd = [i for i in np.flatnonzero(~same) if base.ids[i] not in by_one]
            if odd and missing == "error":
                raise PairingError(
                    f"{len(odd)} images have other numbers of captions in {ours.store.path} than "
                    f"in {theirs.store.path}: {base.ids[odd[0]]!r} has {ours.counts[odd[0]]} and "
                    f"{theirs.counts[odd[0]]}",
                    "Encode the same captions with all, or leave such images out: missing='drop' "
                    "(--missing drop).",
                )
            alike &= same
            if by_one:
                alike &= np.fromiter((i not in by_one for i in base.ids), bool, len(base))
    return alike
