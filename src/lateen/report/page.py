"""A report as one HTML file that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import base64
import importlib.resources
import io
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lateen.errors import ImageError
from lateen.files import write_text
from lateen.report.palette import THEME
from lateen.report.plots import svg
from lateen.report.sheet import SheetHit, SheetRow
from lateen.report.tables import TableData, fact
from lateen.report.text import escape, escape_lines
from lateen.report.thumbnail import thumbnail

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from PIL.Image import Image


_WIDEST = 1600  # pixels: the text column on a screen with two pixels to the point
_TILE = 288
_QUALITY = 82


# The browser is told, too, that this page loads and runs nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Headline(NamedTuple):
    """A number that the page opens with, what it is, and what to hold against it."""

    value: str
    label: str
    note: str = ""


class Page:
    """Builds a report from top to bottom; every method adds one block and returns the page.

    All text is escaped; in prose, ``backticks`` set code. Colours follow the reader's light or
    dark setting.

    Args:
        title: the page's name, also that of the browser's tab.
        subtitle: one sentence below it.
        footer: a last line: versions, date, where it came from.
    """

    def __init__(self, title: str, subtitle: str = "", footer: str = "") -> None:
        self._title, self._subtitle, self._footer = title, subtitle, footer
        self._blocks: list[str] = []

    def headline(self, numbers: Iterable[Headline]) -> Self:
        """A line of large numbers."""
        items = "".join(
            f"<li><b>{escape(value)}</b><span>{escape(label)}</span>{_if(note, 'small')}</li>\n"
            for value, label, note in numbers
        )
        return self._add(f'<ul class="headline">\n{items}</ul>')

    def section(self, heading: str) -> Self:
        """Start a section."""
        return self._add(f"<h2>{escape(heading)}</h2>")

    def text(self, prose: str) -> Self:
        """Paragraphs, parted by blank lines."""
        for paragraph in re.split(r"\n\s*\n", prose.strip()):
            code = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(paragraph))
            self._add(f"<p>{code}</p>")
        return self

    def table(self, table: TableData) -> Self:
        """A table, its title above and its note below."""
        return self._add(table.html())

    def facts(self, facts: Mapping[str, Any]) -> Self:
        """Names and values: the conditions under which the numbers were taken."""
        pairs = (f"<dt>{escape(k)}</dt><dd>{escape(fact(v))}</dd>\n" for k, v in facts.items())
        return self._add(f"<dl>\n{''.join(pairs)}</dl>")

    def figure(self, figure: Figure | Image, caption: str = "", alt: str = "") -> Self:
        """A plot (as SVG, its text searchable) or a picture (at most 1,600 pixels wide).

        Args:
            figure: a matplotlib figure or a PIL image.
            caption: below it.
            alt: what it shows, for those who cannot see it; the caption if not given.
        """
        from PIL import Image

        if isinstance(figure, Image.Image):
            kind, markup = "picture", _img(_shrunk(figure), alt or caption)
        else:
            kind, markup = "plot", _inline(svg(figure), f"f{len(self._blocks)}-", alt or caption)
        return self._add(
            f'<figure class="{kind}"><div class="scroll">{markup}</div>'
            f"{_if(caption, 'figcaption')}</figure>"
        )

    def gallery(self, row: SheetRow) -> Self:
        """A query above its hits, in as many columns as the window has room for."""
        items = "".join(f"<li>{_hit(hit)}</li>\n" for hit in row.hits)
        hits = f'<ul class="gallery">\n{items}</ul>' if items else '<p class="empty">no hits</p>'
        return self._add(f"<h3>{escape(row.title)}</h3>\n{hits}")

    def code(self, code: str, caption: str = "") -> Self:
        """Commands or code, as written; what to run next."""
        block = f"<pre><code>{escape_lines(code)}</code></pre>"
        return self._add(f'<figure class="code">{_if(caption, "figcaption")}{block}</figure>')

    def html(self) -> str:
        """The whole page."""
        footer = _if(self._footer, "footer")
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="generator" content="lateen">\n'
            f"<title>{escape(self._title)}</title>\n<style>\n{_css()}</style>\n</head>\n"
            f"<body>\n<main>\n<header>\n<h1>{escape(self._title)}</h1>\n"
            + (f'<p class="subtitle">{escape(self._subtitle)}</p>\n' if self._subtitle else "")
            + "</header>\n"
            + "\n".join([*self._blocks, footer])
            + "\n</main>\n</body>\n</html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page to ``path``, whole or not at all."""
        write_text(path, self.html())

    def _add(self, block: str) -> Self:
        self._blocks.append(block)
        return self


def _css() -> str:
    light, dark = (
        "".join(f"--{name}: {colours[shade]}; " for name, colours in THEME.items())
        for shade in (0, 1)
    )
    rules = importlib.resources.files(__package__).joinpath("page.css").read_text("utf-8")
    # On paper the light colours hold, whatever the screen shows.
    schemes = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"
    return f":root {{ {light}}}\n{schemes}{rules}"


def _if(text: str, element: str) -> str:
    return f"<{element}>{escape(text)}</{element}>" if text else ""


def _hit(hit: SheetHit) -> str:
    score = "" if hit.score is None else f"{hit.score:.3f} "
    line = f'<p>{score}<span title="{escape(hit.label)}">{escape(hit.label)}</span></p>'
    try:
        return _img(thumbnail(hit.image, _TILE), hit.label) + line
    except ImageError:
        return f'<div class="unreadable">unreadable</div>{line}'


def _img(image: Image, alt: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/webp;base64,{data}" {size} alt="{escape(alt)}">'


def _shrunk(image: Image) -> Image:
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((_WIDEST, 8 * _WIDEST))
    return image


def _inline(document: str, prefix: str, label: str) -> str:
    """An SVG document as an element of the page, in the page's type and colours.

    Only tags are touched, so a label that looks like style stays what it is. ``prefix`` keeps the
    ids of one plot apart from those of the next.
    """
    document = re.sub(r"<style.*?</style>", "", document, flags=re.DOTALL)
    body = re.sub(r"<[^>]+>", partial(_adapt, prefix), document[document.index("<svg") :])
    return body.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)


def _adapt(prefix: str, match: re.Match[str]) -> str:
    tag = match.group()
    if tag.startswith("<svg"):
        return re.sub(r' (xmlns[:\w]*|height|version)="[^"]*"', "", tag)
    tag = re.sub(r' font-family: [^;"]*;', "", tag)
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}", tag)
    for name, (light, _) in THEME.items():
        tag = tag.replace(light, f"var(--{name})")
    return tag
