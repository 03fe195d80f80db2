"""An image tower that is tuned: the vision encoder's network with the model's image head on it."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lateen.encoders import Encoder
from lateen.encoders.vision import VisionEncoder
from lateen.encoders.weights import tensors_hash
from lateen.errors import EncoderError, UsageError
from lateen.model import AlignedModel
from lateen.training.batches import BatchRows
from lateen.tuning.config import TuneSection

_TEXT = "text"  # what the names of a dual model's text side begin with
_SCALARS = "network.dual.logit"


def tunable(encoder: Encoder, *, patches: bool = False) -> VisionEncoder:
    """See that an encoder's network can be trained.

    Args:
        encoder: the student's.
        patches: whether features of its patches are needed.

    Raises:
        EncoderError: it is code of the user's own or several fused encoders, takes a hidden layer,
            or has no features per patch.
    """
    if not isinstance(encoder, VisionEncoder):
        raise EncoderError(
            f"the network of {encoder.info.id} cannot be tuned: it is code, or several encoders",
            "Give a model whose vision encoder is one transformers model.",
        )
    if encoder.info.layer is not None:
        raise EncoderError(
            f"{encoder.info.id} is used at hidden layer {encoder.info.layer}, and the layers above "
            "would be saved untouched beside it",
            "Align a model on the encoder's last layer first (`lateen run`).",
        )
    if patches:
        encoder.check_patches()
    return encoder


class ImageTower(nn.Module):
    """Pixels to embeddings: a vision encoder's network, then the model's image head.

    Dropout and running statistics stay as they are in evaluation, also in training: the second pass
    of gradient caching must see what the first saw.

    Args:
        encoder: whose network is copied in float32, without the text side of a dual model.
        head: the model's image head, which is copied.

    Attributes:
        network: a :class:`~lateen.encoders.vision.VisionNetwork`.
        head: from its features into the shared space.
        whole_batch: never.
    """

    whole_batch = False

    def __init__(self, encoder: VisionEncoder, head: nn.Module) -> None:
        super().__init__()
        dual = encoder.network.dual
        others = [] if dual is None else [
            child for name, child in dual.named_children() if name.startswith(_TEXT)
        ]  # fmt: skip
        without = {id(child): None for child in others}
        self.network = copy.deepcopy(encoder.network, without).float()
        self.head = copy.deepcopy(head).float()
        self._adapters: tuple[Any, ...] = ()  # not a module of its own: it is inside the network
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Always evaluation mode."""
        del mode
        return super().train(False)

    def forward(self, pixels: Tensor, rows: BatchRows | None = None) -> Tensor:
        """Pixels ``[n, 3, H, W]`` to embeddings ``[n, dim]``, not normalised, float32."""
        del rows
        return self._embedded(self.network(pixels))

    def with_patches(self, pixels: Tensor) -> Tensor:
        """Embeddings and those of every patch behind each, ``[n, dim + patches · dim]``."""
        features, patches = self.network.with_patches(pixels)
        whole = self._embedded(features)
        each = self._embedded(patches.flatten(0, 1)).view(len(pixels), -1)
        return torch.cat([whole, each], dim=1)

    def _embedded(self, features: Tensor) -> Tensor:
        # A head is small; in bfloat16 its output would be coarser than many a step's change.
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.head(features.float())
        return embeddings

    def choose(self, settings: TuneSection) -> list[nn.Parameter]:
        """Let those parameters move that the settings name, and give them.

        Raises:
            UsageError: there are none of them.
        """
        names = _chosen(self, settings)
        if settings.parameters == "lora":
            self._adapters = (_add_lora(self.network.model, settings.lora_rank),)
            names |= {name for name, _ in self.named_parameters() if "lora_" in name}
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in names)
        if settings.gradient_checkpointing:
            _checkpoint(_blocks(self.network.model))
        chosen = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not chosen:
            raise UsageError(
                f"tune.parameters {settings.parameters} leaves everything frozen: this model has "
                "no projection, but ends in its tower",
                "Use whole, blocks or lora.",
            )
        return chosen

    def merged(self) -> ImageTower:
        """The tower without low-rank additions, which are added to the weights of a copy."""
        if not self._adapters:
            return self
        whole = copy.deepcopy(self)
        whole._adapters[0].merge_and_unload()
        whole._adapters = ()
        return whole


def candidate(start: AlignedModel, tower: ImageTower) -> AlignedModel:
    """The model with a tower in the place of its own; the text side is the same object.

    The tower's modules are shared and not copied, so that it is what it is now only as long as
    nothing is trained.
    """
    before = start.vision_encoder
    assert isinstance(before, VisionEncoder)
    whole = tower.merged()
    info = replace(before.info, weights=tensors_hash(whole.network))
    vision = VisionEncoder(
        whole.network.model, before.processor, info, next(whole.parameters()).device,
        pooler_trained=before.layout.pooler, dual=whole.network.dual,
    )  # fmt: skip
    heads = copy.deepcopy(start.heads)
    heads.vision = whole.head
    side = {**(start.config.vision or {}), **vision.info.as_dict(), "trained": True}
    model = AlignedModel.build(
        heads, side, start.config.text or {},
        start.config.head or {}, training=start.config.training,
    )  # fmt: skip
    model.set_encoders(vision=vision, text=start.text_encoder)
    model.to(start.logit_scale.device)
    return model


def _chosen(tower: ImageTower, settings: TuneSection) -> set[str]:
    """The names of the parameters that move, low-rank additions aside."""
    inside = {id(parameter) for parameter in tower.network.model.parameters()}
    named = list(tower.named_parameters())
    # A dual model's own scalars, such as its logit_scale, belong to the text side as well.
    projection = {n for n, p in named if id(p) not in inside and not n.startswith(_SCALARS)}
    if settings.parameters in ("projection", "lora"):
        return projection
    if settings.parameters == "whole":
        return projection | {name for name, parameter in named if id(parameter) in inside}
    blocks = _blocks(tower.network.model)
    if len(blocks) < settings.blocks:
        raise UsageError(
            f"this tower has {len(blocks)} blocks, and tune.blocks is {settings.blocks}",
            "Give fewer, or tune.parameters whole.",
        )
    first = next(iter(blocks[-settings.blocks].parameters()))
    inner = [(name, parameter) for name, parameter in named if id(parameter) in inside]
    begin = next(at for at, (_, parameter) in enumerate(inner) if parameter is first)
    # What comes behind the blocks, such as a last norm, moves with them.
    return projection | {name for name, _ in inner[begin:]}


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of a vision network: its longest list of modules."""
    lists = [list(module) for module in network.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _checkpoint(blocks: list[nn.Module]) -> None:
    """Have every block computed anew in the backward pass, also in evaluation mode, in which
    transformers' own switch does nothing."""
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _add_lora(network: nn.Module, rank: int) -> Any:
    """Put low-rank additions (Hu et al. 2022) to the linear layers of the blocks, which start as 0.

    Raises:
        UsageError: peft is not installed, or there are no linear layers.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UsageError(
            "tune.parameters lora needs peft", "Install it: pip install 'lateen[tune]'."
        ) from error
    inside = {id(module) for block in _blocks(network) for module in block.modules()}
    linear = [
        name for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]  # fmt: skip
    if not linear:
        raise UsageError("this tower has no linear layers for lora", "Use whole or blocks.")
    config = LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=linear)
    return LoraModel(network, config, "default")
