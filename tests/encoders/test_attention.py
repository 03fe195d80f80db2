"""Attention of tiny random transformers, against plain reimplementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

from lateen.encoders import EncoderInfo
from lateen.encoders.patches import attention_maps, changed_block, has_attention
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
         "patch_size": 8}  # fmt: skip
HEADS = 2


def encoder_of(network: Any, pooling: str = "mean", layer: int | None = None) -> VisionEncoder:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    info = EncoderInfo("tiny", "image", 0, pooling, "random", layer=layer)
    return VisionEncoder(network.eval(), processor, info, torch.device("cpu"))


def vit() -> Any:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    return spread_out(ViTModel(ViTConfig(**SIZES, intermediate_size=32)))


def dinov2() -> Any:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    return spread_out(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES)))


def clip() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    return spread_out(CLIPVisionModel(CLIPVisionConfig(**SIZES, intermediate_size=32)))


def siglip() -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    return spread_out(SiglipVisionModel(SiglipVisionConfig(**SIZES, intermediate_size=32)))


def resnet() -> Any:
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]))


def spread_out(network: Any) -> Any:
    """Weights so large that attention is far from even."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 if parameter.ndim < 2 else 8)
    return network


def pixels() -> list[torch.Tensor]:
    return list(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def attend(block: Any, hidden: torch.Tensor, kind: str) -> torch.Tensor:
    """Softmax attention written out; ``block`` has q_proj, k_proj, v_proj and an output."""
    q, k, v = (
        getattr(block, f"{name}_proj")(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        for name in "qkv"
    )
    left, right = {"qk": (q, k), "qq": (q, q), "kk": (k, k)}[kind]
    weights = (left @ right.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    mixed = (weights @ v).transpose(1, 2).flatten(2)
    return block.o_proj(mixed) if hasattr(block, "o_proj") else block.out_proj(mixed)


def plain_vit(network: Any, x: torch.Tensor, kind: str, residual: bool) -> torch.Tensor:
    block = network.layers[-1]
    hidden = attend(block.attention, block.layernorm_before(x), kind) + (x if residual else 0)
    hidden = hidden + block.mlp(block.layernorm_after(hidden))
    return network.layernorm(hidden)


def plain_dinov2(network: Any, x: torch.Tensor, kind: str, residual: bool) -> torch.Tensor:
    block = network.encoder.layer[-1]
    hidden = block.layer_scale1(attend(block.attention, block.norm1(x), kind))
    hidden = hidden + (x if residual else 0)
    hidden = hidden + block.layer_scale2(block.mlp(block.norm2(hidden)))
    return network.layernorm(hidden)


def plain_clip(network: Any, x: torch.Tensor, kind: str, residual: bool) -> torch.Tensor:
    block = network.encoder.layers[-1]
    hidden = attend(block.self_attn, block.layer_norm1(x), kind) + (x if residual else 0)
    return hidden + block.mlp(block.layer_norm2(hidden))


@pytest.mark.parametrize(
    ("make", "plain", "prefix"),
    [(vit, plain_vit, 1), (dinov2, plain_dinov2, 5), (clip, plain_clip, 1)],
)
@pytest.mark.parametrize("kind", ["qk", "qq", "kk"])
@pytest.mark.parametrize("residual", [True, False])
def test_the_last_block_attends_as_written_out(
    make: Callable[[], Any], plain: Any, prefix: int, kind: Any, residual: bool
) -> None:
    network = make()
    encoder = encoder_of(network)
    with torch.no_grad():
        outputs = network(pixel_values=torch.stack(pixels()), output_hidden_states=True)
        expected = plain(network, outputs.hidden_states[-2], kind, residual)[:, prefix:]
    before = encoder.encode_patches(pixels())
    with changed_block(encoder, kind, residual):
        changed = encoder.encode_patches(pixels())
    torch.testing.assert_close(changed, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(encoder.encode_patches(pixels()), before, rtol=0, atol=0)
    assert torch.allclose(changed, before, atol=1e-4) == (kind == "qk" and residual)


def test_the_block_before_the_features_is_the_one_that_changes() -> None:
    network = vit()
    early = encoder_of(network, layer=2)
    late = encoder_of(network, layer=-1)
    with changed_block(early, "kk"):
        middle = early.encode_patches(pixels())
        deeper = late.encode_patches(pixels())
    assert not torch.allclose(middle, early.encode_patches(pixels()), atol=1e-3)
    with changed_block(late, "kk"):
        torch.testing.assert_close(
            early.encode_patches(pixels()), encoder_of(network, layer=2).encode_patches(pixels())
        )
        assert not torch.allclose(late.encode_patches(pixels()), deeper, atol=1e-3)
    with pytest.raises(EncoderError, match="before all attention"), changed_block(
        encoder_of(network, layer=0), "kk"
    ):  # fmt: skip
        pass


def test_hooks_are_gone_after_an_error() -> None:
    encoder = encoder_of(vit())
    before = encoder.encode_patches(pixels())
    with pytest.raises(RuntimeError), changed_block(encoder, "qq", residual=False):
        raise RuntimeError
    torch.testing.assert_close(encoder.encode_patches(pixels()), before, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "prefix"), [(vit, 1), (dinov2, 5), (clip, 1)])
def test_maps_are_what_cls_attends_to_without_cls_and_registers(make: Any, prefix: int) -> None:
    network = make()
    encoder = encoder_of(network)
    network.set_attn_implementation("eager")
    with torch.no_grad():
        weights = network(pixel_values=torch.stack(pixels()), output_attentions=True).attentions
    network.set_attn_implementation("sdpa")
    for layer in (-2, 0, 2):
        maps = attention_maps(encoder, pixels(), layer)
        assert maps.shape == (2, HEADS, 4, 4)
        torch.testing.assert_close(maps.flatten(2), weights[layer][:, :, 0, prefix:])
    assert network.config._attn_implementation == "sdpa"


def test_maps_are_written_out_softmax() -> None:
    network = vit()
    with torch.no_grad():
        outputs = network(pixel_values=torch.stack(pixels()), output_hidden_states=True)
        block = network.layers[-2]
        hidden = block.layernorm_before(outputs.hidden_states[1])
        q, k = (
            getattr(block.attention, f"{n}_proj")(hidden).unflatten(-1, (HEADS, -1)) for n in "qk"
        )
        weights = torch.einsum("nqhd,nkhd->nhqk", q, k).div(8**0.5).softmax(-1)
    maps = attention_maps(encoder_of(network), pixels())
    torch.testing.assert_close(maps.flatten(2), weights[:, :, 0, 1:])


def test_without_cls_it_is_the_mean_over_queries() -> None:
    network = siglip()
    maps = attention_maps(encoder_of(network), pixels(), -1)
    torch.testing.assert_close(maps.sum((2, 3)), torch.ones(2, HEADS))
    assert maps.std() > 0.01


@pytest.mark.parametrize("layer", [3, -4])
def test_blocks_that_are_not_there_are_named(layer: int) -> None:
    with pytest.raises(EncoderError, match=f"3 blocks, none of them {layer}"):
        attention_maps(encoder_of(vit()), pixels(), layer)


def test_networks_without_attention_say_so() -> None:
    encoder = encoder_of(resnet())
    assert not has_attention(encoder)
    assert has_attention(encoder_of(vit()))
    with pytest.raises(EncoderError, match="tiny has no attention"):
        attention_maps(encoder, pixels())
    with pytest.raises(EncoderError, match="tiny has no attention"), changed_block(encoder, "qq"):
        pass


def test_pixels_of_their_own_size_are_only_normalised() -> None:
    encoder = encoder_of(vit())
    [values] = encoder.prepare_uncut([Image.new("RGB", (48, 40), (255, 0, 255))])
    assert values.shape == (3, 40, 48)
    torch.testing.assert_close(values[:, 7, 7], torch.tensor([1.0, -1.0, 1.0]))


def test_attention_of_these_models_is_far_from_even() -> None:
    # The other tests could not fail if all weights were alike.
    assert attention_maps(encoder_of(vit()), pixels()).max() > 3 / 17
