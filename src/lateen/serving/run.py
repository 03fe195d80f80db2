"""A server, from its index to its end: where it listens, what it says, and how it stops."""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from lateen.errors import LateenError, UsageError
from lateen.serving.settings import ServeSettings

if TYPE_CHECKING:
    from lateen.indexing.photo_index import Index

_BACKLOG = 512
_CONNECTIONS = 400  # at once; more are told to come back
_IDLE = 30  # seconds after which a connection without requests ends
_GRACE = 5  # seconds that requests have to end


def with_token(settings: ServeSettings) -> ServeSettings:
    """The settings, with a token where others than this machine can ask."""
    if settings.token is not None or settings.is_loopback:
        return settings
    return replace(settings, token=secrets.token_urlsafe(24))


def listen(settings: ServeSettings) -> socket.socket:
    """A socket at the server's address.

    Raises:
        UsageError: the port is taken, may not be used, or the address is none of this machine's.
    """
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise UsageError(
            f"there is no address {host}", "Give one of this machine, such as 127.0.0.1 or 0.0.0.0."
        ) from error
    # Of TCP by name: asyncio sends small answers at once (TCP_NODELAY) on such sockets alone, and
    # holds them back 40 ms on others.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        made.close()
        raise _cannot_listen(error, host, port) from error
    return made


def address_of(settings: ServeSettings, listening: socket.socket) -> str:
    """What to open in a browser; with the token, if there is one."""
    port = listening.getsockname()[1]
    host = settings.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    token = f"?token={quote(settings.token)}" if settings.token else ""
    return f"http://{host}:{port}/{token}"


def serve(
    index: Index, settings: ServeSettings, listening: socket.socket, *,
    ready: Callable[[str], None], browser: bool = False,
) -> None:  # fmt: skip
    """Serve an index until the process is interrupted.

    Args:
        index: the index.
        settings: how.
        listening: as :func:`listen` gives it; it is closed in the end.
        ready: called with the address once requests are answered.
        browser: also open it.
    """
    import uvicorn

    from lateen.serving.app import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                address = address_of(settings, listening)
                ready(address)
                if browser:
                    webbrowser.open(address)

    config = uvicorn.Config(
        create_app(index, settings), log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, ws="none", limit_concurrency=_CONNECTIONS, timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_GRACE, backlog=_BACKLOG,
    )  # fmt: skip
    # uvicorn ends well, and then passes the interruption on.
    with contextlib.closing(listening), contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])


def _cannot_listen(error: OSError | OverflowError, host: str, port: int) -> LateenError:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return UsageError(
            f"port {port} is taken", "Give another one: --port 7861; 0 takes any that is free."
        )
    if code in (errno.EACCES, errno.EPERM):
        return UsageError(f"port {port} may not be used", "Give one of 1024 or more: --port 7860.")
    if code == errno.EADDRNOTAVAIL:
        return UsageError(
            f"{host} is no address of this machine", "Give 127.0.0.1, or 0.0.0.0 for all of its."
        )
    return UsageError(f"{host}, port {port}, cannot be used ({error})", "Give another --port.")
