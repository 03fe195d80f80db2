"""How much one client may ask, and how large and slow a request may be."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.exceptions import HTTPException

from lateen.serving.failures import Message, Receive

_CLIENTS = 10_000  # that are remembered
_BURST = 10.0  # seconds' worth that may be asked at once
_IPV6_HOME = 64  # bits of an address that one household has


class RateLimit:
    """A bucket of tokens for each client, that fills as time goes by.

    Args:
        rate: tokens a second; 0 for no limit.
        clock: seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, rate * _BURST, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, cost: float = 1.0) -> int:
        """Take tokens; 0 where there are enough, else after how many seconds there will be.

        Args:
            client: its address.
            cost: tokens.
        """
        if not self._rate:
            return 0
        now = self._clock()
        name = _household(client)
        tokens, then = self._buckets.pop(name, (self._most, now))
        tokens = min(self._most, tokens + (now - then) * self._rate)
        enough = tokens >= min(cost, self._most)
        self._buckets[name] = (tokens - cost if enough else tokens, now)
        while len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        return 0 if enough else max(1, math.ceil((cost - tokens) / self._rate))


class BodyLimit:
    """A request's body, counted and timed while it comes.

    Args:
        receive: gives the next part.
        most: bytes.
        seconds: within which it has to be here.
    """

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._bytes = 0
        self._until: float | None = None
        self._whole = False

    async def __call__(self) -> Message:
        """The next part.

        Raises:
            HTTPException: 413 for a body that is too large, 408 for one that takes too long.
        """
        if self._whole:  # what is waited for now is that the client goes
            return await self._receive()
        now = time.monotonic()
        self._until = self._until or now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - now))
        except TimeoutError:
            raise HTTPException(
                408, f"the request was not here after {self._seconds:g} seconds", _CLOSE
            ) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._most:
            raise too_large(self._most)
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


_CLOSE = {"connection": "close"}


def too_large(most: int) -> HTTPException:
    """That a body is larger than is read."""
    return HTTPException(413, f"the request is larger than {most / (1 << 20):.3g} MiB", _CLOSE)


def _household(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return client
    return str(ipaddress.ip_network((client, _IPV6_HOME), strict=False))
