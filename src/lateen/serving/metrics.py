"""What a server counts, in Prometheus' text format."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from lateen.serving.failures import ASGIApp, Message, Receive, Scope, Send

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
Gauge = Callable[[], float]


class Metrics:
    """Counts requests by route and status, and how long they took.

    Args:
        gauges: name, what it is, and what gives its value when it is asked for.
        counters: likewise, of values that only grow.
        about: labels of ``lateen_info``.
    """

    def __init__(
        self, gauges: Mapping[str, tuple[str, Gauge]], counters: Mapping[str, tuple[str, Gauge]],
        about: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._gauges, self._counters, self._about = gauges, counters, about
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._started = time.time()

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        with self._lock:
            self._requests[method, route, status] += 1
            self._counts[route] += 1
            self._seconds[route] += seconds
            for bound in _BOUNDS:
                if seconds <= bound:
                    self._buckets[route, bound] += 1

    def text(self) -> str:
        """All of it."""
        with self._lock:
            lines = [*self._lines()]
        return "\n".join(lines) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _head("lateen_info", "gauge", "What is served.")
        yield f"lateen_info{_labels(self._about.items())} 1"
        yield from _head("lateen_start_time_seconds", "gauge", "When the server was started.")
        yield f"lateen_start_time_seconds {self._started:.3f}"
        for kind, values in (("gauge", self._gauges), ("counter", self._counters)):
            for name, (what, value) in values.items():
                yield from _head(name, kind, what)
                yield f"{name} {value():g}"
        name = "lateen_requests_total"
        yield from _head(name, "counter", "Requests that were answered.")
        for (method, route, status), count in sorted(self._requests.items()):
            labels = _labels((("method", method), ("route", route), ("status", str(status))))
            yield f"{name}{labels} {count}"
        name = "lateen_request_seconds"
        yield from _head(name, "histogram", "How long requests took.")
        for route, count in sorted(self._counts.items()):
            for bound in _BOUNDS:
                labels = _labels((("route", route), ("le", f"{bound:g}")))
                yield f"{name}_bucket{labels} {self._buckets[route, bound]}"
            yield f"{name}_bucket{_labels((('route', route), ('le', '+Inf')))} {count}"
            yield f"{name}_sum{_labels((('route', route),))} {self._seconds[route]:.6f}"
            yield f"{name}_count{_labels((('route', route),))} {count}"


class Counted:
    """Middleware that counts requests.

    Args:
        app: what answers them.
        metrics: counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            # Routes, not paths, and known methods: whatever is asked must not fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._metrics.count(method, route, status, time.perf_counter() - start)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def _head(name: str, kind: str, what: str) -> tuple[str, str]:
    return f"# HELP {name} {what}", f"# TYPE {name} {kind}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in pairs) + "}"
