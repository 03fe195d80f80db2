"""Features per patch in the shared space of a CLIP, against plain reimplementations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lateen.encoders import load_encoder
from lateen.encoders.patches import WindowEncoder
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError


def noise(edge: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (edge, edge, 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def encoder(clip_folder: Path) -> VisionEncoder:
    loaded = load_encoder(str(clip_folder), "image", pooling="projection", precision="float32")
    assert isinstance(loaded, VisionEncoder)
    return loaded


@pytest.fixture
def plain(clip_folder: Path) -> Any:
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(clip_folder).eval()


def shared_space(plain: Any, tokens: Tensor) -> Tensor:
    return plain.visual_projection(plain.vision_model.post_layernorm(tokens))


@torch.no_grad()
def test_patches_go_the_way_of_the_cls_token(encoder: VisionEncoder, plain: Any) -> None:
    prepared = encoder.prepare([noise(32, seed) for seed in range(3)])
    tokens = plain.vision_model(pixel_values=torch.stack(prepared)).last_hidden_state
    expected = shared_space(plain, tokens)
    torch.testing.assert_close(encoder.encode_patches(prepared), expected[:, 1:])
    torch.testing.assert_close(encoder.encode(prepared), expected[:, 0])
    assert encoder.encode_patches(prepared).shape == (3, 4, 8)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["qk", "qq", "kk"])
@pytest.mark.parametrize("residual", [True, False])
def test_larger_windows_and_another_last_block(
    encoder: VisionEncoder, plain: Any, kind: str, residual: bool
) -> None:
    windows = WindowEncoder(encoder, 48, attention=kind, residual=residual)  # type: ignore[arg-type]
    assert (windows.window, windows.grid) == (48, 3)
    pixels = torch.stack(encoder.prepare_uncut([noise(48)]))
    hidden = plain.vision_model(
        pixel_values=pixels, interpolate_pos_encoding=True, output_hidden_states=True
    ).hidden_states
    last = plain.vision_model.encoder.layers[-1]
    x, own = last.layer_norm1(hidden[-2]), last.self_attn
    projected = {"q": own.q_proj(x), "k": own.k_proj(x), "v": own.v_proj(x)}
    query, key, value = (
        projected[name].view(1, 10, 2, 12).transpose(1, 2) for name in (*kind, "v")
    )
    weights = (query @ key.transpose(2, 3) / 12**0.5).softmax(-1)
    tokens = own.out_proj((weights @ value).transpose(1, 2).reshape(1, 10, 24))
    tokens = tokens + hidden[-2] if residual else tokens
    tokens = tokens + last.mlp(last.layer_norm2(tokens))
    expected = shared_space(plain, tokens)[:, 1:].view(1, 3, 3, 8)
    torch.testing.assert_close(windows.encode([noise(48)]), expected)


def test_a_view_keeps_its_way_into_the_shared_space(encoder: VisionEncoder) -> None:
    prepared = encoder.prepare([noise(32)])
    again = encoder.view("mean").view("projection")
    assert torch.equal(again.encode_patches(prepared), encoder.encode_patches(prepared))
    assert encoder.view("mean").encode_patches(prepared).shape == (1, 4, 24)


def test_siglip_pools_before_the_shared_space(siglip_folder: Path) -> None:
    encoder = load_encoder(str(siglip_folder), "image", pooling="projection")
    with pytest.raises(EncoderError, match=r"as SigLIP does.*no features per patch\. Use a CLIP"):
        WindowEncoder(encoder)
