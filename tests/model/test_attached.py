"""The encoders of a model: which are accepted, and where they are found after saving."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import ColourEncoder, WordEncoder

from lateen.align.heads import AlignmentHeads
from lateen.encoders import EncoderInfo, load_encoder
from lateen.errors import EncoderError, ModelError
from lateen.files import read_json
from lateen.model import AlignedModel
from lateen.recipe import HeadSection

HEAD = HeadSection(dropout=0.0, dim=8)
IMAGE = Image.new("RGB", (32, 32), "red")


def around(vision: dict[str, Any], text: dict[str, Any]) -> AlignedModel:
    torch.manual_seed(0)
    heads = AlignmentHeads(HEAD, image_dim=vision["dim"], text_dim=text["dim"])
    return AlignedModel.build(heads, vision, text, HEAD.model_dump())


@pytest.fixture
def originals(vit_folder: Path, bert_folder: Path, tmp_path: Path) -> Path:
    """A folder with both encoders in it, which a test may move away."""
    shutil.copytree(vit_folder, tmp_path / "originals" / "vit")
    shutil.copytree(bert_folder, tmp_path / "originals" / "bert")
    return tmp_path / "originals"


@pytest.fixture
def model(originals: Path) -> AlignedModel:
    vision = load_encoder(str(originals / "vit"), "image", pooling="cls", precision="float32")
    text = load_encoder(str(originals / "bert"), "text", pooling="mean", precision="float32")
    return around(vision.info.as_dict(), text.info.as_dict())


def imported(dim: int = 6) -> AlignedModel:
    side = {"id": "some encoder", "imported": ".npy", "dim": dim}
    return around({**side, "modality": "image"}, {**side, "modality": "text"})


# -- imported features ----------------------------------------------------------------------------


def test_a_model_of_imported_features_takes_an_encoder_of_their_dim(tmp_path: Path) -> None:
    imported().save_pretrained(tmp_path)
    model = AlignedModel.from_pretrained(
        tmp_path, vision_encoder=ColourEncoder(), text_encoder="toys:word_encoder"
    )
    encoder = ColourEncoder()
    features = encoder.encode(encoder.prepare([IMAGE]))
    torch.testing.assert_close(model.encode_image(IMAGE), model.project_image(features))
    assert model.encode_text("red").shape == (1, 8)


def test_a_model_of_imported_features_refuses_another_dim_or_modality() -> None:
    with pytest.raises(ModelError, match=r"colour_encoder.*dim is 6, it was 5"):
        imported(5).set_encoders(vision=ColourEncoder())
    with pytest.raises(ModelError, match="modality is text, it was image"):
        imported().set_encoders(vision=WordEncoder())


def test_what_was_recorded_is_still_compared() -> None:
    colour, word = ColourEncoder().info.as_dict(), WordEncoder().info.as_dict()
    for field, value in (("weights", "v2"), ("pooling", "cls"), ("layer", 3),
                         ("preprocessing", {"size": 7})):  # fmt: skip
        other = ColourEncoder()
        other.info = EncoderInfo(**{**colour, field: value})
        with pytest.raises(ModelError, match=f"{field} is "):
            around(colour, word).set_encoders(vision=other)


def test_an_encoder_nobody_could_load_again_is_not_copied(tmp_path: Path, vit_folder: Path) -> None:
    model = imported(16)
    model.set_encoders(vision=load_encoder(str(vit_folder), "image", pooling="cls"))
    with pytest.raises(ModelError, match=r"does not know how to load its vision encoder.*some enc"):
        model.save_pretrained(tmp_path / "m", encoders=True)
    assert not (tmp_path / "m").exists()


# -- saving again ---------------------------------------------------------------------------------


def embedded(model: AlignedModel, originals: Path, folder: Path) -> AlignedModel:
    """``model`` as loaded from ``folder``, where its encoders now are and nowhere else."""
    model.save_pretrained(folder, encoders=True)
    shutil.rmtree(originals)
    return AlignedModel.from_pretrained(folder)


@pytest.mark.parametrize("loaded", [False, True])
def test_embedded_encoders_travel_from_copy_to_copy(
    model: AlignedModel, originals: Path, tmp_path: Path, loaded: bool
) -> None:
    expected = model.encode_image(IMAGE), model.encode_text("a red dog")
    first = embedded(model, originals, tmp_path / "a")
    if loaded:
        first.encode_image(IMAGE)
    first.save_pretrained(tmp_path / "b", encoders=True)
    shutil.rmtree(tmp_path / "a")
    second = AlignedModel.from_pretrained(tmp_path / "b")
    torch.testing.assert_close(second.encode_image(IMAGE), expected[0])
    torch.testing.assert_close(second.encode_text("a red dog"), expected[1])


def test_saving_over_itself_keeps_the_encoders(
    model: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    expected = model.encode_image(IMAGE)
    first = embedded(model, originals, tmp_path / "a")
    first.save_pretrained(tmp_path / "a", encoders=True)
    again = AlignedModel.from_pretrained(tmp_path / "a")
    torch.testing.assert_close(again.encode_image(IMAGE), expected)


def test_the_only_copy_of_an_encoder_is_not_left_behind(
    model: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    loaded = embedded(model, originals, tmp_path / "a")
    with pytest.raises(ModelError, match=r"no longer in .*vit.*encoders=True"):
        loaded.save_pretrained(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert loaded.config.embedded_encoders
    assert loaded.encode_image(IMAGE).shape == (1, 8)


def test_encoders_can_be_left_out_again_while_the_originals_are_there(
    model: AlignedModel, tmp_path: Path
) -> None:
    expected = model.encode_image(IMAGE)
    model.save_pretrained(tmp_path / "a", encoders=True)
    AlignedModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    shutil.rmtree(tmp_path / "a")
    assert not (tmp_path / "b" / "vision_encoder").exists()
    again = AlignedModel.from_pretrained(tmp_path / "b")
    torch.testing.assert_close(again.encode_image(IMAGE), expected)


def test_encoders_that_were_moved_are_copied_from_where_they_are(
    model: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    expected = model.encode_image(IMAGE)
    model.save_pretrained(tmp_path / "a")
    moved = originals.rename(tmp_path / "moved")
    again = AlignedModel.from_pretrained(
        tmp_path / "a", vision_encoder=str(moved / "vit"), text_encoder=str(moved / "bert")
    )
    again.save_pretrained(tmp_path / "b", encoders=True)
    shutil.rmtree(moved)
    torch.testing.assert_close(
        AlignedModel.from_pretrained(tmp_path / "b").encode_image(IMAGE), expected
    )


def test_a_save_that_fails_changes_nothing(
    model: AlignedModel, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("the card")

    monkeypatch.setattr("lateen.model.model.write_card", full)
    with pytest.raises(OSError, match="the card"):
        model.save_pretrained(tmp_path / "a", encoders=True)
    shutil.rmtree(tmp_path / "a")
    assert not model.config.embedded_encoders
    assert model.encode_image(IMAGE).shape == (1, 8)


def test_a_saved_model_goes_on_with_the_encoders_beside_it(
    model: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "a", encoders=True)
    shutil.rmtree(originals)
    assert model.encode_image(IMAGE).shape == (1, 8)
    assert read_json(tmp_path / "a" / "config.json")["embedded_encoders"] is True


def test_encoders_that_are_gone_cannot_be_copied(
    model: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    shutil.rmtree(originals)
    with pytest.raises(EncoderError, match=r"no folder .*vit"):
        model.save_pretrained(tmp_path / "a", encoders=True)
    model.save_pretrained(tmp_path / "a")  # the heads are worth saving nonetheless


@pytest.mark.parametrize("both", [False, True])
def test_legacy_weights_are_copied_where_there_are_no_others(
    model: AlignedModel, originals: Path, tmp_path: Path, both: bool
) -> None:
    from safetensors.torch import load_file

    weights = originals / "vit" / "model.safetensors"
    torch.save(load_file(weights), originals / "vit" / "pytorch_model.bin")
    if not both:
        weights.unlink()
    vision = load_encoder(str(originals / "vit"), "image", pooling="cls", precision="float32")
    legacy = around(vision.info.as_dict(), model.config.text)
    expected = legacy.encode_image(IMAGE)
    again = embedded(legacy, originals, tmp_path / "a")
    torch.testing.assert_close(again.encode_image(IMAGE), expected)
    assert (tmp_path / "a" / "vision_encoder" / "pytorch_model.bin").exists() is not both
