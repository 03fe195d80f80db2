"""Progress on a terminal, silence in a pipe."""

from __future__ import annotations

import logging
import sys
from typing import Any

from tqdm import tqdm

log = logging.getLogger("lateen")


def bar(total: int | None, what: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
    """A progress bar with rate and remaining time on standard error.

    It shows itself only where standard error is a terminal, so that logs and pipes stay clean.

    Args:
        total: how many units there are; ``None`` if it cannot be known.
        what: what is being done, a few words.
        unit: what is counted, in the singular.
        initial: units that an earlier, interrupted run already did.
    """
    return tqdm(
        total=total,
        desc=what,
        unit=f" {unit}",
        initial=initial,
        file=sys.stderr,
        disable=None,
        dynamic_ncols=True,
        leave=False,
        smoothing=0.1,
    )
