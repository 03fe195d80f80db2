"""A model for mteb (2.26), whose tasks of images and texts are MIEB's.

``mteb.evaluate(mteb_model(FOLDER), tasks)`` runs them. What is scored are plain cosines: a query
bank, where the model carries one, is not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lateen.device import default_batch
from lateen.errors import MissingExtraError, UsageError
from lateen.model import AlignedModel, open_model
from lateen.model.card import title_of
from lateen.progress import bar

if TYPE_CHECKING:
    from mteb.models import ModelMeta

_Batch = Mapping[str, Any]
_KINDS = ("text", "image")
_MEGABYTE = 2**20


def mteb_model(model: AlignedModel | str | Path, *, name: str | None = None) -> MtebModel:
    """A model as mteb takes one.

    Args:
        model: an aligned model, or the folder or hub id of one or of a plain CLIP.
        name: ``organization/name``, under which mteb keeps results; of a model of the hub its id
            if not given, else ``lateen/`` and the name of its folder.

    Raises:
        ModelError: there is no such model.
        EncoderError: an encoder is not where it was.
        MissingExtraError: mteb is not installed.
        UsageError: the name has no organization.
    """
    opened = model if isinstance(model, AlignedModel) else open_model(model)
    return MtebModel(opened, name or _name_of(model, opened))


class MtebModel:
    """What mteb calls an encoder (its ``EncoderProtocol``), of texts and images in one space.

    Texts get the model's own prompt, where it has one, and no instruction of a task: they are not
    what it was trained with.

    Args:
        model: an aligned model, with its encoders.
        name: ``organization/name``.

    Attributes:
        model: as given.
        mteb_model_meta: what mteb keeps of it. Its ``revision`` is the model's content key; what
            lateen cannot know, as its languages and licence, is ``None``.
    """

    def __init__(self, model: AlignedModel, name: str) -> None:
        self.model = model
        self.mteb_model_meta = _meta(model, name)

    def encode(
        self, inputs: Any, *, task_metadata: Any, hf_split: str, hf_subset: str,
        prompt_type: Any = None, batch_size: int | None = None, show_progress_bar: bool = True,
        precision: str | None = None,
    ) -> Tensor:  # fmt: skip
        """Embeddings ``[n, dim]``, float32 and L2-normalised, of the rows of a loader.

        Rows with a text and an image get the embedding that :meth:`get_fused_embeddings` gives.

        Args:
            inputs: a ``DataLoader`` of batches with ``text``, ``image`` or both.
            task_metadata: of the task; named where something is wrong.
            hf_split: not used.
            hf_subset: not used.
            prompt_type: not used: queries and documents are embedded alike.
            batch_size: images per forward pass; what fits the cache or the GPU if not given.
            show_progress_bar: whether a terminal shows how far it is.
            precision: ``float32`` or nothing.

        Raises:
            UsageError: rows of other kinds (sound, video), or another precision.
        """
        del hf_split, hf_subset, prompt_type
        if precision not in (None, "float32"):
            raise UsageError(
                f"lateen gives mteb embeddings in float32, and not in {precision}",
                "Leave precision out of encode_kwargs.",
            )
        kinds = _kinds_of(inputs.dataset.features, task_metadata.name)
        if kinds == ["text"]:
            return self.get_text_embeddings(inputs)
        get = self.get_image_embeddings if kinds == ["image"] else self.get_fused_embeddings
        return get(inputs, batch_size=batch_size, show_progress_bar=show_progress_bar)

    def get_text_embeddings(self, texts: Iterable[_Batch]) -> Tensor:
        """Embeddings ``[n, dim]``, L2-normalised, of the texts of a loader.

        Args:
            texts: batches with ``text``.
        """
        return self.model.encode_text([text for batch in texts for text in batch["text"]])

    def get_image_embeddings(
        self, images: Iterable[_Batch], *, batch_size: int | None = None,
        show_progress_bar: bool = True,
    ) -> Tensor:  # fmt: skip
        """Embeddings ``[n, dim]``, L2-normalised, of the images of a loader.

        Args:
            images: batches with ``image``, PIL images; their size is the loader's own matter.
            batch_size: images per forward pass.
            show_progress_bar: whether a terminal shows how far it is.
        """
        size = batch_size or default_batch(True)
        waiting: list[Any] = []
        parts = [torch.empty(0, self.model.config.head_settings.dim)]
        with (
            bar(None, "images for mteb", "image", stage=False)
            if show_progress_bar
            else nullcontext()
        ) as shown:
            for batch in images:
                waiting += batch["image"]
                if shown is not None:
                    shown.update(len(batch["image"]))
                if len(waiting) >= size:
                    parts.append(self.model.encode_image(waiting, batch_size=size))
                    waiting = []
        parts.append(self.model.encode_image(waiting, batch_size=size))
        return torch.cat(parts)

    def get_fused_embeddings(
        self, inputs: Iterable[_Batch], *, batch_size: int | None = None,
        show_progress_bar: bool = True,
    ) -> Tensor:  # fmt: skip
        """Embeddings ``[n, dim]`` of rows that are a text and an image: the sum of both
        embeddings, each L2-normalised, and normalised again.

        Args:
            inputs: batches with ``text`` and ``image``; read twice.
            batch_size: images per forward pass.
            show_progress_bar: whether a terminal shows how far it is.
        """
        images = self.get_image_embeddings(
            inputs, batch_size=batch_size, show_progress_bar=show_progress_bar
        )
        return normalize(self.get_text_embeddings(inputs) + images, dim=-1)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines ``[n, m]`` of all of ``embeddings1`` ``[n, dim]`` with all of ``embeddings2``
        ``[m, dim]``."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine of each of ``embeddings1`` ``[n, dim]`` with that of ``embeddings2``: ``[n]``."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)


def _unit(embeddings: Any) -> Tensor:
    """Embeddings ``[n, dim]``, or one ``[dim]``, as L2-normalised rows."""
    rows = torch.as_tensor(embeddings).float()
    return normalize(rows if rows.ndim > 1 else rows[None], dim=-1)


def _kinds_of(columns: Iterable[str], task: str) -> list[str]:
    """Which of text and image rows have.

    Raises:
        UsageError: none of them, or others too.
    """
    named = set(columns)
    other = sorted(named & {"audio", "video"})
    kinds = [kind for kind in _KINDS if kind in named]
    if other or not kinds:
        what = " and ".join(other) or f"the columns {', '.join(sorted(named))}"
        raise UsageError(
            f"mteb's task {task} gives {what} to embed, and a model of lateen reads texts and "
            "images", "Choose tasks whose modalities are text and image.",
        )  # fmt: skip
    return kinds


def _name_of(given: AlignedModel | str | Path, model: AlignedModel) -> str:
    if not isinstance(given, AlignedModel) and not Path(given).expanduser().exists():
        return str(given)  # of the hub, as it was opened
    folder = model.folder if isinstance(given, AlignedModel) else Path(given).expanduser()
    return f"lateen/{'model' if folder is None else title_of(folder)}"


def _meta(model: AlignedModel, name: str) -> ModelMeta:
    try:
        from mteb.models import ModelMeta
    except ImportError as error:
        raise MissingExtraError(str(error.name), "mteb", "a model for mteb") from error
    if "/" not in name:
        raise UsageError(
            f"mteb's names are organization/name, and {name!r} is not", f"Say my/{name}."
        )
    weights = _weights(model)
    return ModelMeta(
        loader=None, name=name, revision=model.content_key, release_date=None, languages=None,
        n_parameters=weights and sum(each.numel() for each in weights),
        memory_usage_mb=weights and sum(each.nbytes for each in weights) / _MEGABYTE,
        max_tokens=_max_tokens(model.text_encoder.info.preprocessing),
        embed_dim=model.config.head_settings.dim, license=None, open_weights=None,
        public_training_code=None, public_training_data=None, framework=["PyTorch"],
        similarity_fn_name="cosine", use_instructions=False, training_datasets=None,
        modalities=["image", "text"],
    )  # fmt: skip


def _weights(model: AlignedModel) -> Sequence[Tensor] | None:
    """All weights, each once; ``None`` where an encoder does not show its own, as code need not."""
    found = list(model.parameters())
    for encoder in (model.vision_encoder, model.text_encoder):
        for part in getattr(encoder, "parts", [encoder]):
            if not isinstance(network := getattr(part, "network", None), torch.nn.Module):
                return None
            found += [*network.parameters()]
    return list({id(each): each for each in found}.values())


def _max_tokens(preprocessing: Mapping[str, Any]) -> int | None:
    """Tokens that a text encoder reads, or the part of a fused one that reads most."""
    parts = [part["preprocessing"] for part in preprocessing.get("fused", [])] or [preprocessing]
    return max((part["max_tokens"] for part in parts if part.get("max_tokens")), default=None)
