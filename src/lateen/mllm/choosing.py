"""Answers chosen by their first token: one forward pass for each question, and nothing generated.

Where it is known what may be answered, as yes and no or letters, the answer is the one whose first
token is likeliest. A model that would begin otherwise ("There is no dog") is made to choose, so
that the numbers need not be those of generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from lateen.errors import UsageError
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.conversations import Message, ask, parts_of, text_of

Tokens = Mapping[str, Sequence[int]]
_QUESTION = "Which?"


@dataclass(frozen=True)
class Choice:
    """What a model chose.

    Attributes:
        text: the likeliest answer.
        chances: of each answer, by its name; together they are 1.
        share: how likely it is that the model's own answer begins with one of them.
    """

    text: str
    chances: Mapping[str, float]
    share: float


def first_tokens(mllm: MultimodalModel, spellings: Mapping[str, Sequence[str]]) -> Tokens:
    """The tokens that answers begin with, in the model's own chat template.

    Args:
        mllm: whose tokenizer and template are used.
        spellings: by the name of each answer, the ways to write it.

    Raises:
        UsageError: two answers begin with the same token, or the template says nothing of where an
            answer begins.
    """
    tokens = {
        name: list(dict.fromkeys(_first_token(mllm.processor, text) for text in texts))
        for name, texts in spellings.items()
    }
    seen: dict[int, str] = {}
    for name, ids in tokens.items():
        for each in ids:
            if seen.setdefault(each, name) != name:
                raise UsageError(
                    f"the answers {seen[each]!r} and {name!r} begin with the same token",
                    "Have the answers generated: --by generation.",
                )
    return tokens


@torch.no_grad()
def choose(
    mllm: MultimodalModel, question: str | Sequence[Message], images: Sequence[Image],
    tokens: Tokens,
) -> Choice:  # fmt: skip
    """The answer whose first token is likeliest; the ways to write it count together.

    Args:
        mllm: that is asked.
        question: in words, with the answers there are; or a conversation that ends with it.
        images: RGB, in the order of their places.
        tokens: as :func:`first_tokens` gives them.

    Raises:
        ModelError: the question with its images is longer than the language model's context.
    """
    inputs = mllm.inputs(question, list(images))
    mllm.limit(int(inputs["input_ids"].shape[1]), 1)
    output = mllm.generate(inputs, 1, return_dict_in_generate=True, output_logits=True)
    scores = output.logits[0][0].float()
    each = torch.stack([scores[list(ids)].logsumexp(0) for ids in tokens.values()])
    share = float((each.logsumexp(0) - scores.logsumexp(0)).exp())
    chances = dict(zip(tokens, each.softmax(0).tolist(), strict=True))
    return Choice(max(chances, key=lambda name: chances[name]), chances, share)


def _first_token(processor: Any, answer: str) -> int:
    """The token after the prompt, where the answer is the assistant's turn."""
    asked = ask(_QUESTION, 0)
    answered = [*asked, *parts_of([{"role": "assistant", "content": answer}], 0)]
    before = _ids(processor, asked, prompt=True)
    whole = _ids(processor, answered, prompt=False)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise UsageError(
            f"the chat template does not tell by which token the answer {answer!r} begins",
            "Have the answers generated: --by generation.",
        )
    return whole[len(before)]


def _ids(processor: Any, messages: Sequence[Message], *, prompt: bool) -> list[int]:
    text = text_of(processor, messages, prompt=prompt)
    return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
