"""Several vision towers as one: their tokens added, alternating, or side by side.

Additive and interleaved are MMVP's mixtures of features ("Eyes Wide Shut?", arXiv:2401.06209),
before one projector; MMVP's own interleaved has a projector for each tower.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from lateen.errors import EncoderError, UsageError, choices
from lateen.mllm.backbone import open_tower
from lateen.mllm.pixels import Pixels, convert, describe_pixels, other_view
from lateen.mllm.tower import (
    AlignedTower,
    AlignedTowerConfig,
    TokenKind,
    Tower,
    TowerConfig,
    root_mean_square,
)
from lateen.model import AlignedModel
from lateen.progress import log

Mix = Literal["additive", "interleaved", "channels"]
"""``additive``: share · A + (1 − share) · B. ``interleaved``: A's and B's tokens of a place, one
after the other. ``channels``: concatenated to longer tokens."""
MIXES: tuple[Mix, ...] = get_args(Mix)
EVEN = 0.5
_DROWNS = 3.0  # so many times the root mean square: the other has a tenth of the sum's energy
_CHANNELS = "Mix them with --mix channels, which takes any width."


class FusedTowerConfig(TowerConfig):
    """What a :class:`FusedTower` is made of.

    Attributes:
        mix: how tokens of the parts become one's.
        share: of the first part in an additive mixture; ``None`` in others.
        parts: :class:`~lateen.mllm.tower.AlignedTowerConfig` of each, as a dict.
        pixels: :class:`~lateen.mllm.pixels.Pixels` of each part's own processor, as a dict.
    """

    model_type = "lateen_fused_tower"

    mix: str = "additive"
    share: float | None = None
    parts: list[dict[str, Any]] | None = None
    pixels: list[dict[str, Any]] | None = None

    def part_configs(self) -> list[AlignedTowerConfig]:
        """The configs of the parts."""
        return [AlignedTowerConfig.from_dict(dict(part)) for part in self.parts or []]

    def part_pixels(self) -> list[Pixels]:
        """How each part's own processor makes pixels."""
        return [Pixels.from_dict(each) for each in self.pixels or []]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the places that it gives tokens of."""
        return self.part_configs()[0].shape

    @property
    def num_tokens(self) -> int:
        """How many tokens an image of the first part's size has."""
        parts = self.part_configs()
        return parts[0].num_tokens * (len(parts) if self.mix == "interleaved" else 1)

    @property
    def additional_tokens(self) -> int:
        """How many of them a processor does not count as places of the first part's grid."""
        rows, columns = self.shape
        return self.num_tokens - rows * columns

    def as_record(self) -> dict[str, Any]:
        """What the record of a multimodal model says of it: as of one tower, and of each part."""
        parts = [config.as_record() for config in self.part_configs()]
        for part, pixels in zip(parts, self.part_pixels(), strict=True):
            part["same_view"] = pixels.same_view
        alike = {
            key: parts[0][key] if all(part[key] == parts[0][key] for part in parts) else None
            for key in ("tokens", "layer", "head", "grid", "projection")
        }
        return {
            "encoder": {"id": " + ".join(str(part["encoder"]["id"]) for part in parts)}, **alike,
            "norm": self.norm, "tokens_per_image": self.num_tokens, "width": self.hidden_size,
            "mix": self.mix, "share": self.share, "parts": parts,
        }  # fmt: skip


class FusedTower(Tower):
    """Towers that are given the same image, and whose tokens become one tower's.

    It takes the pixels of the first part's processor; those of the others are made of them.

    Args:
        config: says what it is made of.
        parts: are used as they are; made from the config if not given.
    """

    config_class = FusedTowerConfig

    def __init__(
        self, config: FusedTowerConfig, *, parts: Sequence[AlignedTower] | None = None
    ) -> None:
        super().__init__(config)
        if parts is None:
            configs = config.part_configs()
            for part in configs:  # else each is made in the number format that it had alone
                part.dtype = cast(PreTrainedConfig, part.backbone_config).dtype = config.dtype
            parts = [AlignedTower(part) for part in configs]
        self.parts = nn.ModuleList(parts)
        self._pixels = config.part_pixels()
        self.post_init()

    def part_tokens(self, pixel_values: Tensor) -> list[Tensor]:
        """Pixel values ``[n, 3, H, W]`` to the tokens ``[n, tokens, width]`` of each part.

        Args:
            pixel_values: of the first part's processor.
        """
        return [
            cast(AlignedTower, part).tokens(convert(pixel_values, self._pixels[0], own))
            for part, own in zip(self.parts, self._pixels, strict=True)
        ]

    def tokens(self, pixel_values: Tensor) -> Tensor:
        """Pixel values ``[n, 3, H, W]`` to tokens ``[n, tokens, hidden_size]``, not normalised.

        Raises:
            ModelError: the images have another number of channels or dimensions.
        """
        parts = self.part_tokens(pixel_values)
        if self.config.mix == "channels":
            return torch.cat(parts, dim=-1)
        if self.config.mix == "interleaved":
            return torch.stack(parts, dim=2).flatten(1, 2)
        return torch.lerp(parts[1], parts[0], self.config.share)


