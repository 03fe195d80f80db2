"""Answers, against generation written out step by step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.errors import DataError, ImageError, ModelError, UsageError
from lateen.mllm import MultimodalModel, answer, build
from lateen.mllm.conversations import ask, prepare

from .conftest import picture


@torch.no_grad()
def likeliest(mllm: MultimodalModel, question: str, images: list[Any], most: int) -> list[int]:
    """Token by token, each time from the start."""
    inputs = prepare(mllm.processor, ask(question, len(images)), images)
    ids, pixels, new = inputs["input_ids"], inputs.get("pixel_values"), []
    for _ in range(most):
        token = int(mllm.model(input_ids=ids, pixel_values=pixels).logits[0, -1].argmax())
        new.append(token)
        if token in mllm.model.generation_config.eos_token_id:
            break
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return new


@pytest.mark.parametrize("images", [0, 1, 3])
def test_an_answer_is_the_likeliest_token_each_time(mllm: MultimodalModel, images: int) -> None:
    pictures = [picture(seed) for seed in range(images)]
    pieces: list[str] = []
    given = mllm.answer("What is it?", pictures, max_tokens=12, stream=pieces.append)
    expected = likeliest(mllm, "What is it?", pictures, 12)
    text = mllm.processor.tokenizer.decode(expected, skip_special_tokens=True)
    assert given.text == str(given) == text.strip() == "".join(pieces).strip()
    assert (given.tokens, given.images, given.cut) == (len(expected), images, True)
    assert given.notes[0] == "The answer is cut: it reached the limit of 12 tokens."


def test_an_answer_that_ends_by_itself_is_not_cut(mllm: MultimodalModel) -> None:
    """Where the language model's likeliest token is that of the end, the answer is over."""
    ends = mllm.model.generation_config.eos_token_id
    first = likeliest(mllm, "What?", [], 3)
    mllm.model.generation_config.eos_token_id = [*ends, first[2]]
    try:
        given = mllm.answer("What?", max_tokens=12)
        expected = likeliest(mllm, "What?", [], 12)
    finally:
        mllm.model.generation_config.eos_token_id = ends
    assert (given.cut, given.tokens, given.notes) == (False, len(expected), [])
    assert len(expected) <= 3


def test_an_untrained_projector_is_told_where_an_image_was_asked_about(
    folder: Path, mllm: MultimodalModel
) -> None:
    note = "The projector is untrained: the answer has nothing to do with the image."
    given = answer(folder, "What is it?", picture(), max_tokens=2)
    assert given.notes[-1] == note
    assert json.loads(json.dumps(given.as_dict()))["projector"] == "untrained"
    assert note not in mllm.answer("What is it?", max_tokens=2).notes
    trained = MultimodalModel(mllm.model, mllm.processor, {"projector": "trained"})
    assert note not in trained.answer("What is it?", picture(), max_tokens=2).notes


def test_a_conversation_goes_on(mllm: MultimodalModel) -> None:
    turns = [
        {"role": "user", "content": "<image>\nWhat is it?"},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Where?"},
    ]
    given = mllm.answer(turns, picture(), max_tokens=2)
    alone = mllm.answer("What is it?", picture(), max_tokens=2)
    # A token per byte, and two for the marks of each turn.
    more = len("A dog." + "\n" + "user\nWhere?" + "\n" + "assistant\n") + 4
    assert given.prompt_tokens == alone.prompt_tokens + more
    with pytest.raises(UsageError, match="does not end with the user"):
        mllm.answer(turns[:2], picture())
    with pytest.raises(UsageError, match="has its system message in itself"):
        mllm.answer(turns, picture(), system="Be brief.")


def test_images_from_files(mllm: MultimodalModel, draw: Callable[..., Path]) -> None:
    file = draw("a.png", seed=4)
    with_file = mllm.answer("What is it?", file, max_tokens=3)
    from PIL import Image

    assert mllm.answer("What is it?", Image.open(file), max_tokens=3).text == with_file.text
    file.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.png"):
        mllm.answer("What is it?", [file])


def test_what_does_not_fit_is_said(mllm: MultimodalModel) -> None:
    with pytest.raises(DataError, match="2 <image> and 1 image"):
        mllm.answer("<image> or <image>?", picture())
    with pytest.raises(DataError, match="1 <image> and no images"):
        mllm.answer("<image> What?")
    with pytest.raises(UsageError, match="an answer of 0 tokens is none"):
        mllm.answer("What?", max_tokens=0)


def test_the_context_is_a_limit(mllm: MultimodalModel) -> None:
    """256 positions: what is left of them is how long an answer may be."""
    pictures = [picture(seed) for seed in range(12)]
    given = mllm.answer("What?", pictures, max_tokens=200)
    assert given.prompt_tokens + given.tokens <= 256
    assert given.notes[0] == (
        "The answer is cut: the language model's context of 256 tokens is full."
        if given.cut else "The projector is untrained: the answer has nothing to do with the image."
    )  # fmt: skip
    with pytest.raises(ModelError, match="tokens long, and the language model takes 256"):
        mllm.answer("What?", [*pictures, *pictures])


def copied(folder: Path, tmp_path: Path, name: str, change: Callable[[Any], None]) -> Path:
    """The model with something changed in one of its JSON files."""
    shutil.copytree(folder, tmp_path / "copy")
    values = json.loads((folder / name).read_text())
    change(values)
    (tmp_path / "copy" / name).write_text(json.dumps(values))
    return tmp_path / "copy"


def test_a_tower_of_another_width_is_refused(
    folder: Path, tmp_path: Path, resnet_folder: Path, llm_folder: Path
) -> None:
    other = build(resnet_folder, llm_folder).model.config.vision_config.to_dict()
    changed = copied(folder, tmp_path, "config.json", lambda c: c.update(vision_config=other))
    with pytest.raises(ModelError, match="takes tokens of 12 values, and the tower gives 16"):
        MultimodalModel.from_pretrained(changed)


def test_a_folder_that_lacks_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    [gone, *_] = [name for name in weights if "vision_tower" in name]
    del weights[gone]
    save_file(weights, tmp_path / "copy" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .* and would be partly random"):
        MultimodalModel.from_pretrained(tmp_path / "copy")


def test_placeholders_that_do_not_match_are_refused(folder: Path, tmp_path: Path) -> None:
    changed = copied(
        folder, tmp_path, "processor_config.json", lambda c: c.update(num_additional_image_tokens=1)
    )
    with pytest.raises(ModelError, match="writes 17 placeholders for an image, and the tower giv"):
        MultimodalModel.from_pretrained(changed)


def test_what_is_no_multimodal_model_is_said(
    tmp_path: Path, clip_folder: Path, vit_folder: Path
) -> None:
    for path in (tmp_path, tmp_path / "gone", clip_folder):
        with pytest.raises(ModelError, match="is no multimodal language model"):
            MultimodalModel.from_pretrained(path)
    with pytest.raises(ModelError, match="but a model of type 'vit'"):
        MultimodalModel.from_pretrained(vit_folder)


def test_without_a_chat_template_nothing_can_be_asked(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").unlink()
    loaded = MultimodalModel.from_pretrained(tmp_path / "copy")
    with pytest.raises(UsageError, match="the model has no chat template"):
        loaded.answer("What?")


def test_images_are_prepared_without_torchvision(mllm: MultimodalModel) -> None:
    assert type(mllm.processor.image_processor).__name__ == "ViTImageProcessorPil"
