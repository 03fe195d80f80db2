"""Encoders that run in another Python environment, with the torch and transformers that are there.

Here stays what decides a store's key: files are found and hashed, and images become pixel values,
by the code that does so for every encoder. There the network is loaded, texts are tokenised and
the forward pass runs. So the key is that of the same encoder here, and a model trained with
features of one environment takes its encoder from another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from PIL.Image import Image

from lateen.device import default_batch
from lateen.encoders.base import Encoder, EncoderInfo, EncoderOptions, view_info
from lateen.encoders.openai_server import is_server
from lateen.encoders.other_python import OtherPython
from lateen.encoders.own import is_factory
from lateen.encoders.request import Request, tokenizer_files
from lateen.encoders.resolve import gguf_file
from lateen.encoders.specs import family_of
from lateen.encoders.text import LONGEST, TextFacts
from lateen.encoders.vision import (
    describe_processing,
    load_processor,
    pixel_values,
    processed_size,
)
from lateen.encoders.weights import weights_hash
from lateen.errors import EncoderError, UsageError
from lateen.progress import log

_BYTES_PER_TOKEN = 4  # of a text, about: what a batch of texts is cut by
# What load.py asks of a configuration.
_CONFIG = ("model_type", "vision_config", "text_config", "num_channels", "num_attention_heads",
           "num_heads", "hidden_size", "num_hidden_layers")  # fmt: skip


def check_elsewhere(name: str, options: EncoderOptions) -> None:
    """See that an encoder is one that can run in another environment.

    Raises:
        UsageError: it is not, or an option of it cannot be had there.
    """
    kinds = {
        "is code of your own": is_factory(name),
        "is behind a server": is_server(name),
        "is a GGUF file": gguf_file(Path(name).expanduser()) is not None,
    }
    for kind, holds in kinds.items():
        if holds:
            raise UsageError(
                f"{name} {kind}, and does not run in another Python", "Leave python out."
            )
    if options.untrained:
        raise UsageError(
            f"{name} is to have random weights, and those are not made in another Python",
            "Leave untrained or python out.",
        )


@dataclass(frozen=True)
class PreparedText:
    """A text that is tokenised elsewhere; its length is about that in tokens.

    Attributes:
        text: without the prompt.
        tokens: that it has, by an estimate.
    """

    text: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens


class ElsewhereEncoder:
    """An encoder that runs in another Python environment.

    Args:
        there: the process that has loaded it.
        info: its description; ``dim`` is filled in here.
        processor: of images; ``None`` where texts are encoded.
        settings: for a text model: what is done to texts.
        spatial: whether its layers are maps, which have no pooling but the mean.

    Attributes:
        info: its description; what made its features does not count in its key.
        batch: images, or thousands of tokens by an estimate, per forward pass.
        versions: of what computes there.
        where: the device that it computes on.

    Raises:
        EncoderError: there is no such pooling or layer, or the encoder fails on a first input.
    """

    def __init__(
        self, there: OtherPython, info: EncoderInfo, *, processor: Any = None,
        settings: Mapping[str, Any] | None = None, spatial: bool = False,
    ) -> None:  # fmt: skip
        self._there = there
        self._processor = processor
        self._spatial = spatial
        self._view = {
            "pooling": info.pooling, "layer": info.layer,
            "normalize": bool(info.preprocessing.get("normalize")),
        }  # fmt: skip
        asked: dict[str, Any] = {} if settings is None else {"settings": dict(settings)}
        found, _ = there.ask("view", view=self._view, doing="encoding a first input", **asked)
        self.info = replace(info, dim=found["dim"])
        self.batch = default_batch(info.modality == "image", torch.device(there.device))
        self.where = there.device
        self.versions: Mapping[str, str] = {
            f"{name} there": version for name, version in there.versions.items()
        }

    def prepare(self, items: Sequence[Any]) -> Sequence[Any]:
        """Texts, to be tokenised there; or RGB images to pixel values ``[3, H, W]``.

        Raises:
            ValueError: an image is over 100 times as long as wide.
        """
        if self._processor is None:
            return [PreparedText(text, self._estimate(text)) for text in items]
        images: Sequence[Image] = items
        return pixel_values(self._processor, images)

    def _estimate(self, text: str) -> int:
        """About how many tokens a text and its prompt have, the two around them included."""
        known = self.info.preprocessing
        size = len(((known.get("prompt") or "") + text).encode(errors="replace"))
        return min(size // _BYTES_PER_TOKEN + 2, known.get("max_tokens") or LONGEST)

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Features ``[n, dim]``, float32.

        Raises:
            EncoderError: the process there fails or ends, or gives features of another shape.
        """
        return self._encode(prepared, [self])[0]

    def encode_accepted(self, prepared: Sequence[Any]) -> torch.Tensor:
        """As :meth:`encode`: no item is refused."""
        return self.encode(prepared)

    def refusal(self, prepared: Any) -> str:  # noqa: ARG002
        """Why a row is not finite."""
        return "the encoder gave NaN or infinity"

    def _encode(
        self, prepared: Sequence[Any], views: Sequence[ElsewhereEncoder]
    ) -> list[torch.Tensor]:
        if not prepared:
            return [torch.empty(0, view.info.dim) for view in views]
        asked: dict[str, Any] = {"views": [view._view for view in views]}
        pixels = []
        if self._processor is None:
            asked["texts"] = [each.text for each in prepared]
        else:
            pixels = [torch.stack(list(prepared)).numpy()]
        _, arrays = self._there.ask("encode", pixels, doing="encoding", **asked)
        due = [(len(prepared), view.info.dim) for view in views]
        given = [array.shape for array in arrays]
        if given != due:
            raise EncoderError(
                f"{self.info.id} gave features of shape {_shapes(given)} in "
                f"{self._there.python}, where {_shapes(due)} is due",
                "Its model does not give one vector of one length for each input.",
            )
        return [torch.from_numpy(array) for array in arrays]