def open_towers(
    names: Sequence[str | Path | AlignedModel], *, mix: Mix | None = None,
    share: float | None = None, tokens: TokenKind | None = None, layer: int | None = None,
    bare: bool = False, grid: int | None = None,
) -> tuple[AlignedTower | FusedTower, Any]:  # fmt: skip
    """One tower, or several fused, and the image processor of the first.

    Args:
        names: as :func:`~lateen.mllm.open_tower` takes one; the other options are for all of them.
        mix: how tokens of several become one's; ``additive`` if not given.
        share: of the first in an additive mixture; half if not given.
        tokens: as there.
        layer: as there.
        bare: as there.
        grid: as there.

    Raises:
        EncoderError: as there, or the towers do not fit each other.
        UsageError: options that do not go together.
    """
    if not names:
        raise UsageError("there is no tower", "Name one, or several.")
    if len(names) == 1 and (mix or share is not None):
        raise UsageError("one tower is no mixture", "Give --tower twice, or leave --mix out.")
    mix, share = _checked(mix or MIXES[0], share, len(names))
    opened = [open_tower(name, tokens=tokens, layer=layer, bare=bare, grid=grid) for name in names]
    return opened[0] if len(opened) == 1 else fuse_towers(opened, mix=mix, share=share)


def fuse_towers(
    towers: Sequence[tuple[AlignedTower, Any]], *, mix: Mix = "additive", share: float | None = None
) -> tuple[FusedTower, Any]:
    """Opened towers as one; they are used as they are, and not copied.

    Args:
        towers: each with its image processor, as :func:`~lateen.mllm.open_tower` gives them.
        mix: how their tokens become one's.
        share: of the first in an additive mixture; half if not given.

    Returns:
        The tower, and the image processor of the first part, whose pixels it takes.

    Raises:
        EncoderError: towers of other grids, kinds of tokens or widths, or a processor whose pixels
            cannot be made of the first's.
        UsageError: too few or too many towers, or a share that is none.
    """
    mix, share = _checked(mix, share, len(towers))
    configs = [tower.config for tower, _ in towers]
    names = [str(config.encoder["id"]) for config in configs]
    _check_fit(configs, names, mix)
    settings = [
        describe_pixels(processor, config.size, name)
        for config, (_, processor), name in zip(configs, towers, names, strict=True)
    ]
    processors = [(p, own) for (_, p), own in zip(towers, settings, strict=True)]
    pixels = [settings[0].as_dict()]
    for name, own in zip(names[1:], processors[1:], strict=True):
        same = _same_view(processors[0], own, name)
        pixels.append(replace(own[1], same_view=same).as_dict())
    widths = [config.hidden_size for config in configs]
    config = FusedTowerConfig(
        hidden_size=sum(widths) if mix == "channels" else widths[0],
        image_size=configs[0].image_size, patch_size=configs[0].patch_size,
        num_hidden_layers=configs[0].num_hidden_layers, mix=mix, share=share,
        parts=[_part(each) for each in configs], pixels=pixels,
    )  # fmt: skip
    fused = FusedTower(config, parts=[tower for tower, _ in towers])
    return fused.requires_grad_(False).eval(), towers[0][1]


