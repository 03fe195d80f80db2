"""What joining stores by id asks of their ids."""

from __future__ import annotations

from collections.abc import Collection

from lateen.errors import PairingError
from lateen.store.reader import Store


def unique_rows(store: Store, why: str) -> dict[str, int]:
    """The row of every id.

    Args:
        store: with a row per sample.
        why: ids must be unique, for the error.

    Raises:
        PairingError: an id stands twice.
    """
    row_of: dict[str, int] = {}
    for row, sample in enumerate(store.ids):
        if sample in row_of:
            raise PairingError(
                f"{store.path} has the id {sample!r} twice (rows {row_of[sample]} and {row})",
                f"{why}; give every image its own.",
            )
        row_of[sample] = row
    return row_of


def rows_by_id(store: Store) -> dict[str, list[int]]:
    """All rows of every id, in order."""
    groups: dict[str, list[int]] = {}
    for row, sample in enumerate(store.ids):
        groups.setdefault(sample, []).append(row)
    return groups


def only_in_one(
    first: Store, here: Collection[str], second: Store, there: Collection[str], skipped: set[str]
) -> str:
    """How two stores' ids differ, in words; empty if they do not.

    Args:
        first: a store.
        here: its ids, each once.
        second: another one.
        there: its ids.
        skipped: ids that may be missing.
    """
    return "; ".join(
        f"{len(ids)} ids are only in {store.path}: {', '.join(map(repr, ids[:3]))}"
        for store, mine, theirs in ((first, here, there), (second, there, here))
        if (ids := [i for i in mine if i not in theirs and i not in skipped])
    )
