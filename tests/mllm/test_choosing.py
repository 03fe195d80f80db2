"""Answers by their first token, against the logits of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lateen.errors import ModelError, UsageError
from lateen.mllm import MultimodalModel, build
from lateen.mllm.choosing import choose, first_tokens
from lateen.mllm.conversations import ask, prepare

from .conftest import picture

YES_NO = {"yes": ("Yes", "yes"), "no": ("No", "no")}


@pytest.mark.parametrize("template", ["chatml", "vicuna"])
def test_an_answer_begins_where_the_template_has_it(
    aligned: Callable[..., Path], llm_folder: Path, template: str
) -> None:
    """After ChatML's line break the letter itself; after Vicuna's colon a space, as in training."""
    built = build(aligned(), llm_folder, template=template)
    ready = MultimodalModel(built.model, built.processor)
    tokenizer = built.processor.tokenizer
    if template == "chatml":
        letters = {name: [tokenizer(each)["input_ids"][0] for each in texts]
                   for name, texts in YES_NO.items()}  # fmt: skip
        assert first_tokens(ready, YES_NO) == letters
    else:  # where each byte is a token, all answers begin with the same space
        with pytest.raises(UsageError, match="'yes' and 'no' begin with the same token"):
            first_tokens(ready, YES_NO)


@torch.no_grad()
def test_the_likeliest_is_chosen_and_its_spellings_count_together(mllm: MultimodalModel) -> None:
    tokens = first_tokens(mllm, YES_NO)
    inputs = prepare(mllm.processor, ask("Is it?", 1), [picture(3)])
    chance = mllm.model(**inputs).logits[0, -1].softmax(0)
    yes, no = (float(chance[list(ids)].sum()) for ids in tokens.values())
    given = choose(mllm, "Is it?", [picture(3)], tokens)
    assert given.chances["yes"] == pytest.approx(yes / (yes + no), rel=1e-4)
    assert given.share == pytest.approx(yes + no, rel=1e-4)
    assert given.text == ("yes" if yes > no else "no")
    assert sum(given.chances.values()) == pytest.approx(1)


def test_only_what_may_be_answered_is_chosen(mllm: MultimodalModel) -> None:
    letters = first_tokens(mllm, {letter: (letter,) for letter in "ABCD"})
    given = choose(mllm, "Which?", [picture()], letters)
    without = {name: ids for name, ids in letters.items() if name != given.text}
    assert choose(mllm, "Which?", [picture()], without).text in without


def test_a_template_that_hides_where_an_answer_begins_is_refused(folder: Path) -> None:
    ready = MultimodalModel.from_pretrained(folder, device="cpu")
    ready.processor.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}!"
    with pytest.raises(UsageError, match="does not tell by which token"):
        first_tokens(ready, YES_NO)
    ready.processor.chat_template = None
    with pytest.raises(UsageError, match="the model has no chat template"):
        first_tokens(ready, YES_NO)


def test_a_question_beyond_the_context_is_refused(mllm: MultimodalModel) -> None:
    tokens = first_tokens(mllm, YES_NO)
    with pytest.raises(ModelError, match="the language model takes 256"):
        choose(mllm, "Is it?", [picture(seed) for seed in range(24)], tokens)
