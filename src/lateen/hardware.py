"""Where networks run, and how much at a time, for as long as a command or a block takes; and where
lateen keeps what it can make again.

None of it says what is computed, so none of it is in a content key; ``precision`` is, where it is
resolved, as the encoder's own.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from lateen.errors import UsageError, choices

_PRECISIONS = ("auto", "float32", "bfloat16")
_POLICY = "OMP_WAIT_POLICY"
_LOOKS, _BETWEEN = 5, 0.004  # at what runs, whose majority counts; seconds from one to the next


@dataclass(frozen=True)
class Hardware:
    """What holds where a call does not say otherwise.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ….
        batch_size: images, or thousands of text tokens, per forward pass of an encoder.
        workers: threads that decode and prepare.
        precision: of what says ``auto`` itself.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    precision: str = "auto"


_CURRENT: ContextVar[Hardware] = ContextVar("hardware")
_NOTHING_SAID = Hardware()


def hardware() -> Hardware:
    """What holds here."""
    return _CURRENT.get(_NOTHING_SAID)


@contextlib.contextmanager
def use_hardware(
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: str = "auto",
) -> Iterator[None]:
    """Run what is in the block there; what is left at its default stays as it is around the block.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ….
        batch_size: images, or thousands of text tokens, per forward pass of an encoder.
        workers: threads that decode and prepare.
        precision: ``float32`` or ``bfloat16``, of encoders and training that say ``auto``.

    Raises:
        UsageError: a count below 1, or a precision that there is not.
    """
    for option, value in {"batch-size": batch_size, "workers": workers}.items():
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}", "It must be at least 1.")
    if precision not in _PRECISIONS:
        raise UsageError(f"precision is {precision!r}", choices(precision, _PRECISIONS))
    around = hardware()
    token = _CURRENT.set(
        Hardware(
            around.device if device == "auto" else device, batch_size or around.batch_size,
            workers or around.workers, around.precision if precision == "auto" else precision,
        )
    )  # fmt: skip
    try:
        yield
    finally:
        _CURRENT.reset(token)


def wait_asleep_where_busy() -> bool:
    """Let torch's threads sleep while they wait for each other, where others want the cores.

    OpenMP has them spin, which is faster by a third where cores are idle, and slower by three times
    where they are not, as it keeps the one thread that all wait for from running
    (``benchmarks/busy.py``). Its environment variable is read when torch is loaded: call this
    before. One that is set stays. Only Linux says how busy it is.

    Returns:
        Whether they will sleep by what was found here.
    """
    if _POLICY in os.environ:
        return False
    looks = {True: 0, False: 0}  # by whether half of the cores were taken
    while max(looks.values()) <= _LOOKS // 2:
        if any(looks.values()):
            time.sleep(_BETWEEN)
        others = _running() - 1  # this process is one
        looks[2 * others >= (os.cpu_count() or 1)] += 1
    busy = looks[True] > looks[False]
    if busy:
        os.environ[_POLICY] = "PASSIVE"
    return busy


def _running() -> int:
    """How many threads of the machine run or could, just now; 1 where nothing says."""
    try:
        return int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 1


def cache_folder() -> Path:
    """lateen's cache: ``$LATEEN_CACHE``, ``$XDG_CACHE_HOME/lateen`` or ``~/.cache/lateen``.

    Everything in it can be deleted at any time; it is made again when needed.
    """
    if own := os.environ.get("LATEEN_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "lateen"
    return Path.home() / ".cache" / "lateen"
