"""Recipe keys given as options: ``--section.key value``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from lateen.errors import UsageError

Overrides = Annotated[
    str, Parameter(allow_leading_hyphen=True, show=False, help="--section.key value")
]


def parse_overrides(words: tuple[str, ...]) -> dict[str, str]:
    """``--a.b value`` and ``--a.b=value`` to ``{"a.b": "value"}``.

    Raises:
        UsageError: a word that belongs to no key, or a key without a value.
    """
    overrides: dict[str, str] = {}
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if not word.startswith("--"):
            raise UsageError(f"unexpected argument {word!r}", "Overrides are --section.key VALUE.")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UsageError(f"--{key} has no value", f"Write --{key} VALUE.")
            value = remaining.pop(0)
        overrides[key] = value
    return overrides
