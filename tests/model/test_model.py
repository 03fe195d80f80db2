import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import ColourEncoder, WordEncoder

from lateen.encoders import load_encoder
from lateen.errors import ImageError, LateenError, ModelError
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

HEAD = HeadSection(dropout=0.0, name="glu", dim=8, width=2)


@pytest.fixture
def model() -> AlignedModel:
    torch.manual_seed(0)
    vision = load_encoder("toys:colour_encoder").info.as_dict()
    text = load_encoder("toys:word_encoder").info.as_dict()
    heads = AlignmentHeads(HEAD, image_dim=6, text_dim=6)
    return AlignedModel.build(heads, vision, text, HEAD.model_dump(), {"seed": 0})


def test_saved_and_loaded_it_gives_the_same_embeddings(model: AlignedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AlignedModel.from_pretrained(tmp_path)
    image = Image.new("RGB", (8, 8), "red")
    torch.testing.assert_close(again.encode_image(image), model.encode_image(image))
    torch.testing.assert_close(again.encode_text("a red dog"), model.encode_text("a red dog"))
    assert not again.training
    torch.testing.assert_close(again.logit_scale.exp(), torch.tensor(20.0))
    assert again.logit_bias.item() == -10


def test_embeddings_are_normalised_and_keep_their_order(model: AlignedModel) -> None:
    texts = ["a red and blue and green thing", "blue", "red"]
    together = model.encode_text(texts)
    assert together.shape == (3, 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(together, torch.cat([model.encode_text(t) for t in texts]))
    raw = model.encode_text(texts, normalize=False)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=1), together)
    images = [Image.new("RGB", (8, 8), c) for c in ("red", "blue", "green")]
    torch.testing.assert_close(
        model.encode_image(images, batch_size=2),
        torch.cat([model.encode_image(image) for image in images]),
    )
    assert model.encode_image([]).shape == (0, 8)
    assert model.encode_text([]).shape == (0, 8)


def test_the_length_of_embeddings_may_be_left_to_the_heads() -> None:
    head = HeadSection()
    info = load_encoder("toys:word_encoder").info.as_dict()
    model = AlignedModel.build(AlignmentHeads(head, 6, 6), info, info, head.model_dump())
    assert model.config.head_settings.dim == 512
    assert model.encode_text("red").shape == (1, 512)


def test_paths_and_pictures_are_the_same(model: AlignedModel, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "blue")
    image.save(tmp_path / "b.png")
    torch.testing.assert_close(
        model.encode_image([tmp_path / "b.png", str(tmp_path / "b.png")]),
        model.encode_image([image, image]),
    )
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(ImageError):
        model.encode_image(tmp_path / "bad.png")


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_opened_images_are_treated_as_files_are(
    model: AlignedModel, tmp_path: Path, mode: str
) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (8, 6), "orange").convert("L" if mode == "I;16" else mode).convert(mode).save(
        tmp_path / f"a.{suffix}"
    )
    with Image.open(tmp_path / f"a.{suffix}") as image:
        opened = model.encode_image(image)
    torch.testing.assert_close(opened, model.encode_image(tmp_path / f"a.{suffix}"))


def test_opened_images_are_turned_upright(vit_folder: Path, tmp_path: Path) -> None:
    from lateen.data import FileImage, decode_image, upright_rgb

    image = Image.linear_gradient("L").resize((16, 8)).convert("RGB")
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        assert upright_rgb(opened).size == (8, 16)
        whole = decode_image(FileImage(tmp_path / "turned.png"))
        assert upright_rgb(opened).tobytes() == whole.tobytes()


def test_features_project_to_what_the_encoders_give(model: AlignedModel) -> None:
    encoder = WordEncoder()
    features = encoder.encode(encoder.prepare(["red", "green dog"]))
    torch.testing.assert_close(
        model.project_text(features), model.encode_text(["red", "green dog"])
    )
    with pytest.raises(ModelError, match=r"\[2, 5\] do not fit.*\[n, 6\]"):
        model.project_text(torch.zeros(2, 5))
    with pytest.raises(ModelError, match="image features"):
        model.project_image(torch.zeros(6))


