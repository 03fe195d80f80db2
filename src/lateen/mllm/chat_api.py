"""OpenAI's chat completions, as a client: one image and what is asked of it to a text."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from lateen.encoders.openai_server import UNLIKE_API, Address, OpenAiServer, Refused, short
from lateen.errors import ModelError


@dataclass(frozen=True)
class Said:
    """What a server answered.

    Attributes:
        text: stripped; empty where it gave none.
        finish: why it ended, in the server's word: ``stop``, ``length``, ``content_filter``.
        refusal: in the model's words; empty if it did not refuse.
        model: that answered, as the server calls it.
        prompt_tokens: of what was sent, the image's among them; ``None`` if it does not say.
        answer_tokens: of what was given.
    """

    text: str
    finish: str
    refusal: str
    model: str
    prompt_tokens: int | None
    answer_tokens: int | None


class ChatApi(OpenAiServer):
    """One model of one server, which answers about images.

    Args:
        address: of the server, with the model.
        timeout: seconds that an answer may take.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__(address, ModelError, timeout)
        # What all servers know. OpenAI's own newer models take its other name alone.
        self._limit = "max_tokens"

    def describe(
        self, jpeg: bytes, prompt: str, *, system: str | None, max_tokens: int, temperature: float,
        seed: int | None,
    ) -> Said:  # fmt: skip
        """What the model says of an image.

        Args:
            jpeg: the image's file.
            prompt: what is asked.
            system: what the model is told of its task, if anything.
            max_tokens: of the answer at most.
            temperature: 0 for the likeliest token each time.
            seed: of chance, where there is one.

        Raises:
            Refused: the server does not take it, or has no such model.
            ModelError: it cannot be reached, fails, or answers otherwise than it should.
        """
        url = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        parts = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": prompt},
        ]
        messages: list[Any] = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": parts})
        sampling = {"temperature": temperature, **({} if seed is None else {"seed": seed})}
        limit = self._limit
        try:
            answer = self._complete(messages, {**sampling, limit: max_tokens})
        except Refused as error:
            if error.parameter != "max_tokens" or limit != "max_tokens":
                raise
            self._limit = "max_completion_tokens"
            answer = self._complete(messages, {**sampling, self._limit: max_tokens})
        return self._said(answer)

    def _complete(self, messages: list[Any], options: dict[str, Any]) -> Any:
        return self.ask(
            lambda: self.client.chat.completions.create(
                model=self.address.model, messages=messages, extra_body=options
            )
        )

    def _said(self, answer: Any) -> Said:
        url, made = self.address.url, getattr(answer, "choices", None)
        if not isinstance(made, list):
            raise ModelError(
                f"{url} answers something else than a chat completion: {short(str(answer))!r}",
                "Check the address: with most servers it ends in /v1.",
            )
        message = getattr(made[0], "message", None) if made else None
        text = getattr(message, "content", None)
        if message is None or not isinstance(text, str | None):
            raise ModelError(f"{url} gave an answer without a message of text", UNLIKE_API)
        usage = getattr(answer, "usage", None)
        return Said(
            (text or "").strip(), str(made[0].finish_reason),
            str(getattr(message, "refusal", None) or ""),
            str(getattr(answer, "model", None) or self.address.model),
            _count(usage, "prompt_tokens"), _count(usage, "completion_tokens"),
        )  # fmt: skip


def _count(usage: Any, name: str) -> int | None:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) else None
