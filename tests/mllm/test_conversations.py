"""Images and their places in a conversation."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from lateen.errors import DataError, LateenError, UsageError
from lateen.mllm.conversations import ask, parts_of, plain_caption, prepare

PLACE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("question", "images", "content"),
    [
        ("Hello?", 0, [text("Hello?")]),
        ("What is it?", 1, [PLACE, text("What is it?")]),
        ("Which is older?", 2, [PLACE, PLACE, text("Which is older?")]),
        ("<image>\nWhat is it?", 1, [PLACE, text("What is it?")]),
        ("What is it?\n<image>", 1, [text("What is it?\n"), PLACE]),
        ("Is <image> or <image> older?", 2,
         [text("Is "), PLACE, text(" or "), PLACE, text(" older?")]),
    ],
)  # fmt: skip
def test_images_stand_first_or_where_the_question_says(
    question: str, images: int, content: list[dict[str, str]]
) -> None:
    assert ask(question, images) == [{"role": "user", "content": content}]


def test_a_system_message_comes_first() -> None:
    assert [turn["role"] for turn in ask("What?", 1, "Be brief.")] == ["system", "user"]


def turn(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("messages", "images", "message"),
    [
        ([turn("What?")], 1, "the conversation has no <image> and 1 image. Write <image> once"),
        ([turn("<image><image>")], 1, "the conversation has 2 <image> and 1 image"),
        ([turn("<image> a"), turn("b", "assistant"), turn("<image>")], 1, "has 2 <image> and 1"),
        ([turn("<image> What?")], 0, "has 1 <image> and no images. Give the image, or leave"),
        ([turn("a")], 2, "has no <image> and 2 images"),
        ([turn("a", "gpt")], 0, "needs a content, and a role: system, user, assistant"),
        ([{"role": "user"}], 0, "needs a content"),
        ([turn([{"type": "video"}])], 0, "Its type is text, with a text, or image"),
        ([], 0, "a conversation has no turns"),
    ],
)
def test_what_does_not_fit_is_said(
    messages: list[dict[str, Any]], images: int, message: str
) -> None:
    with pytest.raises(DataError) as raised:
        parts_of(messages, images)
    assert message in str(raised.value)


@pytest.mark.parametrize("question", ["", "  \n", "<image>"])
def test_an_empty_question_is_none(question: str) -> None:
    with pytest.raises(UsageError, match="the question is empty"):
        ask(question, question.count("<image>"))


def test_images_go_to_their_places() -> None:
    """A processor that gives back what it is asked."""

    class Echo:
        chat_template = "any"

        def apply_chat_template(self, messages: Any, **_: Any) -> Any:
            return messages

    red, blue = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
    [turn] = prepare(Echo(), ask("Is <image> or <image> older?", 2), [red, blue])
    assert [part.get("image") for part in turn["content"]] == [None, red, None, blue, None]


def test_a_question_that_names_too_many_images() -> None:
    with pytest.raises(LateenError, match="2 <image> and 1 image"):
        ask("<image> or <image>?", 1)


class Processor:
    """What writes a token in front of every text, or has one and does not."""

    def __init__(self, *, begins: bool) -> None:
        self.tokenizer = self
        self.begins, self.bos_token, self.bos_token_id, self.eos_token = begins, "<s>", 7, "</s>"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [7] * self.begins + [1] * len(text)}


@pytest.mark.parametrize(("begins", "first"), [(True, "<s>"), (False, "")])
def test_a_plain_caption_stands_behind_its_image(begins: bool, first: str) -> None:
    processor = Processor(begins=begins)
    before = f"{first}Image: <image>\nCaption:"
    assert plain_caption(processor, None) == before
    assert plain_caption(processor, "A dog runs .") == f"{before} A dog runs .</s>"
    assert plain_caption(processor, "A dog .", "<image>\n") == f"{first}<image>\nA dog .</s>"
    with pytest.raises(DataError, match="a caption has <image> in it"):
        plain_caption(processor, "a <image>")
    with pytest.raises(UsageError, match="'Caption:', has 0 places for images"):
        plain_caption(processor, "a dog", "Caption:")
