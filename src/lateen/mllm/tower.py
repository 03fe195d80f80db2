"""The vision tower of a multimodal language model: a backbone, and a model's image head on tokens.

Registered with transformers, so that its Llava classes build it from a config and load its weights.
"""

from __future__ import annotations

from typing import Any, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lateen.encoders import EncoderInfo
from lateen.encoders.vision import TokenLayout, VisionNetwork
from lateen.errors import ModelError
from lateen.training.config import HeadSection
from lateen.training.heads import IdentityHead, build_head

TokenKind = Literal["cls+patch", "patch", "cls,patch"]
"""``cls+patch``: each patch with the CLS token before it, as SAIL has them. ``patch``: patches
alone. ``cls,patch``: the image's own feature as the first token, then the patches."""
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)


class TowerConfig(PreTrainedConfig):  # type: ignore[misc]
    """What every tower's config says; its first three fields are what Llava reads.

    Attributes:
        hidden_size: length of a token, which the projector takes.
        image_size: height and width in pixels of the tower's own images; one number if equal.
        patch_size: pixels per placeholder: the image's edge over it, rounded down, is the grid's.
        num_hidden_layers: of the backbone.
        norm: ``layer`` brings each token to mean 0 and deviation 1, as a LayerNorm without weights
            does; ``None`` leaves them.
    """

    hidden_size: int = 0
    image_size: int | list[int] = 224
    patch_size: int = 16
    num_hidden_layers: int = 1
    norm: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels of the tower's own images."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the places that it gives tokens of, of an image of its own size."""
        raise NotImplementedError

    @property
    def num_tokens(self) -> int:
        """How many tokens an image of the tower's own size has."""
        raise NotImplementedError

    @property
    def additional_tokens(self) -> int:
        """How many of them a processor does not count as places of the grid."""
        raise NotImplementedError

    def as_record(self) -> dict[str, Any]:
        """What the record of a multimodal model says of its tower, as JSON values."""
        raise NotImplementedError


class AlignedTowerConfig(TowerConfig):
    """What an :class:`AlignedTower` is made of.

    Attributes:
        backbone_config: of the transformers vision model.
        tokens: which there are.
        pooling: how the backbone's tokens become what the head takes.
        layer: index into the hidden states (0 = embeddings), or ``None`` for the last output.
        head: the :class:`~lateen.training.config.HeadSection` as a dict; ``None`` for bare tokens.
        in_dim: length of what the head takes.
        projection_dim: width of a CLIP's own projection; ``None`` where it has no part in it.
        prefix: tokens of the backbone before its patches.
        spatial: whether the backbone gives feature maps.
        rows: of patches, of an image of its own size.
        columns: likewise.
        grid: patches are averaged to so many rows and columns; ``None`` leaves them.
        encoder: what the tower was made of: id, hash of the weights, of the head.
    """

    model_type = "lateen_tower"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    tokens: str = "patch"
    pooling: str = "mean"
    layer: int | None = None
    head: dict[str, Any] | None = None
    in_dim: int = 0
    projection_dim: int | None = None
    prefix: int = 0
    spatial: bool = False
    rows: int = 0
    columns: int = 0
    grid: int | None = None
    encoder: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.backbone_config, dict):
            values = dict(self.backbone_config)
            self.backbone_config = AutoConfig.for_model(values.pop("model_type"), **values)
        super().__post_init__(**kwargs)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the patches that it gives of an image of its own size."""
        return (self.grid, self.grid) if self.grid else (self.rows, self.columns)

    @property
    def num_tokens(self) -> int:
        """How many tokens an image of the backbone's own size has."""
        rows, columns = self.shape
        return rows * columns + self.additional_tokens

    @property
    def additional_tokens(self) -> int:
        """How many of them are no patches."""
        return int(self.tokens == "cls,patch")

    def as_record(self) -> dict[str, Any]:
        """What the record of a multimodal model says of it."""
        return {
            "encoder": self.encoder, "tokens": self.tokens, "layer": self.layer, "head": self.head,
            "grid": self.grid, "projection": self.projection_dim is not None,
            "norm": self.norm, "tokens_per_image": self.num_tokens, "width": self.hidden_size,
        }  # fmt: skip