class LayeredElsewhereEncoder(ElsewhereEncoder):
    """One whose network also gives other layers and poolings."""

    def view(self, pooling: str | None = None, layer: int | None = None) -> Encoder:
        """The same network with another pooling and layer; see
        :class:`~lateen.encoders.ViewedEncoder`."""
        info = view_info(self.info, pooling, layer)
        if self._spatial and pooling is None and layer is not None:
            load = {**info.load, "pooling": "mean"} if "pooling" in info.load else info.load
            info = replace(info, pooling="mean", load=load)
        if info.modality == "text" and (pooling is not None or layer is not None):
            info = replace(info, preprocessing={**info.preprocessing, "normalize": False})
        return LayeredElsewhereEncoder(
            self._there, info, processor=self._processor, spatial=self._spatial
        )

    def encode_views(self, prepared: Sequence[Any], views: Sequence[Encoder]) -> list[torch.Tensor]:
        """Features ``[n, dim]`` of every view, float32, from one forward pass."""
        own = [view for view in views if isinstance(view, LayeredElsewhereEncoder)]
        return self._encode(prepared, own)

    def layers(self) -> list[int]:
        """The hidden layers that there are; see :class:`~lateen.encoders.LayeredEncoder`."""
        layers: list[int] = self._there.ask("layers", doing="counting layers")[0]["layers"]
        return layers

    @property
    def shared(self) -> tuple[int, ...]:
        """What its views have in common; see :class:`~lateen.encoders.LayeredEncoder`."""
        return (id(self._there),)


def config_there(request: Request) -> Any:
    """What the other environment's transformers says of a model's configuration: an object with
    some of its attributes."""
    found, _ = _process(request).ask(
        "config", folder=str(request.folder), remote=request.remote, names=_CONFIG,
        doing="reading its configuration",
    )  # fmt: skip
    return SimpleNamespace(**found)


def texts_there(
    request: Request, folder: Path, pooling: str, *, max_tokens: int | None,
    normalize: bool = False, tower: bool = False,
) -> Encoder:  # fmt: skip
    """A transformers text model.

    Args:
        request: what is asked for.
        folder: of the model.
        pooling: of its tokens.
        max_tokens: the limit that is asked for.
        normalize: whether features are L2-normalised.
        tower: whether it is one of the two of the model in the folder.
    """
    facts = _load(request, "texts", folder, tower=tower)
    longest = facts.pop("tower_tokens")
    known = TextFacts(**facts)
    needs = request.spec.needs or family_of(known.model_type).needs
    settings = known.settings(
        needs, tokenizer_files(folder), prompt=request.prompt,
        max_tokens=max_tokens or longest, normalize=normalize,
    )  # fmt: skip
    info = request.info("text", pooling, weights_hash(folder), settings)
    return LayeredElsewhereEncoder(_process(request), info, settings=settings)


def images_there(
    request: Request, pooling: str, *, tower: bool = False,
    config: Mapping[str, Any] = MappingProxyType({}),
) -> Encoder:  # fmt: skip
    """A transformers vision model; images become pixel values here.

    Args:
        request: what is asked for.
        pooling: of its tokens.
        tower: whether it is one of the two of the model in the folder.
        config: values in place of the configuration's own.
    """
    folder = request.folder
    processor = load_processor(folder, trust_remote_code=request.remote)
    facts = _load(
        request, "images", folder, tower=tower, config=config, size=processed_size(processor)
    )
    info = request.info("image", pooling, weights_hash(folder), describe_processing(processor))
    return LayeredElsewhereEncoder(
        _process(request), info, processor=processor, spatial=facts["spatial"]
    )


def library_there(request: Request, info: EncoderInfo) -> Encoder:
    """A model that runs inside the other environment's sentence-transformers.

    Args:
        request: what is asked for.
        info: its description.
    """
    _load(request, "library", request.folder, settings=dict(info.preprocessing))
    return ElsewhereEncoder(_process(request), info)


def _load(
    request: Request, kind: str, folder: Path, *, tower: bool = False,
    config: Mapping[str, Any] = MappingProxyType({}), **asked: Any,
) -> dict[str, Any]:  # fmt: skip
    """Have the model loaded there; what is known of it then."""
    there = _process(request)
    packages = ", ".join(f"{name} {version}" for name, version in there.versions.items())
    log.info("encoder %s: runs in %s (%s) on %s", request.name, there.python, packages,
             there.device)  # fmt: skip
    facts, _ = there.ask(
        "load", kind=kind, name=request.name, folder=str(folder), remote=request.remote,
        device=there.device, precision=request.precision, tower=tower, config=dict(config),
        doing="loading", **asked,
    )  # fmt: skip
    return facts


def _process(request: Request) -> OtherPython:
    assert request.there is not None
    return request.there


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes)
