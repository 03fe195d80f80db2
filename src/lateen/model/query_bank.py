"""A query bank: what a model takes off an image that answers everyone's query, and off such a text.

In a shared space a few items, the hubs, are near to almost any query (Radovanović et al. 2010), and
stand before the right ones. How near an item is to queries that are known beforehand tells it: the
bank has embeddings of training captions, for images, and of training images, for texts and classes.
No weight is trained, and no query that is judged is looked at.

An item g has the hubness ``τ · log mean_b exp(b · g / τ)`` over the bank's embeddings b, which is
taken off its cosine with every query: the inverted softmax of QB-Norm (Bogolin et al., CVPR 2022).
A wrong τ costs more than it gains. Here it is 1 / t, of the t at which σ(t · cosine + b) is the
probability that a text is an image's own (:mod:`lateen.training.calibration`): where recall is
highest, too, within 0.3 points (docs/results.md).
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lateen.device import matmul
from lateen.errors import ModelError, UsageError
from lateen.features import Pairs
from lateen.files import atomic_path, content_key
from lateen.model.trained_on import HashSet, ImageGroup
from lateen.training.calibration import Calibration

if TYPE_CHECKING:
    from lateen.model.model import AlignedModel

QUERY_BANK = "query_bank.npz"
"""The file of a model's folder that the bank is in."""
NO_BANK, OWN_BANK = "none", "model"
"""What says that no bank is to be used, or the model's own, where a file could be named."""
_VERSION = 1
_ONE_IN = 512  # among how many texts one is an image's own, for τ
_USUAL = 0.05  # τ where nothing can be fitted
_COLDEST = 0.01  # as CLIP's, whose t is at most 100
_FEWEST = 2  # what is taken off by a bank of one is a similarity, and tells no hub
_CHUNK = 1 << 24  # similarities at a time
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class QueryBank:
    """Embeddings of images and captions that a model was trained on.

    Attributes:
        images: ``[b, dim]`` float16, L2-normalised: known queries of texts and classes.
        texts: ``[c, dim]`` likewise: known queries of images.
        temperature: τ.
        model: content key of the model that embedded them.
        source: hashes of the images that they are of, or whose captions they are.
    """

    images: Tensor
    texts: Tensor
    temperature: float
    model: str
    source: ImageGroup

    @classmethod
    def of(
        cls, model: AlignedModel, pairs: Pairs, *, size: int, held_out: Pairs, seed: int = 0
    ) -> QueryBank:
        """The bank of a model, from some of the pairs that it was trained on.

        Args:
            model: with the encoders that made the features.
            pairs: features; of every column's captions equally many are taken.
            size: images, and captions; all if there are fewer.
            held_out: pairs that trained no weight, by which τ is found.
            seed: which images and captions.

        Raises:
            UsageError: a bank of one item, or of none.
        """
        from lateen.model.model import project_rows  # whose module imports this one

        if min(size, len(pairs)) < _FEWEST:
            raise UsageError(
                f"a query bank of {min(size, len(pairs))} tells no hubs from others",
                f"Make it of at least {_FEWEST} images with captions.",
            )
        random = np.random.default_rng(seed)
        each = math.ceil(size / len(pairs.texts))
        images = np.sort(random.permutation(len(pairs))[:size])
        captions = [np.sort(random.permutation(len(column.rows))[:each]) for column in pairs.texts]
        texts = [
            project_rows(model.project_text, column.store, column.rows[chosen])
            for column, chosen in zip(pairs.texts, captions, strict=True)
        ]
        first = held_out.texts[0]
        judged = (
            project_rows(model.project_image, held_out.image, held_out.image_rows),
            project_rows(model.project_text, first.store, first.rows),
            torch.from_numpy(first.owner),
        )
        owners = [c.owner[chosen] for c, chosen in zip(pairs.texts, captions, strict=True)]
        source = np.unique(np.concatenate([images, *owners]))
        ids = [pairs.ids[sample] for sample in source]
        return cls(
            project_rows(model.project_image, pairs.image, pairs.image_rows[images]).half(),
            torch.cat(texts).half(), _temperature(*judged), model.content_key,
            ImageGroup.of(ids, pairs.image.image_hashes(pairs.image_rows[source])),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{len(self.images):,} images and {len(self.texts):,} captions"

    @property
    def key(self) -> str:
        """Content key (64 hex digits) of the bank: numbers that are had with it depend on it."""
        parts = [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in (self.images, self.texts)]
        return content_key([self.model, *parts, self.temperature])

    def image_hubness(self, images: Tensor) -> Tensor:
        """How near image embeddings ``[n, dim]``, L2-normalised, are to the captions: ``[n]``."""
        return _hubness(images, self.texts, self.temperature)

    def text_hubness(self, texts: Tensor) -> Tensor:
        """How near text or class embeddings ``[n, dim]``, L2-normalised, are to the images."""
        return _hubness(texts, self.images, self.temperature)

    def extend_images(self, images: Tensor) -> Tensor:
        """Image embeddings ``[n, dim]`` with minus their hubness and 1 behind them.

        The inner product with what :meth:`extend_texts` gives is the cosine less both hubnesses.
        That of the query is the same for all items and orders none, so that the product ranks
        images for a text, and texts for an image. An index of inner products needs nothing else.
        """
        hubness = self.image_hubness(images)[:, None]
        return torch.cat([images, -hubness, torch.ones_like(hubness)], 1)

    def extend_texts(self, texts: Tensor) -> Tensor:
        """Text or class embeddings ``[n, dim]`` with 1 and minus their hubness behind them."""
        hubness = self.text_hubness(texts)[:, None]
        return torch.cat([texts, torch.ones_like(hubness), -hubness], 1)

    def check_model(self, model: AlignedModel) -> None:
        """See that the bank is of a model.

        Raises:
            ModelError: other heads or encoders have embedded it.
        """
        if self.model != model.content_key:
            raise ModelError(
                "the query bank was embedded by another model, or before the heads were changed",
                "Make one of this model: lateen bank MODEL --captions FILE.",
            )

    def save(self, path: Path) -> None:
        """Write the bank, whole or not at all."""
        about = {
            "version": _VERSION, "model": self.model, "temperature": self.temperature,
            "count": self.source.count, "without_hash": self.source.without_hash,
        }  # fmt: skip
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file, about=np.array(json.dumps(about, sort_keys=True)),
                images=self.images.numpy(), texts=self.texts.numpy(),
                source_ids=self.source.ids.values, source_images=self.source.images.values,
            )  # fmt: skip

    @classmethod
    def load(cls, path: Path, model: AlignedModel) -> QueryBank:
        """Read a model's bank.

        Args:
            path: the file.
            model: that has to be the one that embedded it.

        Raises:
            ModelError: it is damaged, of a later version, of another model, or of one item.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about["version"] != _VERSION:
                    raise ModelError(
                        f"{path} has version {about['version']}, this lateen reads {_VERSION}",
                        "Use the lateen version that wrote it.",
                    )
                source = ImageGroup(
                    int(about["count"]), int(about["without_hash"]),
                    HashSet(file["source_ids"]), HashSet(file["source_images"]),
                )  # fmt: skip
                images, texts = (_checked(file[side], model) for side in ("images", "texts"))
                bank = cls(images, texts, float(about["temperature"]), str(about["model"]), source)
        except _DAMAGE as error:
            raise ModelError(
                f"{path} is no query bank, or damaged ({error})",
                "Make it again: lateen bank MODEL --captions FILE.",
            ) from error
        bank.check_model(model)
        return bank


def _checked(embeddings: np.ndarray[Any, Any], model: AlignedModel) -> Tensor:
    dim = model.config.head_settings.dim
    if embeddings.dtype != np.float16 or embeddings.shape[1:] != (dim,):
        raise ValueError(f"embeddings are {embeddings.dtype} of {embeddings.shape[1:]}, not {dim}")
    if len(embeddings) < _FEWEST:
        raise ValueError(f"{len(embeddings)} embeddings, at least {_FEWEST} are needed")
    return torch.from_numpy(embeddings)


def _temperature(image: Tensor, text: Tensor, owner: Tensor) -> float:
    """τ for embeddings of pairs ``[n, dim]`` and ``[m, dim]``; ``owner`` ``[m]`` is each text's."""
    fit = Calibration.of(image, text, owner, one_in=_ONE_IN)
    return _USUAL if fit is None else min(max(1 / fit.scale, _COLDEST), 1.0)


