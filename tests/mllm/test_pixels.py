"""Pixels of one processor made of another's, against what that one itself gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import (
    MobileViTImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lateen.errors import EncoderError
from lateen.mllm.assembly import made_up_pictures
from lateen.mllm.pixels import Pixels, convert, describe_pixels, other_view, views

from .conftest import picture

PICTURES = [picture(seed, (60, 45)) for seed in range(3)]
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def squash(edge: int = 32, **settings: Any) -> Any:
    return ViTImageProcessorPil(size={"height": edge, "width": edge}, **settings)


def crop(edge: int = 32, shortest: int | None = None, **settings: Any) -> Any:
    return CLIPImageProcessorPil(
        size={"shortest_edge": shortest or edge}, crop_size={"height": edge, "width": edge},
        image_mean=MEAN, image_std=STD, **settings,
    )  # fmt: skip


def described(processor: Any, edge: int = 32) -> Pixels:
    return describe_pixels(processor, (edge, edge), "tower")


def made(processor: Any, pictures: list[Any] = PICTURES) -> torch.Tensor:
    return processor(images=pictures, return_tensors="pt")["pixel_values"]


def test_a_processor_is_described() -> None:
    settings = described(crop())
    assert settings == Pixels(tuple(MEAN), tuple(STD), (32, 32), bicubic=True)
    assert Pixels.from_dict(settings.as_dict()) == settings
    plain = squash(48, do_normalize=False)
    assert described(plain, 48) == Pixels((0, 0, 0), (1, 1, 1), (48, 48), bicubic=False)


@pytest.mark.parametrize("other", [{"image_mean": MEAN, "image_std": STD}, {"do_normalize": False}])
def test_where_only_mean_and_deviation_differ_values_are_equal(other: dict[str, Any]) -> None:
    first, own = squash(), squash(**other)
    given = convert(made(first), described(first), described(own))
    torch.testing.assert_close(given, made(own), rtol=0, atol=2e-6)
    pixels = made(first)
    assert convert(pixels, described(first), described(squash())) is pixels


@pytest.mark.parametrize(("edge", "own_edge", "near"), [(48, 32, 0.08), (32, 48, 0.08)])
def test_of_another_size_they_are_near(edge: int, own_edge: int, near: float) -> None:
    first, own = squash(edge), squash(own_edge, image_mean=MEAN, image_std=STD)
    pictures = made_up_pictures(4)
    settings = described(first, edge), described(own, own_edge)
    given, wanted = convert(made(first, pictures), *settings), made(own, pictures)
    assert given.shape == wanted.shape
    apart = (given - wanted).square().mean().sqrt() / wanted.std()
    assert 0 < apart < near
    twice = torch.nn.functional.interpolate(made(first, pictures), (2 * edge, 3 * edge))
    assert convert(twice, *settings).shape[2:] == (2 * own_edge, 3 * own_edge)


def test_what_a_processor_shows_of_a_picture() -> None:
    whole, middle, inner = squash(), crop(), crop(32, 64)
    for edges in views(whole, described(whole)):
        assert edges == pytest.approx((0, 0, 1, 1), abs=0.02)
    square, wide, tall = views(middle, described(middle))  # of 3 to 2: the middle two thirds
    assert square == pytest.approx((0, 0, 1, 1), abs=0.02)
    assert wide == pytest.approx((1 / 6, 0, 5 / 6, 1), abs=0.02)
    assert tall == pytest.approx((0, 1 / 6, 1, 5 / 6), abs=0.02)
    assert views(inner, described(inner))[0] == pytest.approx((0.25, 0.25, 0.75, 0.75), abs=0.02)


def test_another_view_is_told() -> None:
    whole, middle = (squash(), described(squash())), (crop(), described(crop()))
    assert other_view(whole, (squash(48), described(squash(48), 48))) is None
    shown = other_view(whole, middle)
    assert shown is not None
    assert [*shown[0], *shown[1]] == pytest.approx([1, 1, 2 / 3, 1], abs=0.03)


def test_a_processor_that_swaps_colours_is_refused() -> None:
    swapping = MobileViTImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    with pytest.raises(EncoderError, match="of tower does more to colours than"):
        described(swapping)
