"""An image-text model of two encoders and the heads between them, for inference."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, relu6
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from .configuration_lateen import LateenClipConfig, LateenSiglipConfig

_GATE_LIMIT = 1000.0
_INTERPOLATE = "interpolate_pos_encoding"  # transformers' option for other sizes of images


@dataclass
class LateenClipOutput(ModelOutput):
    """What a forward pass gives, as transformers' CLIP.

    Attributes:
        logits_per_image: ``[images, texts]``, where there are both.
        logits_per_text: its transpose.
        image_embeds: ``[images, dim]``, L2-normalised.
        text_embeds: ``[texts, dim]``, L2-normalised.
        pooler_output: the embeddings, not normalised, where there are only images, or only texts.
    """

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None
    pooler_output: Tensor | None = None


class LateenClipModel(PreTrainedModel):
    """Two encoders and the heads between them.

    Args:
        config: what it is made of.
    """

    config_class = LateenClipConfig
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: LateenClipConfig) -> None:
        super().__init__(config)
        self.vision_model = _network(config.vision_encoder)
        self.text_model = _network(config.text_encoder)
        self.vision_head = _head(config.vision_head, config.projection_dim)
        self.text_head = _head(config.text_head, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias = nn.Parameter(torch.zeros(()))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: it is loaded, and never trained from the start."""

    def get_image_features(
        self, pixel_values: Tensor, return_dict: bool | None = None, **_: Any
    ) -> BaseModelOutputWithPooling | tuple[Tensor]:
        """Embeddings of images, not normalised.

        Args:
            pixel_values: ``[n, 3, height, width]``, of the processor.
            return_dict: ``False`` for a tuple.

        Returns:
            An output whose ``pooler_output`` is ``[n, dim]``.
        """
        return _output(self._image_embeddings(pixel_values), return_dict)

    def _image_embeddings(self, pixel_values: Tensor) -> Tensor:
        parts, network = self.config.vision_features, self.vision_model
        output: Any = None
        if any(part["pooling"] != "projection" for part in parts):
            output = network(
                pixel_values=pixel_values, **self._vision_options(pixel_values),
                output_hidden_states=any(part["layer"] is not None for part in parts),
            )  # fmt: skip
        features = []
        for part in parts:
            if part["pooling"] == "projection":
                found = network.get_image_features(pixel_values=pixel_values)
                features.append(getattr(found, "pooler_output", found))
            else:
                features.append(_pool_image(output, part))
        return self.vision_head(_fused(features, parts))

    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None,
        return_dict: bool | None = None, **_: Any,
    ) -> BaseModelOutputWithPooling | tuple[Tensor]:  # fmt: skip
        """Embeddings of texts, not normalised.

        Args:
            input_ids: ``[n, length]``, padded on the right.
            attention_mask: 1 where there is a token; all of them if not given.
            return_dict: ``False`` for a tuple.

        Returns:
            An output whose ``pooler_output`` is ``[n, dim]``.

        Raises:
            ValueError: a text has more tokens than the encoder takes.
        """
        return _output(self._text_embeddings(input_ids, attention_mask), return_dict)

    def _text_embeddings(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        ids, mask = self._tokens(input_ids, attention_mask)
        parts, network = self.config.text_features, self.text_model
        # One that was trained at a fixed length was trained to attend to its padding, too.
        needed = mask if self.config.pad_to is None else None
        output: Any = None
        if any(part["pooling"] != "projection" for part in parts):
            output = network(
                input_ids=ids, attention_mask=needed,
                output_hidden_states=any(part["layer"] is not None for part in parts),
            )  # fmt: skip
        features = []
        for part in parts:
            if part["pooling"] == "projection":
                found = network.get_text_features(input_ids=ids, attention_mask=needed)
                found = getattr(found, "pooler_output", found)
            else:
                found = _pool_text(output, part, mask)
            features.append(normalize(found.float(), dim=-1) if part["normalize"] else found)
        return self.text_head(_fused(features, parts))

    def forward(
        self, pixel_values: Tensor | None = None, input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None, return_dict: bool | None = None, **_: Any,
    ) -> LateenClipOutput | tuple[Any, ...]:  # fmt: skip
        """Logits of every image against every text: t · cosine + b; or the embeddings of one side.

        Args:
            pixel_values: ``[images, 3, height, width]``.
            input_ids: ``[texts, length]``.
            attention_mask: 1 where there is a token.
            return_dict: ``False`` for a tuple.
        """
        if pixel_values is None and input_ids is None:
            raise ValueError("give pixel_values, input_ids, or both")
        image = text = embeds = text_embeds = logits = None
        if pixel_values is not None:
            image = self._image_embeddings(pixel_values)
            embeds = normalize(image, dim=-1)
        if input_ids is not None:
            text = self._text_embeddings(input_ids, attention_mask)
            text_embeds = normalize(text, dim=-1)
        if embeds is not None and text_embeds is not None:
            logits = self.logit_scale.exp() * embeds @ text_embeds.T + self.logit_bias
        made = LateenClipOutput(
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            image_embeds=embeds,
            text_embeds=text_embeds,
            pooler_output=None if logits is not None else text if image is None else image,
        )
        return made.to_tuple() if return_dict is False else made

    def _vision_options(self, pixels: Tensor) -> dict[str, Any]:
        """What the image network is to be told beside the pixels."""
        options: dict[str, Any] = {}
        known = inspect.signature(self.vision_model.forward).parameters
        if _INTERPOLATE in known and list(pixels.shape[2:]) != list(self.config.image_size):
            options[_INTERPOLATE] = True
        if self.vision_model.config.model_type == "vit_mae":
            # Nothing is masked (mask_ratio 0), and ordered noise keeps the patches in order.
            edge = self.vision_model.config.patch_size
            patches = (pixels.shape[2] // edge) * (pixels.shape[3] // edge)
            options["noise"] = torch.arange(patches, device=pixels.device).expand(len(pixels), -1)
        return options

    def _tokens(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Ids and mask as the text network takes them: none without a token, and the length that
        it was trained with."""
        config = self.config
        mask = torch.ones_like(ids) if mask is None else mask
        longest = max(1, int(mask.sum(1).max()))
        ids, mask = ids[:, :longest], mask[:, :longest]
        if longest > config.max_tokens:
            raise ValueError(
                f"a text has {longest} tokens, and the encoder takes {config.max_tokens} at most: "
                "tokenise with truncation=True (in a pipeline: "
                'tokenizer_kwargs={"truncation": True})'
            )
        length = max(config.pad_to or 0, longest)
        ids = pad(ids, (0, length - ids.shape[1]), value=config.pad_token)
        mask = pad(mask, (0, length - mask.shape[1]))
        empty = torch.zeros_like(mask, dtype=torch.bool)
        empty[:, 0] = mask.sum(1) == 0
        return ids.masked_fill(empty, config.no_text), mask.masked_fill(empty, 1)


class LateenSiglipModel(LateenClipModel):
    """One that was trained with the sigmoid loss: σ(logit) is the probability of a pair."""

    config_class = LateenSiglipConfig


MODELS = (LateenClipModel, LateenSiglipModel)
for _model in MODELS:  # so that save_pretrained and push_to_hub take this code along
    _model.register_for_auto_class("AutoModel")


def _network(values: dict[str, Any] | None) -> Any:
    values = dict(values or {})
    return AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))


def _output(embeddings: Tensor, return_dict: bool | None) -> Any:
    if return_dict is False:
        return (embeddings,)
    return BaseModelOutputWithPooling(pooler_output=embeddings)


def _pool_image(output: Any, part: dict[str, Any]) -> Tensor:
    """Features ``[n, dim]`` of an image network's output."""
    pooling, layer = part["pooling"], part["layer"]
    if pooling == "pooler":
        return output.pooler_output.flatten(1)
    hidden = output.last_hidden_state if layer is None else output.hidden_states[layer]
    tokens = (hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden).float()
    mean = tokens[:, part["prefix"] :].mean(1)
    if pooling == "mean":
        return mean
    return tokens[:, 0] if pooling == "cls" else torch.cat([tokens[:, 0], mean], dim=1)


def _pool_text(output: Any, part: dict[str, Any], mask: Tensor) -> Tensor:
    """Features ``[n, dim]`` of a text network's output."""
    pooling, layer = part["pooling"], part["layer"]
    if pooling == "pooler":
        return output.pooler_output
    hidden = output.last_hidden_state if layer is None else output.hidden_states[layer]
    tokens = hidden.float()
    if pooling == "first":
        return tokens[:, 0]
    if pooling == "last":
        return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(1) - 1]
    weights = mask[..., None].to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)


def _fused(features: list[Tensor], parts: list[dict[str, Any]]) -> Tensor:
    """The one part as it is; of several each of unit root mean square, times its weight."""
    if len(features) == 1:
        return features[0]
    scaled = []
    for values, part in zip(features, parts, strict=True):
        norm = torch.linalg.vector_norm(values.float(), dim=-1, keepdim=True)
        unit = values.float() / norm.clamp_min(torch.finfo(torch.float32).tiny)
        scaled.append(unit * math.sqrt(values.shape[-1]) * part["weight"])
    return torch.cat(scaled, dim=-1)


class _Head(nn.Module):
    """LayerNorm, then a network into the shared space."""

    def __init__(self, in_dim: int, network: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return self.network(self.norm(features.to(self.norm.weight.dtype)))


class _MLP(nn.Module):
    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        layers = nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, out_dim)
        self.proj = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        return self.proj(h)


class _GLU(nn.Module):
    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        self.f1, self.f2 = nn.Linear(in_dim, hidden), nn.Linear(in_dim, hidden)
        self.g = nn.Linear(hidden, out_dim)

    def forward(self, h: Tensor) -> Tensor:
        return self.g(relu6(self.f1(h)) * self.f2(h).clamp(-_GATE_LIMIT, _GATE_LIMIT))


class _ShareLock(nn.Module):
    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__()
        dims = (in_dim, hidden, hidden)
        self.layers = nn.ModuleList(nn.Linear(dim, hidden) for dim in dims)
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in dims)
        self.out = nn.Linear(hidden, out_dim)

    def forward(self, h: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = norm(layer(h)).relu()
        return self.out(h)


_BLOCKS = {"mlp": _MLP, "glu": _GLU, "sharelock": _ShareLock}


def _head(head: dict[str, Any] | None, out_dim: int) -> nn.Module:
    """The head that a config describes."""
    head = head or {"name": "identity"}
    if head["name"] == "identity":
        return nn.Identity()
    in_dim = head["in_dim"]
    if head["name"] == "linear":
        return _Head(in_dim, nn.Linear(in_dim, out_dim))
    blocks = []
    for index, hidden in enumerate(head["hidden"]):
        blocks.append(_BLOCKS[head["name"]](out_dim if index else in_dim, hidden, out_dim))
    return _Head(in_dim, blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks))