def _hubness(items: Tensor, queries: Tensor, temperature: float) -> Tensor:
    """``τ · log mean_b exp(b · g / τ)`` of every item g ``[n]``, over the queries b.

    Args:
        items: ``[n, dim]``.
        queries: ``[b, dim]``.
        temperature: τ.
    """
    queries = queries.to(items)
    rows = max(1, _CHUNK // len(queries))
    parts = [
        (matmul(items[start : start + rows], queries.T) / temperature).logsumexp(1)
        for start in range(0, len(items), rows)
    ]
    return temperature * (torch.cat(parts) - math.log(len(queries)))


def chosen_bank(model: AlignedModel, given: str | Path | None) -> QueryBank | None:
    """The bank that a command is to use.

    Args:
        model: an aligned model.
        given: a bank's file; ``none``; ``model`` for the one that the model carries; or ``None``
            for that one if there is one.

    Raises:
        ModelError: a file that is absent, damaged, or another model's; or the model carries none.
    """
    if given is None:
        return model.query_bank
    if str(given) == NO_BANK:
        return None
    if str(given) != OWN_BANK:
        return QueryBank.load(Path(given), model)
    if model.query_bank is None:
        raise ModelError(
            "the model carries no query bank", "Make one: lateen bank MODEL --captions FILE."
        )
    return model.query_bank
