"""Text from outside, made safe to show; and the templates that show it.

File names and captions come from anywhere: an escape sequence in one must not reach a terminal,
and a lone surrogate cannot be written as UTF-8. Both become ``�``.
"""

from __future__ import annotations

import functools
import html
import unicodedata
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment


def plain(text: object) -> str:
    """``text`` on one line, every run of white space a single space."""
    return _visible(" ".join(str(text).split()))


def escape(text: object) -> Markup:
    """``text`` on one line for HTML, in an element or in a quoted attribute."""
    return Markup(html.escape(plain(text)))


def escape_lines(text: str) -> Markup:
    """``text`` for an HTML ``<pre>``: line breaks and indentation stay."""
    lines = map(_visible, text.expandtabs(4).strip("\n").splitlines())
    return Markup(html.escape("\n".join(lines)))


def render(template: str, **values: Any) -> str:
    """A template of this package; all text in it is shown on one line, made safe and escaped."""
    return _environment().get_template(template).render(**values).rstrip("\n")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("lateen.report"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else escape(value),
    )  # fmt: skip


def _visible(text: str) -> str:
    return "".join("�" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
