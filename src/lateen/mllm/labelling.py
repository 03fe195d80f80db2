"""From conversations to token ids and labels: what the assistant says is learned, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lateen.errors import DataError, UsageError, reason
from lateen.mllm.conversations import Message, plain_caption
from lateen.mllm.instructions import Conversation
from lateen.mllm.templates import CAPTION_PROMPT

Array = np.ndarray[Any, Any]
Stage = Literal["projector", "instruct"]
"""LLaVA-1.5's two: the projector alone, on an image and its caption; then the language model too,
on conversations."""
NO_LABEL = -100
"""The label of a token that is not learned, as torch's cross entropy and transformers have it."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A conversation as tokens; each image still is one placeholder.

    Attributes:
        ids: ``[n]`` int32.
        learned: ``[n]`` bool: what the assistant says.
        images: ids of its images, in the order of their places.
        turns_left_out: of the end, which did not fit.
        asked: in words, before the first answer; empty of a caption.
    """

    ids: Array
    learned: Array
    images: tuple[str, ...]
    turns_left_out: int = 0
    asked: str = ""


def images_of(some: Iterable[Labelled]) -> list[str]:
    """The ids of all images of conversations, in the order of their places."""
    return [name for each in some for name in each.images]


class Labeller:
    """Makes ids and labels of conversations.

    Args:
        processor: of the multimodal model.
        stage: ``projector`` takes an image and what is first said of it, without a chat template;
            ``instruct`` the whole conversation in the model's own.
        image_token: id of the placeholder.
        tokens: of an image.
        max_length: in tokens, those of images among them.
        caption_prompt: what stands before captions in the stage ``projector``.

    Raises:
        UsageError: the chat template does not say what is the assistant's.
    """

    def __init__(
        self, processor: Any, stage: Stage, *, image_token: int, tokens: int, max_length: int,
        caption_prompt: str = CAPTION_PROMPT,
    ) -> None:  # fmt: skip
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._stage, self._prompt = stage, caption_prompt
        self._image_token, self._tokens, self._max_length = image_token, tokens, max_length
        if stage == "instruct":
            template = processor.chat_template
            if template is None or "generation" not in str(template):
                raise UsageError(
                    "the model's chat template does not mark what the assistant says"
                    if template else "the model has no chat template",
                    "Build it with --template chatml or vicuna, or put {% generation %} around "
                    "answers in a template of your own.",
                )  # fmt: skip

    def __call__(self, conversation: Conversation) -> Labelled:
        """Ids and labels of a conversation.

        Raises:
            DataError: it does not fit the stage, or is too long from its first answer on.
        """
        if self._stage == "projector":
            ids, said = self._plain(conversation)
            images, left_out, asked = conversation.images[:1], 0, ""
        else:
            ids, said, images, left_out = self._chat(conversation)
            asked = _question(conversation.messages)
        return Labelled(np.array(ids, np.int32), np.array(said, bool), images, left_out, asked)

    def prompt(self) -> list[int]:
        """Ids of an image without its caption, which the stage ``projector`` learns to go on."""
        return self._ids(plain_caption(self._processor, None, self._prompt))

    def _plain(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """The image and what is first said of it (LLaVA's conversation ``plain``)."""
        if not conversation.images:
            raise DataError("it is about no image", "The stage projector needs one.")
        caption = next(_text(each) for each in conversation.messages if each["role"] == "assistant")
        before = plain_caption(self._processor, None, self._prompt)
        whole = plain_caption(self._processor, caption, self._prompt)
        first, ids = self._ids(before), self._ids(whole)
        if ids[: len(first)] != first:  # a token is of both
            ids = first + self._ids(whole.removeprefix(before))
        if self._length(ids) > self._max_length:
            raise self._too_long(ids)
        return ids, [at >= len(first) for at in range(len(ids))]

    def _chat(
        self, conversation: Conversation
    ) -> tuple[list[int], list[bool], tuple[str, ...], int]:
        """As much of the conversation as fits, in whole turns."""
        messages = list(conversation.messages)
        while True:
            ids, said = self._templated(messages)
            if self._length(ids) <= self._max_length:
                break
            shorter = _without_last_turn(messages)
            if shorter is None:
                raise self._too_long(ids)
            messages = shorter
        images = conversation.images[: ids.count(self._image_token)]
        return ids, said, images, len(conversation.messages) - len(messages)

    def _templated(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        try:
            made = self._tokenizer.apply_chat_template(
                list(messages), chat_template=self._processor.chat_template, tokenize=True,
                return_dict=True, return_assistant_tokens_mask=True,
            )  # fmt: skip
        except (ValueError, TemplateError) as error:
            raise DataError(
                f"it does not fit the chat template ({reason(error)})", "Look at its turns."
            ) from error
        ids, said = list(made["input_ids"]), [bool(each) for each in made["assistant_masks"]]
        places = sum(part["type"] == "image" for each in messages for part in each["content"])
        if ids.count(self._image_token) != places:
            raise DataError(
                f"the chat template writes {ids.count(self._image_token)} places for {places} "
                "images",
                "It must write <image> where a part is of type image.",
            )
        if not any(said):
            raise DataError("nothing is answered in it", "An answer is what is learned.")
        return ids, said

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _length(self, ids: Sequence[int]) -> int:
        return len(ids) + (self._tokens - 1) * ids.count(self._image_token)

    def _too_long(self, ids: Sequence[int]) -> DataError:
        return DataError(
            f"it is too long for {self._max_length:,} tokens ({self._length(ids):,})",
            "Raise train.max_length, or build with a smaller --grid.",
        )


def _text(message: Message) -> str:
    return "".join(part["text"] for part in message["content"] if part["type"] == "text").strip()


def _question(messages: Sequence[Message]) -> str:
    """What is said right before the first answer."""
    roles = [each["role"] for each in messages]
    before = messages[: roles.index("assistant")]
    return _text(before[-1]) if before else ""


def _without_last_turn(messages: Sequence[Message]) -> list[Message] | None:
    """The conversation up to the answer before its last one; ``None`` if it has only one."""
    answers = [at for at, each in enumerate(messages) if each["role"] == "assistant"]
    return list(messages[: answers[-2] + 1]) if len(answers) > 1 else None


def collate(
    some: Sequence[Labelled], *, image_token: int, tokens: int, pad_token: int
) -> dict[str, Tensor]:
    """A batch: ``input_ids``, ``labels`` and ``attention_mask`` ``[n, longest]``, padded behind.

    Args:
        some: conversations.
        image_token: id of the placeholder.
        tokens: of an image, each of which gets one.
        pad_token: id of what stands behind the shorter ones; it is neither seen nor learned.
    """
    rows = []
    for each in some:
        ids = torch.from_numpy(each.ids.astype(np.int64))
        learned = torch.from_numpy(each.learned)
        repeats = torch.where(ids == image_token, tokens, 1)
        labels = torch.where(learned, ids, NO_LABEL)
        rows.append((ids.repeat_interleave(repeats), labels.repeat_interleave(repeats)))
    tokens_of, labels_of = map(list, zip(*rows, strict=True))
    input_ids = pad_sequence(tokens_of, batch_first=True, padding_value=pad_token)
    lengths = torch.tensor([len(each) for each in tokens_of])
    return {
        "input_ids": input_ids,
        "labels": pad_sequence(labels_of, batch_first=True, padding_value=NO_LABEL),
        "attention_mask": (torch.arange(input_ids.shape[1]) < lengths[:, None]).long(),
    }
