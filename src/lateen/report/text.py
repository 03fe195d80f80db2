"""Text from outside, made safe to show.

File names and captions come from anywhere: an escape sequence in one must not reach a terminal,
and a lone surrogate cannot be written as UTF-8. Both become ``�``.
"""

from __future__ import annotations

import html
import unicodedata


def plain(text: object) -> str:
    """``text`` on one line, every run of white space a single space."""
    return _visible(" ".join(str(text).split()))


def escape(text: object) -> str:
    """``text`` on one line for HTML, in an element or in a quoted attribute."""
    return html.escape(plain(text))


def escape_lines(text: str) -> str:
    """``text`` for an HTML ``<pre>``: line breaks and indentation stay."""
    return html.escape("\n".join(map(_visible, text.expandtabs(4).strip("\n").splitlines())))


def _visible(text: str) -> str:
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
