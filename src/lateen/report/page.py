"""A report as one HTML file that needs nothing else: no network, no scripts, no other files."""

from __future__ import annotations

import base64
import importlib.resources
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from markupsafe import Markup

from lateen.errors import ImageError
from lateen.files import write_text
from lateen.report.palette import THEME
from lateen.report.plots import svg
from lateen.report.sheet import SheetHit, SheetRow
from lateen.report.tables import INTERVAL, TableData, fact, interval_cell
from lateen.report.text import escape, escape_lines, render, without_folders
from lateen.report.thumbnail import thumbnail, whole_thumbnail

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.figure import Figure
    from PIL.Image import Image

    from lateen.data.samples import ImageSource

_WIDEST = 1600  # pixels: the text column on a screen with two pixels to the point
_TILE = 288
_QUALITY = 82
_SMALLEST = 0.68  # of a plot's own size


class Headline(NamedTuple):
    """A number that the page opens with, what it is, and what to hold against it."""

    value: str
    label: str
    note: str = ""


class Card(NamedTuple):
    """Pictures, what was asked about them, and what was answered.

    Attributes:
        pictures: image sources or PIL images.
        title: the question; it keeps its lines.
        facts: names and values, such as what was answered and what is right.
        right: whether the answer is; ``None`` says neither.
        marks: the same of other facts than the first, by name, where there are several answers.
    """

    pictures: Sequence[ImageSource | Image]
    title: str
    facts: Mapping[str, str]
    right: bool | None = None
    marks: Mapping[str, bool | None] = {}


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
        self._blocks: list[tuple[str, Any]] = []

    def headline(self, numbers: Iterable[Headline]) -> Self:
        """A line of large numbers."""
        return self._add("headline", list(numbers))

    def section(self, heading: str) -> Self:
        """Start a section."""
        return self._add("section", heading)

    def subsection(self, heading: str) -> Self:
        """Start a part of a section."""
        return self._add("subsection", heading)

    def text(self, prose: str) -> Self:
        """Paragraphs, parted by blank lines."""
        for paragraph in re.split(r"\n\s*\n", prose.strip()):
            parts = re.split(r"`([^`]+)`", str(escape(paragraph)))  # every second one is code
            self._add("paragraph", [Markup(part) for part in parts])
        return self

    def table(self, table: TableData) -> Self:
        """A table, its title above and its note below."""
        return self._add("table", Markup(table.html()))

    def facts(self, facts: Mapping[str, Any]) -> Self:
        """Names and values: the conditions under which the numbers were taken.

        Of absolute paths the end alone is shown: a page is handed on, and says nothing of where
        things lie on this machine.
        """
        shown = [(name, without_folders(fact(value))) for name, value in facts.items()]
        return self._add("facts", shown)

    def figure(self, figure: Figure | Image, caption: str = "", alt: str = "") -> Self:
        """A plot (as SVG, its text searchable) or a picture (at most 1,600 pixels wide).

        Args:
            figure: a matplotlib figure or a PIL image.
            caption: below it.
            alt: what it shows, for those who cannot see it; the caption if not given.
        """
        return self._add("figure", self._drawn(figure, caption, alt))

    def panels(self, figures: Iterable[tuple[Figure | Image, str]]) -> Self:
        """Figures with their captions, side by side where the window has room for two."""
        parts = [self._drawn(figure, text, part=i) for i, (figure, text) in enumerate(figures)]
        return self._add("panels", parts)

    def gallery(self, row: SheetRow) -> Self:
        """A query above its hits, in as many columns as the window has room for."""
        return self._add("gallery", {"title": row.title, "hits": [_hit(hit) for hit in row.hits]})

    def cards(self, cards: Iterable[Card]) -> Self:
        """Cards, in as many columns as the window has room for."""
        shown = [
            {
                **card._asdict(),
                "title": escape_lines(card.title),
                "pictures": [_tile(whole_thumbnail, each) for each in card.pictures],
            }
            for card in cards
        ]
        return self._add("cards", shown)

    def code(self, code: str, caption: str = "") -> Self:
        """Commands or code, as written; what to run next."""
        return self._add("code", {"code": escape_lines(code), "caption": caption})

    def html(self) -> str:
        """The whole page."""
        css = importlib.resources.files(__package__).joinpath("templates", "page.css")
        return render(
            "page.html.j2", title=self._title, subtitle=self._subtitle, footer=self._footer,
            theme=THEME, css=Markup(css.read_text("utf-8")), blocks=self._blocks,
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the page to ``path``, whole or not at all."""
        write_text(path, self.html())

    def _drawn(
        self, figure: Figure | Image, caption: str, alt: str = "", part: int = 0
    ) -> dict[str, Any]:
        from PIL import Image

        if isinstance(figure, Image.Image):
            kind, markup = "picture", _img(_shrunk(figure), alt or caption)
        else:
            prefix = f"f{len(self._blocks)}-{part}-"
            kind, markup = "plot", _inline(svg(figure), prefix, alt or caption)
        return {"kind": kind, "markup": markup, "caption": caption}

    def _add(self, kind: str, block: Any) -> Self:
        self._blocks.append((kind, block))
        return self


def interval_note(result: Mapping[str, Any], key_path: str) -> str:
    """What stands below a number: its 95 % interval, where a result has one."""
    interval = interval_cell((result.get("intervals") or {}).get(key_path))
    return f"{INTERVAL} {interval}" if interval else ""


def made_with() -> dict[str, str]:
    """When and by what command this page is written.

    Without a command where Python called the function.
    """
    facts = {"written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"}
    program, *words = sys.argv
    if Path(program).stem == "lateen" or Path(program).parts[-2:] == ("lateen", "__main__.py"):
        facts["command"] = shlex.join(["lateen", *words])
    return facts


def _hit(hit: SheetHit) -> dict[str, Any]:
    score = "" if hit.score is None else f"{hit.score:.3f} "
    picture = _tile(thumbnail, hit.image, hit.label)
    return {"picture": picture, "score": Markup(score), "label": hit.label, "right": hit.right}


def _tile(shrink: Callable[[Any, int], Image], image: Any, alt: str = "") -> Markup | None:
    """A small picture of an image; ``None`` where it cannot be read."""
    try:
        return _img(shrink(image, _TILE), alt)
    except ImageError:
        return None


def _img(image: Image, alt: str) -> Markup:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup(render("image.html.j2", image=image, data=data, alt=alt))


def _shrunk(image: Image) -> Image:
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image.thumbnail((_WIDEST, 8 * _WIDEST))
    return image


def _inline(document: str, prefix: str, label: str) -> Markup:
    """An SVG document as an element of the page, in the page's type and colours.

    ``prefix`` keeps the ids of one plot apart from those of the next.
    """
    root = ElementTree.fromstring(document)
    for element in root.iter():
        for child in [c for c in element if _local(c.tag) in ("style", "metadata")]:
            element.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(name): _adapted(_local(name), value, prefix)
            for name, value in element.attrib.items()
        }
    for name in ("height", "version"):
        root.attrib.pop(name, None)
    # Narrower, it scrolls, for its type would be too small; 0.68 of 5.4 inches is a phone's width.
    least = _SMALLEST * float(root.attrib["width"].removesuffix("pt")) / 72
    root.attrib["style"] = f"min-width: {least:.2f}in"
    root.attrib = {"role": "img", "aria-label": label, **root.attrib}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _adapted(name: str, value: str, prefix: str) -> str:
    """The value of an attribute with ids of this plot's own, in the page's type and colours."""
    if name == "id":
        return prefix + value
    if name == "href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if name == "style":
        parts = value.split(";")
        value = ";".join(p for p in parts if not p.strip().startswith("font-family:"))
    value = value.replace("url(#", f"url(#{prefix}")
    for colour, (light, _) in THEME.items():
        value = value.replace(light, f"var(--{colour})")
    return value
