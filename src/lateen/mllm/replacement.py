"""What a tower must be to take another's place before a projector, told by configs alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lateen.errors import ModelError
from lateen.mllm.fused import FusedTowerConfig
from lateen.mllm.tower import AlignedTowerConfig, TokenKind

REMEDY = "Give a tower of the same kind, or build with this one and train the projector anew."
"""What to do where a tower does not fit."""
_NO_TOWER = "Give a model that `lateen mllm build` made, or a LLaVA with a CLIP tower."


@dataclass(frozen=True)
class Needed:
    """The tokens that a projector takes.

    Attributes:
        tokens: which there are.
        through: what they go through behind the backbone: ``the model's head``, ``the CLIP's
            projection``, or nothing (``None``).
        pooling: how the backbone's tokens become what goes through it; ``None`` where nothing
            follows, or it is not known.
        layer: hidden layer of the backbone, where nothing follows; ``None`` is the last.
        grid: patches are averaged to so many rows and columns; ``None`` leaves them.
        norm: what is done to each token at the end; ``None`` for nothing.
        shape: rows and columns of the patches, after that.
        width: length of a token.
    """

    tokens: TokenKind
    through: str | None
    pooling: str | None
    layer: int | None
    grid: int | None
    norm: str | None
    shape: tuple[int, int]
    width: int

    @property
    def bare(self) -> bool:
        """Whether nothing follows the backbone."""
        return self.through is None

    @property
    def count(self) -> int:
        """How many tokens an image has."""
        return self.shape[0] * self.shape[1] + (self.tokens == "cls,patch")

    @property
    def kind(self) -> str:
        """In words, for messages."""
        where = "" if self.layer is None else f" of layer {self.layer}"
        pooling = f", pooling {self.pooling}" if self.pooling and self.through else ""
        return f"{self.tokens}{where}, through {self.through or 'no head'}{pooling}"


def needed_of(config: Any, place: str | Path) -> Needed:
    """What a multimodal model's projector takes.

    Args:
        config: of the model.
        place: where it is, for messages.

    Raises:
        ModelError: it is no Llava, or what its tower gives cannot be told.
    """
    if config.model_type != "llava":
        raise ModelError(
            f"{place} is a model of type {config.model_type!r}, and no LLaVA, so that no other "
            "tower fits",
            _NO_TOWER,
        )
    tower = config.vision_config
    if isinstance(tower, FusedTowerConfig):
        raise ModelError(
            f"the tower of {place} is fused of {len(tower.parts or [])}, and one cannot take their "
            "place before a projector that was made for them",
            "Build with the other towers, and train the projector anew.",
        )
    if isinstance(tower, AlignedTowerConfig):
        return _of_aligned(tower)
    layer = config.vision_feature_layer
    if tower.model_type != "clip_vision_model" or not isinstance(layer, int):
        what = tower.model_type if isinstance(layer, int) else f"layers {list(layer)} together"
        raise ModelError(
            f"which tokens the tower of {place} gives ({what}) is not known here", _NO_TOWER
        )
    side = tower.image_size // tower.patch_size
    tokens: TokenKind = (
        "patch" if config.vision_feature_select_strategy == "default" else "cls,patch"
    )
    return Needed(tokens, None, None, layer, None, None, (side, side), tower.hidden_size)


def _of_aligned(tower: AlignedTowerConfig) -> Needed:
    through = None
    if tower.head is not None:
        through = "the model's head"
    elif tower.projection_dim is not None:
        through = "the CLIP's projection"
    shape = (tower.grid, tower.grid) if tower.grid else (tower.rows, tower.columns)
    return Needed(
        cast(TokenKind, tower.tokens), through, tower.pooling, None if through else tower.layer,
        tower.grid, tower.norm, shape, tower.hidden_size,
    )  # fmt: skip


def check_fit(tower: AlignedTowerConfig, needed: Needed, *, named: str, place: str | Path) -> None:
    """See that a tower gives the tokens that a projector takes.

    Args:
        tower: the new one's config.
        needed: by the projector.
        named: what the new one is called, for messages.
        place: where the model with the projector is, likewise.

    Raises:
        ModelError: its tokens are of another kind, grid or width.
    """
    given = _of_aligned(tower)
    same = given.through == needed.through and given.tokens == needed.tokens
    if not same or (needed.pooling and given.pooling != needed.pooling):
        raise ModelError(
            f"{named} gives tokens of another kind ({given.kind}) than the tower of {place} "
            f"({needed.kind})",
            REMEDY,
        )
    if given.shape != needed.shape:
        raise ModelError(
            f"{named} gives {_grid(given.shape)} patches, and the tower of {place} "
            f"{_grid(needed.shape)}",
            REMEDY,
        )
    if given.width != needed.width:
        raise ModelError(
            f"{named} gives tokens of {given.width:,} values, and the projector of {place} takes "
            f"{needed.width:,}",
            REMEDY,
        )


def _grid(shape: tuple[int, int]) -> str:
    return f"{shape[0]} × {shape[1]}"
