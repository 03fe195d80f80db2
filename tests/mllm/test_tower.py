"""A tower's tokens, value for value, against segmentation's patches and plain transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lateen.encoders import load_encoder
from lateen.encoders.patches import WindowEncoder
from lateen.encoders.weights import tensors_hash
from lateen.errors import EncoderError, ModelError, UsageError
from lateen.evaluation.tasks.segmentation import Segmenter
from lateen.hardware import use_hardware
from lateen.mllm import AlignedTower, open_tower
from lateen.model import AlignedModel, clip_model
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

from .conftest import picture

same = torch.testing.assert_close
WINDOWS = [picture(seed, (32, 32)) for seed in range(3)]


def pixels(processor: Any) -> torch.Tensor:
    return processor(images=WINDOWS, return_tensors="pt")["pixel_values"]


@torch.no_grad()
def segmented(model: AlignedModel) -> torch.Tensor:
    """The embeddings ``[n · patches, dim]`` that segmentation scores its windows by."""
    caught: list[torch.Tensor] = []
    project = model.project_image

    def spy(features: torch.Tensor) -> torch.Tensor:
        caught.append(project(features, normalize=False))
        return torch.nn.functional.normalize(caught[-1], dim=-1)

    model.project_image = spy  # type: ignore[method-assign]
    encoder = WindowEncoder(model.vision_encoder, 32)
    classes = torch.nn.functional.normalize(torch.randn(2, model.config.head_settings.dim), dim=-1)
    segmenter = Segmenter(model, encoder, classes, torch.arange(2), None, 32, 32, None)
    segmenter._score(WINDOWS)
    return caught[0]


@torch.no_grad()
@pytest.mark.parametrize(("pooling", "kind"), [("cls+mean", "cls+patch"), ("mean", "patch")])
def test_a_models_tower_gives_the_patches_that_segmentation_scores(
    aligned: Callable[..., Path], pooling: str, kind: str
) -> None:
    with use_hardware(precision="float32"):
        model = AlignedModel.from_pretrained(aligned(pooling))
        expected = segmented(model)
    tower, processor = open_tower(aligned(pooling))
    assert (tower.config.tokens, tower.config.num_tokens) == (kind, 16)
    output = tower(pixels(processor))
    assert output.hidden_states[-1].shape == (3, 16, 12)
    same(output.hidden_states[-1].flatten(0, 1), expected)
    assert len(output.hidden_states) == 1
    assert not any(each.requires_grad for each in tower.parameters())


@torch.no_grad()
def test_a_clips_tower_gives_the_patches_that_segmentation_scores(clip_folder: Path) -> None:
    with use_hardware(precision="float32"):
        expected = segmented(clip_model(str(clip_folder)))
    tower, processor = open_tower(clip_folder)
    same(tower.tokens(pixels(processor)).flatten(0, 1), expected)
    both, _ = open_tower(clip_folder, tokens="cls,patch")
    tokens = both.tokens(pixels(processor))
    same(tokens[:, 1:].flatten(0, 1), expected)
    with use_hardware(precision="float32"):
        whole = clip_model(str(clip_folder)).encode_image(WINDOWS, normalize=False)
    same(tokens[:, 0], whole)


@torch.no_grad()
def test_the_first_of_cls_and_patches_is_the_images_own_embedding(
    aligned: Callable[..., Path],
) -> None:
    tower, processor = open_tower(aligned(), tokens="cls,patch")
    tokens = tower.tokens(pixels(processor))
    assert tokens.shape == (3, 17, 12) == (3, tower.config.num_tokens, tower.config.hidden_size)
    with use_hardware(precision="float32"):
        model = AlignedModel.from_pretrained(aligned())
        same(tokens[:, 0], model.encode_image(WINDOWS, normalize=False))
    alone, _ = open_tower(aligned())
    same(tokens[:, 1:], alone.tokens(pixels(processor)))
    cls, _ = open_tower(aligned("cls"), tokens="cls,patch")
    head = cls.head
    states = cls.network.run(pixels(processor)).last_hidden_state
    same(cls.tokens(pixels(processor)), head(states.flatten(0, 1)).view(3, 17, 12))


@torch.no_grad()
def test_bare_patches_of_a_hidden_layer_are_llavas(clip_folder: Path, vit_folder: Path) -> None:
    from transformers import CLIPVisionModel, ViTModel

    tower, processor = open_tower(clip_folder, layer=-2)
    plain = CLIPVisionModel.from_pretrained(clip_folder)
    states = plain(pixels(processor), output_hidden_states=True).hidden_states
    same(tower.tokens(pixels(processor)), states[-2][:, 1:])
    assert tower.config.head is None and tower.config.projection_dim is None
    tower, processor = open_tower(vit_folder, layer=1, tokens="cls,patch")
    states = ViTModel.from_pretrained(vit_folder)(
        pixels(processor), output_hidden_states=True
    ).hidden_states
    same(tower.tokens(pixels(processor)), states[1])
    tower, _ = open_tower(vit_folder, tokens="cls+patch")
    last = ViTModel.from_pretrained(vit_folder)(pixels(processor)).last_hidden_state
    expected = torch.cat([last[:, :1].expand(-1, 16, -1), last[:, 1:]], dim=-1)
    same(tower.tokens(pixels(processor)), expected)


@torch.no_grad()
def test_what_is_to_be_left_out_of_a_model_is(
    clip_folder: Path, aligned: Callable[..., Path]
) -> None:
    plain, processor = open_tower(clip_folder, bare=True)
    model = clip_model(str(clip_folder))
    same(open_tower(model, bare=True)[0].tokens(pixels(processor)), plain.tokens(pixels(processor)))
    hidden, _ = open_tower(clip_folder, layer=1)
    same(open_tower(model, layer=1)[0].tokens(pixels(processor)), hidden.tokens(pixels(processor)))
    assert model.vision_encoder.info.pooling == "projection"
    bare, processor = open_tower(aligned(), bare=True)
    assert (bare.config.tokens, bare.config.hidden_size) == ("patch", 16)
    states = bare.network.run(pixels(processor)).last_hidden_state
    same(bare.tokens(pixels(processor)), states[:, 1:])


@torch.no_grad()
def test_maps_of_a_convolutional_network_are_read_row_by_row(
    resnet_folder: Path, aligned: Callable[..., Path]
) -> None:
    from transformers import ResNetModel

    tower, processor = open_tower(resnet_folder)
    maps = ResNetModel.from_pretrained(resnet_folder).eval()(pixels(processor)).last_hidden_state
    assert maps.shape == (3, 16, 4, 4)
    tokens = tower.tokens(pixels(processor))
    for row in range(4):
        for column in range(4):
            same(tokens[:, 4 * row + column], maps[:, :, row, column])
    assert tower.config.patch_size == 8
    headed, _ = open_tower(aligned("pooler", "resnet"))
    same(headed.tokens(pixels(processor)).flatten(0, 1), headed.head(tokens.flatten(0, 1)))


@torch.no_grad()
def test_a_grid_averages_patches_before_the_head(
    aligned: Callable[..., Path], vit_folder: Path
) -> None:
    tower, processor = open_tower(vit_folder, grid=2)
    patches = open_tower(vit_folder)[0].tokens(pixels(processor)).view(3, 4, 4, 16)
    tokens = tower.tokens(pixels(processor)).view(3, 2, 2, 16)
    same(tokens[:, 0, 1], patches[:, 0:2, 2:4].mean((1, 2)))
    same(tokens[:, 1, 0], patches[:, 2:4, 0:2].mean((1, 2)))
    assert (tower.config.num_tokens, tower.config.patch_size) == (4, 16)
    whole, _ = open_tower(aligned(), grid=1)
    with use_hardware(precision="float32"):
        model = AlignedModel.from_pretrained(aligned())
        expected = model.encode_image(WINDOWS, normalize=False)
    same(whole.tokens(pixels(processor))[:, 0], expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sail", "clip", "hidden", "map"])
def test_a_saved_tower_is_the_same(
    aligned: Callable[..., Path], clip_folder: Path, resnet_folder: Path, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModel

    tower, processor = {
        "sail": lambda: open_tower(aligned()), "clip": lambda: open_tower(clip_folder),
        "hidden": lambda: open_tower(clip_folder, layer=-2, tokens="cls+patch"),
        "map": lambda: open_tower(resnet_folder, grid=2),
    }[kind]()  # fmt: skip
    tower.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, AlignedTower)
    assert torch.equal(again.tokens(pixels(processor)), tower.tokens(pixels(processor)))
    assert str(clip_folder.parent) not in (tmp_path / "config.json").read_text()


@torch.no_grad()
def test_a_model_whose_image_side_is_locked_has_its_features_as_they_are(
    vit_folder: Path, bert_folder: Path
) -> None:
    """ShareLock's and LiT's image head is the identity: tokens are concat(CLS, patch)."""
    vision = load_encoder(str(vit_folder), "image", pooling="cls+mean", precision="float32")
    text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
    settings = HeadSection(name="linear", vision="identity", dropout=0.0)
    heads = AlignmentHeads(settings, vision.info.dim, text.info.dim)
    model = AlignedModel.build(
        heads, vision.info.as_dict(), text.info.as_dict(), settings.model_dump()
    )
    expected = segmented(model)
    tower, processor = open_tower(model)
    assert (tower.config.tokens, tower.config.head) == ("cls+patch", None)
    same(tower.tokens(pixels(processor)).flatten(0, 1), expected)


@torch.no_grad()
def test_training_leaves_the_tower_in_evaluation(aligned: Callable[..., Path]) -> None:
    tower, processor = open_tower(aligned())
    expected = tower.tokens(pixels(processor))
    tower.train()
    assert torch.equal(tower.tokens(pixels(processor)), expected)
    assert not any(module.training for module in tower.modules())


def test_a_model_that_is_given_stays_as_it_is(aligned: Callable[..., Path]) -> None:
    model = AlignedModel.from_pretrained(aligned())
    tower, _ = open_tower(model)
    assert model.heads.vision.network.g.weight.requires_grad
    with torch.no_grad():
        tower.head.network.g.weight.zero_()
    assert model.heads.vision.network.g.weight.abs().sum() > 0


def test_what_does_not_fit_is_said(
    aligned: Callable[..., Path], vit_folder: Path, siglip_folder: Path, bert_folder: Path
) -> None:
    with pytest.raises(UsageError, match=r"pooling 'cls\+mean', and tokens 'patch'"):
        open_tower(aligned(), tokens="patch")
    with pytest.raises(EncoderError, match=r"no features per patch.*--bare"):
        open_tower(aligned("cls"))
    with pytest.raises(EncoderError, match=r"no features per patch.*--bare"):
        open_tower(siglip_folder)
    assert open_tower(siglip_folder, bare=True)[0].config.num_tokens == 4
    with pytest.raises(UsageError, match="there are no tokens 'patches'"):
        open_tower(vit_folder, tokens="patches")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="hidden layers 0"):
        open_tower(vit_folder, layer=9)
    with pytest.raises(EncoderError, match=r"grid of 5 × 5.*of 4 × 4"):
        open_tower(vit_folder, grid=5)
    with pytest.raises(EncoderError, match="is code"):
        open_tower("toys:colour_encoder")
    with pytest.raises(EncoderError):
        open_tower(bert_folder)
    tower, _ = open_tower(vit_folder)
    with pytest.raises(ModelError, match=r"not \[3, 32, 32\]"):
        tower(torch.zeros(3, 32, 32))
    made_before = torch.rand(2, *tower(torch.zeros(1, 3, 32, 32)).last_hidden_state.shape[1:])
    assert torch.equal(tower(made_before).last_hidden_state, made_before)


def test_grids_that_a_processor_cannot_count_are_refused(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=28, patch_size=2,
    )  # fmt: skip
    ViTModel(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    # Edges of 28 // 12 = 2 pixels are 14, and of 28 // 9 = 3 are 9.
    with pytest.raises(EncoderError, match=r"cannot count 12 × 12 tokens in 28.*--grid .*14"):
        open_tower(tmp_path, grid=12)
    assert open_tower(tmp_path, grid=9)[0].config.patch_size == 3


def test_precision_follows_the_weights(vit_folder: Path, aligned: Callable[..., Path]) -> None:
    tower, processor = open_tower(aligned())
    half = tower.to(torch.bfloat16)
    assert half.tokens(pixels(processor)).dtype == torch.bfloat16
    bare, _ = open_tower(vit_folder, tokens="cls,patch")
    assert bare.to(torch.bfloat16).tokens(pixels(processor)).dtype == torch.bfloat16
    assert load_encoder(str(vit_folder), pooling="mean").info.dim == bare.config.hidden_size


def test_the_same_model_is_the_same_tower_whenever_it_is_opened(
    vit_folder: Path, tmp_path: Path
) -> None:
    """A checkpoint without a pooler gets a random one each time, which nothing uses."""
    shutil.copytree(vit_folder, tmp_path / "vit")
    weights = load_file(vit_folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "vit" / "model.safetensors", {"format": "pt"})
    one, two = (tensors_hash(open_tower(tmp_path / "vit")[0]) for _ in range(2))
    assert one == two
    trained, _ = open_tower(vit_folder)
    pooler = trained.network.model.pooler.dense.weight
    assert torch.equal(pooler, weights["pooler.dense.weight"])


def test_a_tuned_encoder_inside_a_model_is_called_as_what_it_was(
    aligned: Callable[..., Path], vit_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(aligned(), tmp_path / "model")
    shutil.copytree(vit_folder, tmp_path / "model" / "vision_encoder")
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    config["vision"] |= {"id": "/there/vit-huge", "trained": True}
    config["vision"]["load"]["name"] = "./vision_encoder"
    file.write_text(json.dumps(config))
    tower, _ = open_tower(tmp_path / "model")
    assert tower.config.encoder["id"] == "vit-huge (tuned)"
    assert open_tower(aligned())[0].config.encoder["id"] == vit_folder.name
