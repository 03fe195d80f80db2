"""Text on images: characters that the font lacks come from another, lines fit the width."""

from __future__ import annotations

import bisect
import itertools
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.report.text import plain

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont


_UNASSIGNED = "\U0010fffd"  # only a last-resort font, all placeholders, has this


@dataclass(frozen=True)
class Typeface:
    """One size of type, in pixels.

    ``plain`` type is Pillow's own font, which has little beyond ASCII. The other is DejaVu Sans,
    which comes with matplotlib, and for what that lacks (Chinese, say) any installed font; a
    character that none has is drawn as ``□``.
    """

    size: int
    plain: bool = True

    @classmethod
    def for_text(cls, text: str, size: int) -> Typeface:
        """The one that has all characters of ``text``, where there is a choice."""
        return cls(size, plain(text).isascii())

    def length(self, text: str) -> float:
        """Width of ``text`` in pixels."""
        return sum(font.getlength(run) for font, run in self._runs(text))

    def draw(self, draw: ImageDraw, at: tuple[float, float], text: str, colour: str) -> float:
        """Draw ``text`` with its top left corner at ``at``; returns its width in pixels."""
        x, baseline = at[0], at[1] + self.size
        for font, run in self._runs(text):
            draw.text((x, baseline), run, colour, font, anchor="ls")
            x += font.getlength(run)
        return x - at[0]

    def ellipsize(self, text: str, width: float) -> str:
        """``text`` on one line, cut with ``…`` where it is wider than ``width`` pixels."""
        text = plain(text)
        if self.length(text) <= width:
            return text
        return text[: self._fitting(text, width - self.length("…"))].rstrip() + "…"

    def wrap(self, text: str, width: float, lines: int) -> list[str]:
        """``text`` in at most ``lines`` lines of ``width`` pixels, the last one cut with ``…``."""
        text = plain(text)
        wrapped: list[str] = []
        while text and len(wrapped) < lines - 1:
            end = self._fitting(text, width) or 1
            if end < len(text):
                space = text.rfind(" ", 1, end + 1)
                end = end if space < 0 else space  # scripts without spaces break anywhere
            wrapped.append(text[:end].rstrip())
            text = text[end:].lstrip()
        return [*wrapped, self.ellipsize(text, width)] if text else wrapped

    def _fitting(self, text: str, width: float) -> int:
        ends = range(1, len(text) + 1)
        return bisect.bisect_right(ends, width, key=lambda end: self.length(text[:end]))

    def _runs(self, text: str) -> list[tuple[FreeTypeFont | ImageFont, str]]:
        if self.plain:
            return [(_load(None, self.size), text)]
        found = [_drawable(character) for character in text]
        return [
            (_load(path, round(self.size * 0.94)), "".join(character for _, character in run))
            for path, run in itertools.groupby(found, key=lambda pair: pair[0])
        ]


def families(texts: Iterable[str]) -> list[str]:
    """Installed font families that have what DejaVu Sans lacks of ``texts``."""
    from matplotlib.ft2font import FT2Font

    paths = {_font_with(character) for text in texts for character in text}
    return sorted(FT2Font(str(path)).family_name for path in paths - {None, _dejavu()})


def _drawable(character: str) -> tuple[Path, str]:
    """The font that has ``character``; where none has, what stands for it."""
    if path := _font_with(character):
        return path, character
    # Joiners and variation selectors only modify the character before them.
    modifier = unicodedata.category(character) in ("Cf", "Mn")
    return _dejavu(), "" if modifier else "□"


@lru_cache(maxsize=128)
def _load(path: Path | None, size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)


def _dejavu() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache(maxsize=4096)
def _font_with(character: str) -> Path | None:
    if ord(character) in _characters(_dejavu()):
        return _dejavu()
    from matplotlib import font_manager

    for entry in font_manager.fontManager.ttflist:
        if entry.style == "normal" and entry.weight == 400:
            known = _characters(Path(entry.fname))
            if ord(character) in known and ord(_UNASSIGNED) not in known:
                return Path(entry.fname)
    return None


@lru_cache(maxsize=1024)
def _characters(path: Path) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(path))
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
