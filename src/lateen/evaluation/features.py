"""Features of evaluation data, encoded once, and what a number that comes of them depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from lateen.data import Dataset
from lateen.data.samples import HashedImage
from lateen.encoders import Encoder, Side
from lateen.features import Store, encode
from lateen.files import content_key, library_versions
from lateen.hardware import cache_folder
from lateen.metrics import class_embeddings
from lateen.model import AlignedModel
from lateen.model.config import encoder_identity
from lateen.model.query_bank import QueryBank
from lateen.model.trained_on import TrainedOn, is_anyones
from lateen.progress import log

_CLASSES = 256  # whose prompts are encoded at a time
Rows = slice | Sequence[int] | np.ndarray[Any, Any]


def cached_features(
    dataset: Dataset,
    encoder: Encoder,
    column: str | None = None,
    folder: Path | None = None,
    dtype: Literal["float16", "float32"] = "float16",
) -> Store:
    """The dataset's features, from the cache where they were computed before.

    The cache goes by the encoder's weights and settings and by the data's content.

    Args:
        dataset: what to encode.
        encoder: with what.
        column: the caption column, for a text encoder.
        folder: where to keep the store, replacing an older one; in lateen's cache if not given.
        dtype: of the features on disk.
    """
    if folder is None:
        name = content_key([encoder.info.key, dataset.fingerprint, column, dtype])[:24]
        folder = cache_folder() / "features" / name
    return encode(dataset, encoder, folder, column=column, dtype=dtype, overwrite=True, wait=True)


def side_features(
    model: AlignedModel,
    side: Side,
    dataset: Dataset,
    column: str | None = None,
    folder: Path | None = None,
) -> Store:
    """The dataset's features by one of the model's encoders, in the number format that its head was
    trained with; from the cache where they were computed before.

    Args:
        model: an aligned model.
        side: which encoder.
        dataset: what to encode.
        column: the caption column, for the text side.
        folder: as :func:`cached_features` has it.
    """
    encoder = model.vision_encoder if side == "vision" else model.text_encoder
    return cached_features(dataset, encoder, column, folder, model.config.feature_dtype(side))


@dataclass
class JudgedImages:
    """The images that a number is of, each once.

    Attributes:
        hashes: by id, a hash of the image's bytes; 0 where not known.
    """

    hashes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store, rows: Rows = slice(None)) -> JudgedImages:
        """The images of some rows of a store, by default of all."""
        numbers = np.arange(len(store))[rows]
        hashes = store.image_hashes(numbers).tolist()
        return cls(dict(zip((store.ids[row] for row in numbers), hashes, strict=True)))

    def add(self, sample: str, image: HashedImage) -> None:
        """Add an image that was read without a store."""
        self.hashes[sample] = image.hash

    def __or__(self, other: JudgedImages) -> JudgedImages:
        return JudgedImages(self.hashes | other.hashes)


class SaysTrainedOn(Protocol):
    """A model that may say what it was trained on."""

    @property
    def trained_on(self) -> TrainedOn | None:
        """The record of the images; ``None`` where nothing is known."""


def find_trained_on(model: SaysTrainedOn, judged: JudgedImages) -> dict[str, Any] | None:
    """How many of some images the model was trained on, as results have it under ``trained_on``.

    Args:
        model: the evaluated model.
        judged: the images.

    Returns:
        ``None`` where the model does not say what it was trained on, else: ``images``, so many;
        ``of`` how many; ``by``, the evidence: ``image files`` (the same bytes), ``ids`` or, of
        numbers and names such as ``img_3``, which prove little, ``numbers``, or ``None``;
        ``chosen_on``, how many chose its best step; and, where they are not 0, ``same_ids``, how
        many more have an id of one trained on but other bytes, and ``by_mistake``, how many a
        large record may count that were not trained on, on average.
    """
    record = model.trained_on
    if record is None:
        return None
    ids = list(judged.hashes)
    hashes = np.fromiter(judged.hashes.values(), np.uint64, len(ids))
    train, chooser = (record.find(group, ids, hashes) for group in ("train", "chosen_on"))
    by_id, telling = int(train.by_id.sum()), _telling(ids, train.by_id)
    kinds = [
        "image files" if train.by_bytes.any() else "",
        "" if not by_id else "ids" if 2 * telling >= by_id else "numbers",
    ]
    more = {
        "same_ids": _telling(ids, train.other_bytes), "by_mistake": round(train.by_mistake, 3)
    }  # fmt: skip
    return {
        "images": int(train.by_bytes.sum()) + by_id,
        "of": len(ids),
        "by": " and ".join(filter(None, kinds)) or None,
        "chosen_on": int((chooser.by_bytes | chooser.by_id).sum()),
        **{key: value for key, value in more.items() if value},
    }


def _telling(ids: Sequence[str], chosen: np.ndarray[Any, Any]) -> int:
    """How many of the chosen ids are not of a kind that any images may have."""
    return sum(not is_anyones(ids[row]) for row in np.flatnonzero(chosen).tolist())


@torch.no_grad()
def embed_prompts(model: AlignedModel, prompts: Sequence[Sequence[str]]) -> Tensor:
    """One L2-normalised embedding per class ``[c, dim]``, the mean of its prompts'.

    Args:
        model: an aligned model.
        prompts: of each class, equally many.
    """
    parts = []
    for start in range(0, len(prompts), _CLASSES):
        some = prompts[start : start + _CLASSES]
        text = model.encode_text([prompt for each in some for prompt in each])
        parts.append(class_embeddings(text.view(len(some), len(some[0]), -1)))
    return torch.cat(parts)


def conditions(model: AlignedModel, data: str) -> dict[str, Any]:
    """What a number depends on: the model's weights, the data's content, library versions.

    Args:
        model: the evaluated model.
        data: content key of what it was evaluated on. Nothing of the model is in it, so that
            results of several models on the same data can be told to be so.
    """
    return {
        "model": model_key(model),
        **_trained_alike(model),
        "data": data,
        "versions": library_versions(),
    }


def _trained_alike(model: AlignedModel) -> dict[str, Any]:
    """What is the same for models whose training differs in its seed alone, and the seed.

    Models of before do not say how they were trained, and what was not trained has no seed.
    """
    config = model.config
    training = config.training or {}
    if "settings" not in training:
        return {}
    sides = [encoder_identity(side or {}) for side in (config.vision, config.text)]
    settings = config.head_settings.model_dump(mode="json")
    alike = content_key([*sides, settings, training["settings"], training["data"]])
    return {"trained_alike": alike, "train_seed": training["seed"]}


def model_facts(model: AlignedModel, place: str | Path | None = None) -> dict[str, str | None]:
    """What a model is, for people: its ``place``, and its ``vision``, ``text`` and ``head``."""
    encoders = {
        side: f"{Path(str(info.get('id'))).name} ({info.get('pooling')})"
        for side in ("vision", "text")
        for info in [getattr(model.config, side) or {}]
    }
    place = place if place is not None else getattr(model, "name_or_path", None)
    return {
        "place": str(place) if place else None,
        **encoders,
        "head": model.config.head_settings.name,
    }


def model_key(model: AlignedModel) -> str:
    """Content key (64 hex digits) of a model's heads and of what its encoders are."""
    return model.content_key


def bank_facts(bank: QueryBank, judged: JudgedImages) -> dict[str, Any]:
    """What numbers that were had with a query bank depend on, as results have it.

    Args:
        bank: that was used.
        judged: the images that the numbers are of; of which ``seen`` are in the bank, or their
            captions are.
    """
    ids = list(judged.hashes)
    hashes = np.fromiter(judged.hashes.values(), np.uint64, len(ids))
    same = TrainedOn({"bank": bank.source}).find("bank", ids, hashes)
    seen = int(same.by_bytes.sum()) + _telling(ids, same.by_id)
    if seen:
        log.warning(
            "%d of these %d images are in the query bank, or their captions are: the numbers with "
            "it are too good (--bank FILE for another, --bank none for none)", seen, len(ids),
        )  # fmt: skip
    return {
        "bank": {
            "key": bank.key, "images": len(bank.images), "captions": len(bank.texts), "seen": seen
        }
    }  # fmt: skip
