"""A ready CLIP as an AlignedModel gives what transformers' own model gives."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from toys import photo
from transformers import AutoTokenizer, CLIPModel

from lateen import AlignedModel, evaluate
from lateen.encoders import load_encoder, request
from lateen.errors import EncoderError, ModelError
from lateen.model import clip_model, open_model

IMAGES = [Image.new("RGB", (40, 32), colour) for colour in ("red", "green", "navy")]
TEXTS = ["a dog", "two cats on a mat"]


def test_embeddings_and_logits_are_those_of_transformers(clip_folder: Path) -> None:
    model = clip_model(str(clip_folder))
    plain = CLIPModel.from_pretrained(clip_folder).eval()
    tokens = AutoTokenizer.from_pretrained(clip_folder)(TEXTS, padding=True, return_tensors="pt")
    pixels = torch.stack(
        list(load_encoder(str(clip_folder), "image", pooling="projection").prepare(IMAGES))
    )
    with torch.no_grad():
        expected = plain(
            pixel_values=pixels, input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        )  # fmt: skip
        found = model(pixels, tokens["input_ids"], tokens["attention_mask"])
    torch.testing.assert_close(
        found.logits_per_image, expected.logits_per_image, atol=0.1, rtol=0.02
    )
    torch.testing.assert_close(model.logit_scale.detach(), plain.logit_scale.detach())
    assert not model.logit_bias.any()
    torch.testing.assert_close(model.encode_text(TEXTS), found.text_embeds, atol=1e-3, rtol=0)


def test_it_is_saved_and_found_again_like_any(clip_folder: Path, tmp_path: Path) -> None:
    model = open_model(clip_folder)
    model.save_pretrained(tmp_path / "m")
    again = open_model(tmp_path / "m")
    assert torch.equal(again.encode_image(IMAGES), model.encode_image(IMAGES))
    assert torch.equal(again.logit_scale, model.logit_scale)
    assert isinstance(again, AlignedModel)


def test_it_is_evaluated_like_any(clip_folder: Path, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        for index in range(3):
            photo(tmp_path / colour / f"{index}.png", colour, seed=index)
    result = evaluate(clip_folder, "classification", images=tmp_path)
    assert result["images"] == 6
    assert 0 <= result["top1"] <= 100


def test_what_is_no_clip_is_refused(vit_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no pooling 'projection'"):
        clip_model(str(vit_folder))
    with pytest.raises(ModelError, match="not a lateen model"):
        open_model(vit_folder)
    with pytest.raises(ModelError, match="not a lateen model"):
        open_model(tmp_path)


def test_both_towers_share_one_network_and_are_those_that_are_loaded_alone(
    clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    plain = request.load_pretrained
    monkeypatch.setattr(
        request, "load_pretrained", lambda folder, **o: loads.append(folder) or plain(folder, **o)
    )
    model = clip_model(str(clip_folder))
    assert len(loads) == 1
    for encoder, modality in ((model.vision_encoder, "image"), (model.text_encoder, "text")):
        alone = load_encoder(str(clip_folder), modality, pooling="projection")  # type: ignore[arg-type]
        assert encoder.info == alone.info
        assert encoder.info.key == alone.info.key
        items = IMAGES if modality == "image" else TEXTS
        assert torch.equal(
            encoder.encode(encoder.prepare(items)), alone.encode(alone.prepare(items))
        )
