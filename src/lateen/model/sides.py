"""The two sides of a model as modules, encoder and head in one: what is handed on to other tools.

A side can be handed on where its encoder is a plain transformers model, or several layers and
poolings of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL.Image import Image, fromarray
from torch import Tensor, nn

from lateen.encoders import Encoder, Side
from lateen.encoders.fused import FusedEncoder, FusedNetwork
from lateen.encoders.text import PLACE, TextEncoder
from lateen.encoders.vision import VisionEncoder
from lateen.errors import ModelError
from lateen.progress import log

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from lateen.model.model import AlignedModel
    from lateen.training.heads import AlignmentHeads

INSTEAD = "Models whose encoders are plain transformers models can be exported."
PROBE_TEXTS = ("a dog runs", "", "Zwei Kinder spielen!", "a LONG sentence of words " * 30)
"""By which it is seen that a side that was handed on gives the model's embeddings."""
_ALIKE = 0.9999  # cosine with the model's own in float32; one that computes in bfloat16 gets less
_ALIKE_HALF = 0.98
_Plain = TypeVar("_Plain", TextEncoder, VisionEncoder)


@dataclass(frozen=True)
class TextInputs:
    """What makes token ids of texts, beside the tokenizer's file.

    Attributes:
        prompt: stands before every text.
        lower: whether texts are put in lower case.
        end: token ids after every text.
        max_tokens: of a text with its end; longer ones are cut.
        pad_to: the one length that the network takes; ``None`` for any up to ``max_tokens``.
        pad: the id of padding, on the right.
        nothing: the id that stands for a text without any token.
    """

    prompt: str
    lower: bool
    end: tuple[int, ...]
    max_tokens: int
    pad_to: int | None
    pad: int
    nothing: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class TextSide(nn.Module):
    """Token ids and mask ``[n, length]`` to embeddings ``[n, dim]``, L2-normalised.

    Args:
        network: of the text encoder.
        heads: of the model.
    """

    def __init__(self, network: nn.Module, heads: AlignmentHeads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings."""
        return self.heads.embed_text(self.network(ids, mask))


class VisionSide(nn.Module):
    """Pixel values ``[n, 3, height, width]`` to embeddings ``[n, dim]``, L2-normalised.

    Args:
        network: of the vision encoder.
        heads: of the model.
    """

    def __init__(self, network: nn.Module, heads: AlignmentHeads) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeddings."""
        return self.heads.embed_image(self.network(pixels))


def text_side(model: AlignedModel) -> tuple[TextSide, TextEncoder, TextInputs]:
    """A model's text side, an encoder that prepares its texts, and what makes its token ids.

    Raises:
        ModelError: the text encoder does not run as a plain transformers model with a fast
            tokenizer, or has a prompt that goes on after the text.
    """
    parts, weights = text_parts(model)
    return TextSide(_network(parts, weights), model.heads), parts[0], _inputs(parts[0])


def vision_side(model: AlignedModel) -> tuple[VisionSide, VisionEncoder]:
    """A model's vision side, and an encoder that prepares its images.

    Raises:
        ModelError: the vision encoder does not run as a plain transformers model.
    """
    parts, weights = vision_parts(model)
    return VisionSide(_network(parts, weights), model.heads), parts[0]


def text_parts(model: AlignedModel) -> tuple[list[TextEncoder], list[float]]:
    """The text encoder, or the views of one network that it is fused of, and their weights.

    Raises:
        ModelError: as :func:`text_side` raises.
    """
    parts, weights = _plain_parts(model.text_encoder, TextEncoder, "text")
    if not parts[0].tokenizer.is_fast:
        raise ModelError(
            f"the text encoder {parts[0].info.id} has no fast tokenizer, which alone is a file "
            "that other tools read", INSTEAD,
        )  # fmt: skip
    prompt = parts[0].info.preprocessing.get("prompt") or ""
    if PLACE in prompt:
        raise ModelError(
            f"the text encoder's prompt {prompt!r} goes on after the text, for which other tools "
            "have no place", "Train with a prompt that stands before the text.",
        )  # fmt: skip
    return parts, weights


def vision_parts(model: AlignedModel) -> tuple[list[VisionEncoder], list[float]]:
    """The vision encoder, or the views of one network that it is fused of, and their weights.

    Raises:
        ModelError: it does not run as a plain transformers model.
    """
    return _plain_parts(model.vision_encoder, VisionEncoder, "vision")


def _plain_parts(
    encoder: Encoder, kind: type[_Plain], side: Side
) -> tuple[list[_Plain], list[float]]:
    fused = isinstance(encoder, FusedEncoder)
    parts = encoder.parts if isinstance(encoder, FusedEncoder) else [encoder]
    weights = encoder.weights if isinstance(encoder, FusedEncoder) else [1.0]
    plain = [part for part in parts if isinstance(part, kind)]
    if len(plain) < len(parts):
        raise ModelError(
            f"the {side} encoder {encoder.info.id} is no plain transformers model", INSTEAD
        )
    if fused and len({part.shared for part in plain}) > 1:
        raise ModelError(
            f"the {side} encoder {encoder.info.id} is fused of several networks, each of which "
            "prepares what it reads in its own way",
            "Layers and poolings of one network can be exported; several with --to lateen.",
        )
    return plain, weights


def _network(parts: Sequence[_Plain], weights: Sequence[float]) -> nn.Module:
    networks = [part.network for part in parts]
    return networks[0] if len(networks) == 1 else FusedNetwork(networks, weights)


def _inputs(encoder: TextEncoder) -> TextInputs:
    settings = encoder.info.preprocessing
    end = (encoder.tokenizer.eos_token_id,) if settings.get("append_eos") else ()
    return TextInputs(
        settings.get("prompt") or "", bool(settings.get("lower")), end,
        int(settings["max_tokens"]), settings.get("pad_to"), encoder.pad_token, encoder.no_text,
    )  # fmt: skip


def fast_tokenizer(
    encoder: TextEncoder, *, prompt: str = "", lower: bool = False, end: Sequence[int] = ()
) -> Tokenizer:
    """A copy of an encoder's tokenizer, which can do what stands around it here.

    Args:
        encoder: whose text side has been found to have a fast one.
        prompt: have it put this before every text that has a character.
        lower: have it put texts in lower case.
        end: have it put these ids after every text.
    """
    from tokenizers import Tokenizer, normalizers, processors

    made = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    made.no_truncation()  # as some call before left it
    made.no_padding()
    steps: list[normalizers.Normalizer] = [normalizers.Prepend(prompt)] if prompt else []
    steps += [normalizers.Lowercase()] if lower else []
    if steps:
        steps += [made.normalizer] if made.normalizer is not None else []
        made.normalizer = normalizers.Sequence(steps)
    if end:
        # One template for all: a second one after the first is not implemented there.
        bare, whole = (
            made.encode("a", add_special_tokens=special).ids for special in (False, True)
        )
        begin = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        around = (whole[:begin], [*whole[begin + len(bare) :], *end])
        before, after = ([str(made.id_to_token(each)) for each in ids] for ids in around)
        ids = dict(zip((*before, *after), (*around[0], *around[1]), strict=True))
        made.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after], special_tokens=list(ids.items())
        )
    return made


