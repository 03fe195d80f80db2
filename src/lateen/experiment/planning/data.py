"""What a recipe's data holds, counted, and stores that stand for its features."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lateen.data import Dataset, Skip
from lateen.encoders import Encoder, Modality, TokenEncoder
from lateen.errors import DataError
from lateen.experiment.recipe import DataSection, Recipe
from lateen.experiment.stages import open_split, split_columns
from lateen.features import Description, Pairs, Store, pair
from lateen.features.manifest import FeatureDtype, Manifest
from lateen.features.pipeline import Item, items_of

_ROWS = 1024  # different rows of an imagined store
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Counted:
    """The items of one modality of a dataset, without their content.

    Attributes:
        ids: of every item that can be encoded, in order.
        skips: JSON-ready, what the reader leaves out.
        drawn: some of the items, spread over all of them by chance, in order.
    """

    ids: list[str]
    skips: list[dict[str, Any]]
    drawn: list[Item]

    @property
    def id_bytes(self) -> int:
        """What the ids take in the shards of a store."""
        return sum(len(name.encode()) + len('"", ') for name in self.ids)


@dataclass(frozen=True)
class Split:
    """A split's images and, by column, its captions."""

    images: Counted
    captions: Mapping[str, Counted]


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
    chance = random.Random(0)
    for item in items_of(dataset, modality, column):
        if isinstance(item, Skip):
            skips.append(item.as_dict())
            continue
        place = chance.randrange(len(ids) + 1)
        if len(drawn) < draw:
            drawn.append((len(ids), item))
        elif place < draw:
            drawn[place] = (len(ids), item)
        ids.append(item.id)
    if not ids:
        what = "images" if modality == "image" else f"captions in column {column!r}"
        first = f" (the first left out: {skips[0]['reason']})" if skips else ""
        raise DataError(
            f"{dataset.name} has no {what} that can be used{first}", "Check the recipe's data."
        )
    return Counted(ids, skips, [item for _, item in sorted(drawn, key=lambda one: one[0])])


def count_splits(data: DataSection, images: int, captions: int) -> dict[str, Split]:
    """Every split that ``data`` names; items are drawn from the first, the training split.

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
        some = (0, 0) if splits else (images, captions)
        splits[name] = Split(
            count_items(dataset, "image", draw=some[0]),
            {column: count_items(dataset, "text", column, some[1]) for column in columns},
        )
    return splits


def imagined_pairs(
    splits: Mapping[str, Split], vision: Encoder, text: Encoder, plan: Recipe
) -> dict[str, Pairs]:
    """The joined features of every split as encoding would give them, but for their values.

    Args:
        splits: what there is.
        vision: gives the dims of images.
        text: of captions, whose token ids are real where it is a
            :class:`~lateen.encoders.TokenEncoder`: the time of a step depends on their number.
        plan: the dtypes.

    Raises:
        PairingError: ids that do not match, as encoding and joining would find.
    """
    tokens = isinstance(text, TokenEncoder)
    pairs = {}
    for name, split in splits.items():
        image = ImaginedStore(f"{name}-vision", split.images, vision, plan.vision.dtype)
        texts = [
            ImaginedStore(
                f"{name}-text-{column}", counted, text, "float32" if tokens else plan.text.dtype,
                column, _token_rows(text, splits["train"].captions[column]) if tokens else None,
            )
            for column, counted in split.captions.items()
        ]  # fmt: skip
        pairs[name] = pair(image, *texts)
    return pairs


def _token_rows(text: Encoder, counted: Counted) -> Array:
    texts = [str(item.content) for item in counted.drawn[:_ROWS]]
    rows: Array = text.encode(text.prepare(texts)).numpy()
    return rows


class ImaginedStore(Store):
    """A store with the ids, dim and dtype that encoding would give; a few rows stand for all.

    Args:
        name: stands for its folder in messages.
        counted: its ids and skips.
        encoder: gives the dim.
        dtype: of the features.
        column: the caption column of a text store.
        rows: ``[m, dim]``; noise if not given.
    """

    def __init__(
        self, name: str, counted: Counted, encoder: Encoder, dtype: FeatureDtype,
        column: str | None = None, rows: Array | None = None,
    ) -> None:  # fmt: skip
        info = encoder.info
        description = Description(
            modality=info.modality, dim=info.dim, encoder=info.as_dict(), encoder_key=info.key,
            source=name, fingerprint="", column=column, dtype=dtype,
        )  # fmt: skip
        count = len(counted.ids)
        super().__init__(Path(name), Manifest(description, count, (), len(counted.skips)), [])
        self.ids = counted.ids
        self.skipped = counted.skips
        if rows is None:
            shape = (min(count, _ROWS), info.dim)
            rows = np.random.default_rng(0).standard_normal(shape, np.float32)
        self._rows = rows.astype(dtype)

    def read(self, rows: Any) -> Array:
        """Features ``[n, dim]`` of these rows: those of the row's number modulo what there is."""
        features: Array = self._rows[self._index(rows) % len(self._rows)]
        return features
