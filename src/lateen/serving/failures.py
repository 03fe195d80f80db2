"""What goes wrong, as JSON with a reason and a status: ``{"error": ..., "remedy": ...}``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from lateen.errors import DataError, ImageError, LateenError, UsageError
from lateen.progress import log
from lateen.serving.pictures import TooManyPixelsError
from lateen.serving.reading import GoneError, OutsideError, UnknownPhotoError
from lateen.serving.work import OverloadedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_STATUS: tuple[tuple[type[LateenError], int], ...] = (
    (UnknownPhotoError, 404), (OutsideError, 403), (GoneError, 410), (TooManyPixelsError, 413),
    (ImageError, 422), (OverloadedError, 503), (UsageError, 400), (DataError, 400),
)  # fmt: skip
_WORDS = {
    404: ("there is nothing here", "The API is described at /docs."),
    405: ("this address takes other methods", "The API is described at /docs."),
}
_DOCS = "The API is described at /docs."


def status_of(error: LateenError) -> int:
    """The status that an error of lateen's goes out with; 500 for what no request can help."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def failure(
    status: int, message: str, remedy: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An answer that says what is wrong and what to do about it."""
    words = {"error": message[:1].upper() + message[1:].rstrip(".") + ".", "remedy": remedy}
    return JSONResponse(words, status, {"cache-control": "no-store", **(headers or {})})


def install_failures(app: FastAPI) -> None:
    """Have every failure of an app answered so."""

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LateenError)
        status = status_of(error)
        if status == 500:
            log.error("%s %s: %s", request.method, request.url.path, error)
        headers = {}
        if isinstance(error, OverloadedError):
            headers["retry-after"] = str(error.retry_after)
        return failure(status, error.message, error.remedy, headers)

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError | ValidationError)
        return failure(400, invalid_words(error), _DOCS)

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message, remedy = _WORDS.get(error.status_code, (str(error.detail), ""))
        return failure(error.status_code, message, remedy, error.headers)

    async def unexpected(_: Request, __: Exception) -> JSONResponse:
        return failure(
            500, "the server failed at this", "Its log has the reason; nothing else is affected."
        )

    app.add_exception_handler(LateenError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unexpected)


def invalid_words(error: RequestValidationError | ValidationError) -> str:
    """The first thing that is wrong with a request, in words: what, and why."""
    first = error.errors()[0]
    place = first["loc"][isinstance(error, RequestValidationError) :]  # without "body" or "query"
    where = ".".join(map(str, place))
    text = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return "the request's body is no JSON"
    if first["type"] == "extra_forbidden":
        return f"there is nothing called {where!r}"
    if first["type"] == "missing":
        return f"{where!r} is missing" if where else "the body is missing"
    return f"{where!r}: {text[:1].lower()}{text[1:]}" if where else text
