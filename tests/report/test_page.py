import base64
import html
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lateen.data.samples import FileImage
from lateen.report import Headline, Page, SheetHit, SheetRow, bar_chart, hits_table, training_curve
from lateen.report.page import Card, made_with

EVIL = '"><script>alert(1)</script>'
VOID = {"meta", "img", "br"}
PHOTO = Image.new("RGB", (40, 30), (200, 10, 10))


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every element is closed."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def attributes(self, name: str) -> list[str | None]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]


def full_page(text: str = "words") -> Page:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    return (
        Page(text, text, text)
        .headline([Headline("59.4 %", text, text), Headline("84 s", text)])
        .section(text)
        .text(f"{text}\n\n{text} and `{text}`")
        .table(hits_table([{"id": text, "path": text, "score": 0.5}], text))
        .facts({text: text, "rows": 30000})
        .figure(bar_chart({text: 50.0}), text)
        .figure(training_curve(rows), text, text)
        .figure(PHOTO, text)
        .panels([(bar_chart({text: 50.0}), text), (PHOTO, text)])
        .subsection(text)
        .gallery(SheetRow(text, [SheetHit(PHOTO, text, 0.25), SheetHit("absent.jpg", text)]))
        .gallery(SheetRow(text, [SheetHit(PHOTO, text, 0.25, right=True)]))
        .gallery(SheetRow(text))
        .cards([Card([PHOTO], text, {text: text})])
        .code(text, text)
    )


def test_a_page_is_one_well_formed_document_with_every_block():
    reader = Reader(full_page("some words").html())
    for text in ("some words", "59.4 %", "84 s", "30,000", "0.250", "unreadable", "no hits"):
        assert text in reader.texts
    tags = [tag for tag, _ in reader.tags]
    for tag in ("h1", "h2", "h3", "p", "code", "table", "dl", "svg", "img", "pre", "footer"):
        assert tag in tags
    assert tags.count("h1") == 1


def test_all_text_is_escaped_wherever_it_goes():
    reader = Reader(full_page(EVIL).html())
    assert "script" not in {tag for tag, _ in reader.tags}
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    assert reader.texts.count(EVIL) >= 15


def test_the_page_needs_no_network_no_scripts_and_no_other_files():
    document = full_page().html()
    reader = Reader(document)
    assert "http://" not in document
    assert "https://" not in document
    assert "@import" not in document
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in reader.tags}
    assert all(source.startswith("data:image/") for source in reader.attributes("src"))
    assert all(link.startswith("#") for link in reader.attributes("xlink:href"))
    assert set(re.findall(r"url\((.)", document)) <= {"#"}
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in reader.attributes(
        "content"
    )


def test_plots_keep_their_ids_apart_and_refer_to_their_own():
    reader = Reader(full_page().html())
    ids = reader.attributes("id")
    document = full_page().html()
    references = re.findall(r'(?:url\(|href=")#([^)"]+)', document)
    assert len(ids) == len(set(ids))
    assert references
    assert set(references) <= set(ids)


def test_plots_take_the_colours_of_the_page_and_labels_stay_as_they_are():
    name = "font-family: #1d2227; url(#x)"
    document = Page("p").figure(bar_chart({name: 50.0})).html()
    svg = document[document.index("<svg") : document.index("</svg>")]
    assert "fill: var(--blue)" in svg
    assert "fill: var(--ink)" in svg
    assert not re.findall(r"<[^>]*#[0-9a-f]{6}[^>]*>", svg.replace("<svg", "", 1))
    assert f">{name}<" in svg


def test_light_and_dark_name_the_same_colours():
    document = Page("p").html()
    light, dark = re.findall(r":root \{ (--ink[^}]*)\}", document)
    names = [re.findall(r"--[a-z]+", shade) for shade in (light, dark)]
    assert names[0] == names[1]
    assert set(re.findall(r"var\((--[a-z]+)\)", document)) <= {
        *names[0], "--serif", "--sans", "--mono",
    }  # fmt: skip
    assert "@media screen and (prefers-color-scheme: dark)" in document


def test_pictures_are_embedded_and_no_wider_than_a_screen_shows():
    document = Page("p").figure(Image.new("RGB", (4000, 1000), "teal"), alt="a colour").html()
    data = re.findall(r'src="data:image/webp;base64,([^"]+)"', document)
    with Image.open(io.BytesIO(base64.b64decode(data[0]))) as image:
        assert image.size == (1600, 400)
    assert 'width="1600" height="400" alt="a colour"' in document


def test_the_caption_describes_a_figure_that_has_no_alt():
    reader = Reader(Page("p").figure(PHOTO, "two dogs").figure(bar_chart({"a": 1}), "bars").html())
    assert reader.attributes("alt") == ["two dogs"]
    assert reader.attributes("aria-label") == ["bars"]


