from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from lateen.encoders import EncoderInfo, FusedEncoder, load_encoder
from lateen.encoders.patches import WindowEncoder
from lateen.encoders.vision import VisionEncoder
from lateen.errors import EncoderError, UsageError


def noise(edge: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (edge, edge, 3), np.uint8)
    return Image.fromarray(values)


@pytest.fixture
def encoder(vit_folder: Path) -> VisionEncoder:
    loaded = load_encoder(str(vit_folder), "image", pooling="cls+mean", precision="float32")
    assert isinstance(loaded, VisionEncoder)
    return loaded


def test_windows_of_the_models_own_size_are_its_patches(encoder: VisionEncoder) -> None:
    windows = WindowEncoder(encoder)
    assert (windows.window, windows.grid) == (32, 4)
    images = [noise(32, seed) for seed in range(3)]
    patches = encoder.encode_patches(encoder.prepare(images))
    torch.testing.assert_close(windows.encode(images), patches.view(3, 4, 4, 32))


def test_positions_are_interpolated_as_transformers_does(encoder: VisionEncoder) -> None:
    windows = WindowEncoder(encoder, 48)
    assert (windows.window, windows.grid) == (48, 6)
    pixels = torch.stack(encoder.prepare_uncut([noise(48)]))
    with torch.no_grad():
        tokens = encoder.network.model(
            pixel_values=pixels, interpolate_pos_encoding=True
        ).last_hidden_state
    expected = torch.cat([tokens[:, :1].expand(-1, 36, -1), tokens[:, 1:]], dim=-1)
    torch.testing.assert_close(windows.encode([noise(48)]), expected.view(1, 6, 6, 32))


def test_patches_are_in_raster_order(encoder: VisionEncoder) -> None:
    image = Image.new("RGB", (48, 48))
    changed = image.copy()
    changed.paste((255, 255, 255), (40, 8, 48, 16))  # the patch of row 1, column 5
    before, after = WindowEncoder(encoder, 48).encode([image, changed])[..., 16:]
    difference = (after - before).norm(dim=-1)
    assert divmod(int(difference.argmax()), 6) == (1, 5)


def in_memory(network: Any, pooling: str = "mean") -> VisionEncoder:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    info = EncoderInfo("tiny", "image", 0, pooling, "random")
    return VisionEncoder(network.eval(), processor, info, torch.device("cpu"))


SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                         "image_size": 32, "patch_size": 8, "intermediate_size": 32}  # fmt: skip


def test_a_model_that_cannot_interpolate_gets_windows_of_its_own_size() -> None:
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    encoder = in_memory(Aimv2VisionModel(Aimv2VisionConfig(**SIZES, use_head=False)))
    windows = WindowEncoder(encoder, 48)
    assert (windows.window, windows.grid) == (32, 4)
    assert windows.encode([noise(32)]).shape == (1, 4, 4, 16)


def test_a_masked_autoencoder_keeps_its_patches_in_order_at_other_sizes() -> None:
    from transformers import ViTMAEConfig, ViTMAEModel

    encoder = in_memory(ViTMAEModel(ViTMAEConfig(**SIZES, mask_ratio=0.0)))
    image = Image.new("RGB", (48, 48))
    changed = image.copy()
    changed.paste((255, 255, 255), (8, 16, 16, 24))
    before, after = WindowEncoder(encoder, 48).encode([image, changed])
    assert divmod(int((after - before).norm(dim=-1).argmax()), 6) == (2, 1)


def test_a_convolutional_network_takes_any_window() -> None:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    windows = WindowEncoder(in_memory(ResNetModel(config)), 64)
    assert windows.encode([noise(64)]).shape == (1, windows.grid, windows.grid, 16)


def test_parts_of_a_fused_encoder_see_the_same_windows(encoder: VisionEncoder) -> None:
    mean = encoder.view("mean")
    both = WindowEncoder(FusedEncoder([encoder, mean]), 48).encode([noise(48)])
    alone = WindowEncoder(mean, 48).encode([noise(48)])
    assert both.shape == (1, 6, 6, 48)
    torch.testing.assert_close(
        torch.nn.functional.normalize(both[..., 32:], dim=-1),
        torch.nn.functional.normalize(alone, dim=-1),
    )


def test_the_change_of_attention_reaches_the_windows(encoder: VisionEncoder) -> None:
    usual, changed = (WindowEncoder(encoder, attention=kind) for kind in ("qk", "qq"))
    assert not torch.equal(usual.encode([noise(32)]), changed.encode([noise(32)]))
    before = encoder.encode_patches(encoder.prepare([noise(32)]))
    torch.testing.assert_close(usual.encode([noise(32)]).flatten(1, 2), before)


class Quarters(toys.ColourEncoder):
    """Mean colours of 2 × 2 quarters, whatever the size."""

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.encode(prepared)[:, None].expand(-1, 4, -1)


def test_an_encoder_of_ones_own_needs_encode_patches() -> None:
    assert WindowEncoder(Quarters(), 48).grid == 2
    with pytest.raises(EncoderError, match="no features per patch"):
        WindowEncoder(toys.ColourEncoder())
    with pytest.raises(EncoderError, match="no attention"):
        WindowEncoder(Quarters(), attention="kk")


def test_wrong_windows_and_poolings_are_explained(encoder: VisionEncoder) -> None:
    with pytest.raises(UsageError, match=r"50 pixels is not a whole.*8 pixels. Give 48"):
        WindowEncoder(encoder, 50)
    with pytest.raises(UsageError, match="no attention 'vv'"):
        WindowEncoder(encoder, attention="vv")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="'cls' has no features per patch"):
        WindowEncoder(encoder.view("cls"))


def test_a_projection_has_no_features_per_patch() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    class Dual(torch.nn.Module):
        def get_image_features(self, pixel_values: torch.Tensor) -> Any:
            return tower(pixel_values=pixel_values)

    tower = CLIPVisionModel(CLIPVisionConfig(**SIZES)).eval()
    encoder = VisionEncoder(
        tower, ViTImageProcessorPil(size={"height": 32, "width": 32}),
        EncoderInfo("tiny", "image", 0, "projection", "random"), torch.device("cpu"),
        dual=Dual(),
    )  # fmt: skip
    with pytest.raises(EncoderError, match="'projection' has no features per patch"):
        WindowEncoder(encoder, 48)


def test_a_number_of_patches_that_is_no_square_is_refused() -> None:
    class Odd(toys.ColourEncoder):
        def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.zeros(len(prepared), 5, 6)

    with pytest.raises(EncoderError, match="5 patches are not a square"):
        WindowEncoder(Odd(), 32)
