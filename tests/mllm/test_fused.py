"""Fused towers: mixed as by hand of their parts, saved, loaded elsewhere, refused where misfit."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import LlamaForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lateen.errors import EncoderError, ModelError, UsageError
from lateen.mllm import (
    FusedTower,
    MultimodalModel,
    build,
    fuse_towers,
    open_tower,
    open_towers,
    swap,
)
from lateen.mllm.assembly import made_up_pictures
from lateen.mllm.evaluation import model_facts, model_key
from lateen.mllm.fused import part_scales

from .conftest import picture
from .test_assembly import FRESH, inputs_of

same = torch.testing.assert_close
PICTURES = [picture(seed, (32, 32)) for seed in range(3)]


def pixels(processor: Any) -> torch.Tensor:
    return processor(images=PICTURES, return_tensors="pt")["pixel_values"]


def with_processor(folder: Path, out: Path, processor: Any) -> Path:
    shutil.copytree(folder, out)
    processor.save_pretrained(out)
    return out


@torch.no_grad()
def test_mixtures_are_those_of_their_parts_by_hand(vit_folder: Path, resnet_folder: Path) -> None:
    both = [vit_folder, resnet_folder]
    (a, processor), (b, _) = map(open_tower, both)
    first, second = a.tokens(pixels(processor)), b.tokens(pixels(processor))

    def mixed(**options: Any) -> torch.Tensor:
        tower, processor = open_towers(both, **options)
        given: torch.Tensor = tower(pixels(processor)).hidden_states[-1]
        assert given.shape[1:] == (tower.config.num_tokens, tower.config.hidden_size)
        return given

    same(mixed(), (first + second) / 2)
    same(mixed(share=0.8), 0.8 * first + 0.2 * second)
    same(mixed(mix="channels"), torch.cat([first, second], dim=2))
    alternating = mixed(mix="interleaved")
    assert alternating.shape == (3, 32, 16)
    for place in range(16):
        same(alternating[:, 2 * place], first[:, place])
        same(alternating[:, 2 * place + 1], second[:, place])
    three, _ = open_towers([*both, vit_folder], mix="channels")
    same(three.tokens(pixels(processor)), torch.cat([first, second, first], dim=2))


@torch.no_grad()
def test_a_tower_alone_is_saved_and_loaded(
    aligned: Callable[..., Path], resnet_folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoModel

    tower, processor = open_towers([aligned("mean"), resnet_folder], mix="channels")
    tower.save_pretrained(tmp_path / "tower")
    loaded = AutoModel.from_pretrained(tmp_path / "tower").eval()
    assert (loaded.config.shape, loaded.config.num_tokens) == ((4, 4), 16)
    assert torch.equal(loaded.tokens(pixels(processor)), tower.tokens(pixels(processor)))


@torch.no_grad()
def test_each_part_sees_the_pixels_of_its_own_processor(
    vit_folder: Path, resnet_folder: Path, tmp_path: Path
) -> None:
    other = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.48, 0.46, 0.41], image_std=[0.2, 0.3, 0.4]
    )
    second = with_processor(resnet_folder, tmp_path / "second", other)
    tower, processor = open_towers([vit_folder, second])
    assert isinstance(tower, FusedTower)
    alone, own = open_tower(second)
    assert own.image_std == other.image_std != processor.image_std
    same(tower.part_tokens(pixels(processor))[1], alone.tokens(pixels(own)))
    assert not torch.allclose(alone.tokens(pixels(processor)), alone.tokens(pixels(own)), rtol=0.1)


@torch.no_grad()
def test_of_another_size_tokens_are_near(
    vit_folder: Path, resnet_folder: Path, tmp_path: Path
) -> None:
    larger = ViTImageProcessorPil(size={"height": 64, "width": 64})
    first = with_processor(resnet_folder, tmp_path / "first", larger)
    tower, processor = open_towers([first, vit_folder], grid=4)
    assert isinstance(tower, FusedTower)
    alone, own = open_tower(vit_folder, grid=4)
    pictures = made_up_pictures(4)
    given = tower.part_tokens(processor(images=pictures, return_tensors="pt").pixel_values)
    wanted = alone.tokens(own(images=pictures, return_tensors="pt").pixel_values)
    assert 0 < (given[1] - wanted).square().mean().sqrt() / wanted.std() < 0.05


def test_another_view_and_fewer_pixels_are_said(
    vit_folder: Path, resnet_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    cropping = CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    )
    cut = with_processor(resnet_folder, tmp_path / "cut", cropping)
    tower, _ = open_towers([vit_folder, cut], grid=2)
    fewer, view = [record.getMessage() for record in caplog.records]
    assert "cut takes 48 × 48 pixels, which are made of the first tower's 32 × 32" in fewer
    assert "it shows 100 and 100 %; alone, cut would be shown 67 and 100 %" in view
    assert [part["same_view"] for part in tower.config.as_record()["parts"]] == [True, False]


@pytest.mark.parametrize(
    ("options", "tokens", "width"),
    [
        ({}, 16, 16),
        ({"mix": "interleaved", "grid": 2}, 8, 16),
        ({"mix": "channels"}, 16, 32),
        ({"mix": "interleaved", "tokens": "cls,patch"}, 34, 16),
    ],
)
def test_there_is_a_placeholder_for_every_token(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, options: dict[str, Any], tokens: int,
    width: int,
) -> None:  # fmt: skip
    second = vit_folder if "tokens" in options else resnet_folder
    built = build([vit_folder, second], llm_folder, **options)
    inputs = inputs_of(built, picture(), picture(1))
    image = built.model.config.image_token_index
    assert int((inputs["input_ids"] == image).sum()) == 2 * tokens
    with torch.no_grad():
        features = built.model.get_image_features(inputs["pixel_values"]).pooler_output
        assert built.model(**inputs).logits.isfinite().all()
    assert [each.shape for each in features] == 2 * [(tokens, 32)]
    assert built.record["tower"]["tokens_per_image"] == tokens
    assert built.record["tower"]["width"] == width


def test_a_fresh_process_loads_it_with_plain_transformers(
    aligned: Callable[..., Path], clip_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    towers: dict[str, tuple[list[Path], dict[str, Any]]] = {
        "channels": ([aligned("mean"), clip_folder], {"mix": "channels", "grid": 2}),
        "interleaved": ([aligned(), aligned()], {"mix": "interleaved"}),
    }
    built = {
        name: build(parts, llm_folder, tmp_path / name, **options)
        for name, (parts, options) in towers.items()
    }
    picture().save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "a.png", *(tmp_path / name for name in built)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, made in built.items():
        ids, logits = torch.load(tmp_path / f"{name}.pt")
        inputs = inputs_of(made, picture())
        assert torch.equal(ids, inputs["input_ids"])
        with torch.no_grad():
            assert torch.equal(logits, made.model(**inputs).logits)
        files = [file.read_text() for file in (tmp_path / name).glob("*.json")]
        places = [str(place) for parts, _ in towers.values() for place in parts]
        assert not any(place in text for text in files for place in places)


def test_a_folder_tells_of_both_parts_and_is_asked(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    built = build([vit_folder, resnet_folder], llm_folder, tmp_path / "mllm", share=0.25)
    tower = json.loads((tmp_path / "mllm" / "mllm.json").read_text())["tower"]
    name = f"{vit_folder.name} + {resnet_folder.name}"
    assert (tower["mix"], tower["share"], tower["encoder"]["id"]) == ("additive", 0.25, name)
    assert (tower["tokens"], tower["head"], tower["grid"]) == ("patch", None, None)
    first, second = tower["parts"]
    assert first["encoder"]["weights"] == open_tower(vit_folder)[0].config.encoder["weights"]
    assert second["encoder"]["id"] == resnet_folder.name and second["width"] == 16
    sight = built.processor.image_processor(images=made_up_pictures(4), return_tensors="pt")
    scales = part_scales(built.model.model.vision_tower, sight["pixel_values"])
    assert [part["rms"] for part in tower["parts"]] == pytest.approx(scales)
    assert name in (tmp_path / "mllm" / "README.md").read_text()
    loaded = MultimodalModel.from_pretrained(tmp_path / "mllm", device="cpu")
    assert loaded.answer("What is it?", picture(), max_tokens=2).tokens == 2
    assert model_facts(loaded)["tower"] == name


def test_the_key_of_a_model_is_of_its_parts_and_not_of_where_they_were(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(vit_folder, tmp_path / "elsewhere")
    keys = []
    for name, parts, options in (
        ("a", [vit_folder, resnet_folder], {}),
        ("b", [tmp_path / "elsewhere", resnet_folder], {}),
        ("c", [vit_folder, resnet_folder], {"share": 0.4}),
    ):
        build(parts, llm_folder, tmp_path / name, **options)
        keys.append(model_key(MultimodalModel.from_pretrained(tmp_path / name, device="cpu")))
    assert keys[0] == keys[1] != keys[2]


def test_all_parts_take_the_language_models_number_format(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(llm_folder, tmp_path / "llm")
    half = LlamaForCausalLM.from_pretrained(llm_folder, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "llm")
    build([vit_folder, resnet_folder], tmp_path / "llm", tmp_path / "mllm")
    loaded = MultimodalModel.from_pretrained(tmp_path / "mllm", device="cpu")
    assert {each.dtype for each in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.answer("What is it?", picture(), max_tokens=2).tokens == 2
    assert not loaded.model.train().model.vision_tower.training


def test_a_part_that_drowns_the_other_is_said(
    vit_folder: Path, resnet_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    parts = [open_tower(vit_folder), open_tower(resnet_folder)]
    tower, processor = fuse_towers(parts)
    even = part_scales(tower, pixels(processor))
    with torch.no_grad():  # a ResNet's map is linear in the last normalisation of each branch
        for name, value in parts[1][0].named_parameters():
            if "normalization" in name:
                value.mul_(50)
    loud = part_scales(tower, pixels(processor))
    assert loud[0] == even[0] and loud[1] > 10 * even[1]
    wanted = loud[0] / (loud[0] + loud[1])
    message = caplog.records[-1].getMessage()
    assert f"of {loud[0]:.3g}, those of {resnet_folder.name} of {loud[1]:.3g}" in message
    assert f"--share {1 - wanted:.3g} makes them even" in message
    caplog.clear()
    balanced, _ = fuse_towers(parts, share=1 - wanted)
    part_scales(balanced, pixels(processor))
    channels, _ = fuse_towers(parts, mix="channels")
    part_scales(channels, pixels(processor))
    assert not caplog.records
    with torch.no_grad():
        for name, value in parts[1][0].named_parameters():
            if "normalization" in name:
                value.div_(50)
    chosen, _ = fuse_towers(parts, share=0.9)  # of alike scales a share says what it does
    part_scales(chosen, pixels(processor))
    assert not caplog.records


def test_towers_that_do_not_fit_are_refused(
    vit_folder: Path, clip_folder: Path, resnet_folder: Path
) -> None:
    grids = f"{vit_folder.name} gives 4 × 4 patches and {clip_folder.name} 2 × 2, .*--grid 2, or"
    with pytest.raises(EncoderError, match=f"{grids} less, and mix with --mix channels"):
        open_towers([vit_folder, clip_folder])
    with pytest.raises(EncoderError, match=f"{grids} less\\.$"):
        open_towers([vit_folder, clip_folder], mix="channels")
    for mix in ("additive", "interleaved"):
        with pytest.raises(EncoderError, match=r"have 16 values and those .* 8: .*--mix channels"):
            open_towers([vit_folder, clip_folder], mix=mix, grid=2)  # type: ignore[arg-type]
    kinds = [open_tower(vit_folder, tokens="cls,patch"), open_tower(resnet_folder)]
    with pytest.raises(EncoderError, match=r"one has a token more\. Give both the same --tokens"):
        fuse_towers(kinds)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, {}, "there is no tower"),
        (1, {"mix": "channels"}, "one tower is no mixture"),
        (1, {"share": 0.5}, "one tower is no mixture"),
        (2, {"mix": "channel"}, "no mixture 'channel'. Did you mean 'channels'"),
        (2, {"mix": "channels", "share": 0.5}, "--mix channels has no share"),
        (2, {"share": 1.0}, "a share of 1 leaves one tower out"),
        (2, {"share": -0.1}, "a share of -0.1 leaves one tower out"),
        (3, {}, "--mix additive is of two towers, not 3"),
    ],
)
def test_what_is_no_mixture(
    vit_folder: Path, count: int, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_towers([vit_folder] * count, **options)


def test_no_tower_takes_the_place_of_several(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    build([vit_folder, resnet_folder], llm_folder, tmp_path / "mllm")
    with pytest.raises(ModelError, match="is fused of 2, and one cannot take their place"):
        swap(tmp_path / "mllm", vit_folder, tmp_path / "out")


@torch.no_grad()
@pytest.mark.real
def test_real_towers_of_other_widths_and_grids_see_a_photograph(
    real: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One stretches photographs and the other cuts them: of a square one they see the same."""
    logging.getLogger("lateen").propagate = True
    names = [real / "encoders" / name for name in ("vit-tiny", "mobilenet-v2")]
    tower, processor = open_towers(names, mix="channels", grid=7)
    [message] = [record.getMessage() for record in caplog.records]
    assert message.endswith("alone, mobilenet-v2 would be shown 66 and 100 %")
    photographs = sorted((real / "flickr8k" / "images").iterdir())[:2]
    images = [Image.open(each).convert("RGB") for each in photographs]
    assert {image.width == image.height for image in images} == {True}
    tokens = tower(processor(images=images, return_tensors="pt").pixel_values).last_hidden_state
    assert tokens.shape == (2, 49, 192 + 1280)
    for name, part in zip(names, tokens.split([192, 1280], dim=2), strict=True):
        alone, own = open_tower(name, grid=7)
        wanted = alone.tokens(own(images=images, return_tensors="pt").pixel_values)
        same(part, wanted, atol=1e-4, rtol=1e-4)
