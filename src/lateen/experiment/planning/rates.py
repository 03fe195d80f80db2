"""What a recipe's data holds, and how fast its encoders take it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lateen.data import Dataset, Skip
from lateen.encoders import Encoder, FusedEncoder, Modality, TokenEncoder, shared_passes
from lateen.encoders.config import TextSection, VisionSection
from lateen.errors import DataError
from lateen.experiment.preflight import open_split, split_columns
from lateen.experiment.recipe import DataSection, Recipe
from lateen.features import Description, Manifest, Pairs, Store, pair
from lateen.features.manifest import FeatureDtype, Shard, StoredDtype
from lateen.features.pipeline import Item, items_of
from lateen.features.rates import Rate, image_rate, text_rate
from lateen.features.shard import Features, ShardContent

_ROWS = 1024  # different rows of an imagined store
Array = np.ndarray[Any, Any]
Column = str | None  # a caption column, or None for the images


# -- what there is --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counted:
    """The images of a dataset, or the captions of one of its columns, without their content.

    Attributes:
        ids: of every item that can be encoded, in order.
        skips: JSON-ready, what the reader leaves out.
        drawn: some of the items, spread over all of them by chance, in order.
        characters: of all texts.
    """

    ids: list[str]
    skips: list[dict[str, Any]]
    drawn: list[Item]
    characters: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> list[str]:
        """The captions that were drawn."""
        return [str(item.content) for item in self.drawn]

    @property
    def id_bytes(self) -> int:
        """What the ids take in the shards of a store."""
        return sum(len(name.encode()) + len('"", ') for name in self.ids)


Split = Mapping[Column, Counted]  # the images of a split, and its captions by column


def count_items(
    dataset: Dataset, modality: Modality, column: str | None = None, draw: int = 0
) -> Counted:
    """Go over a dataset once; no image is read or decoded.

    Args:
        dataset: any.
        modality: which items.
        column: the caption column of texts.
        draw: how many items to draw, each as likely as any other (reservoir sampling); the same
            ones whenever the data is the same.

    Raises:
        DataError: it has none.
    """
    ids: list[str] = []
    skips: list[dict[str, Any]] = []
    drawn: list[tuple[int, Item]] = []
    chance, characters = random.Random(0), 0
    for item in items_of(dataset, modality, column):
        if isinstance(item, Skip):
            skips.append(item.as_dict())
            continue
        characters += len(item.content) if isinstance(item.content, str) else 0
        slot = chance.randrange(len(ids) + 1)
        if len(drawn) < draw:
            drawn.append((len(ids), item))
        elif slot < draw:
            drawn[slot] = (len(ids), item)
        ids.append(item.id)
    if not ids:
        what = "images" if modality == "image" else f"captions in column {column!r}"
        first = f" (the first left out: {skips[0]['reason']})" if skips else ""
        raise DataError(
            f"{dataset.name} has no {what} that can be used{first}", "Check the recipe's data."
        )
    some = [item for _, item in sorted(drawn, key=lambda one: one[0])]
    return Counted(ids, skips, some, characters)


def count_splits(data: DataSection, images: int, captions: int) -> dict[str, Split]:
    """The images and the caption columns of every split that ``data`` names.

    Items are drawn from the first split alone, which is the training split.

    Args:
        data: of a recipe.
        images: how many to draw.
        captions: how many to draw of each column.

    Raises:
        DataError: a split cannot be read, or has no images or no captions.
    """
    splits: dict[str, Split] = {}
    for name in ("train", "validation", "test"):
        source = getattr(data, name)
        if source is None:
            continue
        dataset = open_split(data, source, name)
        columns = split_columns(data, dataset)
        draw_images, draw_captions = (0, 0) if splits else (images, captions)
        splits[name] = {
            None: count_items(dataset, "image", draw=draw_images),
            **{column: count_items(dataset, "text", column, draw_captions) for column in columns},
        }
    return splits


# -- stores that stand for features ---------------------------------------------------------------


def imagined_pairs(
    splits: Mapping[str, Split], vision: Encoder, text: Encoder, recipe: Recipe
) -> dict[str, Pairs]:
    """The joined features of every split as encoding would give them, but for their values.

    Args:
        splits: what there is.
        vision: gives the dims of images.
        text: of captions, whose token ids are real where it is a
            :class:`~lateen.encoders.TokenEncoder`: the time of a step depends on their number.
        recipe: the dtypes.

    Raises:
        PairingError: ids that do not match, as encoding and joining would find.
    """
    tokens: dict[Column, Array] = {}
    if isinstance(text, TokenEncoder):
        for column, counted in splits["train"].items():
            if column is not None:
                tokens[column] = text.encode(text.prepare(counted.texts[:_ROWS])).numpy()
    dtype = stored_dtype(text, recipe.text.dtype)
    return {
        name: pair(
            imagined_store(f"{name}-vision", split[None], vision, recipe.vision.dtype),
            *(
                imagined_store(
                    f"{name}-text-{column}", counted, text, dtype, column, tokens.get(column)
                )
                for column, counted in split.items() if column is not None
            ),
        )
        for name, split in splits.items()
    }  # fmt: skip


def imagined_store(
    name: str, counted: Counted, encoder: Encoder, dtype: StoredDtype, column: Column = None,
    rows: Array | None = None,
) -> Store:  # fmt: skip
    """A store with the ids, dim and dtype that encoding would give; a few rows stand for all.

    Args:
        name: stands for its folder in messages.
        counted: its ids and skips.
        encoder: gives the dim.
        dtype: of the features.
        column: the caption column of a text store.
        rows: ``[m, dim]``; noise if not given.
    """
    info, count = encoder.info, len(counted)
    if rows is None:
        shape = (min(count, _ROWS), info.dim)
        rows = np.random.default_rng(0).standard_normal(shape, np.float32)
    features: Features = _RepeatedRows(rows.astype(dtype), (count, info.dim))
    description = Description.of(info, source=name, fingerprint="", column=column, dtype=dtype)
    entry = Shard("", count, 0, count, 0, "", "")
    manifest = Manifest(description, count, (entry,), len(counted.skips))
    shard = ShardContent(counted.ids, counted.skips, features, 0, count, {})
    return Store(Path(name), manifest, [shard].__getitem__)


@dataclass(frozen=True)
class _RepeatedRows:
    """Features in memory, which repeat: row i is row i modulo their number."""

    rows: Array
    shape: tuple[int, int]

    def read(self, rows: Array) -> Array:
        features: Array = self.rows[rows % len(self.rows)]
        return features


def stored_dtype(encoder: Encoder, dtype: FeatureDtype) -> StoredDtype:
    """The dtype of an encoder's store where features are in ``dtype``; token ids have their own."""
    return "int32" if isinstance(encoder, TokenEncoder) else dtype


