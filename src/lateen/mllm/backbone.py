"""From a model, a CLIP or a vision encoder to an :class:`~lateen.mllm.tower.AlignedTower`."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel

from lateen.encoders import Encoder, load_encoder
from lateen.encoders.own import is_factory
from lateen.encoders.resolve import is_lateen_model, resolve
from lateen.encoders.vision import VisionEncoder, patch_grid
from lateen.encoders.weights import tensors_hash
from lateen.errors import EncoderError, UsageError, choices
from lateen.hardware import use_hardware
from lateen.mllm.tower import TOKEN_KINDS, AlignedTower, AlignedTowerConfig, TokenKind
from lateen.model import AlignedModel
from lateen.model.clip import is_clip
from lateen.model.saving import without_paths
from lateen.model.trained_on import TRAINED_ON, TrainedOn
from lateen.training.heads import IdentityHead

# The pooling that a head was trained on → what it can be given.
_HEAD_TAKES: dict[str, tuple[TokenKind, ...]] = {
    "cls+mean": ("cls+patch", "cls,patch"),
    "mean": ("patch",),
    "projection": ("patch", "cls,patch"),
    "cls": ("cls,patch",),
}
_BARE = {"cls+patch": "cls+mean", "patch": "mean", "cls,patch": "cls"}
_RECORDED = ("id", "weights", "revision", "pooling", "layer", "preprocessing")


@dataclass(frozen=True)
class _Source:
    """What a tower is made of.

    Attributes:
        encoder: the vision encoder.
        head: from its features into the shared space; ``None`` if there is none.
        settings: of the head, as a dict.
        name: of the encoder, where its own is that of a folder inside a model.
    """

    encoder: VisionEncoder
    head: nn.Module | None = None
    settings: dict[str, Any] | None = None
    name: str | None = None


def open_tower(
    name: str | Path | AlignedModel, *, tokens: TokenKind | None = None, layer: int | None = None,
    bare: bool = False, grid: int | None = None,
) -> tuple[AlignedTower, Any]:  # fmt: skip
    """A tower, in evaluation mode on the CPU, and the image processor of its backbone.

    A model's tower gives the patch embeddings that segmentation scores, not normalised: pooling
    ``cls+mean`` makes ``cls+patch`` tokens, SAIL's. A CLIP's are mapped by its own projection. A
    hidden ``layer`` (LLaVA's is -2) and ``bare`` leave head and projection out.

    Args:
        name: an AlignedModel or its folder, a CLIP, or a vision encoder by folder or hub id.
        tokens: which; what the head was trained for, else patches, if not given.
        layer: hidden layer of the backbone; the last if not given.
        bare: leave the head out.
        grid: average the patches to so many rows and columns.

    Raises:
        EncoderError: no vision network of transformers' own, or no such tokens, layer or grid.
        UsageError: options that do not go together.
    """
    if tokens is not None and tokens not in TOKEN_KINDS:
        raise UsageError(f"there are no tokens {tokens!r}", choices(tokens, TOKEN_KINDS))
    headless = bare or layer is not None
    with use_hardware(device="cpu", precision="float32"):
        source = _open(name, headless=headless)
    view, kind = _viewed(source, tokens, layer, headless=headless)
    _check_class(view)
    config = _describe(source, view, kind, grid)
    parts = {
        "backbone": view.network.model, "head": source.head,
        "projection": view.network.dual.visual_projection if view.network.projects else None,
    }  # fmt: skip
    if isinstance(name, AlignedModel):  # which stays as it is
        parts = copy.deepcopy(parts)
    tower = AlignedTower(config, **parts)
    if not view.layout.pooler:
        _settle_pooler(tower)
    # As it will be when it is loaded again: another layout in memory rounds in other places.
    tower.to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format)
    return tower.requires_grad_(False).eval(), view.processor


@torch.no_grad()
def _settle_pooler(tower: AlignedTower) -> None:
    """Zero a pooler that no checkpoint has: it is random and unused, and the same tower is to have
    the same weights whenever it is opened."""
    for name, weights in tower.network.model.named_parameters():
        if "pooler" in name.split("."):
            weights.zero_()


def trained_on_of(names: Iterable[str | Path | AlignedModel]) -> TrainedOn | None:
    """The images that aligned models among towers were trained on; ``None`` where none says so.

    Args:
        names: as :func:`open_tower` takes them.
    """
    found: TrainedOn | None = None
    for name in names:
        if isinstance(name, AlignedModel):
            own = name.trained_on
        else:
            path = Path(name).expanduser() / TRAINED_ON
            own = TrainedOn.load(path) if path.is_file() else None
        found = own.after(found, str(name)) if own is not None else found
    return found


def _open(name: str | Path | AlignedModel, *, headless: bool) -> _Source:
    """The vision encoder, and the head unless it is to be left out."""
    if isinstance(name, AlignedModel):
        model = name
    else:
        if is_factory(str(name)):
            return _Source(_vision(load_encoder(str(name), "image")))
        folder = Path(name).expanduser()
        folder = folder if folder.is_dir() else resolve(str(name)).folder
        if not is_lateen_model(folder):
            pooling = "projection" if is_clip(folder) and not headless else "mean"
            return _Source(_vision(load_encoder(str(name), "image", pooling=pooling)))
        model = AlignedModel.from_pretrained(folder)
    encoder = _vision(model.vision_encoder)
    side = model.config.vision
    called = f"{side['id']} (tuned)" if side.get("trained") else None
    if headless or isinstance(model.heads.vision, IdentityHead):
        return _Source(encoder, name=called)
    settings = model.config.head_settings.model_dump()
    return _Source(encoder, model.heads.vision, settings, called)


def _vision(encoder: Encoder) -> VisionEncoder:
    if isinstance(encoder, VisionEncoder):
        return encoder
    raise EncoderError(
        f"{encoder.info.id} is code, or several encoders fused, and no network of transformers",
        "Give a model whose vision encoder is one.",
    )


def _viewed(
    source: _Source, tokens: TokenKind | None, layer: int | None, *, headless: bool
) -> tuple[VisionEncoder, TokenKind]:
    """The encoder with the pooling that the tokens are made by, and the kind of these."""
    encoder, pooling = source.encoder, source.encoder.info.pooling
    if source.head is None and (headless or pooling != "projection"):
        own: TokenKind = "cls+patch" if pooling == "cls+mean" and not headless else "patch"
        kind = tokens or own
        where = layer if layer is not None else encoder.info.layer
        return encoder.view(_BARE[kind], where), kind
    if pooling == "pooler" and _averages(encoder):
        encoder, pooling = encoder.view("mean", encoder.info.layer), "mean"
    takes = _HEAD_TAKES.get(pooling, ())
    if pooling != "cls" or tokens is None:
        try:
            encoder.check_patches()
        except EncoderError as error:
            raise EncoderError(
                error.message, "Leave head and projection out with --bare, or align with cls+mean."
            ) from error
    kind = tokens or takes[0]
    if kind not in takes:
        raise UsageError(
            f"the head was trained on pooling {pooling!r}, and tokens {kind!r} are none of it",
            f"Use {' or '.join(takes)}, or leave the head out with --bare.",
        )
    return encoder, kind


@torch.no_grad()
def _averages(encoder: VisionEncoder) -> bool:
    """Whether the pooler of a convolutional network is the mean of its last map."""
    if not encoder.layout.spatial:
        return False
    pixels = torch.rand(1, 3, *encoder.image_size, generator=torch.Generator().manual_seed(0))
    pixels = pixels.to(next(encoder.network.parameters()).device)
    output = encoder.network.run(pixels)
    mean = encoder.view("mean").network.pooled(output)
    pooler = encoder.network.pooled(output).float()
    return pooler.shape == mean.shape and torch.allclose(pooler, mean, rtol=1e-4, atol=1e-5)


def _check_class(encoder: VisionEncoder) -> None:
    """See that transformers makes the network again from its config.

    Raises:
        EncoderError: it is of a class that only its own code has.
    """
    model = encoder.network.model
    with torch.device("meta"):
        try:
            again = type(AutoModel.from_config(model.config))
        except (ValueError, KeyError, OSError):
            again = None
    if again is not type(model):
        raise EncoderError(
            f"{encoder.info.id} is a {type(model).__name__}, which AutoModel does not make of its "
            "config, so that no saved tower could be loaded",
            "Use a vision model of transformers' own.",
        )


def _describe(
    source: _Source, view: VisionEncoder, kind: TokenKind, grid: int | None
) -> AlignedTowerConfig:
    """The config of the tower."""
    backbone = view.network.model.config
    rows, columns = _shape(view)
    height, width = view.image_size
    if grid is not None and not 1 <= grid <= min(rows, columns):
        raise EncoderError(
            f"a grid of {grid} × {grid} cannot be made of {rows} × {columns} patches",
            f"Give --grid 1 to {min(rows, columns)}, or leave it out.",
        )
    patch = _placeholder_edge((height, width), (grid, grid) if grid else (rows, columns))
    if patch is None:
        fitting = [g for g in range(1, min(rows, columns) + 1)
                   if _placeholder_edge((height, width), (g, g))]  # fmt: skip
        raise EncoderError(
            f"transformers' processor cannot count {grid or rows} × {grid or columns} tokens in "
            f"{height} × {width} pixels",
            f"Give --grid {' or '.join(map(str, fitting[-6:]))}.",
        )
    info = view.info
    described = {k: v for k, v in backbone.to_dict().items() if k != "_name_or_path"}
    out = source.settings["dim"] if source.settings else info.dim
    recorded = {name: info.as_dict()[name] for name in _RECORDED} | {"id": source.name or info.id}
    head = tensors_hash(source.head) if source.head is not None else None
    return AlignedTowerConfig(
        hidden_size=out, image_size=height if height == width else [height, width],
        patch_size=patch, num_hidden_layers=getattr(backbone, "num_hidden_layers", 1),
        backbone_config=described, tokens=kind, pooling=info.pooling, layer=info.layer,
        head=source.settings, in_dim=info.dim,
        projection_dim=info.dim if view.network.projects else None, prefix=view.layout.prefix,
        spatial=view.layout.spatial, rows=rows, columns=columns, grid=grid,
        encoder={**without_paths(recorded), "head": head},
    )  # fmt: skip


def _shape(view: VisionEncoder) -> tuple[int, int]:
    """Rows and columns of the patches.

    Raises:
        EncoderError: they are no rectangle that could be told.
    """
    count = view.network.patches(view.probe(view.network.run)).shape[1]
    height, width = view.image_size
    grid = patch_grid(view.network.model.config, view.image_size)
    if grid is not None and grid[0] * grid[1] == count:
        return grid
    side = math.isqrt(count)
    if side * side == count and height == width:
        return side, side
    raise EncoderError(
        f"the {count} tokens of {view.info.id} are no grid over {height} × {width} pixels",
        "Use a network with a token per patch.",
    )


def _placeholder_edge(size: tuple[int, int], grid: tuple[int, int]) -> int | None:
    """Pixels per placeholder such that ``size`` has ``grid`` of them, as processors count."""
    edge = size[0] // grid[0]
    return edge if edge and (size[0] // edge, size[1] // edge) == grid else None
