"""What a plan, or a doctor, says of this machine: how busy it is, memory, the room on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from lateen.device import resolve_device


def this_machine() -> dict[str, Any]:
    """Where rates are measured, and how many processes were at work there before."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # not on Windows
    return {
        "device": str(resolve_device()), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "load": round(load, 2),
    }  # fmt: skip


def memory() -> dict[str, int | None]:
    """Bytes of memory in ``total``, which in a container may be less than the machine's, and those
    that are ``free``; ``None`` where nothing tells."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return {"total": None, "free": None}
    free = None
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    with contextlib.suppress(OSError, ValueError):  # it says "max" where there is no limit
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        total = min(total, limit)
        free = limit - used if free is None else min(free, limit - used)
    return {"total": total, "free": free}


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes; 0 where nothing tells (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_gpu_memory() -> int:
    """The most memory of a GPU this process has held so far, in bytes; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def room(total: int, out: str | Path) -> dict[str, Any]:
    """Whether so much can be written.

    Args:
        total: in bytes.
        out: a folder, which need not be there yet.

    Returns:
        ``total``, the bytes that are ``free``, the ``place`` where they are, and whether it
        ``fits``.
    """
    folder = Path(out).resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return {"total": total, "free": free, "place": str(folder), "fits": total <= free}
