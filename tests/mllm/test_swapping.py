"""One tower for another: what stays, what is told of it, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from lateen.errors import EncoderError, ModelError, UsageError
from lateen.mllm import AlignedTower, MultimodalModel, build, open_tower, swap
from lateen.mllm.assembly import made_up_pictures
from lateen.mllm.card import model_card, tower_of_projector
from lateen.mllm.language import load_language_model
from lateen.mllm.templates import find_template

from .conftest import picture
from .test_assembly import FRESH


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def record_of(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "mllm.json").read_text())
    return record


@pytest.fixture(scope="session")
def tuned(
    aligned: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A copy of the aligned model with another head, a little way off."""

    def model(step: float = 0.05, pooling: str = "cls+mean") -> Path:
        folder = tmp_path_factory.mktemp("tuned") / "tuned"
        shutil.copytree(aligned(pooling), folder)
        weights = stored(folder)
        generator = torch.Generator().manual_seed(5)
        moved = {
            name: tensor + step * torch.randn(tensor.shape, generator=generator)
            if name.startswith("vision") or ".vision." in name else tensor
            for name, tensor in weights.items()
        }  # fmt: skip
        assert any(not torch.equal(moved[name], weights[name]) for name in weights)
        save_file(moved, folder / "model.safetensors", {"format": "pt"})
        return folder

    return model