def test_prose_has_paragraphs_and_code():
    document = Page("p").text("One `a < b`\nline.\n\nTwo.").html()
    assert "<p>One <code>a &lt; b</code> line.</p>\n<p>Two.</p>" in document


def test_code_keeps_its_lines():
    document = Page("p").code('for x in "ab":\n    f(x)\n', "next").html()
    assert "<pre><code>for x in &quot;ab&quot;:\n    f(x)</code></pre>" in document


def test_empty_parts_leave_no_empty_elements():
    document = Page("p").figure(PHOTO).code("x").html()
    for element in ("<footer></footer>", "<figcaption></figcaption>", 'class="subtitle"'):
        assert element not in document


def test_a_page_is_saved_whole_even_with_text_that_is_not_unicode(tmp_path):
    page = Page("caf\udce9 狗 🐶")
    page.save(tmp_path / "out" / "page.html")
    saved = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert saved == page.html()
    assert "<title>caf� 狗 🐶</title>" in saved
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_the_same_blocks_give_the_same_page():
    assert full_page().html() == full_page().html()


@pytest.mark.parametrize("heavy", ["matplotlib", "rich", "torch"])
def test_importing_reports_imports_nothing_heavy(heavy):
    code = f"import lateen.report, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_right_image_of_a_gallery_is_marked_and_no_other():
    hits = [SheetHit(PHOTO, "a", 0.5), SheetHit(PHOTO, "b", 0.4, right=True)]
    reader = Reader(Page("p").gallery(SheetRow("query", hits)).html())
    assert [attrs.get("class") for tag, attrs in reader.tags if tag == "li"] == [None, "right"]
    assert reader.texts.count("✓") == 1


def test_a_plot_says_how_narrow_it_may_be():
    document = Page("p").figure(bar_chart({"a": 50.0})).html()
    assert "min-width: 3.67in" in document  # 0.68 of 5.4 inches, which is 353 pixels


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/lateen", "run", "a b.yaml"], "lateen run 'a b.yaml'"),
        (["/x/lateen/__main__.py", "run", "{home}/r.yaml"], "lateen run {home}/r.yaml"),
        (["/usr/bin/pytest", "tests"], None),
        ([""], None),
    ],
)
def test_a_page_says_when_and_how_it_was_made(argv, command, monkeypatch):
    monkeypatch.setattr("sys.argv", [word.format(home=Path.home()) for word in argv])
    facts = made_with()
    assert facts.get("command") == (command and command.format(home=Path.home()))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d \S+", facts["written"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("captions /data/mine/f8k/train.csv, images /data/mine/f8k/images",
         "captions …/f8k/train.csv, images …/f8k/images"),
        (r"run 'C:\Users\me\photos\a.csv'", r"run '…\photos\a.csv'"),
        ("{home}/my photos/a.csv", "~/my photos/a.csv"),
        ("facebook/dinov2-small, 1/2, https://a.b/c/d", "facebook/dinov2-small, 1/2, https://a.b/c/d"),
        ("/tmp/x", "/tmp/x"),
    ],
)  # fmt: skip
def test_conditions_name_no_folder_of_this_machine(text: str, shown: str, tmp_path: Path) -> None:
    page = Page("p", "q")
    page.section("Conditions").facts({"options": text.format(home=Path.home())})
    page.save(tmp_path / "p.html")
    page_text = html.unescape((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert shown in page_text


def test_a_card_has_pictures_a_question_and_whether_its_answer_is_right():
    facts = {"answered": "two", "right": "three"}
    cards = [
        Card([PHOTO, PHOTO], "How <many>?\nA. 2", facts, False),
        Card([], "What?", facts, True),
        Card([FileImage(Path("absent.jpg"))], "Which?", facts),
    ]
    document = Page("p").cards(cards).html()
    reader = Reader(document)
    assert "How &lt;many&gt;?\nA. 2" in document
    assert [tag for tag, _ in reader.tags].count("img") == 2
    assert reader.texts.count("unreadable") == 1
    assert [mark for mark in reader.texts if mark in "✓✗"] == ["✗", "✓"]
    assert reader.texts.count("three") == 3
    several = Card(
        [], "Which?", {"right": "a", "one": "a", "two": "b"}, marks={"one": True, "two": False}
    )
    texts = Reader(Page("p").cards([several]).html()).texts
    assert [each for each in texts if each in "ab✓✗"] == ["a", "a", "✓", "b", "✗"]


def test_a_card_shows_the_whole_picture():
    wide = Image.new("RGB", (900, 300), "teal")
    assert 'width="288" height="96"' in Page("p").cards([Card([wide], "?", {})]).html()
    assert wide.size == (900, 300)
