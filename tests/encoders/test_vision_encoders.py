import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from lateen.device import weights_dtype
from lateen.encoders import PatchEncoder, load_encoder
from lateen.encoders.weights import weights_hash
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


def outputs(folder: Path, **options: object) -> object:
    """The plain twin: transformers alone, in float32."""
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder, **options).eval()
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_half_precision_checkpoint_computes_as_asked(
    vit_folder: Path, tmp_path: Path, precision: str
) -> None:
    from transformers import AutoImageProcessor, AutoModel

    AutoModel.from_pretrained(vit_folder).half().save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(vit_folder, backend="pil").save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), "image", pooling="cls+mean", precision=precision)  # type: ignore[arg-type]
    close = torch.cosine_similarity(
        encoder.encode(encoder.prepare(IMAGES)), features(vit_folder, pooling="cls+mean")
    )
    assert close.min() > (0.99999 if precision == "float32" else 0.99)


def test_weights_are_halved_only_where_a_gpu_computes_in_bfloat16() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert weights_dtype(cuda, "bfloat16") == torch.bfloat16
    assert weights_dtype(cuda, "float32") == torch.float32
    assert weights_dtype(cpu, "bfloat16") == torch.float32


def test_a_thread_of_an_image_is_refused_before_it_is_resized(vit_folder: Path) -> None:
    encoder = load_encoder(str(vit_folder), "image", pooling="cls")
    for size in ((101, 1), (1, 30000)):
        with pytest.raises(ValueError, match=r"aspect ratio \d+:\d+ is beyond 100:1"):
            encoder.prepare([Image.new("RGB", size)])
    assert len(encoder.prepare([Image.new("RGB", (100, 1))])) == 1


def test_a_model_that_cannot_take_its_own_images_is_explained(
    vit_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(vit_folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings["size"] = {"height": 48, "width": 48}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(EncoderError, match=r"fails on a first input: .*48") as caught:
        features(tmp_path, pooling="cls")
    assert "\n" not in str(caught.value)


@pytest.fixture
def aimv2_folder(tmp_path: Path) -> Path:
    """A tiny AIMv2 as its repositories are now: transformers' class, the old code still named."""
    from transformers import Aimv2VisionConfig, Aimv2VisionModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = Aimv2VisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8, use_head=False,
    )  # fmt: skip
    Aimv2VisionModel(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["auto_map"] = {"AutoModel": "modeling_aimv2.AIMv2Model"}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    return tmp_path


def test_code_that_is_not_used_is_warned_of(
    aimv2_folder: Path, vit_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    with caplog.at_level(logging.WARNING, logger="lateen"):
        features(vit_folder, pooling="mean")
        assert not caplog.records
        tokens = outputs(aimv2_folder).last_hidden_state  # type: ignore[attr-defined]
        torch.testing.assert_close(features(aimv2_folder, pooling="mean"), tokens.mean(1))
    assert "model code of its own, which is not used" in caplog.text


def test_the_same_weights_are_the_same_encoder_whoever_saved_them(
    vit_folder: Path, tmp_path: Path
) -> None:
    def key(**changes: object) -> str:
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        return load_encoder(str(tmp_path), "image", pooling="cls", precision="float32").info.key

    shutil.copytree(vit_folder, tmp_path, dirs_exist_ok=True)
    original = load_encoder(str(vit_folder), "image", pooling="cls", precision="float32").info.key
    assert key(transformers_version="4.8.2", _name_or_path="x/y", torch_dtype="float16") == original
    assert key(architectures=["ViTForImageClassification"]) == original
    assert key(hidden_act="relu") != original


def test_the_name_of_a_weight_file_is_not_part_of_the_encoder(
    vit_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(vit_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    assert weights_hash(tmp_path) == weights_hash(vit_folder)
    with (tmp_path / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    assert weights_hash(tmp_path) != weights_hash(vit_folder)


def test_precision_is_kept_for_loading_again_if_it_was_asked_for(vit_folder: Path) -> None:
    asked = load_encoder(str(vit_folder), "image", pooling="cls", precision="bfloat16")
    assert asked.info.load["precision"] == "bfloat16"
    again = load_encoder(**asked.info.load)
    assert again.info.key == asked.info.key
    auto = load_encoder(str(vit_folder), "image", pooling="cls")
    assert "precision" not in auto.info.load


@pytest.mark.real
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_real_half_precision_checkpoint_encodes(real: Path, precision: str) -> None:
    folder = real / "encoders/vit-tiny"
    encoder = load_encoder(str(folder), "image", pooling="cls+mean", precision=precision)  # type: ignore[arg-type]
    plain = outputs(folder, dtype=torch.float32).last_hidden_state  # type: ignore[attr-defined]
    expected = torch.cat([plain[:, 0], plain[:, 1:].mean(1)], dim=1)
    close = torch.cosine_similarity(encoder.encode(encoder.prepare(IMAGES)), expected)
    assert close.min() > (0.99999 if precision == "float32" else 0.99)


@pytest.mark.real
def test_real_encoders_load_without_torchvision(real: Path) -> None:
    mobilenet = load_encoder(str(real / "encoders/mobilenet-v2"), "image", pooling="pooler")
    assert mobilenet.info.dim == 1280
    vit = load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="cls+mean")
    assert vit.info.dim == 384
    with pytest.raises(EncoderError, match="no pooling 'pooler'"):
        load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="pooler")


def test_a_convolutional_network_has_a_pooling_of_its_own(resnet_folder: Path) -> None:
    encoder = load_encoder(str(resnet_folder), "image")
    named = load_encoder(str(resnet_folder), "image", pooling="pooler")
    assert encoder.info.pooling == "pooler"
    assert encoder.info.key == named.info.key
