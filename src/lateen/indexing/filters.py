"""Which photographs of an index a search is to look among: by date, folder, and any column."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from lateen.errors import UsageError

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")


@dataclass(frozen=True)
class Filters:
    """What photographs must be to be found; all of it.

    Photographs that do not say when they were taken are left out by dates.

    Attributes:
        since: taken in that year, month or day or later: ``2024``, ``2024-05``, ``2024-05-31``.
        until: taken before its end.
        folder: in that folder of the index or below it: ``Italy/2024``.
        where: true of their columns, in SQL: ``width > 2000 AND rating >= 4``.
    """

    since: str | None = None
    until: str | None = None
    folder: str | None = None
    where: str | None = None

    def sql(self) -> str | None:
        """The condition in SQL; ``None`` where everything will do.

        Raises:
            UsageError: a date that is none, or an empty condition.
        """
        parts = []
        if self.since is not None:
            parts.append(f"taken >= timestamp '{_span('since', self.since)[0]:%Y-%m-%d %H:%M:%S}'")
        if self.until is not None:
            parts.append(f"taken < timestamp '{_span('until', self.until)[1]:%Y-%m-%d %H:%M:%S}'")
        if self.folder is not None:
            parts.append(_inside(self.folder))
        if self.where is not None:
            if not self.where.strip():
                raise UsageError("the condition is empty", 'Give one: --where "width > 2000".')
            parts.append(f"({self.where})")
        return " AND ".join(parts) or None

    def __str__(self) -> str:
        """In words, empty where everything will do."""
        since = f"since {self.since}" if self.since is not None else ""
        until = f"until {self.until}" if self.until is not None else ""
        folder = f"in {self.folder}" if self.folder is not None else ""
        where = f"where {self.where}" if self.where is not None else ""
        return ", ".join(filter(None, (since, until, folder, where)))


def quoted(text: str) -> str:
    """A text as SQL has it, in quotation marks."""
    return "'" + text.replace("'", "''") + "'"


def _inside(folder: str) -> str:
    name = folder.replace("\\", "/").strip("/")
    if name in ("", "."):
        return "true"
    return f"(folder = {quoted(name)} OR starts_with(folder, {quoted(name + '/')}))"


def _span(option: str, text: str) -> tuple[datetime, datetime]:
    """When a year, month or day begins, and when the next one does.

    Raises:
        UsageError: it is no date.
    """
    found = _DATE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        year, month, day = (int(part) if part else None for part in found.groups())
        first = datetime(year or 0, month or 1, day or 1)
        last = datetime(first.year, month or 12, day or _days(first.year, month or 12))
        return first, last + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} is {text!r}, and no date", "Give 2024, 2024-05 or 2024-05-31."
        ) from error


def _days(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]
