"""Tower and language model as transformers' own Llava: counted, saved, loaded elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import LlamaForCausalLM

from lateen.errors import ModelError, UsageError
from lateen.mllm import Assembled, MultimodalModel, assemble, build, open_tower
from lateen.mllm.assembly import check_placeholders, made_up_pictures
from lateen.mllm.conversations import ask, prepare
from lateen.mllm.language import load_language_model

from .conftest import picture, save_language_model

# Reads saved models in a process that knows of nothing else, and keeps their logits.
FRESH = """
import sys, torch
import lateen
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
for folder in sys.argv[2:]:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image", "image": Image.open(sys.argv[1])},
                                      {"type": "text", "text": "What is it?"}]}],
        tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True)
    with torch.no_grad():
        torch.save((inputs["input_ids"], model(**inputs).logits), folder + ".pt")
    print(type(model).__name__, model.config.model_type, type(processor).__name__)
"""


def inputs_of(built: Assembled, *images: Any) -> Any:
    return prepare(built.processor, ask("What is it?", len(images)), images)


TOWERS: dict[str, tuple[dict[str, Any], int, int]] = {  # options, tokens, width
    "sail": ({}, 16, 12),
    "cls,patch": ({"tokens": "cls,patch"}, 17, 12),
    "llava": ({"layer": -2}, 4, 24),
    "clip": ({}, 4, 8),
    "map": ({}, 16, 16),
    "grid": ({"grid": 2}, 4, 16),
}


@pytest.mark.parametrize("kind", TOWERS)
def test_there_is_a_placeholder_for_every_token(
    aligned: Callable[..., Path], clip_folder: Path, resnet_folder: Path, llm_folder: Path,
    kind: str,
) -> None:  # fmt: skip
    clip, model = clip_folder, aligned()
    source = {"llava": clip, "clip": clip, "map": resnet_folder, "grid": resnet_folder}
    options, tokens, width = TOWERS[kind]
    built = build(source.get(kind, model), llm_folder, **options)
    inputs = inputs_of(built, picture(), picture(1))
    image = built.model.config.image_token_index
    assert int((inputs["input_ids"] == image).sum()) == 2 * tokens
    with torch.no_grad():
        features = built.model.get_image_features(inputs["pixel_values"]).pooler_output
        assert built.model(**inputs).logits.isfinite().all()
    assert [each.shape for each in features] == 2 * [(tokens, 32)]
    assert built.record["tower"]["tokens_per_image"] == tokens
    assert built.record["tower"]["width"] == width
    assert built.model.model.multi_modal_projector.linear_1.in_features == width


@torch.no_grad()
@pytest.mark.parametrize("norm", ["layer", "none"])
def test_logits_are_those_of_the_language_model_on_projected_tokens(
    aligned: Callable[..., Path], llm_folder: Path, norm: Literal["layer", "none"]
) -> None:
    """By hand: embeddings of the text, with what the projector makes of the tower's tokens."""
    built = build(aligned(), llm_folder, norm=norm)
    inputs = inputs_of(built, picture())
    tower, _ = open_tower(aligned())
    projector = built.model.model.multi_modal_projector
    tokens = tower.tokens(inputs["pixel_values"])
    if norm == "layer":
        mean, variance = tokens.mean(-1, keepdim=True), tokens.var(-1, correction=0, keepdim=True)
        tokens = (tokens - mean) / (variance + 1e-5).sqrt()
    hidden = torch.nn.functional.gelu(projector.linear_1(tokens))
    seen = projector.linear_2(hidden)[0]
    language = load_language_model(llm_folder).model
    embedded = language.get_input_embeddings()(inputs["input_ids"])
    embedded[inputs["input_ids"] == built.model.config.image_token_index] = seen
    expected = language(inputs_embeds=embedded).logits
    torch.testing.assert_close(built.model(**inputs).logits, expected)


