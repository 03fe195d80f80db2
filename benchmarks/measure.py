"""Peak memory, measured in a process that does nothing else."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_process(function: Callable[..., Any], *arguments: object) -> Any:
    """``function(*arguments)`` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_growth(work: Callable[[], object]) -> float:
    """How far this process's resident memory rises above what it is now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew
    before = resident()
    work()
    return resident("VmHWM") - before


def resident(field: str = "VmRSS") -> float:
    """Resident memory of this process in bytes: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(field)]
    return 1024 * int(line.split()[1])
