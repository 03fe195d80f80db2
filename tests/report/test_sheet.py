from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageColor

from lateen.errors import UsageError
from lateen.report.palette import PANEL, PAPER
from lateen.report.sheet import SheetHit, SheetRow, contact_sheet, hero_sheet, save_png

MARGIN, GAP = 36, 12  # of a sheet with 192-pixel tiles
RED = (200, 10, 10)


def row(count: int, title: str = "a dog in the snow") -> SheetRow:
    photo = Image.new("RGB", (40, 30), RED)
    return SheetRow(title, [SheetHit(photo, f"id-{i}", 0.4 - i / 100) for i in range(count)])


def tiles(sheet: Image.Image, colour: tuple[int, ...], tile: int = 192) -> int:
    """How many tiles' worth of pixels have exactly this colour."""
    return round(sum(n for n, c in sheet.getcolors(1 << 20) if c == colour) / tile**2)


def test_the_right_image_has_a_frame():
    plain = row(2)
    marked = SheetRow(plain.title, [plain.hits[0], replace(plain.hits[1], right=True)])
    before, after = (np.asarray(contact_sheet([r], columns=3)) for r in (plain, marked))
    different = np.argwhere((before != after).any(axis=2))
    assert len(different)
    left = MARGIN + 192 + GAP
    assert different[:, 1].min() >= left - 5
    assert different[:, 1].max() <= left + 192 + 5


def test_twelve_hits_are_two_lines_of_six():
    sheet = contact_sheet([row(12)])
    assert sheet.width == 2 * MARGIN + 6 * 192 + 5 * GAP
    assert tiles(sheet, RED) == 12
    assert sheet.height - contact_sheet([row(6)]).height == 192 + 36  # a tile and its caption
    assert contact_sheet([row(7)]).height == sheet.height


def test_fewer_hits_than_columns_make_a_narrower_sheet_but_never_a_very_narrow_one():
    assert contact_sheet([row(4)]).width == 2 * MARGIN + 4 * 192 + 3 * GAP
    assert contact_sheet([row(1)]).width == 2 * MARGIN + 3 * 192 + 2 * GAP
    assert contact_sheet([row(1), row(6)]).width == contact_sheet([row(6)]).width


def test_rows_are_stacked():
    one, two = contact_sheet([row(6)]), contact_sheet([row(6), row(6)])
    assert two.height == 2 * one.height - MARGIN
    assert tiles(two, RED) == 12


def test_a_long_title_takes_two_lines_and_no_more():
    short = contact_sheet([row(6)]).height
    long = contact_sheet([row(6, "a very long sentence about dogs " * 6)]).height
    longest = contact_sheet([row(6, "a very long sentence about dogs " * 60)])
    assert long - short == 31
    assert longest.height == long
    right = longest.crop((longest.width - MARGIN, 0, longest.width, longest.height))
    assert right.getcolors() == [(right.width * right.height, ImageColor.getrgb(PAPER))]


def test_an_unreadable_image_is_a_grey_tile_that_says_so(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"nothing")
    hits = [SheetHit(broken, "broken"), SheetHit(tmp_path / "absent.jpg"), row(1).hits[0]]
    sheet = contact_sheet([SheetRow("unreadable ones", hits)])
    assert tiles(sheet, RED) == 1
    assert tiles(sheet, ImageColor.getrgb(PANEL)) == 2
    tile = sheet.crop((MARGIN + 8, 100, MARGIN + 184, 240))
    assert len(tile.getcolors(1 << 16)) > 5  # type on it


def test_a_row_without_hits_is_short_and_says_so():
    empty, title = contact_sheet([SheetRow("nothing")]), contact_sheet([row(1, "nothing")])
    assert empty.height < 150 < title.height
    below = empty.crop((0, 36 + 31 + 6, empty.width, empty.height))
    assert len(below.getcolors(1 << 16)) > 5


def test_size_of_type_and_margins_follow_the_tile():
    sheet = contact_sheet([row(3)], tile=96)
    full = contact_sheet([row(3)])
    assert sheet.width * 2 == full.width
    assert abs(sheet.height * 2 - full.height) <= 8


def test_captions_of_any_script_and_length_stay_below_their_tile():
    label = "滑雪 كلب 🐶\n\x07 " + "long " * 40
    hits = [SheetHit(Image.new("RGB", (9, 9), RED), label, 0.123)]
    sheet = contact_sheet([SheetRow(label, hits)])
    beside = sheet.crop((MARGIN + 192, 36 + 62 + 12, sheet.width, sheet.height))
    assert beside.getcolors() == [(beside.width * beside.height, ImageColor.getrgb(PAPER))]


def test_the_hero_has_one_line_of_each_row():
    sheet = hero_sheet([row(9), row(2)], columns=3, tile=64)
    assert tiles(sheet, RED, tile=64) == 5
    assert sheet.width == contact_sheet([row(3)], columns=3, tile=64).width


@pytest.mark.parametrize(
    ("rows", "options"),
    [([], {}), ([row(1)], {"columns": 0}), ([row(1)], {"tile": 8})],
)
def test_sheets_that_cannot_be_drawn_are_refused(rows, options):
    with pytest.raises(UsageError):
        contact_sheet(rows, **options)


def test_a_saved_sheet_is_the_same_image_and_leaves_nothing_else(tmp_path):
    sheet = contact_sheet([row(2)], tile=48)
    save_png(sheet, tmp_path / "out" / "sheet.png")
    with Image.open(tmp_path / "out" / "sheet.png") as saved:
        assert saved.tobytes() == sheet.tobytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sheet.png"]
