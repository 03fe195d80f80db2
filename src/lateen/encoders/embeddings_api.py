"""OpenAI's embeddings API, as a client: texts to vectors that are checked."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from lateen.encoders.openai_server import UNLIKE_API, Address, OpenAiServer, Refused, short
from lateen.errors import EncoderError


class EmbeddingsApi(OpenAiServer):
    """One model of one server, which embeds.

    Args:
        address: of the server, with the model.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        # Reading numbers out of text would cost more than sending the captions.
        self._format: Literal["base64", "float"] = "base64"

    def settle_format(self, text: str) -> None:
        """See whether the server sends vectors as bytes; where it refuses, numbers are asked for.

        Args:
            text: any that it should take.

        Raises:
            EncoderError: as :meth:`vectors`.
        """
        try:
            self.vectors([text])
        except Refused:
            self._format = "float"

    def vectors(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Vectors of some texts in one request, ``[n, dim]`` float32, in the order of the texts.

        A vector of no number, or of zeros, is given as it is.

        Raises:
            Refused: the server does not take the texts, or has no such model.
            EncoderError: it cannot be reached, fails, or answers otherwise than it should.
        """
        answer = self.ask(
            lambda: self.client.embeddings.create(
                model=self.address.model, input=list(texts), encoding_format=self._format
            )
        )
        return self._rows(answer, len(texts))

    def _rows(self, answer: Any, count: int) -> np.ndarray[Any, Any]:
        """The vectors of an answer in the order of its texts."""
        url, data = self.address.url, getattr(answer, "data", None)
        if not isinstance(data, list):
            raise EncoderError(
                f"{url} answers something else than embeddings: {short(str(answer))!r}",
                "Check the address: with most servers it ends in /v1.",
            )
        if len(data) != count:
            raise EncoderError(f"{url} gave {len(data)} vectors for {count} texts", UNLIKE_API)
        places: list[Any] = [getattr(each, "index", None) for each in data]
        if set(places) != set(range(count)):
            raise EncoderError(
                f"{url} numbers its vectors {short(str(places))}, not 0 to {count - 1}",
                UNLIKE_API,
            )
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity
                rows = np.array([_numbers(each.embedding) for each in data], np.float32)
        except (TypeError, ValueError, AttributeError) as error:
            raise EncoderError(
                f"{url} gave vectors of different lengths, or of something else than numbers",
                UNLIKE_API,
            ) from error
        if rows.ndim != 2 or not rows.shape[1]:
            raise EncoderError(f"{url} gave vectors of shape {list(rows.shape[1:])}", UNLIKE_API)
        return rows[np.argsort(places)]


def _numbers(embedding: Any) -> Any:
    """A vector as a server sends it: float32 in base64, or numbers already."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return embedding
