"""A CLIP whose image tower was tuned comes out as it came in, all else the same to the bit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel, SiglipModel

from lateen.errors import LateenError, ModelError
from lateen.model import CardResult, clip_model, clip_saving, open_model
from lateen.model.clip_saving import save_tuned_clip
from lateen.model.trained_on import TRAINED_ON, ImageGroup, TrainedOn

TOWER = ("vision_model.", "visual_projection.")
RECORD = TrainedOn({"train": ImageGroup.of(["a", "b"], np.array([7, 8], np.uint64))})
OTHER = TrainedOn({"train": ImageGroup.of(["c"], np.array([9], np.uint64))})
Source = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> Source:
    """A copy of a tiny model whose tensors may be in another number format: ``source("clip")``."""

    def copy(kind: str = "clip", dtype: torch.dtype = torch.float32, **others: torch.dtype) -> Path:
        folder = tmp_path / f"plain-{kind}"
        shutil.copytree(request.getfixturevalue(f"{kind}_folder"), folder)
        tensors = load_file(folder / "model.safetensors")
        formats = {name: others.get(name, dtype) for name in tensors}
        tensors = {name: each.to(formats[name]) for name, each in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return copy


def tuned(folder: Path, seed: int = 1) -> dict[str, Tensor]:
    """The image tower of a model, every float32 tensor of it a little changed."""
    torch.manual_seed(seed)
    state = AutoModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    tower = {name: each for name, each in state.items() if name.startswith(TOWER)}
    return {name: each + 0.01 * torch.randn_like(each) for name, each in tower.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_tower_is_the_tuned_one_and_all_else_the_same_to_the_bit(
    source: Source, kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    folder, out = source(kind, dtype), tmp_path / "out"
    vision = tuned(folder)
    save_tuned_clip(folder, vision, out)
    before, after = (load_file(each / "model.safetensors") for each in (folder, out))
    assert before.keys() == after.keys()
    for name, tensor in after.items():
        assert tensor.dtype == dtype
        expected = vision[name].to(dtype) if name in vision else before[name]
        assert torch.equal(tensor, expected), name
        assert torch.equal(tensor, before[name]) is (name not in vision)
    assert len(vision) == sum(name.startswith(TOWER) for name in after)
    assert (out / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_it_loads_with_the_models_own_class_alone(source: Source, tmp_path: Path) -> None:
    for kind, own in (("clip", CLIPModel), ("siglip", SiglipModel)):
        folder, out = source(kind), tmp_path / kind
        vision = tuned(folder)
        save_tuned_clip(str(folder), vision, out)
        plain, again = own.from_pretrained(folder).eval(), own.from_pretrained(out).eval()
        tokens = AutoTokenizer.from_pretrained(out)(["a dog"], return_tensors="pt")["input_ids"]
        text = [each.get_text_features(tokens).pooler_output for each in (plain, again)]
        assert torch.equal(*text)
        plain.load_state_dict(vision, strict=False)
        pixels = torch.randn(2, 3, 32, 32)
        image = [each.get_image_features(pixels).pooler_output for each in (plain, again)]
        assert torch.equal(*image)
        processors = [
            AutoImageProcessor.from_pretrained(each, backend="pil") for each in (folder, out)
        ]
        assert processors[0].to_json_string() == processors[1].to_json_string()


def test_each_tensor_keeps_a_format_of_its_own(source: Source, tmp_path: Path) -> None:
    formats = {"logit_scale": torch.float32, "visual_projection.weight": torch.float32}
    folder = source("clip", torch.float16, **formats)
    vision = tuned(folder)
    save_tuned_clip(folder, vision, tmp_path / "out")
    after = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert after[name].dtype == formats.get(name, torch.float16)
        assert name in vision or torch.equal(after[name], tensor)
    assert torch.equal(after["visual_projection.weight"], vision["visual_projection.weight"])


def test_weights_in_shards_or_in_torchs_own_format(source: Source, tmp_path: Path) -> None:
    folder = source("clip", torch.float16)
    whole, vision = load_file(folder / "model.safetensors"), tuned(folder)
    model = CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    for name in ("shards", "bin"):
        save_tuned_clip(folder, vision, tmp_path / name)
        after = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(after[k], each) for k, each in whole.items() if k not in vision)
        assert len(list((tmp_path / name).glob("*.index.json"))) == 0
        for path in folder.glob("model*.safetensors*"):
            path.unlink()
        torch.save(whole, folder / "pytorch_model.bin")


def test_licences_go_with_it_and_the_card_says_what_it_is(source: Source, tmp_path: Path) -> None:
    folder, out = source(), tmp_path / "run" / "model"
    (folder / "LICENSE").write_text("MIT")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# The original\n")
    result = CardResult("knn", "birds", "accuracy", 61.25, (58.0, 64.5), images=400)
    conditions = {"target": "dinov2-small", "kernel": "polynomial"}
    save_tuned_clip(folder, tuned(folder), out, training=conditions, results=[result])
    assert (out / "LICENSE").read_text() == "MIT"
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "mit"
    assert card.data.model_name == "run"
    assert card.data.eval_results[0].metric_value == 61.25
    for line in (
        "# run", "**plain-clip**, whose image tower was tuned", "are float32, as before.",
        "CLIPModel.from_pretrained", "as its own card says: mit.", "| kernel | polynomial |",
        "| knn | birds | accuracy | 61.2 | 58.0 to 64.5 | 400 | – |",
    ):  # fmt: skip
        assert line in card.text
    assert "The original" not in card.text
    assert str(tmp_path) not in card.content


def test_the_record_of_what_it_was_tuned_on_is_read_back(source: Source, tmp_path: Path) -> None:
    folder, out = source(), tmp_path / "out"
    vision = tuned(folder)
    assert clip_model(str(folder)).trained_on is None
    save_tuned_clip(folder, vision, out, trained_on=RECORD)
    for model in (clip_model(str(out)), open_model(out)):
        found = model.trained_on
        assert found is not None
        assert found.groups["train"].images.values.tolist() == [7, 8]
    model.save_pretrained(tmp_path / "aligned")
    again = open_model(tmp_path / "aligned").trained_on
    assert again is not None and again.groups["train"].count == 2
    (out / TRAINED_ON).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="damaged"):
        _ = open_model(out).trained_on


def test_a_model_that_was_tuned_before_keeps_its_record_beside_the_new_one(
    source: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = source()
    vision = tuned(folder)
    RECORD.save(folder / TRAINED_ON)
    save_tuned_clip(folder, vision, tmp_path / "kept")
    assert (tmp_path / "kept" / TRAINED_ON).read_bytes() == (folder / TRAINED_ON).read_bytes()
    save_tuned_clip(folder, vision, tmp_path / "both", trained_on=OTHER)
    group = TrainedOn.load(tmp_path / "both" / TRAINED_ON).groups["train"]
    assert (group.count, group.images.values.tolist()) == (3, [7, 8, 9])
    many = ImageGroup.of([str(i) for i in range(9)], np.arange(1, 10, dtype=np.uint64), exact=8)
    TrainedOn({"train": many}).save(folder / TRAINED_ON)
    with caplog.at_level(logging.WARNING, "lateen"):
        save_tuned_clip(folder, vision, tmp_path / "new", trained_on=OTHER)
    assert "too many images to be joined" in caplog.text
    groups = TrainedOn.load(tmp_path / "new" / TRAINED_ON).groups
    assert groups["train"].images.values.tolist() == [9]


def test_a_tower_that_is_not_the_models_is_refused(source: Source, tmp_path: Path) -> None:
    folder = source("clip", torch.float16)
    good = tuned(folder)
    name = "vision_model.post_layernorm.bias"
    large = torch.full_like(good[name], 1e6)
    text = {"text_projection.weight": torch.zeros(8, 16)}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({**good, "vision_model.post_layernrm.bias": good[name]}, "no tensor 'vision_model.post_l"),
        ({**good, **text}, "no tensor 'text_projection.weight'"),
        ({k: each for k, each in good.items() if k != name}, f"'{name}' is not given"),
        ({name: good[name]}, "'vision_model.e.* more is not given"),
        ({**good, name: good[name][:-1]}, f"'{name}' has shape \\[23\\].*\\[24\\]"),
        ({**good, name: large}, f"'{name}' has values that float16"),
        ({**good, name: large * torch.nan}, f"'{name}' has NaN"),
    ]
    for vision, message in cases:
        with pytest.raises(ModelError, match=message):
            save_tuned_clip(folder, vision, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_no_other_folder_is_written_to(source: Source, vit_folder: Path, tmp_path: Path) -> None:
    folder = source()
    vision = tuned(folder)
    before = sorted(folder.iterdir())
    for out in (folder, folder / "tuned", tmp_path):
        with pytest.raises(ModelError, match="lie in one folder"):
            save_tuned_clip(folder, vision, out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "beach.jpg").write_text("a photograph")
    with pytest.raises(ModelError, match=r"not the folder of a model.*beach\.jpg"):
        save_tuned_clip(folder, vision, tmp_path / "mine")
    with pytest.raises(ModelError, match="no dual-tower model"):
        save_tuned_clip(vit_folder, vision, tmp_path / "out")
    assert sorted(folder.iterdir()) == before


def test_what_fails_in_between_leaves_the_model_that_was_there(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = source(), tmp_path / "runs" / "out"
    save_tuned_clip(folder, tuned(folder), out, trained_on=RECORD)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(clip_saving, "write_clip_card", full)
        with pytest.raises(LateenError, match="disk is full"):
            save_tuned_clip(folder, tuned(folder, 2), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    save_tuned_clip(folder, tuned(folder, 2), out)
    assert (out / "model.safetensors").read_bytes() != before["model.safetensors"]
    assert not (out / TRAINED_ON).exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_weights_can_be_read_by_all_who_may_read_the_card(
    source: Source, tmp_path: Path
) -> None:
    folder = source()
    save_tuned_clip(folder, tuned(folder), tmp_path / "out")
    card, weights = (tmp_path / "out" / name for name in ("README.md", "model.safetensors"))
    assert weights.stat().st_mode == card.stat().st_mode
