from pathlib import Path

import pytest
import torch
from PIL import Image

from lateen.encoders import PatchEncoder, load_encoder
from lateen.errors import EncoderError

IMAGES = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green", "navy")]


@pytest.fixture(scope="session")
def registers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DINOv2 with four register tokens."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = tmp_path_factory.mktemp("registers")
    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14,
        num_register_tokens=4,
    )  # fmt: skip
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ViTMAEConfig, ViTMAEModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("mae")
    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTMAEModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def outputs(folder: Path) -> object:
    """The plain twin: transformers alone, in float32."""
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = processor(images=IMAGES, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return model(pixel_values=pixels, output_hidden_states=True)


def features(folder: Path, **options: object) -> torch.Tensor:
    encoder = load_encoder(str(folder), "image", precision="float32", **options)  # type: ignore[arg-type]
    return encoder.encode(encoder.prepare(IMAGES))


def test_poolings_of_a_vit_equal_plain_transformers(vit_folder: Path) -> None:
    tokens = outputs(vit_folder).last_hidden_state  # type: ignore[attr-defined]
    cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
    expected = {
        "cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], 1),
        "pooler": outputs(vit_folder).pooler_output,  # type: ignore[attr-defined]
    }  # fmt: skip
    for pooling, value in expected.items():
        torch.testing.assert_close(features(vit_folder, pooling=pooling), value)


def test_a_layer_is_the_hidden_state_of_that_index(vit_folder: Path) -> None:
    hidden = outputs(vit_folder).hidden_states  # type: ignore[attr-defined]
    for layer in (0, 2, -1):
        torch.testing.assert_close(
            features(vit_folder, pooling="cls", layer=layer), hidden[layer][:, 0]
        )


def test_register_tokens_are_not_patches(registers_folder: Path) -> None:
    tokens = outputs(registers_folder).last_hidden_state  # type: ignore[attr-defined]
    assert tokens.shape[1] == 1 + 4 + 4
    torch.testing.assert_close(
        features(registers_folder, pooling="mean"), tokens[:, 5:].mean(1)
    )  # fmt: skip


def test_a_masked_autoencoder_sees_every_patch_and_is_deterministic(mae_folder: Path) -> None:
    first, second = (features(mae_folder, pooling="cls+mean") for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    encoder = load_encoder(str(mae_folder), "image", pooling="mean", precision="float32")
    assert isinstance(encoder, PatchEncoder)
    assert encoder.encode_patches(encoder.prepare(IMAGES)).shape == (3, 16, 16)


def test_a_convolutional_network_pools_its_feature_map(resnet_folder: Path) -> None:
    hidden = outputs(resnet_folder).last_hidden_state  # type: ignore[attr-defined]
    torch.testing.assert_close(features(resnet_folder, pooling="mean"), hidden.mean((2, 3)))
    torch.testing.assert_close(features(resnet_folder, pooling="pooler"), hidden.mean((2, 3)))
    with pytest.raises(EncoderError, match=r"no pooling 'cls'.*mean, pooler"):
        features(resnet_folder, pooling="cls")


def test_patches_in_dense_mode_are_concat_of_cls_and_patch(vit_folder: Path) -> None:
    encoder = load_encoder(str(vit_folder), "image", pooling="cls+mean", precision="float32")
    assert isinstance(encoder, PatchEncoder)
    patches = encoder.encode_patches(encoder.prepare(IMAGES))
    tokens = outputs(vit_folder).last_hidden_state  # type: ignore[attr-defined]
    assert patches.shape == (3, 16, 32)
    torch.testing.assert_close(patches[:, 3, :16], tokens[:, 0])
    torch.testing.assert_close(patches[:, 3, 16:], tokens[:, 4])
    torch.testing.assert_close(patches.mean(1), features(vit_folder, pooling="cls+mean"))


def test_bfloat16_is_close_to_float32(vit_folder: Path) -> None:
    half = load_encoder(str(vit_folder), "image", pooling="cls", precision="bfloat16")
    close = torch.cosine_similarity(
        half.encode(half.prepare(IMAGES)), features(vit_folder, pooling="cls")
    )
    assert close.min() > 0.99
    assert half.info.precision == "bfloat16"


def test_what_changes_features_changes_the_key(vit_folder: Path) -> None:
    def key(**options: object) -> str:
        return load_encoder(str(vit_folder), "image", **options).info.key  # type: ignore[arg-type]

    base = key(pooling="cls", precision="float32")
    assert base == key(pooling="cls", precision="float32")
    assert base != key(pooling="mean", precision="float32")
    assert base != key(pooling="cls", layer=1, precision="float32")
    assert base != key(pooling="cls", precision="bfloat16")


def test_an_unknown_encoder_without_pooling_lists_the_choices(vit_folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"pooling must be given.*cls, mean, cls\+mean, pooler"):
        load_encoder(str(vit_folder), "image")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"pooling": "cls", "layer": 9}, r"hidden layers 0 \(embeddings\) to 3, not 9"),
        ({"pooling": "pooler", "layer": 1}, "last layer"),
    ],
)
def test_wrong_options_are_explained(
    vit_folder: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(vit_folder), "image", **options)  # type: ignore[arg-type]


def test_a_pooler_that_was_never_trained_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, ViTModel

    model = ViTModel.from_pretrained(vit_folder, add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(vit_folder, backend="pil").save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="no pooling 'pooler'"):
        features(tmp_path, pooling="pooler")
    torch.testing.assert_close(
        features(tmp_path, pooling="cls"), features(vit_folder, pooling="cls")
    )


def test_missing_weights_are_refused(vit_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in vit_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if "layernorm" in name and "pooler" not in name)
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match="partly random"):
        features(tmp_path, pooling="cls")


@pytest.mark.real
def test_real_encoders_load_without_torchvision(real: Path) -> None:
    mobilenet = load_encoder(str(real / "encoders/mobilenet-v2"), "image", pooling="pooler")
    assert mobilenet.info.dim == 1280
    vit = load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="cls+mean")
    assert vit.info.dim == 384
    with pytest.raises(EncoderError, match="no pooling 'pooler'"):
        load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="pooler")