def test_a_fresh_process_loads_it_with_plain_transformers(
    aligned: Callable[..., Path], clip_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    towers = {"sail": aligned(), "clip": clip_folder}
    built = {name: build(tower, llm_folder, tmp_path / name) for name, tower in towers.items()}
    picture().save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, tmp_path / "a.png", *(tmp_path / name for name in built)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kinds = ["LlavaForConditionalGeneration", "llava", "LlavaProcessor"]
    assert [line.split() for line in done.stdout.splitlines()] == [kinds, kinds]
    for name, made in built.items():
        ids, logits = torch.load(tmp_path / f"{name}.pt")
        inputs = inputs_of(made, picture())
        assert torch.equal(ids, inputs["input_ids"])
        with torch.no_grad():
            assert torch.equal(logits, made.model(**inputs).logits)
        files = [file.read_text() for file in (tmp_path / name).glob("*.json")]
        places = [str(place) for place in (llm_folder, clip_folder, towers["sail"])]
        assert not any(place in text for text in files for place in places)
        card = (tmp_path / name / "README.md").read_text()
        assert "**Its projector is untrained**" in card


def test_scales_are_root_mean_squares(llm_folder: Path, resnet_folder: Path) -> None:
    built = build(resnet_folder, llm_folder)
    pixels = built.processor.image_processor(made_up_pictures(4), return_tensors="pt")
    with torch.no_grad():
        tokens = built.model.model.vision_tower(pixels["pixel_values"]).last_hidden_state
        projected = built.model.model.multi_modal_projector(tokens)
    table = LlamaForCausalLM.from_pretrained(llm_folder).get_input_embeddings().weight
    for value, of in ((built.scales.tokens, tokens), (built.scales.projected, projected),
                      (built.scales.embeddings, table)):  # fmt: skip
        assert value == pytest.approx((of.square().sum() / of.numel()).sqrt().item(), rel=1e-5)


def test_tokens_of_another_scale_are_warned_of(
    resnet_folder: Path, llm_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logging.getLogger("lateen").propagate = True
    language = load_language_model(llm_folder)
    with torch.no_grad():
        language.model.get_input_embeddings().weight.mul_(1e-4)
    assemble(*open_tower(resnet_folder), language)
    found = [r for r in caplog.records if (r.name, r.levelname) == ("lateen", "WARNING")]
    [warning] = [record.getMessage() for record in found]
    assert "the tower's tokens have a root mean square of" in warning


def test_the_seed_decides_the_projector(resnet_folder: Path, llm_folder: Path) -> None:
    weights = [
        build(
            resnet_folder, llm_folder, seed=seed
        ).model.model.multi_modal_projector.linear_1.weight
        for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_everything_takes_the_language_models_number_format(
    aligned: Callable[..., Path], llm_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(llm_folder, tmp_path / "llm")
    LlamaForCausalLM.from_pretrained(llm_folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "llm"
    )
    build(aligned(), tmp_path / "llm", tmp_path / "mllm")
    loaded = MultimodalModel.from_pretrained(tmp_path / "mllm", device="cpu")
    assert {each.dtype for each in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.answer("What is it?", picture(), max_tokens=2).tokens == 2


def test_a_folder_of_other_things_is_not_written_to(
    resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mllm").mkdir()
    (tmp_path / "mllm" / "thesis.tex").write_text("")
    with pytest.raises(ModelError, match="not the folder of a multimodal model"):
        build(resnet_folder, llm_folder, tmp_path / "mllm")
    build(resnet_folder, llm_folder, tmp_path / "again", seed=0)
    build(resnet_folder, llm_folder, tmp_path / "again", seed=3)
    assert json.loads((tmp_path / "again" / "mllm.json").read_text())["seed"] == 3


def test_a_language_model_without_a_chat_template(resnet_folder: Path, tmp_path: Path) -> None:
    save_language_model(tmp_path / "llm", chat=None)
    with pytest.raises(UsageError, match="llm has no chat template"):
        build(resnet_folder, tmp_path / "llm")
    built = build(resnet_folder, tmp_path / "llm", template="vicuna")
    assert built.record["template"] == "vicuna"


def test_a_template_that_writes_no_image_does_not_match(
    resnet_folder: Path, llm_folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}")
    with pytest.raises(UsageError, match=r"does not fit a conversation with 1 image: .*Found tot"):
        build(resnet_folder, llm_folder, template=file)


def test_a_template_that_there_is_not_is_said_before_anything_is_loaded(
    llm_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no chat template 'none'"):
        build(tmp_path / "no-tower", llm_folder, template="none")


def test_placeholders_are_counted() -> None:
    check_placeholders(torch.tensor([[7, 7, 1, 7, 7]]), 7, images=2, tokens=2)
    with pytest.raises(ModelError, match="3 placeholders for 1 image, and the tower gives 2 tok"):
        check_placeholders(torch.tensor([[7, 7, 1, 7]]), 7, images=1, tokens=2)


@pytest.mark.parametrize(
    "imports",
    [
        "import lateen; import transformers",
        "import transformers; import lateen",
        "from transformers import LlavaConfig; import lateen",
    ],
)
def test_importing_lateen_is_enough_whatever_comes_first(folder: Path, imports: str) -> None:
    code = (
        f"{imports}; from transformers import AutoConfig; "
        f"print(AutoConfig.from_pretrained({str(folder)!r}).vision_config.model_type)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "lateen_tower\n"), done.stderr


def test_importing_lateen_loads_nothing() -> None:
    code = "import lateen, sys; sys.exit(any(n in sys.modules for n in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
