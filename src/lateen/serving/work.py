"""Work that blocks, in threads, with a bound on how much of it waits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from lateen.errors import LateenError

_P = ParamSpec("_P")
_T = TypeVar("_T")


class OverloadedError(LateenError):
    """There is more to do than can wait; nothing was begun."""

    retry_after = 1
    """Seconds after which to ask again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"too many {what} are waiting", "Ask again in a moment.")


class Gate:
    """Threads for one kind of work, and as many requests as may wait for them.

    Args:
        what: kind of work, in the plural.
        threads: at work at once.
        waiting: beside them; more are refused.

    Attributes:
        count: at work or waiting.
        begun: so far.
    """

    def __init__(self, what: str, *, threads: int, waiting: int) -> None:
        self.what = what
        self.count = self.begun = 0
        self._most = threads + waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"lateen-{what}")

    async def run(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:  # fmt: skip
        """What a function gives that blocks.

        Raises:
            OverloadedError: too many wait already.
        """
        if self.count >= self._most:
            raise OverloadedError(self.what)
        self.count += 1
        self.begun += 1
        try:
            call = functools.partial(function, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self.count -= 1

    def close(self) -> None:
        """End the threads once what they do is done; what waits is not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
