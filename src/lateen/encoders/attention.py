"""A look into the attention of a vision transformer, and a change of it in the last block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lateen.encoders.base import Encoder
from lateen.encoders.runtime import quiet_transformers
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError

Attention = Literal["qk", "qq", "kk"]

_PROJECTIONS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))


@dataclass(frozen=True)
class _Block:
    """A transformer block, its attention, and that one's two projections."""

    whole: nn.Module
    attention: nn.Module
    query: nn.Module
    key: nn.Module


def has_attention(encoder: Encoder) -> bool:
    """Whether it is a vision transformer whose attention can be looked at and changed."""
    return isinstance(encoder, VisionEncoder) and bool(_blocks(encoder.network))


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
        with _weights_kept(vision.network):
            vision.encode(prepared)
    finally:
        hook.remove()
    weights = caught[0][1] if caught and isinstance(caught[0], tuple) else None
    patch = getattr(vision.network.config, "patch_size", 1)
    edges = (patch, patch) if isinstance(patch, int) else patch
    rows, columns = (size // edge for size, edge in zip(vision.image_size, edges, strict=True))
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
    if isinstance(encoder, VisionEncoder) and (blocks := _blocks(encoder.network)):
        return encoder, blocks
    raise EncoderError(
        f"{encoder.info.id} has no attention (query, key and value projections in blocks)",
        "Use a vision transformer.",
    )


def _blocks(network: nn.Module) -> list[_Block]:
    found = []
    for name, module in network.named_modules():
        for names in _PROJECTIONS:
            query, key, value = (getattr(module, each, None) for each in names)
            whole = _enclosing_block(network, name)
            if query is not None and key is not None and value is not None and whole is not None:
                found.append(_Block(whole, module, query, key))
    return found


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
    place = layer if layer >= 0 else len(blocks) + 1 + layer  # hidden state 0 is before all blocks
    if place == 0:
        raise EncoderError(
            f"layer {layer} of {encoder.info.id} comes before all attention", "Use another layer."
        )
    return blocks[place - 1]


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
