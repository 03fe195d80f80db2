from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from lateen.report import typeset
from lateen.report.typeset import Typeface, families

MIXED = "ein Hund über Schnee → 滑雪板上的人 שלום كلب कुत्ता 🐶 ❤️ \x07"


@pytest.fixture
def no_installed_fonts(monkeypatch):
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    typeset._font_with.cache_clear()
    yield
    typeset._font_with.cache_clear()


def ink(face: Typeface, text: str) -> tuple[float, bytes]:
    image = Image.new("L", (400, 40), 255)
    width = face.draw(ImageDraw.Draw(image), (0, 0), text, "black")
    return width, image.tobytes()


def test_text_within_the_width_is_left_alone():
    face = Typeface(20)
    assert face.ellipsize("a dog", 400) == "a dog"
    assert face.wrap("a dog", 400, 2) == ["a dog"]


@pytest.mark.parametrize("text", ["a dog running through deep snow " * 5, MIXED * 4, "x" * 200])
@pytest.mark.parametrize("width", [80, 200])
def test_every_line_fits_and_the_last_one_says_that_it_was_cut(text, width):
    face = Typeface.for_text(text, 20)
    lines = face.wrap(text, width, 2)
    assert len(lines) == 2
    assert all(face.length(line) <= width for line in lines)
    assert lines[-1].endswith("…")


def test_lines_break_between_words_and_lose_none():
    text = "two children play in the water while a couple looks on from the pier"
    lines = Typeface(20).wrap(text, 260, 9)
    assert len(lines) > 2
    assert " ".join(lines) == text


def test_scripts_without_spaces_break_anywhere_and_lose_nothing():
    text = "滑雪板上的人" * 6
    lines = Typeface.for_text(text, 20).wrap(text, 120, 20)
    assert len(lines) > 2
    assert "".join(lines) == text


def test_a_width_of_less_than_a_character_still_ends():
    assert Typeface(20).wrap("wide", 1, 3) == ["w", "i", "…"]


def test_no_text_is_no_lines():
    assert Typeface(20).wrap("", 100, 2) == []


def test_drawing_returns_the_width_that_was_measured():
    for text in ("plain", MIXED):
        face = Typeface.for_text(text, 20)
        width, _ = ink(face, text)
        assert width == pytest.approx(face.length(text))


def test_characters_that_no_font_has_are_drawn_as_boxes(no_installed_fonts):
    face = Typeface(20, plain=False)
    assert ink(face, "狗") == ink(face, "□")
    assert ink(face, "é") != ink(face, "□")
    assert ink(face, "a\ufe0f\U000e0001b") == ink(face, "ab")  # modifiers leave no box


def test_a_font_that_cannot_be_read_has_no_characters(tmp_path: Path):
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"not a font")
    assert typeset._characters(broken) == frozenset()


def test_families_are_only_asked_for_what_is_missing(no_installed_fonts):
    assert families(["English springer", "über"]) == []
    assert families(["狗"]) == []
