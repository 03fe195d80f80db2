"""OpenAI's embeddings API, as a client: texts to vectors that are checked, and what goes wrong.

Waiting and asking again, as long as the server itself says, is the official client's.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import ssl
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn
from urllib.parse import urlsplit

from lateen.errors import EncoderError, MissingExtraError, UsageError, choices, reason

if TYPE_CHECKING:  # what checks names need not load it
    import numpy as np

SCHEME = "openai+"
_FORM = "Write openai+http://HOST:PORT/v1#MODEL."
_GOES_ON = "What is in the store stays: run the same command again, and it goes on."
_UNLIKE_API = "It does not answer as OpenAI's API does: look at the server's version and settings."
_RETRIES = 6  # by the client's own back-off about 25 seconds, or as long as the server says
_FIRST_RETRIES = 2  # at the first contact, where a wrong address is likelier than a busy server
_BY_TEXT = (400, 413, 422)  # the text is at fault: too long for vLLM, TEI and others
_SHOWN = 160  # characters of what a server says


@dataclass(frozen=True)
class Address:
    """Where an encoder is served.

    Attributes:
        url: of the API, such as ``http://localhost:8000/v1``.
        model: as the server calls it; may be empty where a user has forgotten it.
    """

    url: str
    model: str


class Refused(Exception):
    """A server does not take a request as it is; the message is what it says."""


def is_server(name: str) -> bool:
    """Whether an encoder's name says that it is behind a server."""
    return name.startswith(SCHEME)


def parse_address(name: str) -> Address:
    """The address in ``openai+http://HOST:PORT/v1#MODEL``.

    Raises:
        UsageError: it has another form, or a password in it.
    """
    url, _, model = name.removeprefix(SCHEME).partition("#")
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        whole = False
    if not whole:
        raise UsageError(f"{name} is not the address of a server", _FORM)
    if parts.username is not None or parts.query:
        raise UsageError(
            f"the address of {parts.hostname} has a password or further values in it, which every "
            "store would record",
            "Put the key in OPENAI_API_KEY, and leave it out of the address.",
        )
    return Address(url.rstrip("/"), model.strip())


def check_address(name: str) -> None:
    """See that an encoder behind a server is named whole, and that it can be asked.

    The server is asked only for its models, where the name has none.

    Raises:
        UsageError: the name has another form, or no model; then the server's are listed.
        EncoderError: it has no model, and the server does not tell any.
        MissingExtraError: the client is not installed.
    """
    address = parse_address(name)
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "server", f"the encoder {name}")
    if not address.model:
        served = EmbeddingsApi(address).models()
        listed = f"It serves: {', '.join(served)}. " if served else ""
        raise UsageError(f"{name} does not say which model", f"{listed}{_FORM}")


