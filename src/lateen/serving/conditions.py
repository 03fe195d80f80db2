"""Conditions in SQL from outside: what they may be made of.

LanceDB reads them as expressions of DataFusion, which has functions that fill the memory
(``repeat``) and ones that take long. Only comparisons of columns are let through, with a few
functions that are cheap.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from lateen.errors import UsageError, choices

_PLACE = frozenset({"latitude", "longitude"})
_WORDS = frozenset(
    {"and", "or", "not", "in", "is", "null", "true", "false", "like", "ilike", "between",
     "timestamp", "date"}
)  # fmt: skip
_FUNCTIONS = frozenset(
    {"lower", "upper", "starts_with", "ends_with", "contains", "array_has", "array_length", "abs"}
)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^']|'')*')
      | (?P<number>\d+(?:\.\d+)?(?![\w.]))
      | (?P<name>[A-Za-z_]\w*|"[^"]+"|`[^`]+`)
      | (?P<sign><=|>=|<>|!=|-(?!-)|/(?!\*)|[<>=(),+*%])
    )""",
    re.VERBOSE,
)


def checked_condition(text: str, columns: Collection[str], *, place: bool = False) -> str:
    """A condition, if it is one that may be asked.

    Args:
        text: SQL over the columns.
        columns: that the index has.
        place: whether where photographs were taken may be asked for.

    Raises:
        UsageError: it has something else in it than columns, values, comparisons and
            :data:`_FUNCTIONS`.
    """
    position, depth = 0, 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if found is None:
            raise UsageError(
                f"the condition cannot be read from {text[position:].strip()[:20]!r} on",
                "Compare columns with values: width > 2000 AND rating >= 4.",
            )
        following = text[found.end() :].lstrip()
        if name := found["name"]:
            _check_name(name, following.startswith("("), columns, place=place)
        depth += {"(": 1, ")": -1}.get(found["sign"] or "", 0)
        if depth < 0:
            break
        position = found.end()
    if depth:
        raise UsageError(
            "the condition has brackets that do not match", "Close what you open, and no more."
        )
    return text


def _check_name(name: str, called: bool, columns: Collection[str], *, place: bool) -> None:
    quoted = name[0] in '"`'
    plain = name[1:-1] if quoted else name
    if called and not quoted and plain.lower() not in _WORDS:
        if plain.lower() not in _FUNCTIONS:
            raise UsageError(
                f"the condition uses the function {plain!r}",
                f"Those that can be used: {', '.join(sorted(_FUNCTIONS))}.",
            )
        return
    if plain.lower() in _PLACE and not place:
        raise UsageError(
            "the condition asks where photographs were taken, which this server does not tell",
            "Start it with --originals.",
        )
    if (quoted or plain.lower() not in _WORDS) and plain not in columns:
        raise UsageError(
            f"the condition has {plain!r} in it, which is no column",
            choices(plain, sorted(c for c in columns if place or c not in _PLACE)).replace(
                "Choose one of", "The columns are"
            ),
        )
