"""Conversations about images: turns with ``<image>`` in them, checked against the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from PIL.Image import Image

from lateen.errors import DataError, UsageError, reason
from lateen.mllm.templates import CAPTION_PROMPT, IMAGE

Message = dict[str, Any]
"""``role`` (system, user, assistant) and ``content``: a text, or a list of parts ``{"type":
"text", "text": …}`` and ``{"type": "image"}``."""
_ROLES = ("system", "user", "assistant")


def ask(question: str, images: int, system: str | None = None) -> list[Message]:
    """The conversation of one question; its images stand before it unless ``<image>`` says where.

    Args:
        question: in words.
        images: how many there are.
        system: what the model is told of its task, if anything.

    Raises:
        DataError: as many ``<image>`` in the question as there are images, or none, is the rule.
        UsageError: the question is empty.
    """
    if not question.replace(IMAGE, "").strip():
        raise UsageError("the question is empty", "Say what is to be answered.")
    if IMAGE not in question:
        question = IMAGE * images + question
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    return parts_of([*turns, {"role": "user", "content": question}], images)


def parts_of(messages: Sequence[Mapping[str, Any]], images: int) -> list[Message]:
    """A conversation with its contents as parts, as processors of images take it.

    Args:
        messages: turns.
        images: how many images belong to it.

    Raises:
        DataError: a turn without role or content, or another number of ``<image>`` than images.
    """
    parted: list[Message] = [{"role": _role(each), "content": _parts(each)} for each in messages]
    if not parted:
        raise DataError("a conversation has no turns", "Give one question or more.")
    parts = [part for each in parted for part in each["content"]]
    places = sum(part["type"] == "image" for part in parts)
    if places != images:
        raise DataError(
            f"the conversation has {_counted(places, IMAGE)} and {_counted(images, 'image')}",
            f"Write {IMAGE} once for each image, where it belongs."
            if images else f"Give the image, or leave {IMAGE} out.",
        )  # fmt: skip
    return parted


def prepare(processor: Any, messages: Sequence[Message], images: Sequence[Image]) -> Any:
    """Token ids with a placeholder for every token of an image, and pixels, of one conversation.

    Args:
        processor: of a multimodal language model.
        messages: as :func:`ask` and :func:`parts_of` give them; an answer comes next.
        images: RGB, in the order of their places.

    Raises:
        UsageError: there is no chat template, or it does not fit the conversation.
    """
    return _templated(
        processor, _filled(messages, images), len(images), tokenize=True, return_dict=True,
        return_tensors="pt", add_generation_prompt=True,
    )  # fmt: skip


def text_of(processor: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """The text that a conversation without images becomes.

    Args:
        processor: of a multimodal language model.
        messages: as for :func:`prepare`.
        prompt: whether an answer comes next.

    Raises:
        UsageError: as there.
    """
    return str(_templated(processor, messages, 0, tokenize=False, add_generation_prompt=prompt))


def plain_caption(processor: Any, caption: str | None, prompt: str = CAPTION_PROMPT) -> str:
    """The text of an image and its caption, without a chat template.

    The form that a projector is trained on first: the prompt, the caption, and the token that ends
    a text. A token that the tokenizer begins every text with stands in front, so that this is to be
    tokenized with ``add_special_tokens=False``.

    Args:
        processor: of a multimodal language model.
        caption: of the image; ``None`` for only what stands before one.
        prompt: what stands before captions, with a place for the image.

    Raises:
        DataError: the caption is empty, or has a place for another image.
        UsageError: the prompt has none, or several.
    """
    if prompt.count(IMAGE) != 1:
        raise UsageError(
            f"what stands before captions, {prompt!r}, has {prompt.count(IMAGE)} places for images",
            f"Write {IMAGE} once.",
        )
    if caption is not None and not caption.strip():
        raise DataError("a caption is empty", "Leave it out.")
    if caption is not None and IMAGE in caption:
        raise DataError(f"a caption has {IMAGE} in it: {caption[:60]!r}", "Leave it out.")
    tokenizer = processor.tokenizer
    first = tokenizer("")["input_ids"][:1]
    # One that has a token for beginnings need not write it: SmolLM2's is of its chat template.
    begin = tokenizer.bos_token if first and first == [tokenizer.bos_token_id] else ""
    before = f"{begin}{prompt}"
    if caption is None:
        return before
    space = "" if before[-1].isspace() else " "
    return f"{before}{space}{caption}{tokenizer.eos_token or ''}"


def _templated(processor: Any, messages: Sequence[Message], images: int, **options: Any) -> Any:
    """What the processor's chat template makes of a conversation with so many images."""
    if getattr(processor, "chat_template", None) is None:
        raise UsageError(
            "the model has no chat template", "Build it again with --template chatml or vicuna."
        )
    try:
        return processor.apply_chat_template(list(messages), **options)
    except (ValueError, TemplateError) as error:
        raise UsageError(
            f"the chat template does not fit a conversation with {_counted(images, 'image')}: "
            f"{reason(error)}",
            f"It must write {IMAGE} where a part is of type image, and text where it is of text.",
        ) from error


def _filled(messages: Sequence[Message], images: Sequence[Image]) -> list[Message]:
    """The conversation with its images in their places."""
    left = iter(images)
    return [
        {**message, "content": [
            {**part, "image": next(left)} if part["type"] == "image" else part
            for part in message["content"]
        ]}
        for message in messages
    ]  # fmt: skip


def _role(message: Mapping[str, Any]) -> str:
    role = str(message.get("role"))
    if role not in _ROLES or message.get("content") is None:
        raise DataError(
            f"a turn is {str(dict(message))[:60]!r}",
            f"It needs a content, and a role: {', '.join(_ROLES)}.",
        )
    return role


def _parts(message: Mapping[str, Any]) -> list[Message]:
    content = message["content"]
    if not isinstance(content, str):
        return [piece for part in content for piece in _pieces(part)]
    parts: list[Message] = []
    for index, text in enumerate(content.split(IMAGE)):
        if index:
            parts.append({"type": "image"})
        # LLaVA's data has a line break beside the place of an image; the template writes its own.
        trimmed = text.removeprefix("\n") if index else text
        if trimmed.strip():
            parts.append({"type": "text", "text": trimmed})
    return parts


def _pieces(part: Mapping[str, Any]) -> list[Message]:
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return _parts({"content": part["text"]})
    if kind == "image":
        return [{"type": "image"}]
    raise DataError(
        f"a part of a turn is {str(dict(part))[:60]!r}", "Its type is text, with a text, or image."
    )


def _counted(count: int, what: str) -> str:
    plural = f"{what}s" if count != 1 and what.isalpha() else what
    return f"{count or 'no'} {plural}"
