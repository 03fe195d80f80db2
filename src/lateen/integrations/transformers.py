"""A folder that transformers' Auto classes and pipelines load, with lateen or without it.

Both encoders and heads lie in one file of weights; code of the folder's own puts them together
where lateen is not installed (``trust_remote_code=True``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.errors import ModelError
from lateen.progress import log

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lateen.encoders.text import TextEncoder
    from lateen.encoders.vision import VisionEncoder
    from lateen.integrations._hub_code.configuration_lateen import LateenClipConfig
    from lateen.integrations._hub_code.modeling_lateen import LateenClipModel
    from lateen.model import AlignedModel, CardResult
    from lateen.model.card import CardForm

CONFIG, MODELING = "config.json", "modeling_lateen.py"
CODE = ("configuration_lateen.py", MODELING)
MARKS = (MODELING,)
BESIDE = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "README.md", CODE[0])
_INSTEAD = (
    "Models whose encoders transformers loads by AutoModel can be exported; hand others on with "
    "--to lateen --with-encoders."
)


def export(model: AlignedModel, out: Path, *, results: Sequence[CardResult] = ()) -> None:
    """Write weights, config, processor, the code that puts them together, and a card.

    The folder is loaded again, and its embeddings are compared with the model's own, before it is
    kept. It computes in float32 unless it is loaded in another number format.

    Args:
        model: an aligned model.
        out: the folder.
        results: for the card.

    Raises:
        ModelError: it is a plain CLIP, which transformers loads as it is; an encoder is none that
            ``AutoModel`` loads, has code of its own, or is fused of several networks; or the folder
            gives other embeddings.
    """
    from lateen.files import staged_files
    from lateen.model.card import CardForm, title_of

    made = hub_model(model)
    with staged_files(out, last=CONFIG) as folder:
        form = CardForm("transformers", _USE, whole=True, title=title_of(out))
        write_hub_model(model, made, folder, form, results)


def write_hub_model(
    model: AlignedModel, made: HubModel, folder: Path, form: CardForm,
    results: Sequence[CardResult] = (),
) -> None:  # fmt: skip
    """Write what transformers loads, and see that it gives the embeddings of the model.

    Args:
        model: an aligned model.
        made: what :func:`hub_model` made of it.
        folder: where to.
        form: what the card says.
        results: for the card.

    Raises:
        ModelError: it gives others.
    """
    from lateen.encoders.weights import quiet_transformers
    from lateen.model.saving import share_files

    with quiet_transformers():
        made.model.save_pretrained(folder)
        for part in (made.processor.image_processor, made.processor.tokenizer, made.processor):
            part.save_pretrained(folder)
    model.write_card(folder, form, results)
    share_files(folder)
    _check(model, folder)


@dataclass(frozen=True)
class HubModel:
    """A model as transformers has it.

    Attributes:
        model: the network.
        processor: of its images and texts.
    """

    model: LateenClipModel
    processor: Any


def hub_model(model: AlignedModel) -> HubModel:
    """A model as transformers has it, in which no weight is copied.

    Raises:
        ModelError: it cannot be one.
    """
    import torch

    from lateen.encoders.weights import quiet_transformers
    from lateen.model.sides import text_parts, vision_parts

    _refuse_plain_clip(model)
    (images, *_), _ = vision_parts(model)
    (texts, *_), _ = text_parts(model)
    config_class, model_class = _classes(model)
    config = config_class(auto_map=_auto_map(config_class, model_class), **_made_of(model))
    # Made without memory, then given the weights that there are.
    with torch.device("meta"), quiet_transformers():
        made = model_class(config)
    modules: dict[str, nn.Module] = {
        "vision_model": images.network.model, "text_model": texts.network.model,
        "vision_head": model.heads.vision, "text_head": model.heads.text,
    }  # fmt: skip
    state: dict[str, Tensor] = {"logit_scale": model.logit_scale, "logit_bias": model.logit_bias}
    for prefix, module in modules.items():
        state |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
    state = {name: tensor.detach().cpu() for name, tensor in state.items()}
    found = made.load_state_dict(state, assign=True, strict=False)
    if found.missing_keys or found.unexpected_keys:
        odd = (found.missing_keys + found.unexpected_keys)[0]
        raise ModelError(
            f"transformers' own model of one of the encoders has other weights ({odd})", _INSTEAD
        )
    return HubModel(made.eval(), _processor(model))


def _made_of(model: AlignedModel) -> dict[str, Any]:
    """The fields of :class:`LateenClipConfig`, by a model's encoders and heads.

    Raises:
        ModelError: an encoder is none that ``AutoModel`` makes.
    """
    from lateen.model.sides import text_parts, text_side, vision_parts

    (images, image_weights), (texts, text_weights) = vision_parts(model), text_parts(model)
    *_, inputs = text_side(model)
    return {
        "vision_encoder": _described(images[0]), "text_encoder": _described(texts[0]),
        "vision_features": [
            {**_features(part), "prefix": part.layout.prefix, "weight": weight}
            for part, weight in zip(images, image_weights, strict=True)
        ],
        "text_features": [
            {**_features(part), "weight": weight,
             "normalize": bool(part.info.preprocessing.get("normalize"))}
            for part, weight in zip(texts, text_weights, strict=True)
        ],
        "vision_head": _head(model.heads.vision), "text_head": _head(model.heads.text),
        "projection_dim": model.config.head_settings.dim,
        "image_size": list(images[0].image_size), "max_tokens": inputs.max_tokens,
        "pad_to": inputs.pad_to, "pad_token": inputs.pad, "no_text": inputs.nothing,
    }  # fmt: skip


def _classes(model: AlignedModel) -> tuple[type[LateenClipConfig], type[LateenClipModel]]:
    """Those of the loss that a model was trained with."""
    from lateen.integrations._hub_code import configuration_lateen as configs
    from lateen.integrations._hub_code import modeling_lateen as models

    if (model.config.training or {}).get("loss") == "sigmoid":
        return configs.LateenSiglipConfig, models.LateenSiglipModel
    return configs.LateenClipConfig, models.LateenClipModel


def _auto_map(config: type, model: type) -> dict[str, str]:
    """Which class of the folder's own code each of transformers' Auto classes takes."""
    name = f"{Path(MODELING).stem}.{model.__name__}"
    return {
        "AutoConfig": f"{Path(CODE[0]).stem}.{config.__name__}",
        "AutoModel": name,
        "AutoModelForZeroShotImageClassification": name,
    }


def _described(encoder: VisionEncoder | TextEncoder) -> dict[str, Any]:
    """The configuration of a network, from which ``AutoModel`` makes it.

    Raises:
        ModelError: it would make another one, or the network has code of its own.
    """
    from transformers import MODEL_MAPPING

    from lateen.encoders.weights import PROVENANCE

    network = encoder.network.model
    if MODEL_MAPPING.get(type(network.config), None) is not type(network):
        raise ModelError(
            f"the encoder {encoder.info.id} has code of its own, or is a part of a larger "
            "model", _INSTEAD,
        )  # fmt: skip
    values = network.config.to_dict()
    return {name: value for name, value in values.items() if name not in PROVENANCE}


def _features(part: VisionEncoder | TextEncoder) -> dict[str, Any]:
    """What is taken of a network.

    Raises:
        ModelError: the projection of a dual tower.
    """
    if part.info.pooling == "projection":
        raise ModelError(
            f"the encoder {part.info.id} is a tower of a CLIP with its own projection", _INSTEAD
        )
    return {"pooling": part.info.pooling, "layer": part.info.layer}


def _head(head: nn.Module) -> dict[str, Any]:
    """The shape of a head, as the config has it."""
    from lateen.training import heads

    if isinstance(head, heads.IdentityHead):
        return {"name": "identity"}
    assert isinstance(head, heads.AlignmentHead)
    network, in_dim = head.network, head.norm.normalized_shape[0]
    if isinstance(network, heads.Linear):
        return {"name": "linear", "in_dim": in_dim}
    blocks = list(network) if isinstance(network, heads.Stack) else [network]
    first: dict[type, tuple[str, Callable[[Any], nn.Linear]]] = {
        heads.MLP: ("mlp", lambda block: block.proj[0]),
        heads.GLU: ("glu", lambda block: block.f1),
        heads.ShareLock: ("sharelock", lambda block: block.layers[0]),
    }
    name, layer_of = first[type(blocks[0])]
    return {"name": name, "in_dim": in_dim,
            "hidden": [layer_of(block).out_features for block in blocks]}  # fmt: skip


def _processor(model: AlignedModel) -> Any:
    """The image processor, and a tokenizer that does all that stands before the network."""
    from transformers import PreTrainedTokenizerFast, VisionTextDualEncoderProcessor

    from lateen.model.sides import fast_tokenizer, text_side, vision_side

    (_, images), (_, encoder, inputs) = vision_side(model), text_side(model)
    known = encoder.tokenizer
    special = dict(known.special_tokens_map)
    special["pad_token"] = known.convert_ids_to_tokens(inputs.pad)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast_tokenizer(
            encoder, prompt=inputs.prompt, lower=inputs.lower, end=inputs.end
        ),
        model_max_length=inputs.max_tokens, padding_side="right",
        truncation_side=known.truncation_side, model_input_names=["input_ids", "attention_mask"],
        **special,
    )  # fmt: skip
    return VisionTextDualEncoderProcessor(images.processor, tokenizer)


def _refuse_plain_clip(model: AlignedModel) -> None:
    head = model.config.head_settings
    sides = [model.config.vision or {}, model.config.text or {}]
    ready = all(side.get("pooling") == "projection" for side in sides)
    if ready and (head.image_name, head.name) == ("identity", "identity"):
        name = (sides[0].get("load") or {}).get("name", "its folder")
        raise ModelError(
            "this model is a CLIP that transformers loads as it is", f"Hand on {name} itself."
        )


def _check(model: AlignedModel, folder: Path) -> None:
    """See that the folder gives what the model gives.

    Raises:
        ModelError: it does not.
    """
    import torch
    from torch.nn.functional import normalize
    from transformers import AutoProcessor

    from lateen.encoders.weights import quiet_transformers
    from lateen.model.sides import PROBE_TEXTS, check_alike, probe_images, text_side

    *_, known = text_side(model)
    probes = list(PROBE_TEXTS)
    if known.prompt:  # which a tokenizer puts before what has a character
        probes = list(filter(None, probes))
        log.warning("an empty text will get no prompt there, as it does here")
    with quiet_transformers(), torch.no_grad():
        loaded = _classes(model)[1].from_pretrained(folder).eval()
        processor = AutoProcessor.from_pretrained(folder)
        inputs = processor(
            text=probes, images=probe_images(), padding=True, truncation=True, return_tensors="pt"
        )
        images = loaded.get_image_features(inputs.pop("pixel_values")).pooler_output
        texts = loaded.get_text_features(**inputs).pooler_output
    names = ("the image side of the folder", "the text side of the folder")
    check_alike(model, normalize(images, dim=-1), normalize(texts, dim=-1), names, probes)


_USE = """from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

folder = "path/to/this/folder"
model = AutoModel.from_pretrained(folder, trust_remote_code=True)  # or: import lateen
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(
    text=["a dog on a beach", "a cat"], images=[Image.open("photo.jpg").convert("RGB")],
    padding=True, truncation=True, return_tensors="pt",
)
print(model(**inputs).logits_per_image)

classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
print(classify("photo.jpg", candidate_labels=["a dog", "a cat"]))"""
