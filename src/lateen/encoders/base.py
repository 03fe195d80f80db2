"""What an encoder is: its description, its protocol, and the two sides of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lateen.files import content_key

if TYPE_CHECKING:  # what lists encoders need not load it
    import torch

    from lateen.config import Precision

Modality = Literal["image", "text"]  # what an encoder reads
Side = Literal["vision", "text"]  # which of a model's two encoders it is
SIDES: tuple[Side, ...] = ("vision", "text")
Attention = Literal["qk", "qq", "kk"]  # which projections weigh patches in a last layer


def modality_of(side: Side) -> Modality:
    """What the encoder of a side reads: images on the vision side, texts on the other."""
    return "image" if side == "vision" else "text"


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder is loaded, besides its name and its modality.

    Attributes are the arguments of :func:`~lateen.encoders.load_encoder` with the same names.
    """

    pooling: str | None = None
    layer: int | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    revision: str | None = None
    precision: Precision = "auto"
    untrained: bool = False
    device: str = "auto"
    trust_remote_code: bool = False
    python: str | None = None
    parts: Sequence[Mapping[str, Any]] = ()
    weights: Sequence[float] | None = None

    def recorded(self) -> dict[str, Any]:
        """What a model keeps of them, to load the encoder again; ``None`` where nothing is asked.

        The device is chosen anew, and whether to run foreign code is kept apart.
        """
        return {
            "pooling": self.pooling, "layer": self.layer, "prompt": self.prompt,
            "max_tokens": self.max_tokens, "revision": self.revision,
            "precision": None if self.precision == "auto" else self.precision,
            "untrained": self.untrained or None, "python": self.python,
        }  # fmt: skip


@dataclass(frozen=True)
class EncoderInfo:
    """Everything about an encoder that can change the features it gives.

    Attributes:
        id: the name the user gave: a hub id, a folder, or ``package.module:factory``.
        modality: ``image`` or ``text``.
        dim: length of a feature vector.
        pooling: how token features become one vector (``cls``, ``mean``, ``cls+mean``, …).
        layer: index into the hidden states (0 = embeddings), or ``None`` for the final output.
        weights: content key of the weights and the model's configuration, or the version of a
            hand-written encoder.
        revision: the hub commit, if the weights came from the hub.
        preprocessing: image size, resampling, mean and std; or token limit and prompt.
        precision: the arithmetic of the forward pass, ``float32`` or ``bfloat16``.
        load: the arguments of :func:`~lateen.encoders.load_encoder` that load it again.
    """

    id: str
    modality: Modality
    dim: int
    pooling: str
    weights: str
    layer: int | None = None
    revision: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    load: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return asdict(self)

    @property
    def key(self) -> str:
        """Content key (64 hex digits) of the fields that say what it computes.

        Where it was found does not count: the same weights are the same encoder, whatever their
        folder is called.
        """
        where = ("id", "revision", "load")
        return content_key({k: v for k, v in self.as_dict().items() if k not in where})


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder of images or texts.

    ``prepare`` is the part that needs no accelerator and runs in worker threads: images are
    resized and normalised, texts are tokenised. ``encode`` is the forward pass. The length of a
    prepared text (``len``) is what token-budget batching counts.
    """

    info: EncoderInfo

    def prepare(self, items: Sequence[Any]) -> Sequence[Any]:
        """PIL images (RGB) or strings to what :meth:`encode` takes, one for one."""

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Features ``[len(prepared), info.dim]``, float32, on the CPU."""


@runtime_checkable
class PatchEncoder(Encoder, Protocol):
    """An image encoder that can also give one feature per patch."""

    def encode_patches(self, prepared: Sequence[Any]) -> torch.Tensor:
        """Patch features ``[len(prepared), patches, info.dim]``, float32, in raster order.

        With ``cls+mean`` pooling each is ``concat(CLS, patch)`` (METHODS §1.1, dense mode).
        """


@runtime_checkable
class ViewedEncoder(Encoder, Protocol):
    """An encoder whose network also gives other features: other layers, other poolings."""

    def view(self, pooling: str | None = None, layer: int | None = None) -> Encoder:
        """An encoder of this network with another pooling and layer; nothing is loaded again.

        It is the one, to its key, that :func:`~lateen.encoders.load_encoder` gives with these
        arguments beside this encoder's own.

        Raises:
            EncoderError: the network has no such pooling or layer; the choices are listed.
        """

    def encode_views(self, prepared: Sequence[Any], views: Sequence[Encoder]) -> list[torch.Tensor]:
        """What each of ``views``, made by :meth:`view`, gives for ``prepared``, in one pass."""


@runtime_checkable
class LayeredEncoder(ViewedEncoder, Protocol):
    """An encoder that says which hidden layers its network has."""

    def layers(self) -> list[int]:
        """The hidden layers that :meth:`view` takes, but for a last one that is the output."""

    @property
    def shared(self) -> tuple[int, ...]:
        """What encoders have in common that prepare alike and can share a forward pass."""


@runtime_checkable
class RemoteEncoder(Encoder, Protocol):
    """An encoder that runs elsewhere, and may refuse single items.

    Attributes:
        batch: images, or thousands of characters of texts, to be encoded in a call; one behind a
            server makes requests of it that are answered at the same time.
        versions: of what computes there, by name, as far as they are known.
        where: the device that it computes on; ``elsewhere`` if that is not known.
    """

    batch: int
    versions: Mapping[str, str]
    where: str

    def encode_accepted(self, prepared: Sequence[Any]) -> torch.Tensor:
        """As :meth:`encode`, which raises for an item that is refused; its row is NaN here."""

    def refusal(self, prepared: Any) -> str:
        """Why a prepared item has no features."""


def shared_passes(encoders: Sequence[Encoder]) -> list[list[int]]:
    """The positions of encoders that are views of one network, by network, in order.

    Each list can be encoded in one forward pass (:meth:`ViewedEncoder.encode_views`).
    """
    passes: dict[tuple[int, ...], list[int]] = {}
    for index, encoder in enumerate(encoders):
        own = encoder.shared if isinstance(encoder, LayeredEncoder) else (-1, index)
        passes.setdefault(own, []).append(index)
    return list(passes.values())


def hidden_layers(output: Any) -> list[int]:
    """Which hidden states a network's ``output`` has, but for a last one that is the output.

    Args:
        output: with ``hidden_states`` and ``last_hidden_state``, as transformers gives it.
    """
    hidden = getattr(output, "hidden_states", None) or ()
    if not hidden:
        return []
    last, final = hidden[-1], output.last_hidden_state
    return list(range(len(hidden) - (last.shape == final.shape and last.equal(final))))


def view_info(info: EncoderInfo, pooling: str | None, layer: int | None) -> EncoderInfo:
    """The description of a view: another pooling, if one is given, and another layer."""
    given = {"pooling": pooling, "layer": layer}
    load = {**info.load, **{name: value for name, value in given.items() if value is not None}}
    return replace(info, pooling=pooling or info.pooling, layer=layer, load=load)