@torch.no_grad()
def part_scales(tower: FusedTower, pixel_values: Tensor) -> list[float]:
    """Root mean squares of each part's tokens, alone; where one drowns another it is said.

    Args:
        tower: fused.
        pixel_values: ``[n, 3, H, W]``, of its processor.
    """
    parts = tower.part_tokens(pixel_values)
    scales = [root_mean_square(each) for each in parts]
    if tower.config.mix != "additive":
        return scales
    share = float(tower.config.share)
    if _far_apart(scales) and _far_apart([share * scales[0], (1 - share) * scales[1]]):
        names = [part["encoder"]["id"] for part in tower.config.as_record()["parts"]]
        even = scales[1] / max(sum(scales), 1e-12)
        log.warning(
            "tokens of %s have a root mean square of %.3g, those of %s of %.3g: in a sum with "
            "share %.3g the one drowns the other. --share %.3g makes them even; --mix channels "
            "leaves it to the projector",
            names[0], scales[0], names[1], scales[1], share, even,
        )  # fmt: skip
    return scales


def _far_apart(scales: Sequence[float]) -> bool:
    return max(scales) > _DROWNS * min(scales)


def _checked(mix: Mix, share: float | None, count: int) -> tuple[Mix, float | None]:
    """Mixture and share, seen to go together.

    Raises:
        UsageError: they do not.
    """
    if mix not in MIXES:
        raise UsageError(f"there is no mixture {mix!r}", choices(mix, MIXES))
    if mix != "additive":
        if share is not None:
            raise UsageError(
                f"--mix {mix} has no share", "Leave --share out, or mix with --mix additive."
            )
        return mix, None
    if count > 2:
        raise UsageError(
            f"--mix additive is of two towers, not {count}", "Mix more with --mix channels."
        )
    share = EVEN if share is None else share
    if not 0 < share < 1:
        raise UsageError(
            f"a share of {share:g} leaves one tower out",
            "Give a number between 0 and 1, or the one tower alone.",
        )
    return mix, share


def _check_fit(configs: Sequence[AlignedTowerConfig], names: Sequence[str], mix: Mix) -> None:
    """See that tokens of the parts belong to the same places, and can be mixed.

    Raises:
        EncoderError: they do not, or cannot.
    """
    first = configs[0]
    for config, name in zip(configs[1:], names[1:], strict=True):
        if config.shape != first.shape:
            (rows, columns), (own_rows, own_columns) = first.shape, config.shape
            least = min(*first.shape, *config.shape)
            raise EncoderError(
                f"{names[0]} gives {rows} × {columns} patches and {name} {own_rows} × "
                f"{own_columns}, so that their tokens are not of the same places",
                f"Average the patches of both with --grid {least}, or less"
                + (
                    "."
                    if mix == "channels" or config.hidden_size == first.hidden_size
                    else ", and mix with --mix channels: the widths differ, too."
                ),
            )
        if config.additional_tokens != first.additional_tokens:
            raise EncoderError(
                f"the tokens of {names[0]} are {first.tokens!r} and those of {name} "
                f"{config.tokens!r}, so that one has a token more",
                "Give both the same --tokens.",
            )
        if mix != "channels" and config.hidden_size != first.hidden_size:
            raise EncoderError(
                f"the tokens of {names[0]} have {first.hidden_size} values and those of {name} "
                f"{config.hidden_size}: {mix} mixtures are of one width",
                _CHANNELS,
            )


def _same_view(first: tuple[Any, Pixels], own: tuple[Any, Pixels], name: str) -> bool:
    """Whether a part sees of a photograph what it would alone; where not, it is said."""
    if math.prod(first[1].size) < math.prod(own[1].size):
        log.warning(
            "%s takes %d × %d pixels, which are made of the first tower's %d × %d: it sees fewer "
            "details than alone. As the first --tower it would not",
            name, *own[1].size, *first[1].size,
        )  # fmt: skip
    shown = other_view(first, own)
    if shown is None:
        return True
    (width, height), (own_width, own_height) = shown
    log.warning(
        "images are cut as the first tower's are: of a photograph's width and height it shows %.0f "
        "and %.0f %%; alone, %s would be shown %.0f and %.0f %%",
        100 * width, 100 * height, name, 100 * own_width, 100 * own_height,
    )  # fmt: skip
    return False


def _part(config: AlignedTowerConfig) -> dict[str, Any]:
    values: dict[str, Any] = config.to_dict()
    return {k: v for k, v in values.items() if k not in ("_name_or_path", "transformers_version")}


# As towers alone are.
AutoConfig.register(FusedTowerConfig.model_type, FusedTowerConfig, exist_ok=True)
AutoModel.register(FusedTowerConfig, FusedTower, exist_ok=True)
