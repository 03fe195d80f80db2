"""A query bank: what a model takes off an image that answers everyone's query, and off such a text.

In a shared space a few items, the hubs, are near to almost any query (Radovanović et al. 2010), and
stand before the right ones. How near an item is to queries that are known beforehand tells it: the
bank has embeddings of training captions, for images, and of training images, for texts and classes.
No weight is trained, and no query that is judged is looked at (but by τ, where what is judged chose
the step, too).

An item g has the hubness ``τ · log mean_b exp(b · g / τ)`` over the bank's embeddings b, which is
taken off its cosine with every query: the inverted softmax of QB-Norm (Bogolin et al., CVPR 2022).
A wrong τ costs more than it gains. Here it is 1 / t, of the t at which σ(t · cosine + b) is the
probability that a text is an image's own (:mod:`lateen.training.calibration`): where recall is
highest, too, within 0.3 points (docs/results.md).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.device import matmul
from lateen.encoders import SIDES
from lateen.errors import ModelError, UsageError
from lateen.features import Pairs
from lateen.files import canonical_json, content_key
from lateen.metrics import Features
from lateen.model.records import open_record, write_record
from lateen.model.trained_on import HashSet, ImageGroup
from lateen.progress import log
from lateen.training.calibration import MOST, Calibration

if TYPE_CHECKING:
    from lateen.model.model import AlignedModel

QUERY_BANK = "query_bank.npz"
"""The file of a model's folder that the bank is in."""
NO_BANK, OWN_BANK = "none", "model"
"""What says that no bank is to be used, or the model's own, where a file could be named."""
_VERSION = 1
_FEWEST = 2  # what is taken off by a bank of one is a similarity, and tells no hub
_ONE_IN = 512  # among how many texts one is an image's own, for τ
_COLDEST = 0.01  # τ, as of CLIP's, whose t is at most 100
_PROBES = 8  # items whose features are kept, by which the bank's model is known
_ALIKE = 0.99  # cosine of a probe's embedding by that model, in whatever number format
_KNOWN_BY = ("weights", "pooling", "layer", "dim")  # of an encoder
_CHUNK = 1 << 24  # similarities at a time
_ROWS = 8192  # items read at a time
_AGAIN = "Make one of this model: lateen bank MODEL --captions FILE; or leave it out: --bank none."