class Tower(PreTrainedModel):  # type: ignore[misc]
    """Pixels to the tokens that a language model's projector takes.

    It answers as Llava asks a tower: ``hidden_states`` has one entry, the tokens, so that
    ``vision_feature_layer`` is -1 and the strategy ``full``.
    """

    config_class = TowerConfig
    main_input_name = "pixel_values"
    base_model_prefix = ""
    _supports_sdpa = True
    _supports_flash_attn = True

    def _init_weights(self, module: nn.Module) -> None:
        """Backbone and head initialise themselves; transformers has nothing to add."""

    def train(self, mode: bool = True) -> Self:
        """Always evaluation mode: a head's dropout was for its own training."""
        del mode
        return cast(Self, super().train(False))

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Pixel values ``[n, 3, H, W]`` to tokens ``[n, tokens, hidden_size]``, normalised where
        the config says so; tokens that were made before, in their place, are given back.

        What else Llava hands to towers (which layers to keep) is settled by the config.
        """
        if self._made_before(pixel_values):
            tokens = pixel_values.to(self.dtype)
        else:
            tokens = self.tokens(pixel_values)
            if self.config.norm is not None:
                tokens = F.layer_norm(tokens, tokens.shape[-1:])
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))

    def _made_before(self, values: Tensor) -> bool:
        if values.ndim != 3:
            return False
        return tuple(values.shape[1:]) == (self.config.num_tokens, self.config.hidden_size)

    def tokens(self, pixel_values: Tensor) -> Tensor:
        """Pixel values ``[n, 3, H, W]`` to tokens ``[n, tokens, hidden_size]``, not normalised."""
        raise NotImplementedError


class AlignedTower(Tower):
    """A backbone, and a model's image head on its tokens.

    Args:
        config: says what it is made of.
        backbone: is used as it is; made from the config if not given.
        head: likewise.
        projection: likewise, of a CLIP into its shared space.
    """

    config_class = AlignedTowerConfig

    def __init__(
        self, config: AlignedTowerConfig, *, backbone: nn.Module | None = None,
        head: nn.Module | None = None, projection: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__(config)
        model = AutoModel.from_config(config.backbone_config) if backbone is None else backbone
        info = EncoderInfo(
            id=config.model_type, modality="image", dim=config.in_dim, pooling=config.pooling,
            weights="", layer=config.layer,
        )  # fmt: skip
        dual = None
        if config.projection_dim is not None:
            if projection is None:
                width = cast(PreTrainedConfig, config.backbone_config).hidden_size
                projection = nn.Linear(width, config.projection_dim, bias=False)
            dual = _Projected(model, projection)
        layout = TokenLayout(config.prefix, config.spatial, False)
        self.network = VisionNetwork(model, info, layout, config.size, dual)
        self.head = _made_head(config) if head is None else head
        self.post_init()

    def tokens(self, pixel_values: Tensor) -> Tensor:
        """Pixel values ``[n, 3, H, W]`` to tokens ``[n, tokens, hidden_size]``, not normalised.

        Patches are averaged to a grid before the head: what it was trained on are averages.

        Raises:
            ModelError: the images have another number of channels or dimensions.
        """
        if pixel_values.ndim != 4:
            raise ModelError(
                f"a tower takes pixels [n, 3, height, width], not {list(pixel_values.shape)}",
                "Prepare images with the model's own processor.",
            )
        pixels = pixel_values.to(self.dtype)
        if self.config.tokens == "cls,patch":
            whole, patches = self.network.with_patches(pixels)
            patches = self._pooled(patches, pixels)
            features = torch.cat([whole[:, None], patches], dim=1)
        else:
            features = self._pooled(self.network.patches(self.network.run(pixels)), pixels)
        count, length, dim = features.shape
        embedded = self.head(features.reshape(count * length, dim))
        return cast(Tensor, embedded.view(count, length, -1).to(self.dtype))

    def _pooled(self, patches: Tensor, pixels: Tensor) -> Tensor:
        """Patches ``[n, rows · columns, dim]``, averaged to the grid."""
        if self.config.grid is None:
            return patches
        (height, width), (own_height, own_width) = pixels.shape[2:], self.config.size
        rows = self.config.rows * height // own_height
        columns = self.config.columns * width // own_width
        maps = patches.transpose(1, 2).reshape(len(patches), -1, rows, columns)
        pooled = F.adaptive_avg_pool2d(maps, (self.config.grid, self.config.grid))
        return pooled.flatten(2).transpose(1, 2)


class _Projected(nn.Module):
    """The image side of a CLIP, under the names that a whole one has them."""

    def __init__(self, vision_model: nn.Module, visual_projection: nn.Module) -> None:
        super().__init__()
        self.vision_model = vision_model
        self.visual_projection = visual_projection


def root_mean_square(values: Tensor) -> float:
    """The scale of values."""
    return float(values.float().square().mean().sqrt())


def _made_head(config: AlignedTowerConfig) -> nn.Module:
    if config.head is None:
        return IdentityHead()
    return build_head(HeadSection.model_validate(config.head), config.in_dim, "image")


# So that transformers' own loaders know the towers inside saved models.
AutoConfig.register(AlignedTowerConfig.model_type, AlignedTowerConfig, exist_ok=True)
AutoModel.register(AlignedTowerConfig, AlignedTower, exist_ok=True)