def test_language_model_and_projector_are_bit_for_bit_those_of_before(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    """By the files themselves: every tensor but the tower's has the bytes that it had."""
    swapped = swap(folder, tuned(), tmp_path / "out")
    before, after = stored(folder), stored(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("vision_tower.head.") for name in changed)
    weights = swapped.entry["tower_weights"]
    assert weights["before"] != weights["after"]
    again = swap(tmp_path / "out", tuned(), tmp_path / "again").entry
    assert again["language_model"] == swapped.entry["language_model"]
    assert again["projector"] == swapped.entry["projector"]
    assert again["tower_weights"]["before"] == weights["after"]


def test_the_hashes_are_of_all_weights_of_each_part(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    """One bit elsewhere in the language model or the projector is another hash."""
    first = swap(folder, tuned(), tmp_path / "first").entry
    for part, prefix in (("language_model", "language_model."),
                         ("projector", "multi_modal_projector.")):  # fmt: skip
        other = tmp_path / part
        shutil.copytree(folder, other)
        weights = stored(other)
        name = max(name for name in weights if name.startswith(prefix))
        weights[name].view(-1)[-1] += 1e-3
        save_file(weights, other / "model.safetensors", {"format": "pt"})
        entry = swap(other, tuned(), tmp_path / f"{part}-out").entry
        differs = {each for each in ("language_model", "projector") if entry[each] != first[each]}
        assert differs == {part}


def test_a_part_that_changes_on_its_way_is_refused(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lateen.mllm import swapping

    def damaged(made: Path, *rest: Any) -> None:
        write(made, *rest)
        weights = stored(made)
        weights["multi_modal_projector.linear_1.bias"][0] += 1
        save_file(weights, made / "model.safetensors", {"format": "pt"})

    write = swapping.write_model
    monkeypatch.setattr(swapping, "write_model", damaged)
    with pytest.raises(ModelError, match="the projector read back from the new folder are not"):
        swap(folder, tuned(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_tower_answers_identically_and_is_told(
    folder: Path, aligned: Callable[..., Path], tmp_path: Path
) -> None:
    swapped = swap(folder, aligned(), tmp_path / "out")
    assert swapped.notes[0] == "both towers have the very same weights: nothing is swapped"
    assert swapped.entry["tokens"]["cosine"] == pytest.approx(1)
    assert swapped.entry["preprocessing"] == {}
    before, after = (MultimodalModel.from_pretrained(each, device="cpu")
                     for each in (folder, tmp_path / "out"))  # fmt: skip
    for seed in range(3):
        inputs = [each.inputs("What is it?", [picture(seed)]) for each in (before, after)]
        with torch.no_grad():
            assert torch.equal(before.model(**inputs[0]).logits, after.model(**inputs[1]).logits)


def test_another_tower_changes_what_is_seen_and_not_what_is_said_without_an_image(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    swap(folder, tuned(0.5), tmp_path / "out")
    before, after = (MultimodalModel.from_pretrained(each, device="cpu")
                     for each in (folder, tmp_path / "out"))  # fmt: skip
    with torch.no_grad():
        seen = [each.model(**each.inputs("What?", [picture()])).logits for each in (before, after)]
        read = [each.model(**each.inputs("What?", [])).logits for each in (before, after)]
    assert not torch.allclose(seen[0], seen[1])
    assert torch.equal(read[0], read[1])
    texts = [each.answer("What?", max_tokens=8).text for each in (before, after)]
    assert texts[0] == texts[1]


@torch.no_grad()
def test_how_far_the_tokens_are_is_told_beside_another_picture(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    tokens = swap(folder, tuned(0.3), tmp_path / "out").entry["tokens"]
    pictures = made_up_pictures(tokens["pictures"])
    sides = []
    for each in (folder, tmp_path / "out"):
        ready = MultimodalModel.from_pretrained(each, device="cpu")
        pixels = ready.processor.image_processor(images=pictures, return_tensors="pt")
        tower = ready.model.model.vision_tower
        sides.append(tower(pixels["pixel_values"]).hidden_states[-1].detach())
    old, new = (each / each.norm(dim=-1, keepdim=True) for each in sides)
    assert tokens["cosine"] == pytest.approx((old * new).sum(-1).mean().item(), abs=1e-5)
    other = torch.cat([old[-1:], old[:-1]])
    assert tokens["another_picture"] == pytest.approx((old * other).sum(-1).mean().item(), abs=1e-5)
    assert tokens["rms"]["after"] == pytest.approx(sides[1].square().mean().sqrt().item())


def test_tokens_that_are_no_nearer_than_anothers_are_warned_of(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logging.getLogger("lateen").propagate = True
    swapped = swap(folder, tuned(9.0), tmp_path / "out")
    assert swapped.entry["tokens"]["cosine"] < swapped.entry["tokens"]["another_picture"]
    assert "has to be trained anew" in swapped.notes[0]
    assert swapped.notes[0] in caplog.text


STAGE = {
    "stage": "projector", "tune": None, "steps": 3, "check": None,
    "data": {"name": "captions.csv", "conversations": 8, "images": 4},
}  # fmt: skip


def test_what_else_the_record_says_is_kept(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(folder, trained)
    stages = [STAGE]
    record = record_of(folder) | {"projector": "trained", "stages": stages, "of_theirs": {"a": 1}}
    (trained / "mllm.json").write_text(json.dumps(record))
    swapped = swap(trained, tuned(), tmp_path / "out")
    saved = record_of(tmp_path / "out")
    assert saved == json.loads(json.dumps(swapped.record))
    new = {"tower", "parameters", "swapped"}
    assert {k: v for k, v in saved.items() if k not in new} == {
        k: v for k, v in record.items() if k not in new
    }
    assert saved["tower"]["encoder"]["head"] != record["tower"]["encoder"]["head"]
    [entry] = saved["swapped"]
    assert entry["tower"] == record["tower"]
    swap(tmp_path / "out", tuned(), tmp_path / "again")
    assert len(record_of(tmp_path / "again")["swapped"]) == 2
    assert tower_of_projector(record_of(tmp_path / "again")) == record["tower"]


def test_the_card_says_whose_tokens_the_projector_was_trained_on(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    swap(folder, tuned(), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**Its projector is untrained**" in card
    assert "**Its tower was swapped without training**" in card
    record = record_of(tmp_path / "out")
    assert record["swapped"][0]["language_model"][:12] in card

    def tower(name: str) -> dict[str, Any]:
        return {**record["tower"], "encoder": {"id": name}}

    entry = {**record["swapped"][0], "tower": tower("first"), "stages": 1}
    after = record | {"projector": "trained", "stages": [STAGE], "tower": tower("third"),
                      "swapped": [entry, {**entry, "tower": tower("second")}]}  # fmt: skip
    said = model_card("m", after)
    assert "trained on the tokens of first, and on no other tower since" in said
    assert said.index("second (weights") < said.index("third (weights")
    assert "tokens of third through" in said
    again = model_card("m", after | {"stages": [STAGE, STAGE]})  # trained once more, with the third
    assert "trained on the tokens of third" in again


def test_the_image_processor_is_the_new_towers_and_what_differs_is_said(
    vit_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(vit_folder, tmp_path / "vit")
    file = tmp_path / "vit" / "preprocessor_config.json"
    settings = json.loads(file.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}
    file.write_text(json.dumps(settings))
    build(vit_folder, llm_folder, tmp_path / "mllm", tokens="patch")
    swapped = swap(tmp_path / "mllm", tmp_path / "vit", tmp_path / "out")
    old, new = swapped.entry["preprocessing"].pop("image_mean")
    assert list(new) == [0.1, 0.2, 0.3] != list(old)
    assert swapped.entry["preprocessing"] == {}
    assert any("otherwise than before: image_mean" in note for note in swapped.notes)
    loaded = MultimodalModel.from_pretrained(tmp_path / "out", device="cpu")
    assert list(loaded.processor.image_processor.image_mean) == [0.1, 0.2, 0.3]


def test_a_fresh_process_loads_it_with_plain_transformers(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    swap(folder, tuned(0.5), tmp_path / "out")
    picture().save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "a.png", tmp_path / "out"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["LlavaForConditionalGeneration", "llava", "LlavaProcessor"]
    _, logits = torch.load(tmp_path / "out.pt")
    ready = MultimodalModel.from_pretrained(tmp_path / "out", device="cpu")
    assert isinstance(ready.model.model.vision_tower, AlignedTower)
    with torch.no_grad():
        assert torch.equal(
            logits, ready.model(**ready.inputs("What is it?", [picture()])).logits
        )  # fmt: skip


def llava(clip: Path, llm: Path, where: Path, strategy: str = "default") -> Path:
    """As llava-hf has them: transformers' own CLIP tower, its last layer but one."""
    language = load_language_model(llm)
    tower = CLIPVisionModel.from_pretrained(clip)
    config = LlavaConfig(
        vision_config=tower.config, text_config=language.model.config,
        image_token_index=language.image_token, vision_feature_layer=-2,
        vision_feature_select_strategy=strategy, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(3)
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.save_pretrained(where)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil.from_pretrained(clip), tokenizer=language.tokenizer,
        patch_size=tower.config.patch_size, vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
        chat_template=find_template("chatml", language.tokenizer, "llm")[1],
    ).save_pretrained(where)  # fmt: skip
    return where


@pytest.mark.parametrize("strategy", ["default", "full"])
def test_a_llava_with_transformers_own_clip_gets_a_tower_of_the_same_tokens(
    clip_folder: Path, llm_folder: Path, tmp_path: Path, strategy: str
) -> None:
    where = llava(clip_folder, llm_folder, tmp_path / "llava", strategy)
    swapped = swap(where, clip_folder, tmp_path / "out")
    assert swapped.entry["tokens"]["cosine"] == pytest.approx(1)
    assert swapped.notes == ["both towers give the very same tokens of made-up pictures"]
    assert swapped.entry["preprocessing"] == {}
    before, after = (MultimodalModel.from_pretrained(each, device="cpu")
                     for each in (where, tmp_path / "out"))  # fmt: skip
    with torch.no_grad():
        old, new = (each.model(**each.inputs("What?", [picture()])).logits
                    for each in (before, after))  # fmt: skip
    torch.testing.assert_close(old, new)
    assert after.record["tower"]["layer"] == -2
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trained on the tokens of clip_vision_model" in card


def test_towers_that_give_other_tokens_are_refused(
    folder: Path, aligned: Callable[..., Path], vit_folder: Path, resnet_folder: Path,
    clip_folder: Path, llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before the language model is loaded; and nothing is written."""
    made = {
        "fine": (resnet_folder, {"grid": 4}), "deep": (vit_folder, {"layer": -2}),
        "mean": (aligned("mean"), {}), "clip": (clip_folder, {}),
    }  # fmt: skip
    for name, (tower, options) in made.items():
        build(tower, llm_folder, tmp_path / name, **options)
    made_up = {"head": folder, **{name: tmp_path / name for name in made}}

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the language model is loaded")

    monkeypatch.setattr(MultimodalModel, "from_pretrained", never)
    refused: list[tuple[str, Any, str]] = [
        ("head", vit_folder, r"of another kind \(cls\+patch, through no head\) than the tower of "
         r".* \(cls\+patch, through the model's head, pooling cls\+mean\)"),
        ("mean", vit_folder, "of another kind"),
        ("head", aligned("mean"), "the head was trained on pooling 'mean', and tokens 'cls"),
        ("mean", clip_folder, "through the CLIP's projection, pooling projection"),
        ("clip", vit_folder, "of another kind"),
        ("fine", clip_folder, "a grid of 4 × 4 cannot be made of 2 × 2 patches"),
        ("deep", clip_folder, "gives 2 × 2 patches, and the tower of .* 4 × 4"),
    ]  # fmt: skip
    for name, tower, message in refused:
        with pytest.raises(ModelError, match=message) as raised:
            swap(made_up[name], tower, tmp_path / "out")
        assert "train the projector anew" in raised.value.remedy
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_tower_of_another_width_is_refused(
    aligned: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    from lateen.encoders import load_encoder
    from lateen.model import AlignedModel
    from lateen.training.config import HeadSection
    from lateen.training.heads import AlignmentHeads

    model = AlignedModel.from_pretrained(aligned())
    vision = model.vision_encoder.info
    text = load_encoder(model.config.text["load"]["name"], "text", pooling="mean").info
    head = HeadSection(name="glu", dim=10, width=2)
    AlignedModel.build(
        AlignmentHeads(head, vision.dim, text.dim), vision.as_dict(), text.as_dict(),
        head.model_dump(),
    ).save_pretrained(tmp_path / "wide")  # fmt: skip
    with pytest.raises(ModelError, match=r"gives tokens of 10 values, .* takes 12"):
        swap(folder, tmp_path / "wide", tmp_path / "out")


def test_models_and_places_that_do_not_do(
    folder: Path, aligned: Callable[..., Path], clip_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="gone is no multimodal language model"):
        swap(tmp_path / "gone", aligned(), tmp_path / "out")
    with pytest.raises(EncoderError, match=r"there is no folder"):
        swap(folder, tmp_path / "gone", tmp_path / "out")
    with pytest.raises(UsageError, match="is the model itself"):
        swap(folder, aligned(), folder)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("")
    with pytest.raises(ModelError, match="not the folder of a multimodal model"):
        swap(folder, aligned(), tmp_path / "theirs")
    where = llava(clip_folder, llm_folder, tmp_path / "llava")
    config = json.loads((where / "config.json").read_text())
    for changes, message in (
        ({"vision_feature_layer": [-2, -1]}, r"gives \(layers \[-2, -1\] together\) is not known"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "siglip_vision_model"),
        ({"model_type": "llava_next"}, "of type 'llava_next', and no LLaVA"),
    ):
        (where / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(ModelError, match=message):
            swap(where, clip_folder, tmp_path / "out")


def test_what_was_evaluated_stays_with_the_very_same_swap(
    folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    out, tower = tmp_path / "out", tuned()
    swap(folder, tower, out)
    (out / "eval").mkdir()
    (out / "eval" / "pope-answers.jsonl").write_text("{}\n")
    swap(folder, tower, out)
    assert (out / "eval" / "pope-answers.jsonl").is_file()
    swap(folder, tuned(0.2), out)
    assert not (out / "eval").exists()


def test_a_tower_of_another_architecture_is_saved_under_its_own_names(
    vit_folder: Path, resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    """A loaded model would rename its tensors as those of the old tower were renamed."""
    build(vit_folder, llm_folder, tmp_path / "mllm", tokens="patch")
    swap(tmp_path / "mllm", resnet_folder, tmp_path / "out")
    loaded = MultimodalModel.from_pretrained(tmp_path / "out", device="cpu").model
    expected, _ = open_tower(resnet_folder)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(loaded.model.vision_tower.state_dict()[name], tensor)


def test_the_new_tower_takes_the_models_number_format(
    aligned: Callable[..., Path], llm_folder: Path, tuned: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(llm_folder, tmp_path / "llm")
    LlamaForCausalLM.from_pretrained(llm_folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "llm"
    )
    build(aligned(), tmp_path / "llm", tmp_path / "mllm")
    same = swap(tmp_path / "mllm", aligned(), tmp_path / "same").entry
    assert same["tower_weights"]["before"] == same["tower_weights"]["after"]
    swap(tmp_path / "mllm", tuned(), tmp_path / "out")
    assert {each.dtype for each in stored(tmp_path / "out").values()} == {torch.bfloat16}
