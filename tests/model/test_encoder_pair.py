"""The encoders of a model: which are accepted, and where they are found after saving."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import ColourEncoder, WordEncoder

from lateen.encoders import EncoderInfo, FusedEncoder, load_encoder
from lateen.errors import EncoderError, ModelError
from lateen.files import read_json
from lateen.model import AlignedModel, encoder_pair
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

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


# -- fused encoders -------------------------------------------------------------------------------


@pytest.fixture
def fused(originals: Path) -> AlignedModel:
    shutil.copytree(originals / "vit", originals / "vit2")
    vision = FusedEncoder(
        [
            load_encoder(str(originals / name), "image", pooling=pooling, precision="float32")
            for name, pooling in (("vit", "cls"), ("vit2", "cls+mean"))
        ],
        [1, 0.5],
    )
    text = load_encoder(str(originals / "bert"), "text", pooling="mean", precision="float32")
    return around(vision.info.as_dict(), text.info.as_dict())


def test_a_fused_encoder_is_loaded_by_the_names_of_its_parts(
    fused: AlignedModel, tmp_path: Path
) -> None:
    expected = fused.encode_image(IMAGE)
    fused.save_pretrained(tmp_path / "a")
    again = AlignedModel.from_pretrained(tmp_path / "a")
    torch.testing.assert_close(again.encode_image(IMAGE), expected)


def test_the_parts_of_a_fused_encoder_may_have_moved(
    fused: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    expected = fused.encode_image(IMAGE)
    fused.save_pretrained(tmp_path / "a")
    moved = originals.rename(tmp_path / "moved")
    text = str(moved / "bert")
    names = [str(moved / "vit"), str(moved / "vit2")]
    ready = FusedEncoder(
        [
            load_encoder(name, "image", pooling=pooling, precision="float32")
            for name, pooling in zip(names, ("cls", "cls+mean"), strict=True)
        ],
        [1, 0.5],
    )
    for given in (names, ", ".join(names), ready):
        again = AlignedModel.from_pretrained(
            tmp_path / "a", vision_encoder=given, text_encoder=text  # type: ignore[arg-type]
        )  # fmt: skip
        torch.testing.assert_close(again.encode_image(IMAGE), expected)
    with pytest.raises(ModelError, match=r"was in .*originals.vit, where .*--vision.encoder"):
        AlignedModel.from_pretrained(tmp_path / "a").encode_image(IMAGE)


def test_other_parts_or_weights_are_refused(fused: AlignedModel, originals: Path) -> None:
    cls, both = fused.vision_encoder.parts  # type: ignore[attr-defined]
    for parts, weights, field in (
        ([cls, both], [1, 1], "preprocessing"), ([both, cls], [1, 0.5], "pooling"),
        ([cls, ColourEncoder()], [1, 0.5], "weights"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=rf"not the one .* {field} is "):
            fused.set_encoders(vision=FusedEncoder(parts, weights))
    with pytest.raises(ModelError, match=r"of 2 parts, and the places of 1 .*vision_encoder=\[A"):
        fused.set_encoders(vision=str(originals / "vit"))
    with pytest.raises(ModelError, match=r"of 1 parts, and the places of 2 are given"):
        fused.set_encoders(text=["a", "b"])  # type: ignore[arg-type]


def test_the_parts_of_a_fused_encoder_travel_with_the_model(
    fused: AlignedModel, originals: Path, tmp_path: Path
) -> None:
    expected = fused.encode_image(IMAGE)
    first = embedded(fused, originals, tmp_path / "a")
    torch.testing.assert_close(first.encode_image(IMAGE), expected)
    with pytest.raises(ModelError, match=r"no longer in .*vit.*encoders=True"):
        first.save_pretrained(tmp_path / "b")
    first.save_pretrained(tmp_path / "b", encoders=True)
    shutil.rmtree(tmp_path / "a")
    second = AlignedModel.from_pretrained(tmp_path / "b")
    torch.testing.assert_close(second.encode_image(IMAGE), expected)


def test_layers_of_one_network_travel_and_move_once(originals: Path, tmp_path: Path) -> None:
    parts = [
        {"name": str(originals / "vit"), "pooling": pooling, "layer": layer}
        for pooling, layer in (("cls", None), ("mean", 1), ("mean", 2))
    ]
    options = {"precision": "float32", "parts": parts}
    vision = load_encoder("fused", "image", **options)  # type: ignore[arg-type]
    text = load_encoder(str(originals / "bert"), "text", pooling="mean", precision="float32")
    model = around(vision.info.as_dict(), text.info.as_dict())
    expected = model.encode_image(IMAGE)
    model.save_pretrained(tmp_path / "plain")
    model.save_pretrained(tmp_path / "packed", encoders=True)
    assert [path.name for path in (tmp_path / "packed" / "vision_encoder").iterdir()] == ["0"]
    assert (tmp_path / "packed" / "README.md").read_text().count("`vit`") <= 1
    moved = originals.rename(tmp_path / "moved")
    packed = AlignedModel.from_pretrained(tmp_path / "packed")
    torch.testing.assert_close(packed.encode_image(IMAGE), expected)
    again = AlignedModel.from_pretrained(
        tmp_path / "plain", vision_encoder=str(moved / "vit"), text_encoder=str(moved / "bert")
    )
    torch.testing.assert_close(again.encode_image(IMAGE), expected)
    with pytest.raises(ModelError, match="of 3 parts of 1 networks, and the places of 2 are given"):
        again.set_encoders(vision=["a", "b"])  # type: ignore[arg-type]
    # A model that was saved with a copy for each part is read as it is.
    copies = tmp_path / "packed" / "vision_encoder"
    for copy in ("1", "2"):
        shutil.copytree(copies / "0", copies / copy)
    earlier = AlignedModel.from_pretrained(tmp_path / "packed")
    torch.testing.assert_close(earlier.encode_image(IMAGE), expected)


def test_heads_trained_without_a_prompt_get_none_whatever_the_encoder_has_now(
    model: AlignedModel, originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.encode_text("a dog")
    model.save_pretrained(tmp_path / "a")
    asked = []
    load = encoder_pair.load_encoder

    def prompted(name: str, *args: Any, **options: Any) -> Any:
        if options["modality"] == "text":
            asked.append(options.get("prompt"))
            options.setdefault("prompt", "query: ")
        return load(name, *args, **options)

    monkeypatch.setattr(encoder_pair, "load_encoder", prompted)
    again = AlignedModel.from_pretrained(tmp_path / "a")
    assert torch.equal(again.encode_text("a dog"), before)
    assert asked == [""]
