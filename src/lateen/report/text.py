"""Text from outside, made safe to show; and the templates that show it.

File names and captions come from anywhere: an escape sequence in one must not reach a terminal,
and a lone surrogate cannot be written as UTF-8. Both become ``�``.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

# Three parts or more, so that neither a fraction nor owner/name is one.
_PART = r"[/\\][^/\\\s,:'\"]+"
_ABSOLUTE = re.compile(rf"(?<![\w.~/…])(?:[A-Za-z]:)?(?:{_PART})+?((?:{_PART}){{2}})(?![/\\\w])")
_LAST_LATIN = 0x17F  # of Latin Extended-A; pdfLaTeX sets up to there
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}",
    '"': "''", "–": "--", "—": "---", "“": "``", "”": "''", "‘": "`", "’": "'", "…": r"\ldots{}",
    "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "→": r"$\rightarrow$",
    "←": r"$\leftarrow$", "↔": r"$\leftrightarrow$", "≥": r"$\geq$", "≤": r"$\leq$",
    "≈": r"$\approx$", "≠": r"$\neq$", "∞": r"$\infty$", "√": r"$\surd$", "★": r"$\star$",
    "●": r"$\bullet$", "○": r"$\circ$", "°": r"$^\circ$", "¹": "$^1$", "²": "$^2$", "³": "$^3$",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\epsilon$",
    "λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "π": r"$\pi$", "σ": r"$\sigma$",
    "τ": r"$\tau$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$",
}  # fmt: skip


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


def escape_latex(text: object) -> str:
    """``text`` on one line for LaTeX's text mode, whatever the engine and its font encoding.

    Letters stay as they are, those too that pdfLaTeX cannot set: see :func:`beyond_pdflatex`.
    """
    escaped, before = [], ""
    for character in plain(text):
        # Two hyphens would be set as a dash.
        apart = "{}" if before == character == "-" else ""
        escaped.append(apart + _LATEX.get(character, character))
        before = character
    return "".join(escaped)


def beyond_pdflatex(escaped: str) -> str:
    """The characters of an escaped text that only XeLaTeX and LuaLaTeX set, each once."""
    return "".join(dict.fromkeys(c for c in escaped if ord(c) > _LAST_LATIN))


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


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last two parts: ``…/flickr8k/train.csv``; the home
    folder is ``~``."""
    home = str(Path.home())
    if len(Path(home).parts) > 1:
        text = text.replace(home, "~")
    return _ABSOLUTE.sub(r"…\1", text)