class EmbeddingsApi:
    """One model of one server. It may be asked from several threads at once.

    The key is that of ``OPENAI_API_KEY``, and is written nowhere.

    Args:
        address: of the server, with the model.
    """

    def __init__(self, address: Address) -> None:
        from openai import OpenAI

        self.address = address
        self._client = OpenAI(
            base_url=address.url, api_key=os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=_RETRIES,
        )  # fmt: skip
        weakref.finalize(self, self._client.close)
        # Reading numbers out of text would cost more than sending the captions.
        self._format: Literal["base64", "float"] = "base64"

    def models(self) -> list[str]:
        """What the server says that it serves; nothing where it does not say.

        Raises:
            EncoderError: it cannot be reached.
        """
        client = self._client.with_options(max_retries=_FIRST_RETRIES)
        try:
            served = self._ask(lambda: client.models.list())
        except Refused:
            return []
        listed = getattr(served, "data", None)
        return [str(each.id) for each in listed] if isinstance(listed, list) else []

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
        answer = self._ask(
            lambda: self._client.embeddings.create(
                model=self.address.model, input=list(texts), encoding_format=self._format
            )
        )
        return self._rows(answer, len(texts))

    def _ask(self, request: Callable[[], Any]) -> Any:
        from openai import APIConnectionError, APIError, APIStatusError

        try:
            return request()
        except APIStatusError as error:
            self._tell_status(error, error.status_code)
        except APIConnectionError as error:
            self._tell_connection(error)
        except (APIError, ValueError) as error:  # an answer that is no JSON
            raise EncoderError(
                f"the answer of {self.address.url} cannot be read: {_short(reason(error))}",
                _GOES_ON,
            ) from error

    def _tell_status(self, error: Exception, status: int) -> NoReturn:
        url, said = self.address.url, f"{status}: {_said(error)}"
        if status in (*_BY_TEXT, 404):
            raise Refused(said) from error
        if status in (401, 403):
            problem, remedy = "refuses the key", "Set OPENAI_API_KEY to one that it takes."
        elif status == 429:
            problem, remedy = "is too busy, also after waiting", _GOES_ON
        else:
            problem, remedy = "fails, also when asked again", f"Look in its log. {_GOES_ON}"
        raise EncoderError(f"{url} {problem} ({said})", remedy) from error

    def _tell_connection(self, error: BaseException) -> NoReturn:
        url, causes = self.address.url, _causes(error)
        said = _short(reason(causes[-1]))
        if any(isinstance(e, ssl.SSLError) or "CERTIFICATE" in str(e) for e in causes):
            raise EncoderError(
                f"the certificate of {url} is not valid here ({said})",
                "Have one that this machine trusts, or name the file of its authority in "
                "SSL_CERT_FILE.",
            ) from error
        raise EncoderError(
            f"the server {url} cannot be reached ({said})",
            f"See that it runs, and the address. {_GOES_ON}",
        ) from error

    def _rows(self, answer: Any, count: int) -> np.ndarray[Any, Any]:
        """The vectors of an answer in the order of its texts."""
        import numpy as np

        url, data = self.address.url, getattr(answer, "data", None)
        if not isinstance(data, list):
            raise EncoderError(
                f"{url} answers something else than embeddings: {_short(str(answer))!r}",
                "Check the address: with most servers it ends in /v1.",
            )
        if len(data) != count:
            raise EncoderError(f"{url} gave {len(data)} vectors for {count} texts", _UNLIKE_API)
        places: list[Any] = [getattr(each, "index", None) for each in data]
        if set(places) != set(range(count)):
            raise EncoderError(
                f"{url} numbers its vectors {_short(str(places))}, not 0 to {count - 1}",
                _UNLIKE_API,
            )
        try:
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity
                rows = np.array([_numbers(each.embedding) for each in data], np.float32)
        except (TypeError, ValueError, AttributeError) as error:
            raise EncoderError(
                f"{url} gave vectors of different lengths, or of something else than numbers",
                _UNLIKE_API,
            ) from error
        if rows.ndim != 2 or not rows.shape[1]:
            raise EncoderError(f"{url} gave vectors of shape {list(rows.shape[1:])}", _UNLIKE_API)
        return rows[np.argsort(places)]


def unknown_model(api: EmbeddingsApi, said: str) -> EncoderError:
    """What to say where a server refuses the first sentences: most likely it has another model.

    Args:
        api: of the server.
        said: by it.
    """
    address, served = api.address, api.models()
    remedy = "Check the address, which ends in /v1 with most servers, and that its model embeds."
    if served and address.model not in served:
        remedy = choices(address.model, served)
    return EncoderError(f"{address.url} does not embed with {address.model!r} ({said})", remedy)


def _numbers(embedding: Any) -> Any:
    """A vector as a server sends it: float32 in base64, or numbers already."""
    if isinstance(embedding, str):
        import numpy as np

        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    return embedding


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and what it came from."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) and cause not in found:
        found.append(cause)
    return found


def _said(error: Exception) -> str:
    """What a server says of a fault, one line, out of the forms in which servers say it."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body.get("error") or body
    return _short(str(body)) if body else _short(reason(error))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