def store_bytes(counted: Counted, encoder: Encoder, dtype: FeatureDtype) -> int:
    """What the features and ids of a store take on disk."""
    itemsize = np.dtype(stored_dtype(encoder, dtype)).itemsize
    return len(counted) * encoder.info.dim * itemsize + counted.id_bytes


# -- how fast encoders take it --------------------------------------------------------------------


# Of each network; encoders that are views of one have stores of their own, and one forward pass.
Rates = Mapping[Column, Sequence[tuple[Sequence[Encoder], Rate]]]


def measure_rates(train: Split, vision: Encoder, text: Encoder, recipe: Recipe) -> Rates:
    """Encode the items drawn from the training split.

    Raises:
        DataError: not one of its images can be decoded.
    """
    rates: dict[Column, list[tuple[Sequence[Encoder], Rate]]] = {}
    for column, counted in train.items():
        encoder, section = (vision, recipe.vision) if column is None else (text, recipe.text)
        parts = stored_parts(encoder, section)
        rates[column] = [
            (
                [parts[index] for index in together],
                image_rate(parts[together[0]], counted.drawn, section.dtype)
                if column is None else text_rate(parts[together[0]], counted.texts),
            )
            for together in shared_passes(parts)
        ]  # fmt: skip
    return rates


def stored_parts(encoder: Encoder, section: VisionSection | TextSection) -> list[Encoder]:
    """The encoders that have a store of their own."""
    return encoder.parts if isinstance(encoder, FusedEncoder) and section.fuse else [encoder]
