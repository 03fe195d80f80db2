"""A folder of weights, config and card for open_clip and what is built on it, as OpenFlamingo.

The layout is that of OpenAI's ViTs, which open_clip's own class ``CLIP`` has: queries, keys and
values in one matrix, projections as ``[in, out]``. In Python the folder is loaded by
``open_clip.create_model_and_transforms("local-dir:FOLDER")``.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.errors import ModelError
from lateen.progress import log

if TYPE_CHECKING:
    from torch import Tensor

    from lateen.model import AlignedModel

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
MARKS = (CONFIG,)
_LICENCES = ("LICENSE*", "NOTICE*")
BESIDE = (WEIGHTS, "README.md", *_LICENCES, "tokenizer*", "special_tokens_map.json", "vocab*",
          "merges.txt")  # fmt: skip

_INSTEAD = (
    "A plain CLIP of transformers can be exported, by its folder or hub id (CLIP, MetaCLIP, DFN, "
    "one that was tuned); hand others on with --to lateen."
)
_NAME = re.compile(
    r"(?P<tower>vision_model|text_model)\.(?:encoder\.layers\.(?P<block>\d+)\.)?"
    r"(?P<part>.+?)(?:\.(?P<kind>weight|bias))?"
)
_TOWERS = {"vision_model": "visual.", "text_model": ""}
# Parts of a tower, and below the line of a block, by transformers' names.
_PARTS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding": "conv1.{kind}",
    "embeddings.position_embedding": "positional_embedding",
    "embeddings.token_embedding": "token_embedding.{kind}",
    "pre_layrnorm": "ln_pre.{kind}",
    "post_layernorm": "ln_post.{kind}",
    "final_layer_norm": "ln_final.{kind}",
    # ----
    "layer_norm1": "ln_1.{kind}",
    "layer_norm2": "ln_2.{kind}",
    "self_attn.q_proj": "attn.in_proj_{kind}",  # in which keys and values follow
    "self_attn.out_proj": "attn.out_proj.{kind}",
    "mlp.fc1": "mlp.c_fc.{kind}",
    "mlp.fc2": "mlp.c_proj.{kind}",
}
_PROJECTIONS = {
    "visual_projection.weight": "visual.proj",
    "text_projection.weight": "text_projection",
}
# What open_clip takes where its config says nothing.
_HEAD_WIDTH, _MLP_RATIO, _EPSILON = 64, 4.0, 1e-5
_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
# A text, and what CLIP's own byte-pair encoding makes of it: which tells a tokenizer of that kind.
_PROBE = "3 red Cats, isn't it?"
_PROBE_IDS = [49406, 274, 736, 3989, 267, 2923, 713, 585, 286, 49407]


def export(model: AlignedModel, out: Path) -> None:
    """Write the model's weights and config as open_clip has them.

    Tensors keep the number format of the model's own file. Where open_clip does otherwise with
    images or texts than the model's own processing, the log says so.

    Args:
        model: a plain CLIP, as :func:`lateen.model.clip_model` gives it.
        out: the folder.

    Raises:
        ModelError: it is something else, or a CLIP that open_clip's class cannot be.
        EncoderError: its files are not where they were.
    """
    from safetensors.torch import save_file

    from lateen.encoders.weights import load_as_stored
    from lateen.files import atomic_path, write_json
    from lateen.model.card import ClipCard, title_of, write_clip_card

    load, folder = _plain_clip(model)
    network = load_as_stored(folder)
    settings = model_settings(network.config)
    processing = model.vision_encoder.info.preprocessing
    images = preprocess_settings(processing, network.config.vision_config.image_size)
    state = open_clip_state(network.state_dict())
    state["logit_scale"] = model.logit_scale.detach().cpu().to(state["logit_scale"].dtype)
    (out / CONFIG).unlink(missing_ok=True)
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    if model.text_encoder.prepare([_PROBE])[0] != _PROBE_IDS:
        repository = load["name"] if load.get("revision") else title_of(out)
        settings["text_cfg"]["hf_tokenizer_name"] = repository
        _copy_tokenizer(folder, out)
    for file in (each for pattern in _LICENCES for each in folder.glob(pattern)):
        shutil.copyfile(file, out / file.name)
    card = ClipCard(
        title=title_of(out),
        library="open_clip",
        about="as open_clip's weights and config.",
        code="import open_clip  # 3.0 or later\n\n"
        'name = "local-dir:path/to/this/folder"\n'
        "model, _, preprocess = open_clip.create_model_and_transforms(name)\n"
        "tokenizer = open_clip.get_tokenizer(name)",
        tuned=False,
    )
    write_clip_card(out, card, load, folder)
    # Last, as it marks the folder as whole.
    write_json(out / CONFIG, {"model_cfg": settings, "preprocess_cfg": images})


def open_clip_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIP's tensors under open_clip's names and in its shapes.

    Args:
        tensors: the state dict of a ``CLIPModel``.

    Raises:
        ModelError: one has no place there.
    """
    import torch

    state = {}
    for name, tensor in tensors.items():
        if name in _PROJECTIONS:
            state[_PROJECTIONS[name]] = tensor.T.contiguous()
        elif ".self_attn.q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            state[_renamed(name)] = torch.cat(parts)
        elif not re.search(r"\.self_attn\.[kv]_proj\.", name):
            state[_renamed(name)] = tensor.contiguous()
    return state


def _renamed(name: str) -> str:
    """open_clip's name for a tensor of transformers'."""
    if name == "logit_scale":
        return name
    match = _NAME.fullmatch(name)
    if match is None or match["part"] not in _PARTS:
        raise _unlike(f"it has no place for {name}")
    block = "" if match["block"] is None else f"transformer.resblocks.{match['block']}."
    return _TOWERS[match["tower"]] + block + _PARTS[match["part"]].format(kind=match["kind"])


