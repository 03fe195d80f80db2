"""Features of single patches, and the attention between them (METHODS §1.6)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor, nn

from lateen.encoders.base import Attention, Encoder, PatchEncoder
from lateen.encoders.fused import FusedEncoder, FusedInput
from lateen.encoders.vision import VisionEncoder, patch_grid
from lateen.encoders.weights import quiet_transformers
from lateen.errors import EncoderError, UsageError, choices, reason
from lateen.progress import log

_OWN_SIZE = 224  # of an encoder that does not say


# What networks raise where images have a size that they cannot take.
_MISFITS = (ValueError, TypeError, RuntimeError, IndexError, AttributeError)
_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))


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
                problem = reason(error)
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
    patch = getattr(encoder.network.model.config, "patch_size", None)
    if isinstance(patch, int) and window is not None and (window < patch or window % patch):
        raise UsageError(
            f"a window of {window} pixels is not a whole number of {encoder.info.id}'s patches of "
            f"{patch} pixels",
            f"Give {max(patch, round(window / patch) * patch)}, for instance.",
        )


@dataclass(frozen=True)
class _Block:
    """A transformer block, its attention, and that one's two projections."""

    whole: nn.Module
    attention: nn.Module
    query: nn.Module
    key: nn.Module


def has_attention(encoder: Encoder) -> bool:
    """Whether it is a vision transformer whose attention can be looked at and changed."""
    return isinstance(encoder, VisionEncoder) and bool(_blocks(encoder.network.model))


@contextlib.contextmanager
def changed_block(
    encoder: Encoder, attention: Attention = "qk", residual: bool = True
) -> Iterator[None]:
    """While it lasts, the block that gives the encoder's features attends in another way.

    ``qq`` and ``kk`` put queries in the place of keys and the reverse, so that patches attend to
    their like (SCLIP, arXiv:2312.01597). Without ``residual`` the block's output has nothing of its
    input but what it attended to (ClearCLIP, arXiv:2407.12442); its feed-forward network stays.

    Args:
        encoder: a vision transformer.
        attention: ``qk``, ``qq`` or ``kk``.
        residual: whether the input of the attention is added to its output.

    Raises:
        EncoderError: it has no attention with query, key and value projections in blocks, or they
            are of different sizes.
    """
    block = _last_block(encoder)
    handles = []
    if attention != "qk":
        used, unused = (block.query, block.key) if attention == "qq" else (block.key, block.query)
        if _outputs(used) != _outputs(unused):
            raise EncoderError(
                f"queries and keys of {encoder.info.id} are of different sizes",
                "Use attention qk.",
            )
        handles.append(unused.register_forward_hook(lambda _, args, __: used(*args)))
    if not residual:
        handles += _drop_residual(block.whole, encoder.info.id)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attention_maps(encoder: Encoder, prepared: Sequence[Tensor], layer: int = -2) -> Tensor:
    """How much the CLS token attends to each patch, by head.

    Where there is no CLS token it is the mean over the patches' queries.

    Args:
        encoder: a vision transformer.
        prepared: what its ``prepare`` gave.
        layer: which block, as a Python index.

    Returns:
        ``[n, heads, rows, columns]``, float32; what goes to CLS and registers is left out, so a map
        sums to less than 1.

    Raises:
        EncoderError: it has no attention, no such block, or none that sees all patches.
    """
    vision, blocks = _transformer(encoder)
    if not -len(blocks) <= layer < len(blocks):
        raise EncoderError(
            f"{encoder.info.id} has {len(blocks)} blocks, none of them {layer}",
            f"Choose a layer from {-len(blocks)} (the first) to -1 (the last).",
        )
    caught: list[Any] = []
    hook = blocks[layer].attention.register_forward_hook(lambda _, __, out: caught.append(out))
    try:
        with _weights_kept(vision.network.model):
            vision.encode(prepared)
    finally:
        hook.remove()
    weights = caught[0][1] if caught and isinstance(caught[0], tuple) else None
    size = vision.image_size
    rows, columns = patch_grid(vision.network.model.config, size) or size
    prefix = -1 if weights is None else weights.shape[-1] - rows * columns
    if weights is None or prefix < 0:
        raise EncoderError(
            f"block {layer} of {encoder.info.id} does not tell its attention over all patches",
            "Use a plain vision transformer, or another layer.",
        )
    queries = weights[:, :, 0] if prefix else weights.mean(dim=2)
    maps: Tensor = queries[..., prefix:].float().cpu()
    return maps.view(*maps.shape[:2], rows, columns)


