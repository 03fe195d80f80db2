"""Features per patch of windows of any size (METHODS §1.6)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, get_args

from PIL import Image
from torch import Tensor

from lateen.encoders.attention import Attention, changed_block
from lateen.encoders.base import Encoder, PatchEncoder
from lateen.encoders.fused import FusedEncoder, FusedInput
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError, UsageError, choices
from lateen.progress import log

_OWN_SIZE = 224  # of an encoder that does not say
# What networks raise where images have a size that they cannot take.
_MISFITS = (ValueError, TypeError, RuntimeError, IndexError, AttributeError)


class WindowEncoder:
    """Patch features of square windows, which may be larger than the encoder's own images.

    Position embeddings are interpolated to the window. A model that cannot do that gets windows of
    its own size instead. Of several encoders fused into one, each sees the same windows.

    Args:
        encoder: an image encoder with features per patch.
        window: edge in pixels; the encoder's own size if not given.
        attention: what attends to what in the last block: queries to keys as the model was made
            (``qk``), queries to queries, or keys to keys.
        residual: False leaves out what passes by the attention in the last block.

    Attributes:
        window: edge in pixels of the windows it takes.
        grid: how many patches lie along an edge.

    Raises:
        EncoderError: no features per patch, or no attention to change.
        UsageError: a window that is not a whole number of patches, or no such attention.
    """

    def __init__(
        self, encoder: Encoder, window: int | None = None, *, attention: Attention = "qk",
        residual: bool = True,
    ) -> None:  # fmt: skip
        if not isinstance(encoder, PatchEncoder):
            raise EncoderError(
                f"{encoder.info.id} has no features per patch",
                "Use a vision transformer, or give your encoder an encode_patches.",
            )
        if attention not in get_args(Attention):
            raise UsageError(
                f"there is no attention {attention!r}", choices(attention, get_args(Attention))
            )
        self._encoder: PatchEncoder = encoder
        self._attention, self._residual = attention, residual
        self.window, self.grid = self._fit(window)

    def encode(self, windows: Sequence[Image.Image]) -> Tensor:
        """Patch features ``[n, grid, grid, dim]``, float32, on the CPU.

        Args:
            windows: RGB images of :attr:`window` × :attr:`window` pixels.
        """
        patches = self._patches(windows)
        return patches.view(len(patches), self.grid, self.grid, -1)

    def _patches(self, windows: Sequence[Image.Image]) -> Tensor:
        with contextlib.ExitStack() as changes:
            if self._attention != "qk" or not self._residual:
                for part in _parts(self._encoder):
                    changes.enter_context(changed_block(part, self._attention, self._residual))
            return self._encoder.encode_patches(_uncut(self._encoder, windows))

    def _fit(self, window: int | None) -> tuple[int, int]:
        """The window that the encoder takes, and how many patches lie along its edge."""
        parts = [part for part in _parts(self._encoder) if isinstance(part, VisionEncoder)]
        for part in parts:
            _check_patches(part, window)
        own = min((min(part.image_size) for part in parts), default=_OWN_SIZE)
        problem = ""
        for edge in dict.fromkeys((window or own, own)):
            try:
                patches = self._patches([Image.new("RGB", (edge, edge))]).shape[1]
            except _MISFITS as error:
                problem = (str(error).strip() or type(error).__name__).splitlines()[0]
                continue
            grid = math.isqrt(patches)
            if grid * grid == patches:
                if window not in (None, edge):
                    log.info("%s takes windows of %d pixels only", self._encoder.info.id, edge)
                return edge, grid
            problem = f"{patches} patches are not a square of them"
        raise EncoderError(
            f"{self._encoder.info.id} cannot encode windows of {window or own} pixels: {problem}",
            "Give another --window.",
        )


def _parts(encoder: Encoder) -> Sequence[Encoder]:
    return encoder.parts if isinstance(encoder, FusedEncoder) else [encoder]


def _uncut(encoder: Encoder, windows: Sequence[Image.Image]) -> Sequence[Any]:
    """Windows as the encoder takes them, in their own size where that can be had."""
    if isinstance(encoder, FusedEncoder):
        prepared = [_uncut(part, windows) for part in encoder.parts]
        return [FusedInput(inputs) for inputs in zip(*prepared, strict=True)]
    return (encoder.prepare_uncut if isinstance(encoder, VisionEncoder) else encoder.prepare)(
        windows
    )


def _check_patches(encoder: VisionEncoder, window: int | None) -> None:
    patch = getattr(encoder.network.config, "patch_size", None)
    if isinstance(patch, int) and window is not None and (window < patch or window % patch):
        raise UsageError(
            f"a window of {window} pixels is not a whole number of {encoder.info.id}'s patches of "
            f"{patch} pixels",
            f"Give {max(patch, round(window / patch) * patch)}, for instance.",
        )
