"""Who may ask: the first that a request meets.

In order: is it addressed to this server; does it come from a page of this server's, if from a page;
does it know the token; has its client asked too much; is its body small enough. Every answer gets
the headers that keep a browser from loading or running anything else.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders

from lateen.serving.failures import ASGIApp, Message, Receive, Scope, Send, failure
from lateen.serving.limits import BodyLimit, RateLimit
from lateen.serving.settings import ServeSettings

POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}
_OPEN = ("/healthz", "/enter", "/static/")  # without a token
_PAGES = ("/", "/docs")  # which say themselves what to do without one
_NAVIGATION = ("navigate", "")


class Guard:
    """Middleware before everything else.

    Args:
        app: what is guarded.
        settings: of the server.
        limit: how much each client may ask.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, limit: RateLimit) -> None:
        self._app, self._settings, self._limit = app, settings, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await refused(scope, receive, sent)
            return
        settings = self._settings
        limited = BodyLimit(receive, settings.upload_bytes, settings.upload_seconds)
        await self._app(scope, limited, sent)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that is not let through; ``None`` for one that is."""
        headers = Headers(scope=scope)
        path = scope["path"]
        host = headers.get("host", "")
        name = host_name(host)
        if name is None or not self._settings.knows_host(name):
            return failure(
                421, f"this server is not called {host[:100]!r}",
                "Ask by the address that it printed; further names are given as --name.",
            )  # fmt: skip
        if _is_foreign(scope, headers, host):
            return failure(403, "another site's page may not ask this server", "Open its own page.")
        if path == "/healthz":
            return None
        scope["lateen.known"] = self._settings.token is None or knows_token(scope, self._settings)
        if not scope["lateen.known"] and path not in _PAGES and not path.startswith(_OPEN):
            wrong = self._rated(scope, path)
            return wrong or failure(
                401, "this server asks for its token",
                "Send it as 'Authorization: Bearer TOKEN', or open the link that it printed.",
                {"www-authenticate": "Bearer"},
            )  # fmt: skip
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._settings.upload_bytes:
            most = self._settings.upload_bytes / (1 << 20)
            return failure(
                413, f"the request is larger than {most:.3g} MiB", "Send a smaller picture.",
                {"connection": "close"},
            )  # fmt: skip
        return self._rated(scope, path)

    def _rated(self, scope: Scope, path: str) -> JSONResponse | None:
        if path.startswith("/static/"):
            return None
        kind = path.removeprefix("/api/").partition("/")[0]
        client = (scope.get("client") or ("unknown", 0))[0]
        seconds = self._limit.take(client, self._settings.costs.get(kind, 1.0))
        if not seconds:
            return None
        return failure(
            429, "this is more than one client may ask", f"Ask again in {seconds} s.",
            {"retry-after": str(seconds)},
        )  # fmt: skip


def cookie_name(scope: Scope) -> str:
    """The token's cookie: browsers keep those of a host's ports together."""
    server = scope.get("server") or ("", 0)
    return f"lateen_{server[1] or 0}"


def is_token(given: str, settings: ServeSettings) -> bool:
    """Whether a text is the server's token."""
    return settings.token is not None and hmac.compare_digest(
        given.encode("utf-8", "replace"), settings.token.encode()
    )


def knows_token(scope: Scope, settings: ServeSettings) -> bool:
    """Whether a request has the token: as a header, a cookie, or in the address of a page."""
    headers = Headers(scope=scope)
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and is_token(given.strip(), settings):
        return True
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(cookie_name(scope))
    except CookieError:
        cookie = None
    if cookie is not None and is_token(cookie.value, settings):
        return True
    if scope["path"] not in _PAGES:
        return False
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
    return any(is_token(each, settings) for each in asked)


def host_name(host: str) -> str | None:
    """The name in a ``Host`` header, without port and brackets; ``None`` if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.path == "" and "@" not in host else None


def _is_foreign(scope: Scope, headers: Headers, host: str) -> bool:
    """Whether another site's page asks: for anything but to be shown a page of this one."""
    mode = headers.get("sec-fetch-mode", "")
    shows = scope["method"] in ("GET", "HEAD") and scope["path"] in _PAGES and mode in _NAVIGATION
    if headers.get("sec-fetch-site", "") in ("cross-site", "same-site") and not shows:
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True
