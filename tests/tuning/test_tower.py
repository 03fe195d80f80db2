"""What moves of an image tower, and what comes of it: CLIP, SigLIP, ViT, and a convolution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from tuner_toys import own_cache, students

from lateen.encoders import load_encoder
from lateen.encoders.fused import FusedEncoder
from lateen.errors import EncoderError, UsageError
from lateen.hardware import use_hardware
from lateen.model import AlignedModel
from lateen.model.clip import open_model
from lateen.tuning.config import TuneSection
from lateen.tuning.tower import ImageTower, candidate, tunable

Towers = Callable[[str], ImageTower]


@dataclass(frozen=True)
class Models:
    """The models that are tuned here, by name."""

    folders: dict[str, Path]

    def __getitem__(self, name: str) -> AlignedModel:
        with use_hardware(precision="float32"):
            model = open_model(self.folders[name])
            assert model.vision_encoder
        return model

    def tower(self, name: str) -> ImageTower:
        model = self[name]
        return ImageTower(tunable(model.vision_encoder), model.heads.vision)


@pytest.fixture(scope="module")
def models(
    clip_folder: Path, siglip_folder: Path, vit_folder: Path, bert_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Models]:  # fmt: skip
    place = tmp_path_factory.mktemp("models")
    with own_cache(place / "cache"), use_hardware(precision="float32"):
        yield Models(students(place, clip_folder, siglip_folder, vit_folder, bert_folder))


def pixels(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def moving(tower: ImageTower, **settings: Any) -> set[str]:
    tower.choose(TuneSection.model_validate(settings))
    return {name for name, p in tower.named_parameters() if p.requires_grad}


def whole(tower: ImageTower) -> set[str]:
    return {name for name, _ in tower.named_parameters() if "logit" not in name}


CLIP, LAYER = "network.dual.vision_model.", "network.dual.vision_model.encoder.layers."


def test_the_whole_tower_moves_and_nothing_of_the_text_side(models: Models) -> None:
    for name in models.folders:
        tower = models.tower(name)
        assert moving(tower) == whole(tower)
    clip = models.tower("clip")
    names = {name for name, _ in clip.named_parameters()}
    assert not any("text" in name for name in names)
    assert "network.dual.logit_scale" in names - moving(clip)
    assert not any(module.training for module in clip.train().modules())


def test_the_last_blocks_move_with_what_is_behind_them(models: Models) -> None:
    clip = models.tower("clip")
    expected = {name for name in whole(clip) if name.startswith(LAYER + "1.")}
    behind = {CLIP + "post_layernorm.weight", CLIP + "post_layernorm.bias",
              "network.dual.visual_projection.weight"}  # fmt: skip
    assert moving(clip, parameters="blocks", blocks=1) == expected | behind
    siglip = models.tower("siglip")
    before = {name for name in whole(siglip) if "embeddings" in name}
    assert moving(siglip, parameters="blocks", blocks=1) == whole(siglip) - before
    vit = models.tower("vit")
    first = {name for name in whole(vit) if "embeddings" in name or "layers.0." in name
             or "layer.0." in name}  # fmt: skip
    assert moving(vit, parameters="blocks", blocks=2) == whole(vit) - first
    with pytest.raises(UsageError, match=r"has 2 blocks, and tune\.blocks is 99\. Give fewer"):
        moving(models.tower("clip"), parameters="blocks", blocks=99)


def test_the_projection_alone_moves(models: Models) -> None:
    projection = {"network.dual.visual_projection.weight"}
    assert moving(models.tower("clip"), parameters="projection") == projection
    head = {name for name in whole(models.tower("vit")) if name.startswith("head.")}
    assert len(head) > 1
    assert moving(models.tower("vit"), parameters="projection") == head
    assert moving(models.tower("clip pooler"), parameters="projection") >= head
    for name in ("siglip", "bare"):
        with pytest.raises(UsageError, match=r"leaves everything frozen.*Use whole, blocks or"):
            moving(models.tower(name), parameters="projection")


@pytest.mark.parametrize("name", ["clip", "siglip", "vit"])
def test_low_rank_additions_are_merged_into_the_weights(models: Models, name: str) -> None:
    start, tower = models[name], models.tower(name)
    names = {n for n, _ in tower.named_parameters()}
    before = tower(pixels())
    moved = moving(tower, parameters="lora", lora_rank=2)
    added = {n for n in moved if "lora_" in n}
    assert added
    assert moved - added == {n for n in names if n.startswith("head.") or "visual_proj" in n}
    torch.testing.assert_close(tower(pixels()), before)  # they start as nothing
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for n, parameter in tower.named_parameters():
            if n in added:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapted = tower(pixels())
    assert not torch.allclose(adapted, before, atol=1e-3)
    made = candidate(start, tower)
    encoder = tunable(made.vision_encoder)
    assert not any("lora" in n or "base_layer" in n for n in encoder.network.state_dict())
    with torch.no_grad():
        merged = made.heads.vision(encoder.network(pixels()))
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tower(pixels()), adapted, rtol=0, atol=0)  # and goes on as it was


def test_low_rank_additions_are_drawn_from_the_seed(models: Models) -> None:
    def drawn(seed: int) -> dict[str, Tensor]:
        tower = models.tower("clip")
        torch.rand(3)  # the state of torch's own generator is no matter
        moving(tower, parameters="lora", seed=seed)
        return {n: p for n, p in tower.named_parameters() if "lora_A" in n}

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_convolution_has_no_layers_for_low_rank_additions(models: Models) -> None:
    with pytest.raises(UsageError, match=r"no linear layers for lora\. Use whole or blocks"):
        moving(models.tower("conv"), parameters="lora")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("clip", "whole"), ("clip", "lora"), ("siglip", "whole"), ("vit", "whole"),
        ("vit", "lora"), ("conv", "whole"),
    ],
)  # fmt: skip
def test_blocks_computed_anew_have_the_same_gradients(
    models: Models, name: str, parameters: str
) -> None:
    runs: list[int] = []

    def gradients(anew: bool) -> dict[str, Tensor]:
        tower = models.tower(name)
        blocks = [m for n, m in tower.named_modules() if n.endswith(("layers.0", "layer.0"))]
        moving(tower, parameters=parameters, gradient_checkpointing=anew)
        some = next(m for m in blocks[0].modules() if not list(m.children()))
        some.register_forward_pre_hook(lambda *_: runs.append(1))
        runs.clear()
        tower(pixels()).square().sum().backward()  # type: ignore[no-untyped-call]
        return {n: p.grad for n, p in tower.named_parameters() if p.grad is not None}

    expected = gradients(anew=False)
    assert len(runs) == 1
    found = gradients(anew=True)
    assert len(runs) == 2
    assert found.keys() == expected.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(gradient, expected[key])


def test_running_statistics_of_a_convolution_do_not_move(models: Models) -> None:
    tower = models.tower("conv")
    moving(tower)
    before = copy.deepcopy(dict(tower.named_buffers()))
    assert any("running_mean" in name for name in before)
    tower.train()(pixels()).sum().backward()  # type: ignore[no-untyped-call]
    for name, buffer in tower.named_buffers():
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("name", ["clip", "siglip", "vit", "conv", "clip tower", "clip pooler"])
def test_a_tower_embeds_as_the_model_that_it_is_of(models: Models, name: str) -> None:
    model, tower = models[name], models.tower(name)
    encoder = model.vision_encoder
    expected = model.project_image(encoder.encode(list(pixels())), normalize=False)
    torch.testing.assert_close(tower(pixels()), expected, rtol=1e-4, atol=1e-5)
    made = candidate(model, tower)
    again = made.project_image(made.vision_encoder.encode(list(pixels())), normalize=False)
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)
    assert made.text_encoder is model.text_encoder


@pytest.mark.parametrize(("name", "patches"), [("clip", 4), ("clip tower", 4), ("vit", 16)])
def test_patches_stand_behind_each_embedding(models: Models, name: str, patches: int) -> None:
    model, tower = models[name], models.tower(name)
    rows = tower.with_patches(pixels()).view(4, 1 + patches, -1)
    torch.testing.assert_close(rows[:, 0], tower(pixels()))
    encoder = tunable(model.vision_encoder, patches=True)
    features = encoder.encode_patches(list(pixels())).flatten(0, 1)
    expected = model.project_image(features, normalize=False).view(4, patches, -1)
    torch.testing.assert_close(rows[:, 1:], expected, rtol=1e-4, atol=1e-5)


def test_the_model_that_is_tuned_stays_as_it_was(models: Models) -> None:
    model = models["clip"]
    tower = ImageTower(tunable(model.vision_encoder), model.heads.vision)
    moving(tower)
    before = model.vision_encoder.encode(list(pixels()))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(model.vision_encoder.encode(list(pixels())), before, rtol=0, atol=0)


def test_what_cannot_be_tuned(models: Models, vit_folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"it is code, or several encoders\. Give a model"):
        tunable(load_encoder("toys:colour_encoder", "image"))
    plain = load_encoder(str(vit_folder), "image", pooling="mean")
    with pytest.raises(EncoderError, match=r"or several encoders"):
        tunable(FusedEncoder([plain, load_encoder("toys:colour_encoder", "image")]))
    layered = load_encoder(str(vit_folder), "image", pooling="mean", layer=1)
    with pytest.raises(EncoderError, match=r"hidden layer 1.*Align a model on the encoder's last"):
        tunable(layered)
    with pytest.raises(EncoderError, match=r"as SigLIP does"):
        tunable(models["siglip"].vision_encoder, patches=True)
    with pytest.raises(EncoderError, match=r"no features per patch"):
        tunable(models["clip pooler"].vision_encoder, patches=True)