def probe_images() -> list[Image]:
    """As :data:`PROBE_TEXTS`: three pictures of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    return [fromarray(each).resize((320, 240)) for each in noise]


def check_alike(
    model: AlignedModel, images: Tensor, texts: Tensor, names: tuple[str, str],
    probes: Sequence[str] = PROBE_TEXTS,
) -> None:  # fmt: skip
    """See that what another tool gives for the probes is what the model gives.

    Args:
        model: an aligned model.
        images: embeddings of :func:`probe_images`, L2-normalised.
        texts: those of ``probes``.
        names: what gave either.
        probes: the texts.

    Raises:
        ModelError: it is not.
    """
    native = model.encode_image(probe_images()), model.encode_text(probes)
    encoders = model.vision_encoder, model.text_encoder
    for name, found, own, encoder in zip(names, (images, texts), native, encoders, strict=True):
        cosine = (found.float() * own).sum(1).min().item()
        half = "bfloat16" in encoder.info.precision
        if not cosine >= (_ALIKE_HALF if half else _ALIKE):
            raise ModelError(
                f"{name} gives other embeddings than the model (cosine {cosine:.4f})",
                "Report it, with the names of the encoders.",
            )
        log.info("%s: cosine with the model's own, in %s, at least %.6f", name,
                 encoder.info.precision, cosine)  # fmt: skip