def test_the_methods_that_transformers_names(
    model: AlignedModel, vit_folder: Path, bert_folder: Path
) -> None:
    vision = load_encoder(str(vit_folder), "image", pooling="cls", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    heads = AlignmentHeads(HEAD, image_dim=16, text_dim=16)
    model = AlignedModel.build(heads, vision.info.as_dict(), text.info.as_dict(), HEAD.model_dump())
    model.set_encoders(vision, text)
    image = Image.new("RGB", (32, 32), "red")
    pixels = torch.stack(list(vision.prepare([image])))
    tokens = text.prepare(["a dog", "the cat runs on grass"])
    ids = torch.zeros(2, 8, dtype=torch.long)
    mask = torch.zeros(2, 8, dtype=torch.long)
    for row, t in enumerate(tokens):
        ids[row, : len(t)], mask[row, : len(t)] = torch.tensor(t), 1
    out = model(pixels, ids, mask)
    x, y = model.encode_image(image), model.encode_text(["a dog", "the cat runs on grass"])
    torch.testing.assert_close(out.image_embeds, x)
    torch.testing.assert_close(out.text_embeds, y)
    torch.testing.assert_close(out.logits_per_image, 20 * x @ y.T - 10)
    torch.testing.assert_close(out.logits_per_text, out.logits_per_image.T)


def test_encoders_can_be_saved_with_the_model(
    vit_folder: Path, bert_folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(vit_folder, tmp_path / "vit")
    vision = load_encoder(str(tmp_path / "vit"), "image", pooling="cls")
    text = load_encoder(str(bert_folder), "text", pooling="mean")
    heads = AlignmentHeads(HEAD, image_dim=16, text_dim=16)
    model = AlignedModel.build(heads, vision.info.as_dict(), text.info.as_dict(), HEAD.model_dump())
    model.save_pretrained(tmp_path / "m", encoders=True)
    image = Image.new("RGB", (32, 32), "red")
    expected = model.encode_image(image)
    shutil.rmtree(tmp_path / "vit")
    again = AlignedModel.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(again.encode_image(image), expected)


def test_an_encoder_that_is_code_cannot_be_copied(model: AlignedModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is code and cannot be saved"):
        model.save_pretrained(tmp_path, encoders=True)


class OtherWeights(ColourEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.info = type(self.info)(**{**self.info.as_dict(), "weights": "v2"})


def test_another_encoder_than_trained_with_is_refused(model: AlignedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"weights is v2, it was v1.*--vision\.encoder"):
        AlignedModel.from_pretrained(tmp_path, vision_encoder=OtherWeights())


def edit(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({k: v for k, v in values.items() if v != "REMOVE"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vison": {}}, "unknown key 'vison'. Did you mean 'vision'"),
        ({"vision": "REMOVE"}, "lacks the key 'vision'"),
        ({"model_type": "clip"}, "type 'clip', not a lateen model"),
        ({"head": {"name": "glu", "dim": 9, "width": 2}}, "has shape"),
        ({"head": {"name": "linear", "dim": 8}}, "lacks the tensor|unknown tensor"),
    ],
)
def test_loading_is_strict(
    model: AlignedModel, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    model.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        AlignedModel.from_pretrained(tmp_path)


def test_damaged_and_missing_files_are_explained(model: AlignedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(ModelError, match="damaged or truncated"):
        AlignedModel.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        AlignedModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LateenError, match="not valid JSON"):
        AlignedModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        AlignedModel.from_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no folder nobody/nothing"):
        AlignedModel.from_pretrained("nobody/nothing")


def test_every_save_carries_a_card(model: AlignedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "my-clip")
    card = (tmp_path / "my-clip" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: lateen")
    assert "toys:colour_encoder" in card
    assert "# my-clip" in card


def test_a_model_of_imported_features_says_what_it_cannot_do(tmp_path: Path) -> None:
    heads = AlignmentHeads(HEAD, image_dim=4, text_dim=4)
    side = {"id": "some encoder", "dim": 4}
    model = AlignedModel.build(heads, side, side, HEAD.model_dump())
    model.save_pretrained(tmp_path)
    again = AlignedModel.from_pretrained(tmp_path)
    assert again.project_image(torch.ones(2, 4)).shape == (2, 8)
    with pytest.raises(ModelError, match=r"some encoder.*imported"):
        again.encode_text("hello")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_embeddings_come_back_from_the_gpu_and_projections_stay(model: AlignedModel) -> None:
    image = Image.new("RGB", (8, 8), "red")
    expected = model.encode_image(image), model.encode_text("red")
    model.to("cuda")
    torch.testing.assert_close(model.encode_image(image), expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.encode_text("red"), expected[1], atol=1e-5, rtol=0)
    assert model.project_image(torch.ones(1, 6)).is_cuda
    assert model.project_text(torch.ones(1, 6)).is_cuda


def test_embeddings_are_float32_whatever_the_model_is(model: AlignedModel) -> None:
    image = Image.new("RGB", (8, 8), "red")
    expected = model.encode_image(image), model.encode_text("red")
    model.to(torch.float64)
    assert model.project_image(torch.ones(1, 6)).dtype == torch.float64
    torch.testing.assert_close(model.encode_image(image), expected[0])
    torch.testing.assert_close(model.encode_text("red"), expected[1])


def test_everyone_may_read_the_weights_who_may_read_the_card(
    model: AlignedModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in ("README.md", "model.safetensors")}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (HeadSection(name="linear", dim=6), "a trained `linear` head on each"),
        (HeadSection(name="sharelock", dim=6), "`sharelock` head on the texts and `identity` on"),
    ],
)
def test_the_card_says_what_heads_there_are(head: HeadSection, said: str, tmp_path: Path) -> None:
    side = load_encoder("toys:colour_encoder").info.as_dict()
    heads = AlignmentHeads(head, image_dim=6, text_dim=6)
    AlignedModel.build(heads, side, side, head.model_dump()).save_pretrained(tmp_path)
    assert said in (tmp_path / "README.md").read_text()
