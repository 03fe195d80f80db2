"""What is being done: bars on a terminal, one line per stage in a pipe, and a run's log file."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

log = logging.getLogger("lateen")
STAGE = "stage"
"""The attribute of a log record that says that a stage has ended."""


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that leaves one line in the log, unless it stands within another or nothing was done.

    Attributes:
        quiet: whether no bar shows itself, also on a terminal.
    """

    quiet = False
    _open = 0  # bars within each other

    def __init__(self, *, stage: bool, **options: Any) -> None:
        self._ended = True  # where a constructor fails, __del__ is called still
        super().__init__(**options)
        self._options = options
        self._done, self._since = options["initial"], time.monotonic()
        self._ended, self._stage = False, stage
        _Bar._open += 1

    def update(self, n: float | None = 1) -> bool | None:
        """Count, also where nothing is shown."""
        self._done += n or 0
        return super().update(n)

    def close(self) -> None:
        """Remove the bar, and say what was done."""
        super().close()
        if self._ended:
            return
        self._ended = True
        _Bar._open -= 1
        count = round(self._done - self._options["initial"])
        if count and self._stage and not _Bar._open and sys.exc_info()[0] is None:
            what, unit = self._options["desc"], self._options["unit"].strip()
            units = unit if count == 1 else f"{unit}s"
            seconds = time.monotonic() - self._since
            log.info("%s: %s %s in %.1f s", what, f"{count:,}", units, seconds,
                     extra={STAGE: True})  # fmt: skip


def bar(
    total: int | None, what: str, unit: str, *, initial: int = 0, stage: bool = True
) -> tqdm[Any]:
    """A progress bar with rate and remaining time on standard error.

    It shows itself only where standard error is a terminal, so that logs and pipes stay clean; at
    its end it leaves one line in the log.

    Args:
        total: how many units there are; ``None`` if it cannot be known.
        what: what is being done, a few words.
        unit: what is counted, in the singular.
        initial: units that an earlier, interrupted run already did.
        stage: whether what is done deserves that line.
    """
    return _Bar(
        stage=stage,
        total=total,
        desc=what,
        unit=f" {unit}",
        initial=initial,
        file=sys.stderr,
        disable=True if _Bar.quiet else None,
        dynamic_ncols=True,
        leave=False,
        smoothing=0.1,
    )


def log_to_stderr(level: int, *, stages: bool = True) -> None:
    """Have the log, and bars, on standard error.

    Args:
        level: of what is shown at least, as in :mod:`logging`; above warnings, bars are not.
        stages: also one line for each stage that has ended.
    """
    _Bar.quiet = level > logging.WARNING
    log.handlers.clear()
    handler = _Stderr()
    handler.setFormatter(logging.Formatter("· %(message)s"))
    handler.addFilter(
        lambda record: record.levelno >= level or (stages and getattr(record, STAGE, False))
    )
    log.addHandler(handler)
    log.setLevel(min(level, logging.INFO))  # a log file has it all
    log.propagate = False


class _Stderr(logging.Handler):
    """Standard error as it is when something is said: it may be exchanged, and be closed."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line, or more where there is a trace."""
        sys.stderr.write(self.format(record) + "\n")


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append what is logged in the block to a file, each line with its time; also why it failed.

    Elsewhere nothing shows that would not have shown without it.

    Args:
        path: the file; its folder must be there.
    """
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagate = log.level, log.propagate
    shown = log.getEffectiveLevel()
    others = _Others(shown)
    if shown > logging.INFO:
        log.setLevel(logging.INFO)
        if propagate:
            log.propagate = False
            log.addHandler(others)
    log.addHandler(handler)
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("lateen", "torch"))
    handler.handle(_record(logging.INFO, f"begin ({versions})"))
    try:
        yield
        handler.handle(_record(logging.INFO, "end"))
    except BaseException as error:
        said = " ".join(str(error).split()) or type(error).__name__
        handler.handle(_record(logging.ERROR, said))
        raise
    finally:
        log.removeHandler(handler)
        log.removeHandler(others)
        log.setLevel(level)
        log.propagate = propagate
        handler.close()


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(log.name, level, __file__, 0, message, None, None)


class _Others(logging.Handler):
    """The handlers of the loggers above, for what they were to show."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        if log.parent is not None:
            log.parent.callHandlers(record)
