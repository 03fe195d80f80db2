"""Pixels and tokens in, embeddings out: those of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import toys
from PIL import Image
from torch.utils.data import DataLoader

from integrations.conftest import small_model
from lateen.encoders import Encoder, FusedEncoder, load_encoder
from lateen.errors import EncoderError, ModelError
from lateen.integrations.harnesses.open_clip_style import OpenClipStyle, open_clip_style
from lateen.model import AlignedModel
from lateen.model.model import as_image
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

TEXTS = ["a dog runs on the beach", "", "DOG", "a big red cat " * 20, "Zwei 海辺 🐕"]


def stacked(preprocess: object, paths: list[Path]) -> torch.Tensor:
    """Images as a loader of torch gives them."""
    assert callable(preprocess)
    loader = DataLoader([preprocess(as_image(path)) for path in paths], batch_size=len(paths))
    [batch] = loader
    return batch


def aligned(vision: Encoder, text: Encoder) -> AlignedModel:
    """A model of these encoders, with linear heads of eight values."""
    torch.manual_seed(0)
    head = HeadSection(dropout=0.0, dim=8)
    model = AlignedModel.build(
        AlignmentHeads(head, vision.info.dim, text.info.dim), vision.info.as_dict(),
        text.info.as_dict(), head.model_dump(mode="json"),
    )  # fmt: skip
    model.set_encoders(vision, text)
    return model


def test_embeddings_are_those_of_the_model(small: AlignedModel, odd_images: list[Path]) -> None:
    model, preprocess, tokenizer = open_clip_style(small)
    pixels, tokens = stacked(preprocess, odd_images), tokenizer(TEXTS)
    assert pixels.shape == (len(odd_images), 3, 32, 32) and tokens.dtype == torch.int64
    for normalize in (False, True):
        image = model.encode_image(pixels, normalize=normalize)
        text = model.encode_text(tokens, normalize=normalize)
        expected = small.encode_image(odd_images, normalize=normalize)
        torch.testing.assert_close(image, expected, atol=1e-5, rtol=0)
        expected = small.encode_text(TEXTS, normalize=normalize)
        torch.testing.assert_close(text, expected, atol=1e-5, rtol=0)
    # As open_clip's own, they are not normalised if nothing is said.
    assert not torch.allclose(model.encode_image(pixels).norm(dim=1), torch.ones(1))
    torch.testing.assert_close(model.encode_text(tokens), small.encode_text(TEXTS, normalize=False))


def test_it_has_what_code_written_for_open_clip_asks_for(small: AlignedModel) -> None:
    model, preprocess, tokenizer = open_clip_style(small)
    assert isinstance(model, torch.nn.Module) and not model.training
    assert model.visual.image_size == (32, 32)
    assert {id(p) for p in model.parameters()} == {id(p) for p in small.parameters()}
    torch.testing.assert_close(model.logit_scale, small.logit_scale)
    torch.testing.assert_close(model.logit_bias, small.logit_bias)
    pixels, tokens = preprocess(Image.new("RGB", (50, 20), "red"))[None], tokenizer("a dog")
    assert tokens.shape == (1, 5)
    image, text, scale = model(pixels, tokens)
    logits = small(pixels, *small.text_encoder.pad_batch(small.text_encoder.prepare(["a dog"])))
    torch.testing.assert_close(scale * image @ text.T + model.logit_bias, logits.logits_per_image)


def test_a_folder_is_opened(clip_folder: Path) -> None:
    model, preprocess, tokenizer = open_clip_style(clip_folder)
    found = model.encode_text(tokenizer(["a dog", "the cat"]), normalize=True)
    torch.testing.assert_close(found, model.model.encode_text(["a dog", "the cat"]))
    assert preprocess(Image.new("RGB", (50, 20))).shape == (3, 32, 32)


def test_autocast_around_it_changes_nothing(small: AlignedModel) -> None:
    model, preprocess, tokenizer = open_clip_style(small)
    pixels, tokens = preprocess(Image.new("RGB", (9, 9), "red"))[None], tokenizer(TEXTS)
    image, text = model.encode_image(pixels), model.encode_text(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.encode_image(pixels), image, atol=0, rtol=0)
        torch.testing.assert_close(model.encode_text(tokens), text, atol=0, rtol=0)


@pytest.mark.parametrize("same_network", [True, False])
def test_a_fused_encoder_has_its_parts_in_one_tensor(
    vit_folder: Path, bert_folder: Path, clip_folder: Path, odd_images: list[Path],
    same_network: bool,
) -> None:  # fmt: skip
    small = small_model(vit_folder, bert_folder)
    vision, text = small.vision_encoder, small.text_encoder
    other = load_encoder(str(clip_folder), "image", precision="float32")
    views = [vision.view(layer=1), vision.view("mean")]
    fused = FusedEncoder([vision, *(views if same_network else [other, views[0]])])
    model = aligned(fused, text)
    style, preprocess, _ = open_clip_style(model)
    pixels = stacked(preprocess, odd_images)
    values = 3 * 32 * 32  # of an image; parts that prepare alike share theirs
    assert pixels[0].numel() == (values if same_network else 2 * values)
    torch.testing.assert_close(
        style.encode_image(pixels, normalize=True), model.encode_image(odd_images),
        atol=1e-5, rtol=0,
    )  # fmt: skip


class Changing(toys.ColourEncoder):
    """Images keep their size."""

    def prepare(self, items: list[Image.Image]) -> list[torch.Tensor]:  # type: ignore[override]
        return [torch.zeros(3, item.height, item.width) for item in items]


class Wordy(toys.ColourEncoder):
    """Images become words."""

    def prepare(self, items: list[Image.Image]) -> list[str]:  # type: ignore[override]
        return ["image" for _ in items]


def coloured(vision: toys.ColourEncoder) -> AlignedModel:
    return aligned(vision, toys.word_encoder())


def test_encoders_of_your_own(tmp_path: Path) -> None:
    model = coloured(toys.ColourEncoder())
    style, preprocess, tokenizer = open_clip_style(model)
    paths = [toys.photo(tmp_path / f"{name}.png", name) for name in ("red", "blue")]
    torch.testing.assert_close(
        style.encode_image(stacked(preprocess, paths), normalize=True), model.encode_image(paths)
    )
    texts = ["red", "a blue picture"]
    torch.testing.assert_close(style.encode_text(tokenizer(texts), True), model.encode_text(texts))
    assert style.visual.image_size is None


def test_images_that_are_no_tensors_of_one_size_are_refused() -> None:
    with pytest.raises(EncoderError, match="something else than tensors"):
        OpenClipStyle(coloured(Wordy()))
    _, preprocess, _ = open_clip_style(coloured(Changing()))
    assert preprocess(Image.new("RGB", (64, 64))).shape == (3, 64, 64)
    with pytest.raises(EncoderError, match=r"sizes of their own.*mteb"):
        preprocess(Image.new("RGB", (50, 20)))


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        open_clip_style(tmp_path / "nothing")
