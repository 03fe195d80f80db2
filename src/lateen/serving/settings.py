"""What a server is told when it starts: where it listens, who may ask, and how much at once."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEBIBYTE = 1 << 20
MOST_HITS = 200
"""Photographs of one answer."""
MOST_LABELS = 200
MOST_TEXTS = 64
MOST_CHARACTERS = 1000
"""Of a query, a text or a label."""
MOST_CONDITION = 500
"""Characters of a condition in SQL."""
MOST_OFFSET = 1_000_000


@dataclass(frozen=True)
class ServeSettings:
    """How a server is run.

    Attributes:
        host: address that it listens on.
        port: likewise.
        token: what everybody has to know who asks; ``None`` lets everybody ask.
        names: further names that it is reached by, as behind a proxy.
        allow: folders, beside the index's own, that links in it may lead to.
        originals: give the files as they are, and coordinates; both say where pictures were taken.
        upload_bytes: of one request.
        upload_pixels: of one picture.
        upload_seconds: within which a request has to be here.
        rate: requests a second of one client, on average; 0 for no limit.
        searches: searches at once.
        waiting: searches that may wait beside them, and queries that may wait for a forward pass.
        pictures: pictures that are decoded at once.
        pass_wait: seconds that a forward pass waits for more queries.
        pass_rows: queries of a forward pass.
        refresh: seconds between two looks at what another process has added.
        costs: how many requests one counts for, by the first part of its path below ``/api``.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    names: tuple[str, ...] = ()
    allow: tuple[Path, ...] = ()
    originals: bool = False
    upload_bytes: int = 32 * MEBIBYTE
    upload_pixels: int = 60_000_000
    upload_seconds: float = 60.0
    rate: float = 50.0
    searches: int = field(default_factory=lambda: max(2, min(8, os.cpu_count() or 2)))
    waiting: int = 160
    pictures: int = field(default_factory=lambda: max(2, min(8, os.cpu_count() or 2)))
    pass_wait: float = 0.002
    pass_rows: int = 64
    refresh: float = 10.0
    costs: Mapping[str, float] = field(
        default_factory=lambda: {"thumbnail": 0.1, "image": 0.5, "embed": 2.0, "classify": 10.0}
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def hosts(self) -> frozenset[str]:
        """Names that requests may be addressed to, lower case; addresses see :meth:`knows_host`."""
        known = {"localhost", "127.0.0.1", "::1", self.host.lower(), *map(str.lower, self.names)}
        if not self.is_loopback:
            own = socket.gethostname().lower()
            known |= {own, f"{own.partition('.')[0]}.local"}
        return frozenset(known)

    def knows_host(self, name: str) -> bool:
        """Whether a request addressed to this name is meant for this server.

        A web page elsewhere can have its name point to this machine (DNS rebinding) and ask as if
        it were from here; the name in its requests is its own. An address cannot be so used.
        """
        if name.lower() in self.hosts:
            return True
        return not self.is_loopback and _address(name) is not None


def is_loopback(host: str) -> bool:
    """Whether an address or name is reached from this machine alone."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
