"""A model as it is given to an index: known by its key before it is loaded, loaded when needed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import LateenError, ModelError
from lateen.files import content_key, read_json, write_json
from lateen.hardware import cache_folder
from lateen.indexing.about import IndexAbout
from lateen.indexing.text_tower import TextTower

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lateen.indexing.contents import Contents
    from lateen.model import AlignedModel
    from lateen.model.query_bank import QueryBank

_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "query_bank.npz")
_NO_BANK = "none"  # as lateen.model.query_bank has it, which loads torch
_WIDER = 1.25  # than the largest hubness that was seen, what vectors have room for
Array = np.ndarray[Any, np.dtype[np.float32]]


class GivenModel:
    """A model, or where it is.

    Args:
        model: an AlignedModel, or the folder or hub id of one, or of a plain CLIP.
        vision_encoder: where its vision encoder is now.
        text_encoder: likewise.
        key: its content key, if it is known.
    """

    def __init__(
        self, model: AlignedModel | str | Path, *, vision_encoder: str | None = None,
        text_encoder: str | None = None, key: str | None = None,
    ) -> None:  # fmt: skip
        self._key = key
        self._ready = None if isinstance(model, str | Path) else model
        self.path = str(model) if isinstance(model, str | Path) else ""
        if self.path and Path(self.path).expanduser().exists():
            self.path = str(Path(self.path).expanduser().resolve())
        self._encoders = vision_encoder, text_encoder

    @functools.cached_property
    def model(self) -> AlignedModel:
        """The model, loaded."""
        if self._ready is not None:
            return self._ready
        from lateen.model import open_model

        vision, text = self._encoders
        return open_model(self.path, vision_encoder=vision, text_encoder=text)

    @functools.cached_property
    def key(self) -> str:
        """Its content key; remembered for as long as its files stay as they are."""
        return self._key or str(self._known["key"])

    @property
    def files(self) -> str:
        """Size and time of the model's files; empty where it has none here."""
        folder = Path(self.path)
        if not self.path or not folder.is_dir():
            return ""
        found = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
        states = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in found]
        return content_key([list(state) for state in states])

    def bank_key(self, bank: str | Path | None) -> str:
        """The key of the query bank that is asked for; empty if there is none.

        Args:
            bank: as :func:`~lateen.model.query_bank.chosen_bank` takes it.
        """
        if bank is None:
            return str(self._known["bank"])
        if str(bank) == _NO_BANK:
            return ""
        from lateen.model.query_bank import chosen_bank

        found = chosen_bank(self.model, bank)
        return "" if found is None else found.key

    def describe(self, contents: Contents, bank: str | Path | None) -> IndexAbout:
        """What an index of some photographs by this model is about."""
        from lateen.indexing.cut_off import calibration_of
        from lateen.model.query_bank import chosen_bank

        chosen = chosen_bank(self.model, bank)
        likely = calibration_of(self.model, chosen) or (None, None, None)
        reach = 0.0
        if chosen is not None:
            reach = _WIDER * float(chosen.image_hubness(chosen.images.float()).abs().max())
        return IndexAbout(
            source=contents.name, root=contents.root, model=self.path, model_key=self.key,
            model_files=self.files, dim=self.model.config.head_settings.dim,
            scale=self.model.logit_scale.detach().exp().item(),
            bank="" if chosen is None else chosen.key,
            bank_words="" if chosen is None else f"the query bank ({chosen})", reach=reach,
            likely_scale=likely[0], likely_bias=likely[1], cut_off=likely[2],
            created=datetime.now().astimezone().isoformat(timespec="seconds"),
        )  # fmt: skip

    def vectors(self, features: torch.Tensor, about: IndexAbout, bank: QueryBank | None) -> Array:
        """What an index keeps of images: embedding, minus hubness, and what makes all equally long.

        Args:
            features: ``[n, feature dim]`` of its vision encoder.
            about: what the index is about.
            bank: the query bank.

        Returns:
            ``[n, width]``; the inner product with :func:`query_vector` is the adjusted cosine.
        """
        from lateen.model.model import project_rows

        vectors = np.zeros((len(features), about.width), np.float32)
        if not len(features):
            return vectors
        embeddings = project_rows(self.model.project_image, features, range(len(features)))
        vectors[:, : about.dim] = embeddings.float().numpy()
        if bank is not None:
            hubness = bank.image_hubness(embeddings).numpy()
            vectors[:, about.dim] = -hubness
            vectors[:, about.dim + 1] = np.sqrt(np.maximum(0, about.reach**2 - hubness**2))
        return vectors

    # -- queries -----------------------------------------------------------------------------------

    def texts(self, texts: Sequence[str]) -> Array:
        """Embeddings of texts ``[n, dim]``, L2-normalised; without torch where there is a tower."""
        tower = self._tower
        return self.model.encode_text(list(texts)).numpy() if tower is None else tower.texts(texts)

    def images(self, images: Sequence[Image | Path]) -> Array:
        """Embeddings of images ``[n, dim]``, L2-normalised."""
        return self.model.encode_image(list(images)).numpy()

    @functools.cached_property
    def _tower(self) -> TextTower | None:
        tower = TextTower.open(self.key)
        if tower is None and self.path:
            tower = TextTower.make(self.model, self.key)
        return tower

    @property
    def _known(self) -> dict[str, Any]:
        """Its key and that of its bank, from the cache or from the model."""
        if self._ready is not None or not self.files:
            return self._keys()
        moved = "" if self._encoders == (None, None) else str(self._encoders)
        name = hashlib.sha256(f"{self.path}{moved}".encode()).hexdigest()[:24]
        memo = cache_folder() / "models" / f"{name}.json"
        with contextlib.suppress(OSError, LateenError, KeyError, TypeError):
            known: dict[str, Any] = read_json(memo)
            if known["files"] == self.files:
                return known
        known = {"files": self.files, "path": self.path, **self._keys()}
        with contextlib.suppress(OSError, LateenError):  # where nothing can be kept
            write_json(memo, known)
        return known

    def _keys(self) -> dict[str, str]:
        bank = self.model.query_bank
        return {"key": self.model.content_key, "bank": "" if bank is None else bank.key}


def query_vector(embedding: Array, about: IndexAbout, hubness: float) -> Array:
    """A query as an index looks for it, ``[width]``.

    Args:
        embedding: ``[dim]``.
        about: what the index is about.
        hubness: how much of the hubness of images is taken off: 1 for a sentence, 0 for an image.
    """
    vector = np.zeros(about.width, np.float32)
    vector[: about.dim] = embedding
    vector[about.dim] = hubness
    return vector


def check_same(given: GivenModel, about: IndexAbout, place: str) -> None:
    """See that an index is of a model.

    Raises:
        ModelError: it is not.
    """
    if given.key != about.model_key:
        raise ModelError(
            f"{place} is an index of another model ({about.model or 'one given as an object'})",
            "Give that model; or bring the index to this one: lateen index ... --overwrite.",
        )
