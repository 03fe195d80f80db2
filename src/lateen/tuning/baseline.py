"""The baseline ``projection``: the target encoder itself, mapped into the model's space (KUEA)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lateen.encoders import Encoder
from lateen.model import AlignedModel
from lateen.training.heads import AlignmentHead, AlignmentHeads
from lateen.tuning.alignment import linear_map


def projection_model(
    start: AlignedModel, target: Encoder, features: Tensor, embeddings: Tensor
) -> AlignedModel:
    """A model whose image side is the target encoder with the linear map nearest to the start.

    The map is of layer-normalised features, as every head of lateen's is; it minimises
    ``mean ‖W g + b − f₀‖²`` in closed form. The text side is the start's.

    Args:
        start: the model that is imitated.
        target: the encoder that takes its tower's place.
        features: ``[n, e]`` of the target.
        embeddings: ``[n, d]`` of the start for the same images, not normalised.
    """
    settings = start.config.head_settings.model_copy(
        update={"vision": "linear", "dim": embeddings.shape[1], "depth": 1}
    )
    heads = AlignmentHeads(settings, features.shape[1], start.config.text_dim)
    heads.text.load_state_dict(start.heads.text.state_dict())
    head = cast(AlignmentHead, heads.vision)
    normed = torch.nn.functional.layer_norm(features, features.shape[1:], eps=head.norm.eps)
    weight, bias = linear_map(normed, embeddings)
    linear = cast(torch.nn.Linear, head.network)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
        heads.logit_scale.copy_(start.logit_scale)
        heads.logit_bias.copy_(start.logit_bias)
    model = AlignedModel.build(
        heads, {**target.info.as_dict(), "dtype": "float16"}, start.config.text or {},
        heads.settings.model_dump(mode="json"), training=start.config.training,
    )  # fmt: skip
    model.set_encoders(vision=target, text=start.text_encoder)
    return model