@dataclass(frozen=True)
class QueryBank:
    """Embeddings of images and captions that a model was trained on.

    Attributes:
        images: ``[b, dim]`` float16, L2-normalised: known queries of texts and classes.
        texts: ``[c, dim]`` likewise: known queries of images.
        temperature: τ.
        probes: features of the first images and texts, by side.
        encoders: of the model that embedded them, by side: what tells one from another.
        source: hashes of the images that they are of, or whose captions they are.
        calibration: t and b of the probability that a text is an image's own; ``None`` if they
            could not be fitted, or were not kept.
    """

    images: Tensor
    texts: Tensor
    temperature: float
    probes: Mapping[str, Tensor]
    encoders: Mapping[str, Any]
    source: ImageGroup
    calibration: Calibration | None = None

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

        check_size(min(size, len(pairs)))
        random = np.random.default_rng(seed)
        each = math.ceil(size / len(pairs.texts))
        images = np.sort(random.permutation(len(pairs))[:size])
        captions = [np.sort(random.permutation(len(c.rows))[:each]) for c in pairs.texts]
        texts = [
            project_rows(model.project_text, column.store, column.rows[chosen])
            for column, chosen in zip(pairs.texts, captions, strict=True)
        ]
        first, image_rows = pairs.texts[0], pairs.image_rows[images]
        owners = [c.owner[chosen] for c, chosen in zip(pairs.texts, captions, strict=True)]
        source = np.unique(np.concatenate([images, *owners]))
        fit = _calibration(model, held_out)
        ids = [pairs.ids[sample] for sample in source]
        return cls(
            project_rows(model.project_image, pairs.image, image_rows).half(),
            torch.cat(texts).half(), _temperature(model, fit),
            {
                "images": pairs.image[image_rows[:_PROBES]],
                "texts": first.store[first.rows[captions[0][:_PROBES]]],
            },
            _encoders(model),
            ImageGroup.of(ids, pairs.image.image_hashes(pairs.image_rows[source])),
            fit,
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{len(self.images):,} images and {len(self.texts):,} captions"

    @cached_property
    def key(self) -> str:
        """Content key (64 hex digits) of the bank: numbers that are had with it depend on it."""
        parts = [hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in (self.images, self.texts)]
        return content_key([*parts, self.temperature])

    def image_hubness(self, images: Features) -> Tensor:
        """How near image embeddings ``[n, dim]``, L2-normalised, are to the captions: ``[n]``."""
        return _hubness(images, self.texts, self.temperature)

    def text_hubness(self, texts: Features) -> Tensor:
        """How near text or class embeddings ``[n, dim]``, L2-normalised, are to the images."""
        return _hubness(texts, self.images, self.temperature)

    def extend_images(self, images: Features) -> ExtendedRows:
        """Image embeddings ``[n, dim]`` with minus their hubness and 1 behind them.

        The inner product with what :meth:`extend_texts` gives is the cosine less both hubnesses.
        That of the query is the same for all items and orders none, so that the product ranks
        images for a text, and texts for an image. An index of inner products needs nothing else.
        """
        hubness = self.image_hubness(images)
        return ExtendedRows(images, torch.stack([-hubness, torch.ones_like(hubness)], 1))

    def extend_texts(self, texts: Features) -> ExtendedRows:
        """Text or class embeddings ``[n, dim]`` with 1 and minus their hubness behind them."""
        hubness = self.text_hubness(texts)
        return ExtendedRows(texts, torch.stack([torch.ones_like(hubness), -hubness], 1))

    def fits(self, model: AlignedModel) -> bool:
        """Whether a model embeds what is known as the bank has it, in whatever number format."""
        if canonical_json(_encoders(model)) != canonical_json(self.encoders):
            return False
        if model.config.head_settings.dim != self.images.shape[1]:
            return False
        with torch.no_grad():
            now = (
                model.project_image(self.probes["images"]),
                model.project_text(self.probes["texts"]),
            )
        return all(
            bool((F.cosine_similarity(new.float().cpu(), old[: len(new)].float()) > _ALIKE).all())
            for new, old in zip(now, (self.images, self.texts), strict=True)
        )

    def check_model(self, model: AlignedModel) -> None:
        """See that the bank is of a model.

        Raises:
            ModelError: other heads or encoders have embedded it.
        """
        if not self.fits(model):
            raise ModelError(
                "the query bank was embedded by another model, or before the heads were changed",
                _AGAIN,
            )

    def without_source(self) -> QueryBank:
        """The same without the hashes of the images that it is of."""
        return replace(self, source=ImageGroup.of([], np.zeros(0, np.uint64)))

    def save(self, path: Path) -> None:
        """Write the bank, whole or not at all."""
        about = {
            "encoders": self.encoders, "temperature": self.temperature,
            "calibration": None if self.calibration is None else self.calibration.as_dict(),
            "count": self.source.count, "without_hash": self.source.without_hash,
        }  # fmt: skip
        arrays = {
            "images": self.images.numpy(), "texts": self.texts.numpy(),
            **{f"probe_{name}": features.numpy() for name, features in self.probes.items()},
            "source_ids": self.source.ids.values, "source_images": self.source.images.values,
        }  # fmt: skip
        write_record(path, _VERSION, about, arrays)

    @classmethod
    def load(cls, path: Path, model: AlignedModel | None = None) -> QueryBank:
        """Read a bank.

        Args:
            path: the file.
            model: that has to be the one that embedded it, if it is given.

        Raises:
            ModelError: it is absent, damaged, of a later version, of another model, or of one item.
        """
        if not path.is_file():
            raise ModelError(
                f"there is no query bank {path}", f"Give a file, {NO_BANK} or {OWN_BANK}."
            )
        with open_record(path, _VERSION, "no query bank, or damaged", _AGAIN) as (about, arrays):
            source = ImageGroup(
                int(about["count"]), int(about["without_hash"]),
                HashSet(arrays["source_ids"]), HashSet(arrays["source_images"]),
            )  # fmt: skip
            fit = about.get("calibration")
            probes = {
                name: torch.from_numpy(arrays[f"probe_{name}"]) for name in ("images", "texts")
            }
            bank = cls(
                _checked(arrays["images"]), _checked(arrays["texts"]), float(about["temperature"]),
                probes, about["encoders"], source, fit and Calibration(**fit),
            )  # fmt: skip
        if model is not None:
            bank.check_model(model)
        return bank


@dataclass(frozen=True)
class ExtendedRows:
    """Embeddings with further values behind each, put together when they are read.

    Attributes:
        rows: ``[n, dim]``.
        behind: ``[n, 2]``.
    """

    rows: Features
    behind: Tensor

    def __len__(self) -> int:
        return len(self.behind)

    def __getitem__(self, part: slice) -> Tensor:
        rows = self.rows[part]
        return torch.cat([rows, self.behind[part].to(rows)], 1)


def check_size(size: int) -> None:
    """See that a bank of so many items tells anything.

    Raises:
        UsageError: it is of one, or of none.
    """
    if size < _FEWEST:
        raise UsageError(
            f"a query bank of {size} tells no hubs from others",
            f"Make it of at least {_FEWEST} images with captions.",
        )


def _encoders(model: AlignedModel) -> dict[str, Any]:
    """What tells a model's encoders from others, by side; of imported features the name alone."""
    known: dict[str, Any] = {}
    for side in SIDES:
        info = getattr(model.config, side) or {}
        known[side] = {name: info.get(name) for name in _KNOWN_BY}
        if "weights" not in info:
            known[side]["id"] = Path(str(info.get("id"))).name
    return known


def _checked(embeddings: np.ndarray[Any, Any]) -> Tensor:
    if embeddings.dtype != np.float16 or embeddings.ndim != 2:
        raise ValueError(f"embeddings are {embeddings.dtype} of {embeddings.ndim} dimensions")
    if len(embeddings) < _FEWEST:
        raise ValueError(f"{len(embeddings)} embeddings, at least {_FEWEST} are needed")
    return torch.from_numpy(embeddings)


def _calibration(model: AlignedModel, pairs: Pairs) -> Calibration | None:
    """t and b of a model, by pairs that trained no weight: those of some images are enough."""
    from lateen.model.model import project_rows

    some = pairs.take(pairs.spread(MOST))
    column = some.texts[0]
    return Calibration.of(
        project_rows(model.project_image, some.image, some.image_rows),
        project_rows(model.project_text, column.store, column.rows),
        torch.from_numpy(column.owner), one_in=_ONE_IN,
    )  # fmt: skip


def _temperature(model: AlignedModel, fit: Calibration | None) -> float:
    """τ for a model, of its calibration."""
    scale = model.logit_scale.detach().exp().item() if fit is None else fit.scale
    if fit is None:
        log.info(
            "query bank: no temperature can be fitted, and that of the model's own scale is taken"
        )
    return min(max(1 / scale, _COLDEST), 1.0)


@torch.no_grad()
def _hubness(items: Features, queries: Tensor, temperature: float) -> Tensor:
    """``τ · log mean_b exp(b · g / τ)`` of every item g ``[n]``, over the queries b.

    Args:
        items: ``[n, dim]``; read a few thousand at a time.
        queries: ``[b, dim]``.
        temperature: τ.
    """
    rows = max(1, min(_ROWS, _CHUNK // len(queries)))
    known = queries.to(items[:1].device).float().T
    parts = []
    for start in range(0, len(items), rows):
        similar = matmul(items[start : start + rows].float(), known) / temperature
        parts.append(similar.logsumexp(1))
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
