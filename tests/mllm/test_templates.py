"""Chat templates, against texts written out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lateen.errors import UsageError
from lateen.mllm.templates import TEMPLATES, end_tokens, find_template

from .conftest import CHAT, byte_tokenizer

IMAGE, TEXT = {"type": "image"}, {"type": "text", "text": "What is it?"}
TURNS: list[dict[str, Any]] = [
    {"role": "user", "content": [IMAGE, TEXT]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
    {"role": "user", "content": "Where?"},
]
SYSTEM = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}


def render(name: str, turns: list[dict[str, Any]], **options: Any) -> Any:
    return byte_tokenizer().apply_chat_template(
        turns, chat_template=TEMPLATES[name], tokenize=False, **options
    )


def test_chatml() -> None:
    assert render("chatml", TURNS, add_generation_prompt=True) == (
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nA dog.<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render("chatml", [SYSTEM, TURNS[2]]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n"
    )


def test_vicuna_is_that_of_llava() -> None:
    preamble = (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions. "
    )
    assert render("vicuna", TURNS, add_generation_prompt=True) == (
        preamble + "USER: <image>\nWhat is it? ASSISTANT: A dog.<|im_end|>USER: Where? ASSISTANT:"
    )
    assert render("vicuna", [SYSTEM, TURNS[2]]) == "Be brief. USER: Where?"


@pytest.mark.parametrize("name", TEMPLATES)
def test_marks_are_around_what_the_assistant_says_and_its_end(name: str) -> None:
    tokenizer = byte_tokenizer()
    turns = [*TURNS, {"role": "assistant", "content": "On a beach."}]
    given = tokenizer.apply_chat_template(
        turns, chat_template=TEMPLATES[name], tokenize=True, return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    marked = [
        token
        for token, mask in zip(given["input_ids"], given["assistant_masks"], strict=True)
        if mask
    ]
    space = " " if name == "vicuna" else ""
    assert tokenizer.decode(marked) == f"{space}A dog.<|im_end|>{space}On a beach.<|im_end|>"


def test_the_template_is_of_the_form_of_the_language_models_own(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(UsageError, match=r"tiny has no chat template.*--template chatml or vicuna"):
        find_template(None, tokenizer, "tiny")
    tokenizer.chat_template = CHAT
    assert find_template(None, tokenizer, "tiny") == ("chatml", TEMPLATES["chatml"])
    tokenizer.chat_template = "{% for m in messages %}USER: {{ m }} ASSISTANT:{% endfor %}"
    assert find_template(None, tokenizer, "tiny")[0] == "vicuna"
    tokenizer.chat_template = "[INST]{{ messages }}[/INST]"
    with pytest.raises(UsageError, match="tiny has a chat template of another form"):
        find_template(None, tokenizer, "tiny")
    (tmp_path / "own.jinja").write_text("<image>")
    assert find_template(tmp_path / "own.jinja", tokenizer, "tiny") == ("own.jinja", "<image>")
    with pytest.raises(UsageError, match=r"there is no chat template 'chatlm'.*'chatml'"):
        find_template("chatlm", tokenizer, "tiny")
    other = byte_tokenizer(("<s>", "</s>"))
    with pytest.raises(UsageError, match=r"tiny has no <\|im_end\|>"):
        find_template("chatml", other, "tiny")
    assert end_tokens("vicuna", other) == [other.convert_tokens_to_ids("</s>")]


def test_chatml_ends_at_its_own_token_and_at_the_tokenizers() -> None:
    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>", "</s>"))
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert end_tokens("chatml", tokenizer) == ids
