"""Files of class names: one a line, the index in masks being the line's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from lateen.data.prompts import class_name
from lateen.errors import DataError


def read_classes(path: str | Path) -> tuple[str, ...]:
    """The class names in a text file, one a line; lines that begin with ``#`` do not count.

    Raises:
        DataError: it cannot be read, has fewer than two names, one twice, or an empty line between
            two, after which every index would be in doubt.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(
            f"the class names in {path} cannot be read: {reason}",
            "Give a text file with one class name a line.",
        ) from error
    names = [" ".join(line.split()) for line in lines if not line.startswith("#")]
    if "" in names:
        raise DataError(
            f"{path} has an empty line before {names[names.index('') + 1]!r}",
            "Remove it, or name the class: the index in masks is that of the line.",
        )
    if len(names) < 2:
        raise DataError(
            f"{path} has {len(names)} class names, and one alone is always right",
            "Give two or more, one a line.",
        )
    name, count = Counter(map(class_name, names)).most_common(1)[0]  # as prompts have it
    if count > 1:
        raise DataError(
            f"{path} has the class {name!r} {count} times, and nothing can tell them apart",
            "Name each class differently.",
        )
    return tuple(names)
