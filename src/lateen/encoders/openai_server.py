"""Servers that speak OpenAI's API: how one is named and reached, and what goes wrong with it.

Waiting and asking again, as long as the server itself says, is the official client's.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from lateen.errors import (
    EncoderError,
    LateenError,
    MissingExtraError,
    UsageError,
    choices,
    reason,
)
from lateen.progress import log

SCHEME = "openai+"
UNLIKE_API = "It does not answer as OpenAI's API does: look at the server's version and settings."
_FORM = "Write openai+http://HOST:PORT/v1#MODEL."
_GOES_ON = "What is on disk stays: run the same command again, and it goes on."
_RETRIES = 6  # by the client's own back-off about 25 seconds, or as long as the server says
_FIRST_RETRIES = 2  # at the first contact, where a wrong address is likelier than a busy server
_TIMEOUT = 600.0  # seconds, which is the client's own
_BY_CONTENT = (400, 413, 422)  # what was sent is at fault: too long for vLLM, TEI and others
_BY_KEY = (401, 403)
_SHOWN = 160  # characters of what a server says


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Attributes:
        url: of the API, such as ``http://localhost:8000/v1``.
        model: as the server calls it; may be empty where a user has forgotten it.
    """

    url: str
    model: str


class Refused(Exception):
    """A server does not take a request as it is; the message is what it says.

    Attributes:
        status: of its answer.
        parameter: what of the request is at fault, where it says so.
    """

    def __init__(self, said: str, status: int, parameter: str | None = None) -> None:
        self.status = status
        self.parameter = parameter
        super().__init__(said)


def is_server(name: str) -> bool:
    """Whether a model's name says that it is behind a server."""
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


def check_address(name: str, what: str = "the encoder") -> None:
    """See that a model behind a server is named whole, and that it can be asked.

    The server is asked only for its models, where the name has none.

    Args:
        name: of the model.
        what: it is, for errors.

    Raises:
        UsageError: the name has another form, or no model; then the server's are listed.
        EncoderError: it has no model, and the server does not tell any.
        MissingExtraError: the client is not installed.
    """
    address = parse_address(name)
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "server", f"{what} {name}")
    if not address.model:
        served = OpenAiServer(address).models()
        listed = f"It serves: {', '.join(served)}. " if served else ""
        raise UsageError(f"{name} does not say which model", f"{listed}{_FORM}")


class OpenAiServer:
    """A server with one of its models. It may be asked from several threads at once.

    The key is that of ``OPENAI_API_KEY``, and is written nowhere.

    Args:
        address: of the server, with the model.
        fault: the kind of error that is raised where it fails.
        timeout: seconds that an answer may take.

    Attributes:
        address: as given.
        client: the official one.
    """

    def __init__(
        self, address: Address, fault: type[LateenError] = EncoderError, timeout: float = _TIMEOUT
    ) -> None:
        from openai import OpenAI

        self.address = address
        self.client = OpenAI(
            base_url=address.url, api_key=os.environ.get("OPENAI_API_KEY") or "none",
            max_retries=_RETRIES, timeout=timeout,
        )  # fmt: skip
        self._fault, self._timeout = fault, timeout
        weakref.finalize(self, self.client.close)

    def models(self) -> list[str]:
        """What the server says that it serves; nothing where it does not say.

        Raises:
            LateenError: it cannot be reached.
        """
        from openai import APIStatusError

        client = self.client.with_options(max_retries=_FIRST_RETRIES)

        def serves() -> Any:
            try:
                return client.models.list()
            except APIStatusError as error:
                if error.status_code in _BY_KEY:
                    raise
                return None  # what cannot list its models may answer still

        served = self.ask(serves)
        listed = getattr(served, "data", None)
        return [str(each.id) for each in listed] if isinstance(listed, list) else []

    def warn_unlisted(self, served: Sequence[str]) -> None:
        """Say so where the server does not list the model that answers.

        Args:
            served: what it lists.
        """
        if served and self.address.model not in served:
            log.warning("%s answers for %r, but lists only %s: it may not look at the model's name",
                        self.address.url, self.address.model, ", ".join(served))  # fmt: skip

    def ask(self, request: Callable[[], Any]) -> Any:
        """The answer to a request.

        Args:
            request: makes it, by the client.

        Raises:
            Refused: the server does not take it as it is, or has no such model.
            LateenError: it cannot be reached, is too slow, refuses the key, fails, or answers
                with something that is no JSON.
        """
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        try:
            return request()
        except APIStatusError as error:
            self._tell_status(error, error.status_code, error.param)
        except APITimeoutError as error:
            raise self._fault(
                f"{self.address.url} gave no answer within {self._timeout:g} s, also when asked "
                "again",
                f"It may be overloaded: ask less at once, or allow more time. {_GOES_ON}",
            ) from error
        except APIConnectionError as error:
            self._tell_connection(error)
        except (APIError, ValueError) as error:  # an answer that is no JSON
            raise self._fault(
                f"the answer of {self.address.url} cannot be read: {short(reason(error))}",
                _GOES_ON,
            ) from error

    def unknown_model(self, verb: str, said: str) -> LateenError:
        """What to say where a server refuses what it must take: most likely it has another model.

        Args:
            verb: what the model is to do: ``embed``.
            said: by the server.
        """
        address, served = self.address, self.models()
        remedy = (
            f"Check the address, which ends in /v1 with most servers, and that its model {verb}s."
        )
        if served and address.model not in served:
            remedy = choices(address.model, served)
        return self._fault(f"{address.url} does not {verb} with {address.model!r} ({said})", remedy)

    def _tell_status(self, error: Exception, status: int, parameter: str | None) -> NoReturn:
        url, said = self.address.url, f"{status}: {_said(error)}"
        if status in (*_BY_CONTENT, 404):
            raise Refused(said, status, parameter) from error
        if status in _BY_KEY:
            problem, remedy = "refuses the key", "Set OPENAI_API_KEY to one that it takes."
        elif status == 429:
            problem, remedy = "is too busy, also after waiting", _GOES_ON
        else:
            problem, remedy = "fails, also when asked again", f"Look in its log. {_GOES_ON}"
        raise self._fault(f"{url} {problem} ({said})", remedy) from error

    def _tell_connection(self, error: BaseException) -> NoReturn:
        url, causes = self.address.url, _causes(error)
        said = short(reason(causes[-1]))
        if any(isinstance(e, ssl.SSLError) or "CERTIFICATE" in str(e) for e in causes):
            raise self._fault(
                f"the certificate of {url} is not valid here ({said})",
                "Have one that this machine trusts, or name the file of its authority in "
                "SSL_CERT_FILE.",
            ) from error
        raise self._fault(
            f"the server {url} cannot be reached ({said})",
            f"See that it runs, and the address. {_GOES_ON}",
        ) from error


def short(text: str) -> str:
    """What a server says on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


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
    return short(str(body)) if body else short(reason(error))
