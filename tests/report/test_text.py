import html
import re

from PIL import Image

from lateen.report.tables import Column, TableData
from lateen.report.text import escape, escape_lines, plain, render


def test_plain_is_one_line_without_control_characters_or_surrogates():
    assert plain(" a\tb\n\nc ") == "a b c"
    assert plain("bell\x07 esc\x1b[0m \udc80") == "bell� esc�[0m �"
    assert plain("שלום 狗 é") == "שלום 狗 é"


def test_escape_is_safe_in_elements_and_attributes():
    assert escape("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"


def test_a_template_escapes_in_elements_and_attributes():
    evil = "<a href='x'>&\"\n\x07"
    shown = render("table.html.j2", table=TableData(evil, [Column("")], []), headed=True, rows=[])
    caption = re.search("<caption>(.*)</caption>", shown).group(1)
    assert not set("<>'\"") & set(caption)
    assert html.unescape(caption) == "<a href='x'>&\" �"
    image = Image.new("RGB", (1, 1))
    picture = render("image.html.j2", image=image, data="", alt=evil)
    assert picture.count('"') == 8
    assert html.unescape(picture.partition('alt="')[2][:-2]) == "<a href='x'>&\" �"


def test_escape_lines_keeps_lines_and_indentation():
    assert escape_lines("\nfor x in y:\n\tf(x < 1)\n") == "for x in y:\n    f(x &lt; 1)"
