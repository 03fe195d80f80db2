"""Contact sheets: for each query, the images found for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.data.samples import ImageSource
from lateen.errors import ImageError, UsageError
from lateen.files import atomic_path
from lateen.report.palette import GREEN, INK, LINE, MUTED, PANEL, PAPER
from lateen.report.thumbnail import thumbnail
from lateen.report.typeset import Typeface

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


_TITLE_LINES = 2
_FEWEST_COLUMNS = 3  # narrower than this, a query does not fit above its hits


@dataclass(frozen=True, slots=True)
class SheetHit:
    """One image under a query.

    Attributes:
        image: a path, an image source of a dataset, or a PIL image.
        label: its id or caption; cut to the width of a tile.
        score: its similarity to the query, a cosine.
        right: whether it is known to be what the query asks for; it is marked.
    """

    image: str | Path | ImageSource | Image
    label: str = ""
    score: float | None = None
    right: bool = False


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A query and its hits, best first."""

    title: str
    hits: Sequence[SheetHit] = ()


def contact_sheet(rows: Sequence[SheetRow], *, columns: int = 6, tile: int = 192) -> Image:
    """Queries one below the other, each above its hits in lines of ``columns`` square tiles.

    An image that cannot be read is a grey tile that says so; type and margins grow with ``tile``.

    Args:
        rows: at least one; a row may be without hits.
        columns: tiles in a line; fewer are taken where no row has that many hits.
        tile: edge of a tile in pixels.

    Returns:
        An RGB image.

    Raises:
        UsageError: no rows, or a size below the smallest that can be drawn.
    """
    if not rows:
        raise UsageError("a contact sheet needs at least one row", "Give a query and its hits.")
    if columns < 1 or tile < 32:
        raise UsageError(
            f"a contact sheet cannot have {columns} columns of {tile} pixels",
            "Take at least 1 column and 32 pixels.",
        )
    from PIL import Image, ImageDraw

    most = max(len(row.hits) for row in rows)
    layout = _Layout(min(columns, max(most, _FEWEST_COLUMNS)), tile)
    blocks = [_Block(row, layout) for row in rows]
    height = layout.margin + sum(block.height for block in blocks)
    sheet = Image.new("RGB", (layout.width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = layout.margin
    for block in blocks:
        block.draw(sheet, draw, top)
        top += block.height
    return sheet


def hero_sheet(rows: Sequence[SheetRow], *, columns: int = 4, tile: int = 256) -> Image:
    """A contact sheet of only the first line of each row, with large tiles."""
    return contact_sheet(
        [replace(row, hits=row.hits[:columns]) for row in rows], columns=columns, tile=tile
    )


def save_png(image: Image, path: Path) -> None:
    """Write ``image`` as PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", optimize=True)


class _Layout:
    """Where things go, in pixels; every length is one of a sheet with 192-pixel tiles, scaled."""

    def __init__(self, columns: int, tile: int) -> None:
        def scaled(pixels: int) -> int:
            return max(1, round(pixels * tile / 192))

        self.columns = columns
        self.tile = tile
        self.margin = scaled(36)
        self.gap = scaled(12)
        self.title = scaled(23)
        self.title_line = scaled(31)
        self.caption = scaled(14)
        self.caption_gap = scaled(7)
        self.tile_line = tile + scaled(36)
        self.row_gap = scaled(22)
        self.width = 2 * self.margin + columns * (tile + self.gap) - self.gap
        self.mask = _rounded(tile, scaled(5))


class _Block:
    """A row of the sheet, measured and then drawn."""

    def __init__(self, row: SheetRow, layout: _Layout) -> None:
        self._row, self._layout = row, layout
        self._face = Typeface.for_text(row.title, layout.title)
        inner = layout.width - 2 * layout.margin
        self._title = self._face.wrap(row.title, inner, _TITLE_LINES)
        self._tiles_top = len(self._title) * layout.title_line + layout.gap
        lines = -(-len(row.hits) // layout.columns)
        body = lines * layout.tile_line or layout.title_line
        self.height = self._tiles_top + body + layout.row_gap

    def draw(self, sheet: Image, draw: ImageDraw, top: int) -> None:
        layout = self._layout
        for index, text in enumerate(self._title):
            at = (layout.margin, top + index * layout.title_line)
            self._face.draw(draw, at, text, INK)
        top += self._tiles_top
        if not self._row.hits:
            Typeface(layout.caption).draw(draw, (layout.margin, top), "no hits", MUTED)
        for index, hit in enumerate(self._row.hits):
            line, column = divmod(index, layout.columns)
            x = layout.margin + column * (layout.tile + layout.gap)
            y = top + line * layout.tile_line
            sheet.paste(_tile(hit, layout), (x, y), layout.mask)
            if hit.right:
                edge, around = layout.gap // 4, layout.gap // 3
                box = (x - around, y - around, x + layout.tile + around, y + layout.tile + around)
                draw.rounded_rectangle(box, around, outline=GREEN, width=edge)
            _draw_caption(draw, hit, (x, y + layout.tile + layout.caption_gap), layout)


def _draw_caption(draw: ImageDraw, hit: SheetHit, at: tuple[int, int], layout: _Layout) -> None:
    face = Typeface.for_text(hit.label, layout.caption)
    used = 0.0
    if hit.score is not None:
        used = Typeface(layout.caption).draw(draw, at, f"{hit.score:.3f}", INK)
        used += layout.caption_gap
    label = face.ellipsize(hit.label, layout.tile - used)
    face.draw(draw, (at[0] + used, at[1]), label, MUTED)


def _tile(hit: SheetHit, layout: _Layout) -> Image:
    from PIL import Image, ImageDraw

    size = layout.tile
    try:
        return thumbnail(hit.image, size)
    except ImageError:
        blank = Image.new("RGB", (size, size), PANEL)
        draw = ImageDraw.Draw(blank)
        draw.rounded_rectangle((0, 0, size - 1, size - 1), layout.gap // 3, outline=LINE)
        face = Typeface(layout.caption)
        middle = (size - face.length("unreadable")) / 2
        face.draw(draw, (middle, (size - layout.caption) / 2), "unreadable", MUTED)
        return blank


def _rounded(size: int, radius: int) -> Image:
    from PIL import Image, ImageDraw

    scale = 4  # drawn larger and shrunk: PIL's corners are not anti-aliased
    mask = Image.new("L", (size * scale, size * scale), 0)
    box = (0, 0, size * scale - 1, size * scale - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * scale, fill=255)
    return mask.resize((size, size))