def model_settings(config: Any) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of a ``CLIPConfig``.

    What open_clip takes by itself is left to it, as its older versions know fewer keys.

    Raises:
        ModelError: open_clip's class has no such form.
    """
    vision, text = config.vision_config, config.text_config
    quick = {"quick_gelu": True, "gelu": False}
    if vision.hidden_act != text.hidden_act or vision.hidden_act not in quick:
        raise _unlike(
            f"its activations are {vision.hidden_act} and {text.hidden_act}, and open_clip has "
            "gelu or quick_gelu, the same for both towers"
        )
    if vision.num_channels != 3:
        raise _unlike(f"its images have {vision.num_channels} channels, not 3")
    vision_cfg = {"image_size": vision.image_size, "patch_size": vision.patch_size}
    head_width = vision.hidden_size // vision.num_attention_heads
    if head_width != _HEAD_WIDTH:
        vision_cfg["head_width"] = head_width
    text_cfg = {
        "context_length": text.max_position_embeddings, "vocab_size": text.vocab_size,
        "heads": text.num_attention_heads,
    }  # fmt: skip
    # A text is pooled at its highest id where that is the end's, and where a config has the 2 that
    # transformers once wrote for every CLIP.
    if text.eos_token_id not in (2, text.vocab_size - 1):
        text_cfg |= {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": quick[vision.hidden_act],
        "vision_cfg": vision_cfg | _tower_settings(vision),
        "text_cfg": text_cfg | _tower_settings(text),
    }


def _tower_settings(config: Any) -> dict[str, Any]:
    """What the configs of both towers have."""
    width, hidden = config.hidden_size, config.intermediate_size
    ratio = hidden / width
    if int(width * ratio) != hidden:  # open_clip multiplies, and cuts what is behind the point
        ratio = math.nextafter(ratio, math.inf)
    settings: dict[str, Any] = {"width": width, "layers": config.num_hidden_layers}
    if ratio != _MLP_RATIO:
        settings["mlp_ratio"] = ratio
    if config.layer_norm_eps != _EPSILON:
        settings["norm_kwargs"] = {"eps": config.layer_norm_eps}
    return settings


def preprocess_settings(processing: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg`` of an image processor; what it cannot say is logged.

    Args:
        processing: the ``preprocessing`` of an image encoder's info.
        image_size: height and width of the model's images.
    """
    size, crop = dict(processing["size"]), dict(processing.get("crop_size") or {})
    square = {"height": image_size, "width": image_size}
    cropped = bool(processing.get("do_center_crop"))
    mode = "shortest" if cropped or "shortest_edge" in size else "squash"
    sizes = {"size": size, **({"crop_size": crop} if cropped else {})}
    usual = {"size": {"shortest_edge": image_size}, "crop_size": square} if cropped else {
        "size": square
    }  # fmt: skip
    unlike = [f"{name} {value}" for name, value in sizes.items() if value != usual[name]]
    resample = processing.get("resample", 3)
    if resample not in _INTERPOLATION:
        unlike.append(f"resample {resample}")
    unlike += [
        f"{name} false" for name in ("do_resize", "do_rescale", "do_normalize")
        if not processing.get(name, True)
    ]  # fmt: skip
    if not math.isclose(factor := processing.get("rescale_factor", 1 / 255), 1 / 255):
        unlike.append(f"rescale_factor {factor}")
    if unlike:
        log.warning(
            "open_clip's config cannot say how this model prepares its images (%s): the weights "
            "are the same, but its embeddings of photographs will differ", ", ".join(unlike),
        )  # fmt: skip
    return {
        "size": image_size, "mean": list(processing["image_mean"]),
        "std": list(processing["image_std"]), "resize_mode": mode,
        "interpolation": _INTERPOLATION.get(resample, "bicubic"),
    }  # fmt: skip


def _plain_clip(model: AlignedModel) -> tuple[Mapping[str, Any], Path]:
    """What loads the CLIP that a model is, and its folder.

    Raises:
        ModelError: it is no plain CLIP.
    """
    from lateen.encoders.resolve import resolve
    from lateen.files import read_json

    config, head = model.config, model.config.head_settings
    sides = [config.vision or {}, config.text or {}]
    if (head.image_name, head.name) != ("identity", "identity"):
        raise _unlike(f"it has heads of its own ({head.image_name} and {head.name})")
    if any(side.get("pooling") != "projection" or not side.get("load") for side in sides):
        raise _unlike("it is not of the two towers of a CLIP with their projections")
    if sides[0]["weights"] != sides[1]["weights"]:
        raise _unlike("its two towers are not of one CLIP")
    load = model.vision_encoder.info.load
    folder = resolve(load["name"], load.get("revision")).folder
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise _unlike(f"it is of type {kind}")
    if bool(model.logit_bias != 0):
        raise _unlike("it has a bias")
    return load, folder


def _unlike(why: str) -> ModelError:
    return ModelError(f"open_clip's layout cannot hold this model: {why}", _INSTEAD)


def _copy_tokenizer(folder: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    from lateen.encoders.weights import quiet_transformers

    with quiet_transformers():
        AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    log.warning(
        "the model's tokenizer is not CLIP's own: it is copied to %s, where open_clip (3.0 or "
        "later) looks with local-dir:; for the hub, set hf_tokenizer_name in %s to the "
        "repository's name", out, CONFIG,
    )  # fmt: skip
