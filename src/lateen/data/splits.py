"""Which split of a dataset is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lateen.errors import UsageError, choices


def choose_split(
    parts: Sequence[str], wanted: str | None, source: str | Path, preferred: Sequence[str] = ()
) -> str:
    """The split that is asked for, else the only one, else the first preferred one.

    Args:
        parts: all splits.
        wanted: the one that is asked for.
        source: what has them, for errors.
        preferred: names, the best first.

    Raises:
        UsageError: there is no such split, or none could be chosen.
    """
    if wanted is None:
        first = next((name for name in preferred if name in parts), None)
        wanted = parts[0] if len(parts) == 1 else first
    if wanted is None:
        raise UsageError(f"{source} has several splits", choices("", parts))
    if wanted not in parts:
        raise UsageError(f"{source} has no split {wanted!r}", choices(wanted, parts))
    return wanted


def refuse_split(source: str | Path, split: str | None) -> None:
    """Refuse a split of what has none.

    Raises:
        UsageError: one is asked for.
    """
    if split is not None:
        raise UsageError(f"{source} has no splits, so no {split!r}", "Leave the split out.")
