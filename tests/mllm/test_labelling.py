"""What is learned of a conversation, and how it fits what the processor makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lateen.errors import DataError, UsageError
from lateen.mllm import MultimodalModel
from lateen.mllm.conversations import parts_of, prepare
from lateen.mllm.instructions import Conversation
from lateen.mllm.labelling import NO_LABEL, Labelled, Labeller, Stage, collate
from mllm.conftest import picture


def labeller(mllm: MultimodalModel, stage: Stage = "instruct", longest: int = 250) -> Labeller:
    return Labeller(
        mllm.processor, stage, image_token=mllm.model.config.image_token_index,
        tokens=mllm.model.config.vision_config.num_tokens, max_length=longest,
    )  # fmt: skip


def conversation(*turns: str, images: int = 1) -> Conversation:
    roles = ("user", "assistant") * len(turns)
    messages = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]
    return Conversation("x", tuple(map(str, range(images))), tuple(parts_of(messages, images)))


def batch_of(mllm: MultimodalModel, *some: Labelled) -> dict[str, torch.Tensor]:
    return collate(
        some, image_token=mllm.model.config.image_token_index,
        tokens=mllm.model.config.vision_config.num_tokens, pad_token=7,
    )  # fmt: skip


def learned_text(mllm: MultimodalModel, batch: dict[str, torch.Tensor], row: int = 0) -> str:
    ids = batch["labels"][row]
    return str(mllm.processor.tokenizer.decode(ids[ids != NO_LABEL]))


def test_the_answers_and_what_ends_them_are_learned(mllm: MultimodalModel) -> None:
    asked = conversation("<image>\nWhich?", "A dog.", "Sure?", "Yes.")
    labelled = labeller(mllm)(asked)
    assert labelled.asked == "Which?"
    batch = batch_of(mllm, labelled)
    assert learned_text(mllm, batch) == "A dog.<|im_end|>Yes.<|im_end|>"
    assert bool((batch["labels"][batch["labels"] != NO_LABEL]
                 == batch["input_ids"][batch["labels"] != NO_LABEL]).all())  # fmt: skip


def test_ids_are_those_of_the_processor(mllm: MultimodalModel) -> None:
    """Up to the answer they are what the model is asked with, placeholders and all."""
    asked = conversation("<image>\nWhich of <image>?", "A dog.", images=2)
    ids = batch_of(mllm, labeller(mllm)(asked))["input_ids"][0]
    before = prepare(mllm.processor, list(asked.messages[:1]), [picture(0), picture(1)])
    expected = before["input_ids"][0]
    assert torch.equal(ids[: len(expected)], expected)
    rest = mllm.processor.tokenizer.decode(ids[len(expected) :])
    assert rest == "A dog.<|im_end|>\n"


def test_shorter_rows_are_padded_behind_and_not_learned(mllm: MultimodalModel) -> None:
    label = labeller(mllm)
    text_only = Conversation("t", (), conversation("Two and two?", "Four.", images=0).messages)
    batch = batch_of(mllm, label(conversation("<image>Which?", "A dog.")), label(text_only))
    length = int(batch["attention_mask"][1].sum())
    assert length < batch["input_ids"].shape[1]
    assert bool((batch["input_ids"][1, length:] == 7).all())
    assert bool((batch["labels"][1, length:] == NO_LABEL).all())
    assert learned_text(mllm, batch, 1) == "Four.<|im_end|>"


def test_of_a_caption_only_the_caption_is_learned(mllm: MultimodalModel) -> None:
    label = labeller(mllm, "projector")
    plain = label(conversation("<image>\nDescribe it briefly.", "A dog runs."))
    batch = batch_of(mllm, plain)
    assert learned_text(mllm, batch) == " A dog runs.<|im_end|>"
    assert "Describe" not in mllm.processor.tokenizer.decode(batch["input_ids"][0])
    first = int(np.argmax(plain.learned))
    assert plain.ids[:first].tolist() == label.prompt()
    with pytest.raises(DataError, match="about no image"):
        label(conversation("Two and two?", "Four.", images=0))


def test_long_conversations_lose_whole_turns(mllm: MultimodalModel) -> None:
    turns = ("<image>Which?", "A dog.", "Sure?", "Yes.", "Why? <image>", "It barks.")
    whole = labeller(mllm)(conversation(*turns, images=2))
    tokens = mllm.model.config.vision_config.num_tokens
    shorter = labeller(mllm, longest=len(whole.ids) + 2 * tokens - 3)(
        conversation(*turns, images=2)
    )
    assert (whole.turns_left_out, shorter.turns_left_out) == (0, 2)
    assert (whole.images, shorter.images) == (("0", "1"), ("0",))
    assert learned_text(mllm, batch_of(mllm, shorter)) == "A dog.<|im_end|>Yes.<|im_end|>"
    with pytest.raises(DataError, match=r"too long for 20 tokens .*--grid"):
        labeller(mllm, longest=20)(conversation(*turns, images=2))


def test_a_template_without_marks_is_refused(mllm: MultimodalModel, folder: Path) -> None:
    other: Any = MultimodalModel.from_pretrained(folder, device="cpu").processor
    other.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UsageError, match="does not mark what the assistant says"):
        Labeller(other, "instruct", image_token=1, tokens=4, max_length=99)