def _transformer(encoder: Encoder) -> tuple[VisionEncoder, list[_Block]]:
    if isinstance(encoder, VisionEncoder) and (blocks := _blocks(encoder.network.model)):
        return encoder, blocks
    raise EncoderError(
        f"{encoder.info.id} has no attention (query, key and value projections in blocks)",
        "Use a vision transformer.",
    )


def _blocks(network: nn.Module) -> list[_Block]:
    """All blocks whose attention has query, key and value projections, in order."""
    blocks = []
    for name, module in network.named_modules():
        for names in _PROJECTIONS:
            query, key, value = (getattr(module, each, None) for each in names)
            whole = _enclosing_block(network, name)
            if query is not None and key is not None and value is not None and whole is not None:
                blocks.append(_Block(whole, module, query, key))
    return blocks


def _enclosing_block(network: nn.Module, name: str) -> nn.Module | None:
    """The innermost member of a list of modules that holds the module ``name``."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if isinstance(network.get_submodule(".".join(parts[: end - 1])), nn.ModuleList):
            return network.get_submodule(".".join(parts[:end]))
    return None


def _last_block(encoder: Encoder) -> _Block:
    """The block whose output the encoder's features are."""
    (_, blocks), layer = _transformer(encoder), encoder.info.layer
    if layer is None:
        return blocks[-1]
    state = layer if layer >= 0 else len(blocks) + 1 + layer  # hidden state 0 is before all blocks
    if state == 0:
        raise EncoderError(
            f"layer {layer} of {encoder.info.id} comes before all attention", "Use another layer."
        )
    return blocks[state - 1]


def _outputs(projection: nn.Module) -> Any:
    return getattr(projection, "out_features", None)


def _drop_residual(block: nn.Module, name: str) -> list[Any]:
    """Hooks that show a block zeros, and what it does first (its norm, or attention) its input.

    So the block adds zeros where it would add its input, exactly, in any arithmetic.
    """
    shown: list[tuple[Tensor, Tensor]] = []  # what stands for the input, and the input
    used: list[bool] = []

    def hide(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        hidden = args[0] if args else options["hidden_states"]
        shown[:] = [(torch.zeros_like(hidden), hidden)]
        used.clear()
        if args:
            return (shown[0][0], *args[1:]), options
        return args, {**options, "hidden_states": shown[0][0]}

    def reveal(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        zeros, hidden = shown[0]
        if not any(value is zeros for value in (*args[:1], *options.values())):
            return None
        used.append(True)
        args = tuple(hidden if value is zeros else value for value in args)
        return args, {key: hidden if v is zeros else v for key, v in options.items()}

    def check(_: nn.Module, __: Any, ___: Any) -> None:
        if not used:
            raise EncoderError(
                f"the last block of {name} is built in another way", "Keep its residual."
            )

    revealing = [
        child.register_forward_pre_hook(reveal, with_kwargs=True) for child in block.children()
    ]
    return [
        block.register_forward_pre_hook(hide, with_kwargs=True), *revealing,
        block.register_forward_hook(check),
    ]  # fmt: skip


@contextlib.contextmanager
def _weights_kept(network: Any) -> Iterator[None]:
    """The plain attention of transformers, the only one that gives its weights out."""
    before = network.config._attn_implementation
    with quiet_transformers():
        network.set_attn_implementation("eager")
    try:
        yield
    finally:
        with quiet_transformers():
            network.set_attn_implementation(before)
